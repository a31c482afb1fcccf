# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Methods, with each pair of real size, and all ablations take one step.

The other configs of the digits run whole elsewhere.

Configs that differ in nothing but the names of their 32-pixel data take the same step: one of them
does. So does one pair of each method on images of 64 pixels. ``test_configs.py`` looks at every
single config.
"""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmdfkd.datasets import labelled
from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.models.classifiers import build_teacher
from mmdfkd.models.selectors import Selection
from mmdfkd.registry import MODELS
from mmdfkd.utils.config_read import load_config


def kind(path):
    """Method, teacher, student and variant of a config; of 64-pixel images the method alone."""
    *names, settings, data = path.stem.split('_')
    variant = settings.split('-')[2:]
    if data == 'tiny-imagenet':
        return (path.parent.name, *variant, data)
    return (*names, *variant, data if data == 'mnist' else '32')


CONFIGS = sorted(
    {
        kind(path): path
        for path in sorted((Path(__file__).parents[1] / 'configs').rglob('*.py'), reverse=True)
        if '_base_' not in path.parts and ('_digits' not in path.stem or 'ablation' in path.parts)
    }.values()
)


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_one_step(config):
    """A teacher of random weights and two random images; whoever shall be trained changes."""
    cfg = load_config(config)
    init_default_scope(cfg.default_scope)
    parts = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    if 'teacher' in parts:
        network = {key: value for key, value in parts['teacher'].items() if key != 'checkpoint'}
        parts['teacher'] = build_teacher(MODELS.build(network))
    if 'student_steps' in parts:  # one is as good as ten
        parts['student_steps'] = 1
    if 'pre_dfkd' in config.stem:  # of two images none is left to replay
        parts.update(student_steps=1, memory_steps=1, replay_ratio=1, memory_ratio=1)
    model = MODELS.build(parts).train()
    roles = {role: cfg.optim_wrapper[role] for role in model.roles()}
    optimizers = RoleOptimWrapperConstructor(roles)(model)
    batch = dict(
        inputs=torch.randint(0, 256, (2, *model.student.input_shape), dtype=torch.uint8),
        index=torch.arange(2),
    )
    if cfg.train_dataloader.dataset.type in labelled.__all__:
        batch['label'] = torch.randint(model.student.num_classes, (2,))
    if model.latent_shape:
        batch['latent'] = torch.randn(2, *model.latent_shape)
    if hasattr(model, 'set_stage'):  # a GAN comes first
        model.set_stage('gan')
        model.remember_selection(Selection(torch.arange(2), torch.ones(2), torch.arange(2)))
        logs = model.train_step(dict(batch), optimizers)
        assert all(value.isfinite() for value in logs.values())
        model.set_stage('student')
        model.train()
    before = [parameter.clone() for parameter in model.student.backbone.parameters()]
    logs = model.train_step(batch, optimizers)
    assert all(value.isfinite() for value in logs.values())
    after = model.student.backbone.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    logits = model.eval().val_step(batch)[0]['logits']
    assert logits.shape == (2, model.student.num_classes)
