# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Hooks: what happens around the training steps of every method."""

from .epoch_seed_hook import EpochSeedHook
from .figure_hook import FigureHook
from .gan_hook import GANHook
from .interval_record_hook import IntervalRuntimeInfoHook, IntervalTimerHook
from .prediction_hook import PredictionHook
from .progress_hook import ProgressHook
from .sample_hook import SampleHook
from .selection_hook import SelectionHook
from .speed_hook import SpeedHook
from .summary_hook import SummaryHook
from .sync_buffers_hook import SyncBuffersHook
from .synthesis_hook import SynthesisHook
from .teacher_hook import TeacherHook
from .tta_hook import TTAHook

__all__ = [
    'EpochSeedHook',
    'FigureHook',
    'GANHook',
    'IntervalRuntimeInfoHook',
    'IntervalTimerHook',
    'PredictionHook',
    'ProgressHook',
    'SampleHook',
    'SelectionHook',
    'SpeedHook',
    'SummaryHook',
    'SyncBuffersHook',
    'SynthesisHook',
    'TTAHook',
    'TeacherHook',
]
