# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Rounds of synthesis before epochs: how a bank of images grows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from mmdfkd.datasets import HybridDataset, ImageBank
from mmdfkd.registry import HOOKS
from mmdfkd.utils import UsageError

from ..first_process import on_first_process
from ..histogram import describe_collapse, effective_classes
from ..runner.schedules import check_epochs
from ..synthesis import Round, bank_facts, describe_round, synthesize_round
from .class_names import class_names
from .sample_hook import draw_samples, is_due


@HOOKS.register_module()
class SynthesisHook(Hook):
    """Fill the bank of a method that makes images out of its teacher.

    ``model.rounds_before`` says how many rounds there must have been before an epoch, or when all
    are over. The first ``model.warmup_rounds`` are without an adversary, since there is no student
    yet. All processes make the same images, the first one writes them. A checkpoint holds how large
    the bank was, not the images: a resumed run cuts its bank back to that and goes on as if it had
    not stopped. A new run never adds to what an earlier one left in its folder: that is renamed,
    but not before the first epoch begins, since a start may fail. Does nothing for methods that
    synthesise nothing.

    Logged are the losses of a round, its time, and which classes the teacher sees in its images; a
    collapse in words. After the first and the last round and every ``interval`` rounds a grid is
    drawn into ``figures/bank``: images sorted by the class they were made for, captioned with the
    class the teacher sees and its confidence.

    Args:
        interval: Rounds between two grids; 0 draws none. By default ten grids a run.
        shown: Images in a grid.
    """

    priority = 'ABOVE_NORMAL'  # before the timer, which takes the time of steps

    def __init__(self, interval: int | None = None, shown: int = 64) -> None:
        self.interval = interval
        self.shown = shown
        self.names: list[str] = []
        self.known: dict[str, Any] | None = None  # the bank as a checkpoint remembers it
        self.seconds = 0.0

    def before_train(self, runner: Any) -> None:
        """Check that there is a bank to fill; open that of a run which is resumed."""
        model, bank = runner.model, bank_of(runner)
        self.fills = hasattr(model, 'synthesize') and bank is not None
        if not self.fills:
            if isinstance(bank, ImageBank):
                raise UsageError(
                    f'{model.method} synthesises no images, so an ImageBank stays empty. To train '
                    'from a finished bank, set train_dataloader.dataset='
                    "dict(type='ImagePool', root=...)."
                )
            return
        if not isinstance(bank, ImageBank):
            raise UsageError(
                f'{model.method} fills a bank, but train_dataloader.dataset is a '
                f"{type(bank).__name__}. Set dataset=dict(type='ImageBank') and "
                "sampler=dict(type='BankSampler', length=...); to train from finished images, "
                'choose a method that takes them, such as KD.'
            )
        check_epochs(runner.train_loop, f'{model.method} synthesises before epochs')
        self.names = class_names(runner)
        self.counts = torch.zeros(model.teacher.num_classes, dtype=torch.int64)
        hub = runner.message_hub.runtime_info
        self.seconds = hub.get('bank', {}).get('synthesis_seconds', 0.0)
        if runner.iter:
            self._change(runner, lambda: self._open(runner, bank))

    def _open(self, runner: Any, bank: ImageBank) -> None:
        model = runner.model
        known = self.known if runner.iter else None  # load_from takes the weights alone
        if known is None:
            moved = bank.set_aside()
            if moved is not None:
                runner.logger.warning(
                    f'{bank.root} was left by an earlier run and is now {moved}. (--resume would '
                    'have gone on with it.)'
                )
        facts = facts_of(runner, self.names)
        bank.open(facts, f'{model.method} bank')
        if known is not None:
            before, now = bank.meta['bank']['settings'], facts['settings']
            changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            if changed:
                runner.logger.warning(
                    f'{bank.root} was begun with other settings, which later images do not share: '
                    + ', '.join(f'model.{key} was {before.get(key, "not set")}' for key in changed)
                )
            surplus = len(bank) - known['images']
            bank.truncate(known['images'], known['rounds'], known['sha256'])
            later = f'; {surplus:,} later ones are made again' if surplus else ''
            runner.logger.info(f'Goes on with {len(bank):,} images in {bank.root}{later}.')

    def before_train_epoch(self, runner: Any) -> None:
        """Open a new bank; do the rounds that are due, which a resumed epoch does not repeat."""
        if self.fills and not runner.iter:
            self._change(runner, lambda: self._open(runner, bank_of(runner)))
        self._fill(runner)

    def after_train(self, runner: Any) -> None:
        """Do the rounds that are due when all epochs are over."""
        self._fill(runner)

    def _fill(self, runner: Any) -> None:
        if not self.fills:
            return
        model, bank = runner.model, bank_of(runner)
        due = model.rounds_before(runner.epoch, runner.max_epochs)
        if bank.rounds >= due:
            return
        for number in range(bank.rounds, due):
            made = synthesize_round(
                model, runner.optim_wrapper, runner.seed, number, number >= model.warmup_rounds
            )
            self._change(runner, partial(bank.append, made.images, made.targets))
            self.seconds += made.seconds
            if runner.rank == 0:
                self._log(runner, bank, number, made)
        rate = len(bank) / max(self.seconds, 1e-9)
        record = dict(
            images=len(bank),
            rounds=bank.rounds,
            synthesis_seconds=round(self.seconds, 3),
            synthesis_images_per_second=round(rate, 1),
        )
        runner.message_hub.update_info('bank', record)

    @staticmethod
    def _change(runner: Any, change: Callable[[], object]) -> None:
        """Let the first process write, then let all see it."""
        bank = bank_of(runner)

        def write() -> int:
            change()
            return len(bank)

        size = on_first_process(write)
        if runner.rank != 0:
            bank.refresh()
            if len(bank) != size:
                raise UsageError(
                    f'Process {runner.rank} sees {len(bank):,} images in {bank.root}, the first '
                    f'one {size:,}. Put the work directory where all machines see it.'
                )

    def _log(self, runner: Any, bank: ImageBank, number: int, made: Round) -> None:
        counts = made.counts(len(self.counts))
        scalars = dict(
            made.logs,
            synthesis_seconds=made.seconds,
            synthesized_classes=effective_classes(counts),
            synthesized_confidence=made.confidence.mean().item(),
            synthesized_as_asked=made.as_asked(),
        )
        runner.visualizer.add_scalars({**scalars, 'round': number + 1}, step=number + 1)
        runner.logger.info(
            describe_round(made, number, runner.model.iterations, len(bank), len(counts))
        )
        self.counts += counts
        if self.counts.sum() >= 10 * len(counts):  # or else most classes may be absent by chance
            remedy = _GAN_REMEDY if hasattr(runner.model, 'gan_epochs') else _REMEDY
            words = describe_collapse(self.counts, self.names, 'Synthesis', remedy)
            if words:
                runner.logger.warning(words)
            self.counts.zero_()
        total = runner.model.rounds_before(runner.max_epochs, runner.max_epochs)
        if is_due(self.interval, number + 1, total):
            chosen = spread(made.targets, self.shown)
            draw_samples(
                runner,
                Path('bank', f'round_{number + 1:04}.png'),
                made.images[chosen],
                made.labels[chosen],
                made.confidence[chosen],
                self.names,
            )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Remember how large the bank is, and a hash of it; the images are on disk."""
        bank = bank_of(runner)
        if isinstance(bank, ImageBank):
            checkpoint['bank'] = dict(
                images=len(bank), rounds=bank.rounds, sha256=bank.meta['sha256']
            )

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note how large the bank was."""
        self.known = checkpoint.get('bank')


def bank_of(runner: Any) -> Any:
    """What a method fills: the training set, or the synthetic part of a hybrid one."""
    dataset = runner.train_dataloader.dataset
    return dataset.bank if isinstance(dataset, HybridDataset) else dataset


def facts_of(runner: Any, names: list[str]) -> dict[str, Any]:
    """What the bank of a run remembers; with the collected images, where there are some."""
    facts = bank_facts(runner.model, runner.seed, runner.cfg.model, names)
    dataset = runner.train_dataloader.dataset
    if isinstance(dataset, HybridDataset):
        facts['collected'] = dataset.collected.content_hash
    return facts


def spread(targets: Tensor, count: int) -> Tensor:
    """Positions of up to ``count`` images, evenly from all classes of ``targets`` and in order."""
    order = targets.sort(stable=True).indices
    count = min(count, len(order))
    return order[torch.arange(count) * len(order) // count]


_REMEDY = (
    'Raise model.iterations or the weight of the class loss, or lower those of the other terms.'
)
_GAN_REMEDY = 'Raise model.gan_epochs, model.class_weight or model.smoothing.loss_weight.'
