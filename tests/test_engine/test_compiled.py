# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from mmdfkd.engine.compiled import (
    CUDA_GRAPHS,
    MODES,
    CompiledForward,
    begin_step,
    compiler_error,
    parts_to_compile,
)
from mmdfkd.models.classifiers import ForeignClassifier
from mmdfkd.registry import MODELS

IMAGES = dict(input_shape=(3, 16, 16), mean=[120.0] * 3, std=[60.0] * 3)


@pytest.fixture
def calls(monkeypatch):
    """What ``torch.compile`` was asked for, and passes through its result; it compiles nothing."""
    calls = []

    def fake(function, **options):
        calls.append(options)

        def compiled(*args, **kwargs):
            calls.append('compiled')
            return function(*args, **kwargs)

        return compiled

    monkeypatch.setattr(torch, 'compile', fake)
    return calls


@pytest.fixture
def module():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU())


class Scaled(nn.Module):
    """A layer two levels below, a number beside the images, and an argument by its name."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Identity())

    def forward(self, images, factor, offset=0.0):
        return self.body(images) * factor + offset


def test_compiled_inside_and_only_inside(module, calls):
    images, names = torch.randn(4, 2), list(module.state_dict())
    expected = module(images)
    compiled = CompiledForward(module, 'max-autotune')
    assert calls == [dict(mode='max-autotune')]
    assert torch.equal(module(images), expected) and len(calls) == 1
    with compiled.active():
        assert torch.equal(module(images), expected)
        assert list(module.state_dict()) == names
    assert calls[1:] == ['compiled']
    assert torch.equal(module(images), expected) and len(calls) == 2
    assert 'forward' not in vars(module)


@pytest.mark.parametrize('kind', ['register_forward_hook', 'register_forward_pre_hook'])
def test_a_pass_with_a_listener_is_not_compiled(module, calls, kind):
    heard = []
    with CompiledForward(module, 'default').active():
        handle = getattr(module[0], kind)(lambda *_: heard.append(1))
        module(torch.randn(4, 2))
        assert (heard, calls[1:]) == ([1], [])
        handle.remove()
        module(torch.randn(4, 2))
        assert (heard, calls[1:]) == ([1], ['compiled'])


def test_arguments_arrive_compiled_or_not(calls):
    module, images = Scaled(), torch.ones(4, 2)
    with CompiledForward(module, 'default').active():
        assert torch.equal(module(images, 3, offset=0.5), 3.5 * images)
        assert calls[1:] == ['compiled']
        heard = []
        module.body[0].register_forward_hook(lambda *_: heard.append(1))
        assert torch.equal(module(images, 3, offset=0.5), 3.5 * images)
    assert (heard, calls[1:]) == ([1], ['compiled'])


def test_a_step_that_fails_leaves_the_module_as_it_was(module, calls):
    with pytest.raises(KeyboardInterrupt), CompiledForward(module, 'default').active():
        raise KeyboardInterrupt
    assert 'forward' not in vars(module)


def test_a_copy_computes_with_its_own_weights(module, calls):
    images = torch.randn(4, 2)
    with CompiledForward(module, 'default').active():
        twin = copy.deepcopy(module)
        nn.init.ones_(twin[0].weight)
        assert not torch.equal(twin(images), module(images))
    assert torch.equal(twin(images), (images.sum(1, keepdim=True) + twin[0].bias).relu())
    assert calls[1:] == ['compiled']


def test_what_is_called_as_a_whole():
    backbone = dict(type='CifarResNet', depth=8, widths=(2, 4, 6))
    head = dict(in_channels=6, num_classes=5)
    network = MODELS.build(dict(type='Classifier', backbone=backbone, head=head, **IMAGES))
    assert parts_to_compile(network) == [network.backbone]
    network.neck = nn.Identity()
    assert parts_to_compile(network) == [network.backbone]
    network.neck = nn.Linear(1, 1)
    assert parts_to_compile(network) == [network.backbone, network.neck]
    foreign = ForeignClassifier('torchvision', 'shufflenet_v2_x0_5', **IMAGES)
    assert parts_to_compile(foreign) == [foreign.network]
    generator = nn.Linear(1, 1)
    assert parts_to_compile(generator) == [generator]


@pytest.mark.parametrize(
    ('text', 'reason'),
    [('\n no g++ \nhint', 'no g++'), ('x' * 999, 'x' * 160), ('', 'no reason given')],
)
def test_what_a_compiler_says_is_one_line(monkeypatch, text, reason):
    def fail(function):
        raise RuntimeError(text)

    monkeypatch.setattr(torch, 'compile', fail)
    assert compiler_error(torch.device('cpu')) == f'RuntimeError: {reason}'


def test_a_compiler_is_tried_on_the_device(monkeypatch):
    seen = []

    def fake(function):
        def compiled(x):
            seen.append(x.device.type)
            return function(x)

        return compiled

    monkeypatch.setattr(torch, 'compile', fake)
    assert compiler_error(torch.device('meta')) == '' and seen == ['meta']


@pytest.mark.parametrize('compiled', [True, False])
def test_steps_are_told_to_a_compiler_that_is_in_use(monkeypatch, compiled):
    told = Mock()
    monkeypatch.setattr(torch.compiler, 'cudagraph_mark_step_begin', told)
    monkeypatch.setitem(sys.modules, 'torch._inductor', torch)
    if not compiled:
        del sys.modules['torch._inductor']
    begin_step()
    assert told.called == compiled


@pytest.mark.slow
def test_modes_are_those_of_pytorch():
    from torch._inductor import list_mode_options  # takes seconds

    known = list_mode_options()
    assert set(MODES) <= known.keys()
    recorded = {mode for mode in MODES if known[mode].get('triton.cudagraphs')}
    assert set(CUDA_GRAPHS) == recorded


@pytest.mark.slow
def test_a_missing_compiler_is_one_line(tmp_path):
    code = (
        'import torch; from mmdfkd.engine.compiled import compiler_error; '
        "print('REASON', repr(compiler_error(torch.device('cpu'))))"
    )
    cache = {'CXX': str(tmp_path / 'no-compiler'), 'TORCHINDUCTOR_CACHE_DIR': str(tmp_path)}
    result = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, **cache, 'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    reason = result.stdout.partition('REASON ')[2].strip()
    assert 'Error' in reason or 'Invalid' in reason, result.stdout + result.stderr
    assert '\\n' not in reason


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_compilation_changes_results_by_rounding_only():
    reason = compiler_error(torch.device('cpu'))
    if reason:
        pytest.skip(reason)
    config = dict(type='CifarResNet', depth=8, widths=(4, 4, 4))
    torch._dynamo.reset()  # kernels of earlier tests would count as its own
    eager = MODELS.build(config)
    twin = copy.deepcopy(eager)
    compiled = CompiledForward(twin, 'default')
    with compiled.active(), torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (8, 7, 6):  # the first kernel serves them all
            images = torch.randn(batch, 3, 16, 16)
            gradients = []
            for network in (eager, twin):
                network.zero_grad()
                network(images)[0].square().mean().backward()
                gradients.append([p.grad for p in network.parameters()])
            for a, b in zip(*gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(eager.bn1.running_mean, twin.bn1.running_mean)
    assert eager.bn1.running_mean.abs().sum() > 0
