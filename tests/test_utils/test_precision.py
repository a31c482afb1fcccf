# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.utils.precision import at_least_float32


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float16, torch.bfloat16])
def test_less_than_float32_becomes_float32(dtype):
    values = at_least_float32(torch.tensor([0, 1, 200], dtype=dtype))
    assert values.dtype is torch.float32 and values.tolist() == [0, 1, 200]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_rest_is_the_same_tensor(dtype):
    values = torch.ones(2, dtype=dtype)
    assert at_least_float32(values) is values
