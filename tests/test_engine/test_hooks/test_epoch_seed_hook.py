# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import random
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmdfkd.engine.hooks import EpochSeedHook


def runner(loop=EpochBasedTrainLoop, seed=0, rank=0, epoch=0, iteration=0):
    return SimpleNamespace(
        train_loop=loop.__new__(loop), seed=seed, rank=rank, epoch=epoch, iter=iteration
    )


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def draws_of_epoch(**state):
    EpochSeedHook().before_train_epoch(runner(**state))
    return draws()


def test_seed_rank_and_epoch_decide_and_nothing_else():
    first = draws_of_epoch(seed=1, rank=0, epoch=2)
    torch.manual_seed(1234)
    assert draws_of_epoch(seed=1, rank=0, epoch=2) == first
    others = [
        draws_of_epoch(seed=seed, rank=rank, epoch=epoch)
        for seed in (1, 2)
        for rank in (0, 1)
        for epoch in (1, 2)
    ]
    for column in zip(*others, strict=True):  # torch, numpy, random
        assert len({str(values) for values in column}) == 8
    assert first in others


def test_nobody_draws_before_the_seed_is_set(finished):
    hooks = [type(hook).__name__ for hook in finished.hooks]
    others = ('SynthesisHook', 'SelectionHook')
    assert hooks.index('EpochSeedHook') < min(map(hooks.index, others))


def test_loops_that_count_iterations_are_seeded_in_between():
    hook, seen = EpochSeedHook(interval=3), []
    for _ in range(2):
        torch.manual_seed(77)
        for iteration in range(7):
            state = runner(IterBasedTrainLoop, iteration=iteration)
            if iteration == 0:
                hook.before_train_epoch(state)
            hook.before_train_iter(state, iteration)
            seen.append(draws())
        torch.manual_seed(78)
    assert len({str(values) for values in seen}) == 7 and seen[:7] == seen[7:]
    # resumed at a multiple of the interval
    hook.before_train_iter(runner(IterBasedTrainLoop, iteration=3), 0)
    assert draws() == seen[3]


def test_loops_that_count_epochs_are_left_alone_in_between():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    EpochSeedHook(interval=1).before_train_iter(runner(), 0)
    assert torch.rand(1) == expected
