# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import torch

from mmdfkd.models.modules import ClassConditionalNorm

CLOSE = dict(rtol=1e-5, atol=1e-5)


def test_published_code(golden):
    arrays = golden('hidfd')
    norm = ClassConditionalNorm(6, 5).train()
    norm.gain.weight.data = arrays['D_ccbn_gain']
    norm.bias.weight.data = arrays['D_ccbn_bias']
    maps, labels = arrays['D_ccbn_x'], arrays['D_ccbn_y']
    torch.testing.assert_close(norm(maps, labels), arrays['D_ccbn_train'], **CLOSE)
    torch.testing.assert_close(norm.norm.running_mean, arrays['D_ccbn_mean'], **CLOSE)
    torch.testing.assert_close(norm.norm.running_var, arrays['D_ccbn_var'], **CLOSE)
    torch.testing.assert_close(norm.eval()(maps, labels), arrays['D_ccbn_eval'], **CLOSE)


def test_the_class_alone_scales_and_shifts():
    names = [name for name, _ in ClassConditionalNorm(6, 5).named_parameters()]
    assert names == ['gain.weight', 'bias.weight']
