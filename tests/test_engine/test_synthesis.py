# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from mmdfkd.engine import synthesis
from mmdfkd.engine.synthesis import (
    Round,
    describe_round,
    random_numbers_of,
    synthesize_round,
)
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.utils.seeds import derive_seed


def made(logs=None):
    """A round of four images in two seconds, one of which is not what it was made for."""
    return Round(
        images=torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        targets=torch.tensor([0, 1, 2, 2]),
        labels=torch.tensor([0, 1, 1, 2]),
        confidence=torch.tensor([0.5, 0.5, 1.0, 1.0]),
        logs=logs or {},
        seconds=2.0,
    )


def test_a_round_in_a_line():
    # shares 1/4, 1/2, 1/4 have the entropy 3/2 ln 2: 2^1.5 classes
    seen = (
        'As the teacher sees them: 2.8 of 3 classes, confidence 0.75, '
        '75% of the class they were made for, per class [1, 2, 1]'
    )
    begin = 'Round 3: 4 images in 2.0 s (2.0 images/s, 50.0 steps/s), 1,234 in the bank. '
    place = dict(number=2, iterations=100, size=1234, classes=3)
    assert describe_round(made(), **place) == begin + seen
    logs = dict(loss=1.23456, loss_bn=20.0)
    assert describe_round(made(logs), **place) == f'{begin}loss 1.235, loss_bn 20. {seen}'


def test_a_line_has_room_for_twenty_classes():
    line = describe_round(made(), number=0, iterations=1, size=4, classes=1000)
    assert line.endswith(f'per class [1, 2, 1{", 0" * 17}]') and ' of 1000 classes' in line


def test_the_teacher_sees_what_the_bank_keeps():
    """Of two pixels, the first is rounded to nothing."""
    images = torch.tensor([0.4, 7.0]).view(2, 1, 1, 1)
    answer = SimpleNamespace(
        images=images, targets=torch.tensor([1, 1]), logs=dict(loss=torch.tensor(0.5))
    )
    model = SimpleNamespace(
        iterations=1,
        synthesize=lambda *_: answer,
        test_preprocessor=BatchPreprocessor([0.0], [1.0]),
        teacher=lambda x: torch.cat([torch.full_like(x, 0.2), x], 1).flatten(1),
    )
    found = synthesize_round(model, None, seed=0, number=0)
    assert found.images.dtype == torch.uint8 and found.images.flatten().tolist() == [0, 7]
    assert found.targets.tolist() == [1, 1] and found.labels.tolist() == [0, 1]
    # 1 / (1 + e^-0.2) and 1 / (1 + e^-6.8)
    torch.testing.assert_close(
        found.confidence, torch.tensor([0.54983, 0.99889]), atol=1e-5, rtol=0
    )
    assert found.logs == dict(loss=0.5) and found.as_asked() == pytest.approx(0.5)


def test_a_recording_ends_with_each_step(monkeypatch):
    """Else CUDA graphs would record the steps of a round as one."""
    marks = []
    monkeypatch.setattr(torch.compiler, 'cudagraph_mark_step_begin', lambda: marks.append(1))
    monkeypatch.setitem(sys.modules, 'torch._inductor', torch)  # something has been compiled

    def synthesize(optim_wrapper, number, adversary, on_step):
        for step in range(3):
            assert len(marks) == step
            on_step()
        return SimpleNamespace(images=torch.zeros(1, 1, 1, 1), targets=torch.zeros(1), logs={})

    model = SimpleNamespace(
        iterations=3,
        synthesize=synthesize,
        test_preprocessor=BatchPreprocessor([0.0], [1.0]),
        teacher=lambda x: x.flatten(1),
    )
    synthesize_round(model, None, seed=0, number=0)
    assert len(marks) == 3


class Painter:
    """A method of two steps, whose rounds are nothing but chance."""

    iterations = 2
    test_preprocessor = BatchPreprocessor([0.0], [1.0])

    def __init__(self):
        self.rounds = []
        self.weight = torch.ones(1, requires_grad=True)

    def synthesize(self, optim_wrapper, number, adversary, on_step):
        self.rounds.append((number, adversary))
        for _ in range(self.iterations):
            on_step()
        images = 256 * torch.rand(3, 1, 2, 2)
        return SimpleNamespace(images=images, targets=torch.zeros(3), logs={})

    def teacher(self, images):
        return (self.weight * images.flatten(1)).bfloat16()


def test_a_round_depends_on_its_number_and_on_the_seed():
    painter, made = Painter(), {}
    for key in ((0, 0), (0, 1), (1, 0), (0, 1)):
        torch.manual_seed(len(made))  # what the training around it draws changes nothing
        images = synthesize_round(painter, None, *key).images
        assert torch.equal(made.setdefault(key, images), images)
    assert len({tuple(images.flatten().tolist()) for images in made.values()}) == 3
    synthesize_round(painter, None, 0, 2, adversary=False)
    assert painter.rounds == [(0, True), (1, True), (0, True), (1, True), (2, False)]


def test_the_sampler_and_the_rounds_of_a_seed_draw_apart():
    with random_numbers_of(5, 3):
        drawn = torch.rand(4)
    epoch = torch.Generator().manual_seed(derive_seed(5, 3))  # as samplers have it
    assert not torch.equal(drawn, torch.rand(4, generator=epoch))


def test_what_the_teacher_says_is_a_number_of_single_precision():
    found = synthesize_round(Painter(), None, seed=0, number=0)
    assert found.confidence.dtype == torch.float32 and not found.confidence.requires_grad


def test_a_bar_counts_the_steps(monkeypatch):
    said = []

    @contextmanager
    def advancing(*words):
        said.append(words)
        yield lambda: said.append('step')

    monkeypatch.setattr(synthesis, 'advancing', advancing)
    synthesize_round(Painter(), None, seed=0, number=6)
    assert said == [('Round 7 of synthesis', 2), 'step', 'step']
