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


@HOOKS.register_module()
class SampleHook(Hook):
    """Look at generated images after every epoch, through the teacher's eyes.

    Logged are the classes the teacher sees in ``count`` of them, how many classes that amounts to
    (the exponential of the histogram's entropy: K where all are equally frequent, 1 where there is
    only one), and its mean confidence. A collapse is reported in words. Every ``interval`` epochs,
    and after the first and the last one, a grid is drawn into ``figures/samples``: images of always
    the same latents, sorted by the class the teacher sees and captioned with it and its confidence.
    Does nothing for algorithms without a generator.

    Args:
        interval: Epochs between two grids; 0 draws none. By default ten grids a run.
        count: Images to count classes in; at least ten times the number of classes are taken.
        shown: Images in a grid.
    """

    def __init__(self, interval: int | None = None, count: int = 256, shown: int = 64) -> None:
        self.interval = interval
        self.count = count
        self.shown = shown
        self.names: list[str] = []

    def before_train(self, runner: Any) -> None:
        """Check what can be checked before the first step."""
        model = runner.model
        if not hasattr(model, 'sample'):
            return
        classes = model.student.num_classes
        known = runner.val_dataloader.dataset.metainfo if runner.val_loop is not None else {}
        self.names = [str(name) for name in known.get('classes') or range(classes)]
        batch = runner.train_dataloader.batch_sampler.batch_size * runner.world_size
        if batch < classes:
            runner.logger.warning(
                f'A batch of {batch} images cannot hold all {classes} classes, so class balance '
                f'cannot be judged by it. Raise train_dataloader.batch_size to {5 * classes} or so.'
            )

    def after_train_epoch(self, runner: Any) -> None:
        """Sample, count, log, draw."""
        if not hasattr(runner.model, 'sample'):
            return
        images, logits = runner.model.sample(max(self.count, 10 * runner.model.student.num_classes))
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
        if self._draws(runner):
            chosen = labels[: self.shown].sort(stable=True).indices
            self._draw(runner, images[chosen], labels[chosen], confidence[chosen])

    def _draws(self, runner: Any) -> bool:
        if self.interval == 0:
            return False
        epoch, last = runner.epoch + 1, runner.max_epochs
        interval = self.interval or max(1, last // 10)
        return epoch in (1, last) or epoch % interval == 0

    def _draw(self, runner: Any, images: Tensor, labels: Tensor, confidence: Tensor) -> None:
        from mmdfkd.visualization import save_image_grid

        pixels = runner.model.test_preprocessor.denormalize(images)
        captions = [
            f'{self.names[label]} {score:.2f}'
            for label, score in zip(labels.tolist(), confidence.tolist(), strict=True)
        ]
        path = Path(runner.work_dir, 'figures', 'samples', f'epoch_{runner.epoch + 1:04}.png')
        upscale = max(1, round(56 / pixels.shape[-1]))
        try:
            save_image_grid(path, pixels, columns=8, labels=captions, upscale=upscale)
        except UsageError as error:
            runner.logger.warning(f'The samples were not drawn: {error}')


def effective_classes(counts: Tensor) -> float:
    """Number of classes a histogram ``(K,)`` amounts to: the exponential of its entropy."""
    share = counts / counts.sum()
    return torch.special.entr(share).sum().exp().item()


def describe_collapse(counts: Tensor, names: list[str]) -> str:
    """Say in words what is wrong with a histogram ``(K,)`` of classes; empty where nothing is.

    A collapse is a class with more than half of the images (of more than two classes), or more
    than half of the classes without any.
    """
    if len(counts) <= 2:
        return ''
    share, top = (counts / counts.sum()).max(0)
    missing = [name for name, count in zip(names, counts.tolist(), strict=False) if count == 0]
    remedy = (
        'Raise the weight of the class balance (where the method has one), lower the learning rate '
        'of the generator, or raise the batch size.'
    )
    if share > 0.5:
        return (
            f'Generator collapse: {share:.0%} of the generated images are of class {names[top]} '
            f'to the teacher. {remedy}'
        )
    if len(missing) > len(counts) / 2:
        return (
            f'Generator collapse: {len(missing)} of {len(counts)} classes are never generated '
            f'({", ".join(missing[:10])}). {remedy}'
        )
    return ''
