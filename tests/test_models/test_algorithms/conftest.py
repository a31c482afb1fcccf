# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A pair of tiny networks with BatchNorm, a batch for them, and one training step."""

import pytest
import torch

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.models.algorithms.base import build_teacher
from mmdfkd.registry import MODELS

CLASSES = 5


def network(widths, classes=CLASSES, **backbone):
    return dict(
        type='Classifier',
        backbone=dict(type='CifarResNet', depth=8, widths=widths, in_channels=1, **backbone),
        head=dict(in_channels=widths[-1], num_classes=classes),
    )


@pytest.fixture
def student():
    """Config: 4 channels, 4 x 4 pixels in the last map."""
    return network((2, 2, 4))


@pytest.fixture
def teacher():
    """A frozen network: 6 channels, 4 x 4 pixels in the last map, statistics of real batches."""
    config = network((2, 4, 6))
    config.update(input_shape=(1, 16, 16), mean=[120.0], std=[60.0], name='tiny teacher')
    built = MODELS.build(config).train()
    for _ in range(3):
        built(torch.randn(16, 1, 16, 16))
    return build_teacher(built)


@pytest.fixture
def make_batch():
    def make(size=8, labelled=False):
        batch = dict(
            inputs=torch.randint(0, 256, (size, 1, 16, 16), dtype=torch.uint8),
            index=torch.arange(size),
        )
        if labelled:
            batch['label'] = torch.arange(size) % CLASSES
        return batch

    return make


@pytest.fixture
def take_steps():
    """Train an algorithm with SGD; return the logs of the last step."""

    def take(model, *batches, lr=0.1):
        config = {role: dict(optimizer=dict(type='SGD', lr=lr)) for role in model.roles()}
        optimizers = RoleOptimWrapperConstructor(config)(model)
        model.train()
        for batch in batches:
            logs = model.train_step(batch, optimizers)
        return logs

    return take


@pytest.fixture
def snapshot():
    """Copy all tensors of a module."""
    return lambda module: {name: t.detach().clone() for name, t in module.state_dict().items()}


@pytest.fixture
def changed():
    """Names of the tensors that differ from a snapshot."""

    def compare(module, before):
        return {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}

    return compare
