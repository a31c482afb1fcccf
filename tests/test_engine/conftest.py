# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Runs of half a second: a tiny pair, 96 noise images, and the hooks of every real run."""

import copy
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdfkd.datasets import PackedDataset
from mmdfkd.engine import DistillRunner
from mmdfkd.models.classifiers import save_classifier
from mmdfkd.registry import DATASETS, MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'


@DATASETS.register_module(force=True)
class LabelledNoise(PackedDataset):
    """A validation set of 40 images that is like nothing."""

    def __init__(self, num_images=40, labelled=True):
        random = np.random.default_rng(1)
        images = random.integers(0, 256, (num_images, 16, 16, 1), dtype=np.uint8)
        labels = random.integers(0, 5, num_images) if labelled else None
        super().__init__(images, labels, dict(name='labelled noise', classes=tuple('abcde')))


def network(*widths):
    return dict(
        backbone=dict(type='CifarResNet', depth=8, widths=widths, in_channels=1, stem_stride=2),
        head=dict(in_channels=widths[-1], num_classes=5),
    )


@pytest.fixture(scope='session', autouse=True)
def fast_and_apart(tmp_path_factory):
    """Keep out of the user's cache, and write configs as they come: formatting them takes longer
    than training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMDFKD_CACHE_DIR', str(tmp_path_factory.mktemp('cache')))
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session')
def teacher_file(tmp_path_factory):
    """A teacher with random weights whose predictions spread over the classes."""
    torch.manual_seed(11)
    config = dict(network(2, 4, 6), input_shape=(1, 16, 16), mean=[127.5], std=[64.0], name='T')
    teacher = MODELS.build(dict(type='Classifier', **config)).train()
    for _ in range(20):
        teacher(torch.randn(32, 1, 16, 16))
    with torch.no_grad():
        teacher.head.fc.weight.mul_(10)
        teacher.head.fc.bias.copy_(-teacher.head.fc.weight.sum(1))
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    save_classifier(path, teacher, {})
    return path


def build_config(work_dir, teacher_file, **changes):
    """KD³ on noise with validation, 2 epochs, the default hooks but the figures."""
    cfg = Config.fromfile(CONFIGS / '_base_/default_runtime.py')
    cfg.default_hooks.pop('figures', None)
    evaluation = dict(
        dataset=dict(type='LabelledNoise'),
        sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
        batch_size=32,
        num_workers=0,
    )
    metrics = [dict(type='Accuracy'), dict(type='Agreement')]
    sgd = dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)
    cfg.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            experiment_name=f'{work_dir.name}-{uuid.uuid4()}',
            model=dict(
                type='KD3',
                teacher=dict(checkpoint=str(teacher_file)),
                student=network(2, 2, 4),
                selector=dict(threshold=0.8, min_selected=24),
            ),
            train_dataloader=dict(
                dataset=dict(type='NoisePool', num_images=96, image_size=16),
                sampler=dict(type='SelectionSampler'),
                batch_size=16,
                num_workers=0,
            ),
            val_dataloader=evaluation,
            test_dataloader=evaluation,
            val_evaluator=metrics,
            test_evaluator=metrics,
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(
                constructor='RoleOptimWrapperConstructor', student=dict(optimizer=sgd)
            ),
            param_scheduler=dict(student=[dict(type='MultiStepLR', milestones=[1])]),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2),
            log_level='WARNING',
        )
    )
    cfg.merge_from_dict(copy.deepcopy(changes))  # merging takes keys out
    return cfg


@pytest.fixture
def toy_config(tmp_path, teacher_file):
    """Make the config of a toy run in a folder of its own."""
    return lambda name='run', **changes: build_config(tmp_path / name, teacher_file, **changes)


@pytest.fixture
def train(toy_config):
    """Train a toy config, return its runner."""

    def go(name='run', before=None, **changes):
        runner = DistillRunner.from_cfg(toy_config(name, **changes))
        if before:
            before(runner)
        runner.train()
        return runner

    return go


@pytest.fixture(scope='session')
def finished(tmp_path_factory, teacher_file):
    """The runner of a toy run that is over; its folder is not to be written to."""
    runner = DistillRunner.from_cfg(
        build_config(tmp_path_factory.mktemp('finished') / 'run', teacher_file)
    )
    runner.train()
    return runner


@pytest.fixture
def without_validation():
    """Changes to a config."""
    return dict(val_cfg=None, val_dataloader=None, val_evaluator=None)


@pytest.fixture
def generative(teacher_file):
    """Changes to a config: DFAD on 48 latents an epoch, three iterations, instead of a pool."""
    return {
        'model': dict(
            _delete_=True,
            type='DFAD',
            teacher=dict(checkpoint=str(teacher_file)),
            student=network(2, 2, 4),
            generator=dict(latent_size=4, widths=(4, 4)),
            student_steps=2,
        ),
        'train_dataloader.dataset': dict(_delete_=True, type='LatentDataset', length=48),
        'train_dataloader.sampler': dict(_delete_=True, type='CountingSampler'),
        'optim_wrapper.generator': dict(optimizer=dict(type='Adam', lr=1e-3)),
        'param_scheduler.generator': [dict(type='MultiStepLR', milestones=[1])],
    }


@pytest.fixture
def inversion(teacher_file):
    """Changes to a config: DeepInversion, whose rounds of 12 images fill a bank."""
    return {
        'model': dict(
            _delete_=True,
            type='DeepInversion',
            teacher=dict(checkpoint=str(teacher_file)),
            student=network(2, 2, 4),
            batch_size=12,
            iterations=3,
        ),
        'train_dataloader.dataset': dict(_delete_=True, type='ImageBank'),
        'train_dataloader.sampler': dict(_delete_=True, type='BankSampler', length=48),
    }


@pytest.fixture
def hybrid(teacher_file):
    """Changes to a config: HiDFD, an epoch of a GAN on 20 images, then one with 15 of its own."""
    adam = dict(optimizer=dict(type='Adam', lr=1e-3, betas=(0.0, 0.999)))
    return {
        'model': dict(
            _delete_=True,
            type='HiDFD',
            teacher=dict(checkpoint=str(teacher_file)),
            student=network(2, 2, 4),
            gan_epochs=1,
            num_synthetic=15,
            selector=dict(num_select=20, class_cap='even'),
            generator=dict(latent_size=4, width=2, multiples=(1, 1, 1)),
            discriminator=dict(width=2, multiples=(1, 2)),
            smoothing=dict(interval=2),
            average=dict(decay=0.5, start=2),
        ),
        'train_dataloader.dataset': dict(
            _delete_=True,
            type='HybridDataset',
            collected=dict(type='NoisePool', num_images=96, image_size=16),
            synthetic=dict(type='ImageBank'),
        ),
        'train_dataloader.sampler': dict(_delete_=True, type='HybridSampler', repeat=2),
        'train_dataloader.batch_sampler': dict(type='HybridBatchSampler', gan_batch_size=10),
        'optim_wrapper.generator': adam,
        'optim_wrapper.discriminator': adam,
        'param_scheduler.student': [],
    }
