# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.losses import (
    ActivationLoss,
    ClassBalanceLoss,
    OneHotLoss,
    activation_loss,
    class_balance_loss,
    one_hot_loss,
)
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-5)

# Worked by hand (three images, three classes, two features): mean prediction
# (0.387414, 0.265606, 0.346979), sum m log10 m = -0.471978; sum |f| = 5 over 6 elements.
LOGITS = torch.tensor([[2.0, 0, -1], [0, 1, 0], [1, 1, 3]], dtype=torch.float64)
FEATURES = torch.tensor([[0.5, 0], [1.5, 2], [0, 1]], dtype=torch.float64)


def test_worked_values():
    assert one_hot_loss(LOGITS).item() == pytest.approx(0.320278, abs=1e-6)
    assert class_balance_loss(LOGITS).item() == pytest.approx(-0.471978, abs=1e-6)
    assert class_balance_loss(LOGITS, math.e).item() == pytest.approx(-1.086769, abs=1e-6)
    assert activation_loss(FEATURES).item() == pytest.approx(-5 / 6)
    assert activation_loss(FEATURES, 'l1').item() == pytest.approx(-5 / 3)
    # sqrt(.25 + 2.25 + 4 + 1)
    assert activation_loss(FEATURES, 'fro').item() == pytest.approx(-math.sqrt(7.5))
    # two images of two classes: (e^2, 1, 1) / 9.389056 and so on; -ln .786986 = .239545
    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0]])
    assert one_hot_loss(logits).item() == pytest.approx(0.239545, abs=1e-6)
    assert class_balance_loss(logits).item() == pytest.approx(-0.416259, abs=1e-6)
    assert class_balance_loss(logits, math.e).item() == pytest.approx(-0.958472, abs=1e-6)
    assert activation_loss(torch.tensor([[1.0, -2], [0, 3]])).item() == -1.5
    assert activation_loss(torch.tensor([[1.0, -2], [0, 3]]), 'l1').item() == -3


def test_entropy_of_a_worked_prediction():
    # p = (1/2, 1/4, 1/4): entropy 1.5 ln 2, cross-entropy with the argmax ln 2
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert one_hot_loss(logits, 'entropy').item() == pytest.approx(1.5 * math.log(2))
    assert one_hot_loss(logits).item() == pytest.approx(math.log(2))


def test_gradients_of_the_worked_example():
    logits = LOGITS.clone().requires_grad_()
    one_hot_loss(logits).backward()
    assert logits.grad[0].tolist() == pytest.approx([-0.052068, 0.038065, 0.014003], abs=1e-6)
    logits.grad = None
    class_balance_loss(logits).backward()
    assert logits.grad[0].tolist() == pytest.approx([0.005831, -0.005451, -0.000380], abs=1e-6)


@pytest.mark.parametrize('classes', [2, 10, 100])
def test_bounds(classes):
    uniform = torch.zeros(7, classes)
    assert one_hot_loss(uniform).item() == pytest.approx(math.log(classes))
    assert one_hot_loss(uniform, 'entropy').item() == pytest.approx(math.log(classes))
    assert class_balance_loss(uniform).item() == pytest.approx(-math.log10(classes), abs=1e-6)
    each_once = 40 * torch.eye(classes)
    assert one_hot_loss(each_once).item() == pytest.approx(0, abs=1e-6)
    assert class_balance_loss(each_once).item() == pytest.approx(-math.log10(classes), abs=1e-6)
    assert activation_loss(torch.zeros(3, 4)).item() == 0


