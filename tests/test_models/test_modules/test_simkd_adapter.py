# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.losses import alignment_weight, weighted_feature_alignment
from mmdfkd.models.modules import SimKDAdapter
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-4)


def _golden_adapter(golden, in_size, out_size):
    adapter = SimKDAdapter(6, 8, in_size, out_size)
    prefix = 'wfa_adapter.'
    state = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    adapter.load_state_dict(state)
    return adapter


# Parameter counts of the published networks' adapters at factor 2
@pytest.mark.parametrize(
    ('source', 'target', 'expected'),
    [
        (512, 512, 854_016),
        (128, 512, 755_712),
        (64, 512, 739_328),
        (64, 128, 49_664),
        (128, 128, 53_760),
    ],
)
def test_parameter_count(source, target, expected):
    adapter = MODELS.build(dict(type='SimKDAdapter', in_channels=source, out_channels=target))
    assert sum(p.numel() for p in adapter.parameters()) == expected


def test_matches_published_code(kd3_golden):
    g = kd3_golden
    adapter = _golden_adapter(g, 4, 4)
    feature = g['wfa_feat_s'].clone().requires_grad_()
    adapter.eval()
    torch.testing.assert_close(adapter(feature), g['wfa_eval_trans_s'], **CLOSE)

    adapter.train()
    adapted, teacher = adapter(feature), adapter.match_teacher(g['wfa_feat_t'])
    torch.testing.assert_close(adapted, g['wfa_train_trans_s'], **CLOSE)
    torch.testing.assert_close(teacher, g['wfa_train_trans_t'], **CLOSE)
    for name, value in adapter.state_dict().items():
        if 'running' in name:
            torch.testing.assert_close(value, g[f'wfa_after.{name}'], **CLOSE)

    # Eqs. (9) and (10) on top: the gradients of the whole alignment loss
    logits = F.linear(adapted.mean((2, 3)), g['wfa_cls.weight'], g['wfa_cls.bias'])
    torch.testing.assert_close(logits, g['wfa_train_logit_s'], **CLOSE)
    weight = alignment_weight(logits, g['wfa_logit_t'])
    weighted_feature_alignment(adapted, teacher, weight).backward()
    torch.testing.assert_close(feature.grad, g['wfa_grad_feat_s'], **CLOSE)
    torch.testing.assert_close(
        adapter.transfer[0].weight.grad, g['wfa_grad_adapter.transfer.0.weight'], **CLOSE
    )


@pytest.mark.parametrize(('case', 'in_size'), [('big', 8), ('small', 2)])
def test_maps_of_different_size_match_published_code(kd3_golden, case, in_size):
    adapter = _golden_adapter(kd3_golden, in_size, 4).eval()
    out = adapter(kd3_golden[f'wfa_{case}_feat_s'])
    torch.testing.assert_close(out, kd3_golden[f'wfa_{case}_trans_s'], **CLOSE)
    teacher = adapter.match_teacher(kd3_golden[f'wfa_{case}_feat_t'])
    torch.testing.assert_close(teacher, kd3_golden[f'wfa_{case}_trans_t'], **CLOSE)
    assert out.shape == teacher.shape


def test_pooling_by_hand():
    # 4x4 to 2x2: means of the quadrants of 0..15: (0+1+4+5)/4 = 2.5, 4.5, 10.5, 12.5
    feature = torch.arange(16.0).view(1, 1, 4, 4)
    adapter = SimKDAdapter(1, 1, in_size=4, out_size=2, form='none')
    assert adapter(feature).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    small = feature[:, :, :2, :2]
    assert adapter.match_teacher(small) is small  # nothing to do for the smaller map
    assert adapter.size == 2


def test_sizes_may_be_left_out():
    torch.manual_seed(0)
    feature, teacher = torch.randn(2, 3, 5, 5), torch.randn(2, 4, 5, 5)
    adapter = SimKDAdapter(3, 4)
    assert adapter(feature).shape == (2, 4, 5, 5)
    assert adapter.match_teacher(teacher) is teacher


def test_linear_is_a_1x1_convolution():
    torch.manual_seed(0)
    adapter = SimKDAdapter(3, 2, form='linear')
    weight, bias = adapter.parameters()
    feature = torch.randn(2, 3, 4, 4)
    expected = torch.einsum('oi,bihw->bohw', weight[:, :, 0, 0], feature) + bias.view(1, -1, 1, 1)
    torch.testing.assert_close(adapter(feature), expected, **CLOSE)


def test_none_has_no_parameters():
    adapter = SimKDAdapter(3, 3, form='none')
    feature = torch.randn(2, 3, 4, 4)
    assert adapter(feature) is feature and not adapter.state_dict()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(in_channels=3, out_channels=4, form='none'), 'found 3 .* and 4'),
        (dict(in_channels=3, out_channels=4, form='mlp'), "form='mlp'"),
        (dict(in_channels=3, out_channels=4, in_size=4), 'out_size=None'),
        (dict(in_channels=3, out_channels=4, factor=5), 'factor=5'),
    ],
)
def test_usage_errors(arguments, message):
    with pytest.raises(UsageError, match=message):
        SimKDAdapter(**arguments)


def test_wrong_size_is_named():
    adapter = SimKDAdapter(3, 4, in_size=8, out_size=4)
    with pytest.raises(UsageError, match='in_size=8, but the feature map is 4x4'):
        adapter(torch.zeros(1, 3, 4, 4))
    with pytest.raises(UsageError, match='out_size=4, but the feature map is 8x8'):
        adapter.match_teacher(torch.zeros(1, 4, 8, 8))


def test_init_cfg_is_applied():
    init = dict(type='Constant', layer='Conv2d', val=0.5)
    adapter = SimKDAdapter(4, 6, form='linear', init_cfg=init)
    adapter.init_weights()
    assert (adapter.transfer.weight == 0.5).all()
