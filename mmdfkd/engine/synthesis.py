# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One round of synthesis, as training and ``tools/synthesize.py`` do it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdfkd.utils import UsageError
from mmdfkd.utils.progress import advancing
from mmdfkd.utils.seeds import derive_seed, random_numbers_apart

from .compiled import begin_step
from .histogram import effective_classes


class Round(NamedTuple):
    """What one round made, and how the teacher sees it.

    Attributes:
        images: uint8 ``(N, C, H, W)``, as the bank keeps them.
        targets: Classes they were made for, int64 ``(N,)``.
        labels: Classes the teacher sees in them, int64 ``(N,)``.
        confidence: How sure it is, ``(N,)``.
        logs: What the method says of the round.
        seconds: How long the synthesis took.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    confidence: Tensor
    logs: dict[str, float]
    seconds: float

    def counts(self, classes: int) -> Tensor:
        """How many images the teacher takes for each of K classes, ``(K,)``."""
        return self.labels.bincount(minlength=classes)

    def as_asked(self) -> float:
        """Share of images the teacher takes for what they were made for."""
        return (self.labels == self.targets).double().mean().item()


def synthesize_round(
    model: Any, optim_wrapper: Any, seed: int, number: int, adversary: bool = True
) -> Round:
    """Make the images of one round behind a progress bar.

    They depend on the weights, the seed and the number of the round, and on nothing else: a
    synthesis that was killed goes on as if it had not been, on any number of processes, and the
    random numbers of the training around it are not touched.

    Args:
        model: An ``InversionDistiller``.
        optim_wrapper: Its optimisers by role.
        seed: Seed of the run.
        number: Rounds so far.
        adversary: Whether there is a student to disagree with.

    Raises:
        UsageError: Pixels became NaN or infinite.
    """
    with advancing(f'Round {number + 1} of synthesis', model.iterations) as advance:

        def on_step() -> None:
            begin_step()
            advance()

        with random_numbers_of(seed, number):
            started = time.perf_counter()
            made = model.synthesize(optim_wrapper, number, adversary, on_step)
            finite = bool(made.images.isfinite().all())  # waits for the device
            seconds = time.perf_counter() - started
    logs = {name: value.item() for name, value in made.logs.items()}
    if not finite:
        raise UsageError(
            f'Pixels became NaN or infinite in round {number + 1} of synthesis ({_listed(logs)}); '
            'none of its images went into the bank. Lower the learning rate of the synthesis '
            '(model.optimizer.lr or the like), or do without --amp.'
        )
    images = model.test_preprocessor.denormalize(made.images)
    with torch.no_grad():
        logits = model.teacher(model.test_preprocessor.normalize(images)).float()
    confidence, labels = logits.softmax(1).max(1)
    seen = (images.cpu(), made.targets.cpu(), labels.cpu(), confidence.cpu())
    return Round(*seen, logs, seconds)


def describe_round(made: Round, number: int, iterations: int, size: int, classes: int) -> str:
    """Say in one line what a round made.

    Args:
        made: The round.
        number: Rounds before it.
        iterations: Its steps.
        size: Images in the bank by now.
        classes: Number of classes K.
    """
    count, counts = len(made.images), made.counts(classes)
    losses = f'{_listed(made.logs)}. ' if made.logs else ''
    return (
        f'Round {number + 1}: {count} images in {made.seconds:.1f} s '
        f'({count / made.seconds:.1f} images/s, {iterations / made.seconds:.1f} steps/s), '
        f'{size:,} in the bank. {losses}As the teacher sees them: '
        f'{effective_classes(counts):.1f} of {classes} classes, '
        f'confidence {made.confidence.mean():.2f}, '
        f'{made.as_asked():.0%} of the class they were made for, '
        f'per class {counts.tolist()[:20]}'
    )


def bank_facts(model: Any, seed: int, config: Mapping[str, Any], names: list[str]) -> dict:
    """What a bank remembers about where its images come from, as JSON values.

    Args:
        model: An ``InversionDistiller``.
        seed: Seed of the run.
        config: The config of ``model``.
        names: Names of the classes.
    """
    others = ('type', 'teacher', 'student', 'data_preprocessor')
    return dict(
        method=model.method,
        teacher=model.teacher_fingerprint(),
        teacher_name=model.teacher.name,
        num_classes=model.teacher.num_classes,
        classes=names,
        mean=[float(value) for value in model.teacher.mean],
        std=[float(value) for value in model.teacher.std],
        seed=seed,
        settings=_plain({key: value for key, value in config.items() if key not in others}),
    )


@contextmanager
def random_numbers_of(seed: int, number: int) -> Iterator[None]:
    """Inside, torch draws what belongs to a round; outside, it goes on as before."""
    with random_numbers_apart():
        torch.manual_seed(derive_seed(seed, number, stream=1))
        yield


def _listed(logs: Mapping[str, float]) -> str:
    return ', '.join(f'{name} {value:.4g}' for name, value in logs.items())


def _plain(value: Any) -> Any:
    """A config's values as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
