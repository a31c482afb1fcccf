# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import nn

from mmdfkd.engine import ReplicatedModel, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import InversionDistiller
from mmdfkd.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmdfkd.utils import UsageError


class TwoRoles(nn.Module):
    """Two linear maps of one number, each trained by an optimiser of its own."""

    method = 'TwoRoles'

    def __init__(self):
        super().__init__()
        self.student, self.generator = nn.Linear(1, 1), nn.Linear(1, 1)
        self.frozen = nn.Linear(1, 1)

    def roles(self):
        return dict(student=[self.student], generator=[self.generator, nn.Identity()])


def sgd(lr=1.0, **more):
    return dict(optimizer=dict(type='SGD', lr=lr), **more)


@pytest.fixture
def model():
    model = TwoRoles()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def test_each_role_trains_its_modules(model):
    wrappers = RoleOptimWrapperConstructor(dict(student=sgd(1.0), generator=sgd(0.5)))(model)
    assert isinstance(wrappers, OptimWrapperDict) and set(wrappers.keys()) == {
        'student',
        'generator',
    }
    x = torch.ones(1, 1)
    for role in ('student', 'generator'):
        # the gradient of weight and bias is 3, of both roles and of the frozen one
        loss = 3 * (model.student(x) + model.generator(x) + model.frozen(x)).sum()
        wrappers[role].update_params(loss)
        model.zero_grad()
    assert (model.student.weight.item(), model.student.bias.item()) == (-3.0, -3.0)
    assert (model.generator.weight.item(), model.generator.bias.item()) == (-1.5, -1.5)
    assert model.frozen.weight.item() == 0.0
    lr = wrappers.get_lr()
    assert lr['student.lr'] == [1.0] and lr['generator.lr'] == [0.5]


@pytest.mark.parametrize('roles', [{}, [1], dict(student=nn.Linear(1, 1))])
def test_roles_are_lists_by_name(model, roles):
    model.roles = lambda: roles
    with pytest.raises(UsageError, match=r'TwoRoles\.roles\(\) .*=\[self\.student\]\)'):
        RoleOptimWrapperConstructor(dict(student=sgd()))(model)


def test_a_list_of_modules_is_one(model):
    model.roles = lambda: dict(student=nn.ModuleList([model.student]))
    wrappers = RoleOptimWrapperConstructor(dict(student=sgd()))(model)
    assert wrappers['student'].param_groups[0]['params'] == list(model.student.parameters())


def test_a_role_without_an_optimiser(model):
    with pytest.raises(UsageError, match=r'optim_wrapper\.generator is None. Give it an optim'):
        RoleOptimWrapperConstructor(dict(student=sgd(), generator=None))(model)


def test_clipping_reaches_its_role_only(model):
    clip = dict(max_norm=1.0)
    wrappers = RoleOptimWrapperConstructor(dict(student=sgd(clip_grad=clip), generator=sgd()))(
        model
    )
    x = torch.ones(1, 1)
    wrappers['student'].update_params(3 * model.student(x).sum())
    wrappers['generator'].update_params(3 * model.generator(x).sum())
    # (3, 3) has norm 3 sqrt 2, clipped to 1: both become 1 / sqrt 2
    assert model.student.weight.item() == pytest.approx(-(0.5**0.5), abs=1e-4)
    assert model.generator.weight.item() == -3.0


def test_accumulation_reaches_its_role_only(model):
    wrappers = RoleOptimWrapperConstructor(
        dict(student=sgd(accumulative_counts=2), generator=sgd())
    )(model)
    x, steps = torch.ones(1, 1), []
    for factor in (2.0, 4.0):
        for role in ('student', 'generator'):
            wrappers[role].update_params(factor * getattr(model, role)(x).sum())
        steps.append((model.student.weight.item(), model.generator.weight.item()))
    # the student waits for the mean of 2 and 4
    assert steps == [(0.0, -2.0), (-3.0, -6.0)]


def test_paramwise_settings_belong_to_a_role(model):
    paramwise = dict(bias_lr_mult=2.0)
    wrappers = RoleOptimWrapperConstructor(
        dict(student=sgd(paramwise_cfg=paramwise), generator=sgd())
    )(model)
    assert sorted(g['lr'] for g in wrappers['student'].optimizer.param_groups) == [1.0, 2.0]
    assert [g['lr'] for g in wrappers['generator'].optimizer.param_groups] == [1.0]
    with pytest.raises(UsageError, match=r'paramwise_cfg has no role.*student\.paramwise_cfg'):
        RoleOptimWrapperConstructor(dict(student=sgd()), paramwise)


def test_config_is_left_as_it_was(model):
    config = dict(student=sgd(paramwise_cfg=dict(bias_lr_mult=2.0)), generator=sgd())
    before = str(config)
    for _ in range(2):  # resuming builds the optimisers a second time
        RoleOptimWrapperConstructor(config)(model)
    assert str(config) == before


@pytest.mark.parametrize('roles', [('student',), ('student', 'generator', 'critic'), ()])
def test_roles_must_be_the_algorithms(model, roles):
    constructor = RoleOptimWrapperConstructor({role: sgd() for role in roles})
    with pytest.raises(UsageError, match=r"TwoRoles trains \['generator', 'student'\]"):
        constructor(model)


def test_float16_is_not_for_methods_that_fill_a_bank(model):
    class Inversion(TwoRoles, InversionDistiller):
        pass

    model.__class__ = Inversion
    for kind in ('AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper):
        configs = dict(student=sgd(), generator=sgd(type=kind))
        with pytest.raises(UsageError, match=r"optim_wrapper\.generator\.type.*'AutocastOptim"):
            RoleOptimWrapperConstructor(configs)(model)


def test_float16_needs_a_gpu(model, monkeypatch):
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: False
    )
    model.unscaled = ''
    constructor = RoleOptimWrapperConstructor(
        dict(student=sgd(type='AmpOptimWrapper'), generator=sgd())
    )
    with pytest.raises(UsageError, match=r"optim_wrapper\.student: .*gpu.*'AutocastOptimW.*--amp"):
        constructor(model)


def test_what_mmengine_asserts_has_the_role(model):
    constructor = RoleOptimWrapperConstructor(dict(student=sgd(), generator=sgd(clip_grad=2)))
    with pytest.raises(UsageError, match=r'optim_wrapper\.generator: .*clip_grad.*\.$') as error:
        constructor(model)
    assert '--amp' not in str(error.value)


def test_reached_through_mmengine_and_a_wrapper(model):
    config = dict(constructor='mmdfkd.RoleOptimWrapperConstructor', student=sgd(), generator=sgd())
    wrappers = build_optim_wrapper(ReplicatedModel(model), config)
    assert set(wrappers.keys()) == {'student', 'generator'}
    assert OPTIM_WRAPPER_CONSTRUCTORS.get('RoleOptimWrapperConstructor')
