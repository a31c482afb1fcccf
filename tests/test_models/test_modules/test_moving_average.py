# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.modules import MovingAverage
from mmdfkd.utils import UsageError


class Source(nn.Module):
    def __init__(self, parameter):
        super().__init__()
        self.parameter = nn.Parameter(parameter.clone())
        self.register_buffer('buffer', 10 * parameter)
        self.register_buffer('steps', torch.tensor(0))


def test_published_code(golden):
    """Six updates with decay 0.9 from the third on; buffers are averaged as parameters are."""
    arrays = golden('hidfd')
    source = Source(arrays['H_ema_param_init'])
    average = MovingAverage(source, decay=0.9, start=3)
    for iteration in range(1, 7):
        with torch.no_grad():
            source.parameter += 1
            source.buffer -= 1
            source.steps += 1
        average.update(source, iteration)
        found = torch.cat([average.network.parameter, average.network.buffer])
        torch.testing.assert_close(found, arrays['H_ema_trace'][iteration - 1])
        assert average.network.steps == iteration
    assert not average.network.parameter.requires_grad


def test_stays_in_eval_mode():
    average = MovingAverage(nn.Sequential(nn.BatchNorm1d(2)))
    average.train()
    assert not average.network[0].training


@pytest.mark.parametrize('options', [dict(decay=1.0), dict(start=-1)])
def test_mistakes(options):
    with pytest.raises(UsageError, match=f'model.average.{next(iter(options))} is'):
        MovingAverage(nn.Linear(1, 1), **options)