@pytest.mark.parametrize('scale', [20, 200, 1e4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_a_collapsed_batch_gives_numbers(scale, dtype):
    """All images of one class: 0 log 0 was NaN in published code."""
    logits = torch.full((16, 10), -float(scale), dtype=dtype)
    logits[:, 3] = scale
    logits.requires_grad_()
    losses = [one_hot_loss(logits), one_hot_loss(logits, 'entropy'), class_balance_loss(logits)]
    assert [loss.item() for loss in losses] == pytest.approx([0, 0, 0], abs=1e-6)
    torch.stack([loss.float() for loss in losses]).sum().backward()
    assert logits.grad.isfinite().all()


def test_invariances():
    rows = torch.randn(3, 1, dtype=torch.float64)
    for loss in (one_hot_loss, lambda t: one_hot_loss(t, 'entropy'), class_balance_loss):
        torch.testing.assert_close(loss(LOGITS + rows), loss(LOGITS))
        torch.testing.assert_close(loss(LOGITS.flip(0)), loss(LOGITS))
        torch.testing.assert_close(loss(LOGITS.flip(1)), loss(LOGITS))


def test_half_precision_is_computed_in_single():
    logits, features = LOGITS.to(torch.bfloat16), FEATURES.to(torch.bfloat16)  # exact values
    for loss, expected in (
        (one_hot_loss(logits), 0.320278),
        (class_balance_loss(logits), -0.471978),
        (activation_loss(features), -5 / 6),
    ):
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, abs=1e-5)


# Against published code -----------------------------------------------------------------------


def test_published_values_and_gradients(golden):
    arrays = golden('dafl')
    logits = arrays['t_logits'].clone().requires_grad_()
    features = arrays['t_feats'].clone().requires_grad_()
    for loss, at, value, gradient in (
        (one_hot_loss, logits, 'official_oh', 'grad_oh_t_logits'),
        (class_balance_loss, logits, 'official_ie_log10', 'grad_ie_log10_t_logits'),
        (activation_loss, features, 'official_act', 'grad_act_t_feats'),
    ):
        at.grad = None
        result = loss(at)
        result.backward()
        torch.testing.assert_close(result.detach(), arrays[value], **CLOSE)
        torch.testing.assert_close(at.grad, arrays[gradient], **CLOSE)
    natural = class_balance_loss(logits.detach(), math.e)
    torch.testing.assert_close(natural, arrays['official_ie_ln_2019_11'], **CLOSE)


@pytest.mark.parametrize(
    ('recipe', 'weights'),
    [('mnist', (1, 5, 0.1)), ('cifar10', (0.05, 5, 0.01)), ('cifar100', (0.5, 20, 0.1))],
)
def test_published_objectives(golden, recipe, weights):
    arrays = golden('dafl')
    logits = arrays['t_logits'].clone().requires_grad_()
    features = arrays['t_feats'].clone().requires_grad_()
    terms = OneHotLoss(), ClassBalanceLoss(), ActivationLoss()
    for term, weight in zip(terms, weights, strict=True):
        term.loss_weight = weight
    loss = terms[0](logits) + terms[1](logits) + terms[2](features)
    loss.backward()
    name = f'official_gen_total_{recipe}'
    torch.testing.assert_close(loss.detach(), arrays[name], **CLOSE)
    name = f'grad_gen_total_{recipe}'
    torch.testing.assert_close(logits.grad, arrays[f'{name}_t_logits'], **CLOSE)
    torch.testing.assert_close(features.grad, arrays[f'{name}_t_feats'], **CLOSE)


def test_mmrazors_values(golden):
    arrays = golden('dafl')
    logits, features = arrays['t_logits'], arrays['t_feats']
    for loss, name in (
        (OneHotLoss(loss_weight=0.05)(logits), 'mmrazor_oh_w0p05'),
        (ClassBalanceLoss(loss_weight=5)(logits), 'mmrazor_ie_w5'),
        (ActivationLoss(loss_weight=0.01)(features), 'mmrazor_act_abs_w0p01'),
        (ActivationLoss('fro')(features), 'mmrazor_act_norm_w1'),
    ):
        torch.testing.assert_close(loss, arrays[name], **CLOSE)


def test_published_values_of_dfq(golden):
    arrays = golden('dfq')
    logits = arrays['loss/t_logit'].clone().requires_grad_()
    close = dict(atol=1e-9, rtol=0)
    result = one_hot_loss(logits)
    result.backward()
    torch.testing.assert_close(result.detach(), arrays['loss/onehot'], **close)
    torch.testing.assert_close(logits.grad, arrays['loss/d_onehot_d_t'], **close)
    entropy = one_hot_loss(logits.detach(), 'entropy')
    torch.testing.assert_close(entropy, arrays['paper_form/instance_entropy'], **close)
    logits.grad = None
    result = class_balance_loss(logits, math.e)
    result.backward()
    torch.testing.assert_close(result.detach(), arrays['loss/balance'], **close)
    torch.testing.assert_close(logits.grad, arrays['loss/d_balance_d_t'], **close)


def test_published_values_of_pre_dfkd(golden):
    arrays = golden('pre_dfkd')
    logits = arrays['match/t_logit'].clone().requires_grad_()
    close = dict(atol=1e-9, rtol=0)
    balance = class_balance_loss(logits)
    torch.testing.assert_close(balance.detach(), arrays['match/info_entropy_log10'], **close)
    (gradient,) = torch.autograd.grad(balance, logits)
    torch.testing.assert_close(gradient, arrays['match/d_ie'], **close)
    torch.testing.assert_close(one_hot_loss(logits).detach(), arrays['match/one_hot'], **close)
    activation = activation_loss(arrays['match/feat'])
    torch.testing.assert_close(activation, arrays['match/activation'], **close)


# Several processes ----------------------------------------------------------------------------


def _half_of_the_batch(rank, images, weight, loss_of=class_balance_loss):
    weight = weight.clone().requires_grad_()
    loss = loss_of(images.chunk(2)[rank] @ weight)
    loss.backward()
    return loss.detach(), weight.grad


def test_two_processes_balance_their_common_batch(golden, in_two_processes):
    """Each rank has half of the images; averaging gradients over ranks gives the whole batch's."""
    arrays = golden('dafl')
    ranks = in_two_processes(_half_of_the_batch, arrays['dist_x'], arrays['dist_w'])
    gradient = (ranks[0][1] + ranks[1][1]) / 2
    for loss, _ in ranks:
        torch.testing.assert_close(loss, arrays['dist_full_loss'], **CLOSE)
    torch.testing.assert_close(gradient, arrays['dist_full_grad_w'], **CLOSE)
    alone = class_balance_loss(arrays['dist_x'].chunk(2)[0] @ arrays['dist_w'])
    torch.testing.assert_close(alone, arrays['dist_local_rank0_loss'], **CLOSE)
    assert (alone - arrays['dist_full_loss']).abs() > 0.1  # what gathering avoids


def test_two_processes_take_the_norm_of_their_common_batch(in_two_processes):
    images, weight = torch.randn(8, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    ranks = in_two_processes(_half_of_the_batch, images, weight, ActivationLoss('fro'))
    weight.requires_grad_()
    expected = -(images @ weight).square().sum().sqrt()
    expected.backward()
    for loss, _ in ranks:
        torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, weight.grad)


# Modules --------------------------------------------------------------------------------------


def test_modules_are_the_weighted_functions():
    half = MODELS.build(dict(type='OneHotLoss', form='entropy', loss_weight=0.5))
    torch.testing.assert_close(half(LOGITS), 0.5 * one_hot_loss(LOGITS, 'entropy'))
    half = MODELS.build(dict(type='ClassBalanceLoss', log_base=2, loss_weight=0.5))
    torch.testing.assert_close(half(LOGITS), 0.5 * class_balance_loss(LOGITS, 2))
    half = MODELS.build(dict(type='ActivationLoss', reduction='l1', loss_weight=0.5))
    torch.testing.assert_close(half(FEATURES), 0.5 * activation_loss(FEATURES, 'l1'))


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        (dict(type='OneHotLoss', form='soft'), 'form.*argmax.*entropy'),
        (dict(type='ClassBalanceLoss', log_base=1), 'log_base=1'),
        (dict(type='ActivationLoss', reduction='sum'), 'reduction.*mean.*l1.*fro'),
    ],
)
def test_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        MODELS.build(wrong)
