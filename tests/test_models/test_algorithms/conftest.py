# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A pair of tiny networks with BatchNorm, a batch for them, and one training step."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.registry import MODELS, PARAM_SCHEDULERS
from mmdfkd.utils.config_read import load_config

CLASSES = 5
SCHEDULES = Path(__file__).parents[3] / 'configs' / '_base_' / 'schedules'


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


class CountReads(TorchDispatchMode):
    """Count the operations that make the host wait for one number of the device."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.fixture
def count_reads():
    """A counter that works: it has seen one read of its own."""
    with CountReads() as counter:
        torch.ones(()).item()
    assert counter.reads == 1
    counter.reads = 0
    return counter


@pytest.fixture
def take_steps():
    """Train an algorithm with SGD; return the logs of the last step."""

    def take(model, *batches, lr=0.1, **options):
        sgd = dict(type='SGD', lr=lr, **options)
        config = {role: dict(optimizer=sgd) for role in model.roles()}
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


@pytest.fixture
def make_latents():
    """A batch of latents for an algorithm with a generator."""
    return lambda model, size=8: dict(latent=torch.randn(size, *model.latent_shape))


@MODELS.register_module()
class DenseToy(Classifier):
    """A network that classifies every place: logits ``(B, K, H, W)``."""

    def forward(self, images):
        return self.extract(images).logits

    def extract(self, images):
        features = super().extract(images)
        weight = self.head.fc.weight[:, :, None, None]
        logits = F.conv2d(features.map, weight, self.head.fc.bias)
        return features._replace(logits=F.interpolate(logits, images.shape[2:], mode='bilinear'))


@pytest.fixture
def dense(teacher, student):
    """Teacher and student config of a pair that classifies every place."""
    network = MODELS.build({**teacher.config, 'type': 'DenseToy'})
    network.load_state_dict(teacher.state_dict())
    return build_teacher(network), {**student, 'type': 'DenseToy'}


@pytest.fixture
def learning_rates():
    """Learning rate of every epoch that a schedule of ``configs/_base_/schedules`` gives a role."""

    def run(schedule, role='student'):
        cfg = load_config(SCHEDULES / f'{schedule}.py')
        config = dict(cfg.optim_wrapper[role].optimizer)
        sgd = torch.optim.SGD([torch.zeros(1)], lr=config['lr'])
        schedulers = [
            PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=sgd))
            for s in cfg.param_scheduler[role]
        ]
        rates = []
        for _ in range(cfg.train_cfg.max_epochs):
            rates.append(sgd.param_groups[0]['lr'])
            sgd.step()
            for scheduler in schedulers:
                scheduler.step()
        return rates

    return run
