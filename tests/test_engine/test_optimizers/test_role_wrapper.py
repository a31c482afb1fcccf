# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from mmengine.optim import OptimWrapper

from mmdfkd.engine import RoleOptimWrapper, RoleOptimWrapperConstructor


def clipped(kind, **clip):
    weight = torch.nn.Parameter(torch.zeros(2))
    wrapper = kind(torch.optim.SGD([weight], lr=1.0), clip_grad=clip or None)
    return weight, wrapper


def test_steps_are_those_of_mmengine():
    weights = []
    for kind in (OptimWrapper, RoleOptimWrapper):
        weight, wrapper = clipped(kind, max_norm=1.0)
        wrapper.update_params(weight @ torch.tensor([3.0, 4.0]))  # norm 5, cut to 1
        weights.append(weight.detach())
    assert torch.equal(*weights)
    torch.testing.assert_close(weights[1], torch.tensor([-0.6, -0.8]))


def test_gradients_of_several_batches_are_averaged_as_in_mmengine():
    weights = []
    for kind in (OptimWrapper, RoleOptimWrapper):
        weight = torch.nn.Parameter(torch.zeros(2))
        wrapper = kind(torch.optim.SGD([weight], lr=1.0), accumulative_counts=2)
        wrapper.update_params(weight @ torch.tensor([3.0, 4.0]))
        assert weight.tolist() == [0.0, 0.0]  # half a step so far
        wrapper.update_params(weight @ torch.tensor([1.0, 0.0]))
        weights.append(weight.detach())
    assert torch.equal(*weights)
    torch.testing.assert_close(weights[1], torch.tensor([-2.0, -2.0]))


def test_norms_are_those_before_clipping_and_taken_once():
    weight, wrapper = clipped(RoleOptimWrapper, max_norm=1.0)
    assert wrapper.take_grad_norm() is None
    for scale in (1.0, 3.0):
        wrapper.update_params(scale * weight @ torch.tensor([3.0, 4.0]))
    assert wrapper.take_grad_norm().item() == pytest.approx((5 + 15) / 2)
    assert wrapper.take_grad_norm() is None


def test_values_that_are_clipped_have_no_norm():
    weight, wrapper = clipped(RoleOptimWrapper, type='value', clip_value=2.0)
    wrapper.update_params(weight @ torch.tensor([3.0, -4.0]))
    assert weight.tolist() == [-2.0, 2.0]
    assert wrapper.take_grad_norm() is None


def test_weights_without_a_gradient_are_left_alone():
    weight, wrapper = clipped(RoleOptimWrapper, max_norm=1.0)
    wrapper.step()
    assert weight.tolist() == [0.0, 0.0]
    assert wrapper.take_grad_norm() is None


def test_every_role_has_one_unless_its_config_says_otherwise():
    class Model(torch.nn.Module):
        def roles(self):
            return dict(student=[torch.nn.Linear(1, 1)], generator=[torch.nn.Linear(1, 1)])

    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    configs = dict(student=sgd, generator=dict(sgd, type='OptimWrapper'))
    wrappers = RoleOptimWrapperConstructor(configs)(Model())
    assert type(wrappers['student']) is RoleOptimWrapper
    assert type(wrappers['generator']) is OptimWrapper
