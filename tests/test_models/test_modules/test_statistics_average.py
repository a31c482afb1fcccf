# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import bn_statistics_loss
from mmdfkd.models.modules import BatchStatistics, StatisticsAverage, record_batch_statistics
from mmdfkd.utils import UsageError


def test_four_rounds_of_published_code(golden, toy_network):
    """The loss ahead of each update, and the averages after it."""
    arrays = golden('fast_dfkd')
    teacher = toy_network(4, arrays, 'bn/teacher').eval()
    average = StatisticsAverage(12, 0.9).double()
    close = dict(atol=1e-9, rtol=0)
    for number in range(4):
        with record_batch_statistics(teacher) as statistics:
            teacher(arrays[f'bn/x{number}'])
        mixed = average(statistics)
        losses = torch.stack([bn_statistics_loss([layer]) for layer in mixed])
        torch.testing.assert_close(losses.detach(), arrays['bn/r_feature_rounds'][number], **close)
        average.update(statistics)
        for name in ('mean', 'var'):
            parts = [arrays[f'bn/mmt_{name}_after{number}_{layer}'] for layer in range(2)]
            torch.testing.assert_close(getattr(average, name), torch.cat(parts), **close)


def layer(mean, var):
    ones = torch.ones(1)
    return BatchStatistics(ones * mean, ones * var, ones, ones)


def test_hand_worked_value():
    average = StatisticsAverage(1, 0.75)
    (same,) = average([layer(4.0, 2.0)])
    assert same.mean == 4 and same.var == 2  # nothing to mix in yet
    average.update([layer(4.0, 2.0)])
    assert average.mean == 4 and average.var == 2
    (mixed,) = average([layer(8.0, 6.0)])
    assert mixed.mean == 5 and mixed.var == 3  # a quarter of the new
    average.update([layer(8.0, 6.0)])
    assert average.mean == 5 and average.var == 3 and average.updates == 2


def test_gradient_is_smaller_and_averages_keep_no_graph():
    average = StatisticsAverage(1, 0.9)
    mean = torch.ones(1, requires_grad=True)
    average.update([layer(1.0, 1.0)._replace(mean=mean)])
    assert not average.mean.requires_grad
    average([layer(1.0, 1.0)._replace(mean=mean)])[0].mean.sum().backward()
    assert mean.grad.item() == pytest.approx(0.1)


def test_without_momentum_nothing_is_mixed_in():
    average = StatisticsAverage(1, 0.0)
    average.update([layer(4.0, 2.0)])
    assert average([layer(8.0, 6.0)])[0].mean == 8


def test_a_checkpoint_holds_it():
    average, other = StatisticsAverage(1), StatisticsAverage(1)
    average.update([layer(4.0, 2.0)])
    other.load_state_dict(average.state_dict())
    assert other.updates == 1 and other([layer(4.0, 2.0)])[0].mean == 4


@pytest.mark.parametrize('momentum', [-0.1, 1.0])
def test_usage_errors(momentum):
    with pytest.raises(UsageError, match=r'model\.bn_momentum'):
        StatisticsAverage(1, momentum)
