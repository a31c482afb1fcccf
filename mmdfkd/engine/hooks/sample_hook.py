# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a generator makes, in numbers and pictures, and whether it collapses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from mmdfkd.registry import HOOKS
from mmdfkd.utils import UsageError

from ..histogram import describe_collapse, effective_classes
from .class_names import class_names


@HOOKS.register_module()
class SampleHook(Hook):
    """Look at generated images after every epoch, through the teacher's eyes.

    Logged are the classes the teacher sees in ``count`` of them, how many classes that amounts to
    (the exponential of the histogram's entropy: K where all are equally frequent, 1 where there is
    only one), and its mean confidence. A collapse is reported in words. Every ``interval`` epochs,
    and after the first and the last one, a grid is drawn into ``figures/samples``: images of always
    the same latents, sorted by the class the teacher sees and captioned with it and its confidence.
    An algorithm that replays images of a memory has another grid, in ``figures/replayed``. Does
    nothing for algorithms without a generator, or while it is not trained.

    Args:
        interval: Epochs between two grids; 0 draws none. By default ten grids a run.
        count: Images to count classes in.
        shown: Images in a grid.
        per_class: At least so many times the number of classes are taken.
    """

    def __init__(
        self, interval: int | None = None, count: int = 256, shown: int = 64, per_class: int = 10
    ) -> None:
        self.interval = interval
        self.count = count
        self.shown = shown
        self.per_class = per_class
        self.names: list[str] = []

    def before_train(self, runner: Any) -> None:
        """Check what can be checked before the first step."""
        model = runner.model
        if not hasattr(model, 'sample'):
            return
        classes = model.student.num_classes
        self.names = class_names(runner)
        sampler = runner.train_dataloader.batch_sampler
        has_own = hasattr(sampler, 'gan_batch_size')
        self.batch_size = sampler.gan_batch_size if has_own else sampler.batch_size
        batch = self.batch_size * runner.world_size
        if batch < classes:
            key = 'batch_sampler.gan_batch_size' if has_own else 'batch_size'
            runner.logger.warning(
                f'A batch of {batch} images cannot hold all {classes} classes, so class balance '
                f'cannot be judged by it. Raise train_dataloader.{key} to {5 * classes} or so.'
            )

    def after_train_epoch(self, runner: Any) -> None:
        """Sample, count, log, draw."""
        model = runner.model
        if not hasattr(model, 'sample') or not model.generator.training:
            return
        images, logits = model.sample(
            max(self.count, self.per_class * model.student.num_classes),
            batch_size=self.batch_size,
            shown=self.shown,
        )
        due = is_due(self.interval, runner.epoch + 1, runner.max_epochs)
        grids = dict(samples=(images, logits)) if due else {}
        if due and hasattr(model, 'sample_memory'):  # on every process: they replay together
            grids['replayed'] = model.sample_memory(self.shown)
        if runner.rank != 0:
            return
        confidence, labels = logits.float().softmax(1).max(1)
        counts = torch.bincount(labels, minlength=logits.shape[1])
        effective = effective_classes(counts)
        scalars = dict(generated_classes=effective, generated_confidence=confidence.mean().item())
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        runner.message_hub.update_info('generated_per_class', counts.tolist())
        runner.visualizer.add_scalars({**scalars, 'epoch': runner.epoch + 1}, step=runner.epoch + 1)
        runner.logger.info(
            f'Generated images, as the teacher sees them: {effective:.1f} of {len(counts)} '
            f'classes, confidence {scalars["generated_confidence"]:.2f}, '
            f'per class {counts.tolist()[:20]}'
        )
        words = describe_collapse(counts, self.names)
        if words:
            runner.logger.warning(words)
        for folder, (images, logits) in grids.items():
            confidence, labels = logits[: len(images)].float().softmax(1).max(1)
            labels, chosen = labels.sort(stable=True)
            draw_samples(
                runner,
                Path(folder, f'epoch_{runner.epoch + 1:04}.png'),
                model.test_preprocessor.denormalize(images[chosen]),
                labels,
                confidence[chosen],
                self.names,
            )


def is_due(interval: int | None, number: int, last: int) -> bool:
    """Whether the grid of epoch (or round) ``number`` of ``last`` is drawn.

    Drawn are the first, the last, and one every ``interval``: by default about ten in all.
    """
    if interval == 0:
        return False
    return number in (1, last) or number % (interval or max(1, last // 10)) == 0


def draw_samples(
    runner: Any,
    path: Path,
    pixels: Tensor,
    labels: Tensor,
    confidence: Tensor,
    names: list[str],
) -> None:
    """Draw a grid captioned with what the teacher sees; a failure is a warning in the log.

    Args:
        runner: Whose work directory and log are used.
        path: PNG file within ``figures``.
        pixels: uint8 ``(N, C, H, W)``.
        labels: Classes the teacher sees, ``(N,)``.
        confidence: How sure it is, ``(N,)``.
        names: Names of the classes.
    """
    from mmdfkd.visualization import save_image_grid

    between = ' ' if max(map(len, names)) < 5 else '\n'  # beside a long name is no room
    captions = [
        f'{names[label]}{between}{score:.2f}'
        for label, score in zip(labels.tolist(), confidence.tolist(), strict=True)
    ]
    upscale = max(1, round(56 / pixels.shape[-1]))
    try:
        save_image_grid(
            Path(runner.work_dir, 'figures', path),
            pixels,
            columns=8,
            labels=captions,
            upscale=upscale,
        )
    except UsageError as error:
        runner.logger.warning(f'{path.name} was not drawn: {error}')
