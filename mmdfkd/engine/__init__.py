# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What drives a run: runner, hooks and optimisers; and predictions of whole datasets."""

from .hooks import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .prediction import LogitsCache, predict_logits
from .runner import *  # noqa: F403

__all__ = ['LogitsCache', 'predict_logits']
