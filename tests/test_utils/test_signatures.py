# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from __future__ import annotations

from collections.abc import Sequence

import pytest
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, LinearLR
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdfkd.utils.signatures import keyword_arguments


class Base:
    def __init__(self, first, second, third=3):
        pass


class GivesSome(Base):
    def __init__(self, own, **kwargs):
        super().__init__(5, second=6, **kwargs)


class PassesAll(GivesSome):
    def __init__(self, *args, last=None, **kwargs):
        super().__init__(*args, **kwargs)


class OldStyle(Base):
    def __init__(self, **kwargs):
        super(OldStyle, self).__init__(**kwargs)  # noqa: UP008


class Keeps(Base):
    def __init__(self, own, **kwargs):
        super().__init__(1, 2)
        self.rest = kwargs


class Pops(Base):
    def __init__(self, **kwargs):
        self.extra = kwargs.pop('extra', None)
        super().__init__(**kwargs)


class Unpacks(Base):
    def __init__(self, some, **kwargs):
        super().__init__(*some, **kwargs)


class Module(nn.Module):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)


def with_kwargs(batch, **kwargs):
    pass


@pytest.mark.parametrize(
    ('target', 'names', 'required', 'complete'),
    [
        (Base, {'first', 'second', 'third'}, {'first', 'second'}, True),
        (GivesSome, {'own', 'third'}, {'own'}, True),
        (PassesAll, {'last', 'own', 'third'}, {'own'}, True),
        (OldStyle, {'first', 'second', 'third'}, {'first', 'second'}, True),
        (Keeps, {'own'}, {'own'}, False),
        (Pops, set(), set(), False),
        (Unpacks, {'some'}, {'some'}, False),
        (Module, {'width'}, {'width'}, True),
        (nn.Linear, {*'in_features out_features bias device dtype'.split()}, None, True),
        (with_kwargs, {'batch'}, {'batch'}, False),
        (len, set(), set(), True),
    ],
)
def test_arguments(target, names, required, complete):
    arguments = keyword_arguments(target)
    assert set(arguments.names) == names
    assert arguments.complete is complete
    if required is not None:
        assert set(arguments.required) == required


def test_python_agrees():
    # The names found are exactly those the constructor accepts.
    GivesSome(own=1, third=2)
    PassesAll(own=1, third=2, last=3)
    for bad in ('first', 'second', 'fourth'):
        with pytest.raises(TypeError):
            PassesAll(**{'own': 1, bad: 2})


def test_classes_of_mmengine():
    # AmpOptimWrapper hands its **kwargs to OptimWrapper.
    assert {'loss_scale', 'optimizer', 'clip_grad'} <= set(keyword_arguments(AmpOptimWrapper).names)
    # LinearLR is a mixin (which gives param_name by place) in front of the real scheduler.
    linear = keyword_arguments(LinearLR)
    assert linear.complete
    assert {'optimizer', 'start_factor', 'by_epoch'} <= set(linear.names)
    assert 'param_name' not in linear.names
    # CheckpointHook keeps its **kwargs for later.
    assert not keyword_arguments(CheckpointHook).complete


# Kinds of values -----------------------------------------------------------------------------


class Annotated:
    def __init__(
        self,
        count: int,
        share: float = 0.5,
        limit: int = None,  # as mmengine writes it
        name: str | None = None,
        switch: bool = False,
        rate: float | Tensor = 0.1,
        sizes: int | list[int] = 3,
        any_of: Nobody | int = 1,  # noqa: F821
        bare=1,
        widths: Sequence[int] = (64, 32),
        mean: Sequence[float] | None = None,
        size: int | Sequence[int] = 32,
    ):
        pass


class AnnotatedChild(Annotated):
    def __init__(self, own: int, **kwargs):
        super().__init__(**kwargs)


GOOD = [
    ('name', 'x'),
    *[(name, 'x') for name in ('sizes', 'any_of', 'bare', 'unknown')],
    ('count', 2.5),  # annotations of others are coarse
    ('limit', None),
    ('share', dict(type='X')),  # built before it is given
    ('widths', [64]),
    ('mean', (127.5,)),
    ('mean', None),
    ('size', 32),
    ('size', [32, 16]),
    ('sizes', [32, 16]),
]
BAD = [
    ('count', 'x', 'a whole number'),
    ('share', '0.5', 'a number'),
    ('limit', 'all', 'a whole number or None'),
    ('switch', 'yes', 'True or False'),
    ('rate', 'fast', 'a number'),
    ('widths', 64, 'a list of whole numbers'),
    ('widths', '64', 'a list of whole numbers'),
    ('mean', 127.5, 'a list of numbers or None'),
    ('size', 'x', 'a whole number or a list of whole numbers'),
    ('count', [1, 2], 'a whole number'),
    ('rate', (0.1, 0.2), 'a number'),
    ('mean', ['a', 'b'], 'a list of numbers or None'),
]


@pytest.mark.parametrize('target', [Annotated, AnnotatedChild])
def test_values_are_held_against_annotations(target):
    arguments = keyword_arguments(target)
    for name, value in GOOD:
        assert not arguments.misfit(name, value), (name, value)
    for name, value, wanted in BAD:
        assert arguments.misfit(name, value) == wanted


def test_others_take_lists_where_they_annotate_a_number():
    arguments = keyword_arguments(Annotated)
    assert not arguments.misfit('count', [1, 2], lists=False)
    assert arguments.misfit('count', 'x', lists=False)


def test_one_annotation_that_cannot_be_evaluated_does_not_hide_the_others():
    assert keyword_arguments(DataLoader).misfit('batch_size', 'x') == 'a whole number or None'
