# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper
from mmdfkd.engine.optimizers import autocast
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def able(monkeypatch):
    """Emulation will do here, whatever machine this is; messages come anew."""
    monkeypatch.setattr(autocast, 'has_bfloat16', lambda device: True)
    autocast._say_once.cache_clear()


def wrapper(network, **more):
    return AutocastOptimWrapper(optimizer=torch.optim.SGD(network.parameters(), lr=1.0), **more)


def test_forward_is_bfloat16_and_weights_stay_float32_on_a_cpu():
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    optim_wrapper = wrapper(network)
    with optim_wrapper.optim_context(network):
        output = network(torch.tensor([[1.00390625]]))  # 1 + 2^-8: bfloat16 rounds it to 1
    assert output.dtype == torch.bfloat16 and output.item() == 1.0
    optim_wrapper.update_params(output.float().sum() * 0.25)
    assert network.weight.dtype == torch.float32
    assert network.weight.item() == 0.75  # 1 - 0.25 * 1


def test_nothing_is_cast_outside_and_float32_switches_it_off(recwarn):
    network = nn.Linear(1, 1)
    optim_wrapper = wrapper(network)
    with optim_wrapper.optim_context(network):
        pass
    assert network(torch.ones(1, 1)).dtype == torch.float32
    with wrapper(network, dtype='float32').optim_context(network):
        assert network(torch.ones(1, 1)).dtype == torch.float32
    assert not recwarn.list  # of PyTorch, which casts to no float32


def test_an_unknown_type_is_named():
    with pytest.raises(UsageError, match=r"optim_wrapper.*dtype='float16'.*'bfloat16'"):
        wrapper(nn.Linear(1, 1), dtype='float16')


def test_a_device_without_bfloat16_goes_on_in_float32_and_says_so_once(monkeypatch):
    said = []
    monkeypatch.setattr(autocast, 'has_bfloat16', lambda device: False)
    monkeypatch.setattr(autocast, 'print_log', lambda line, *_: said.append(line))
    network = nn.Linear(1, 1)
    for _ in range(2):  # two roles
        with wrapper(network).optim_context(network):
            assert network(torch.ones(1, 1)).dtype == torch.float32
    assert said == [
        'This CPU has no bfloat16 arithmetic: training goes on in float32.',
    ]
    autocast._say_once.cache_clear()
    wrapper(network, dtype='float32')
    assert len(said) == 1


def test_emulation_does_not_count(monkeypatch):
    monkeypatch.undo()
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda c=capability: c)
        monkeypatch.setattr(torch.version, 'hip', None)
        assert autocast.has_bfloat16('cuda') is expected
    assert autocast.has_bfloat16('cpu') in (True, False)
    assert autocast.has_bfloat16('mps')
    monkeypatch.setattr(torch.ops, 'mkldnn', SimpleNamespace())  # built without oneDNN
    assert autocast.has_bfloat16('cpu') is False


@pytest.mark.parametrize(
    'optimizer',
    [
        *(dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1, **{key: True})
          for key in ('foreach', 'fused')),
        *(dict(type='Adam', lr=0.1, weight_decay=0.1, **{key: True})
          for key in ('foreach', 'fused')),
    ],
    ids=['sgd-foreach', 'sgd-fused', 'adam-foreach', 'adam-fused'],
)  # fmt: skip
def test_optimizers_are_foreach_or_fused_by_their_config(optimizer):
    init_default_scope('mmdfkd')
    plain = {key: value for key, value in optimizer.items() if value is not True}
    ends = []
    for config in (plain, optimizer):
        torch.manual_seed(0)
        network, images = nn.Linear(5, 3), torch.randn(4, 5)
        built = build_optim_wrapper(
            network, dict(type='AutocastOptimWrapper', dtype='float32', optimizer=config)
        )
        group = built.optimizer.param_groups[0]
        assert [key for key in ('foreach', 'fused') if group[key]] == [
            key for key in config if config[key] is True
        ]
        for _ in range(3):
            built.update_params(network(images).square().sum())
        ends.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('method', 'wrapper'),
    [
        ('kd', 'AmpOptimWrapper'),
        ('hidfd', 'AmpOptimWrapper'),
        ('cmi', 'AutocastOptimWrapper'),
        ('pre_dfkd', 'AutocastOptimWrapper'),
    ],
)
def test_mixed_precision_without_bfloat16(method, wrapper, monkeypatch):
    """float16, but for methods that optimise images or latents."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(autocast, 'has_bfloat16', lambda device: False)
    path = next(ROOT.glob(f'configs/{method}/{method}_resnet8_resnet8-half_1xb*[0-9]e_digits.py'))
    cfg = load_config(path)
    roles = cfg.optim_wrapper.keys() - {'constructor'}
    for role in roles:
        cfg.optim_wrapper[role].loss_scale = 512.0
    autocast.use_amp(cfg)
    assert {cfg.optim_wrapper[role].type for role in roles} == {wrapper}
    kept = {'loss_scale' in cfg.optim_wrapper[role] for role in roles}
    assert kept == {wrapper == 'AmpOptimWrapper'}


def test_mixed_precision_replaces_another_wrapper():
    cfg = load_config(ROOT / 'configs/kd/kd_resnet8_resnet8-half_1xb64-60e_digits.py')
    student = cfg.optim_wrapper.student
    student.update(type='AmpOptimWrapper', loss_scale='dynamic', use_fp16_params=True)
    autocast.use_amp(cfg)
    assert student.type == 'AutocastOptimWrapper'
    check_config(cfg)


def test_a_role_without_an_optimiser_is_for_others_to_name():
    cfg = load_config(next((ROOT / 'configs/kd3').glob('*_digits.py')))
    cfg.optim_wrapper.student = None
    autocast.use_amp(cfg)
    assert cfg.optim_wrapper.student is None
