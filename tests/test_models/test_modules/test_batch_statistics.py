# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmdfkd.models.losses import bn_statistics_loss
from mmdfkd.models.modules import batch_norm_layers, record_batch_statistics, statistics_kept
from mmdfkd.models.modules.batch_statistics import _Moments
from mmdfkd.utils import UsageError

# Channel 0 holds 0, 2 | 4, 6, channel 1 holds 1, 1 | -1, 3: means 3 and 1, biased variances 5, 2.
IMAGES = torch.tensor([[[[0.0, 2]], [[1.0, 1]]], [[[4.0, 6]], [[-1.0, 3]]]])


@pytest.fixture
def norm():
    layer = nn.BatchNorm2d(2).eval()
    layer.running_mean.copy_(torch.tensor([1.0, -1]))
    layer.running_var.copy_(torch.tensor([4.0, 1]))
    return layer


def network():
    """Three layers with statistics, one without."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Flatten(),
        nn.BatchNorm1d(4 * 36),
    )


def test_worked_statistics_of_the_input(norm):
    with record_batch_statistics(norm) as statistics:
        norm(IMAGES)
    (layer,) = statistics
    assert layer.mean.tolist() == [3, 1] and layer.var.tolist() == [5, 2]
    assert layer.running_mean.tolist() == [1, -1] and layer.running_var.tolist() == [4, 1]
    # squared norms would give 10, unbiased variances 5.973088, the layer's output 5.926161
    assert bn_statistics_loss(statistics).item() == pytest.approx(4.242641, abs=1e-6)


def test_gradient_reaches_the_images_and_vanishes_at_agreement(norm):
    images = IMAGES.clone().requires_grad_()
    with record_batch_statistics(norm) as statistics:
        norm(images)
    bn_statistics_loss(statistics).backward()
    assert images.grad.abs().min() > 0
    images.grad = None
    norm.running_mean.copy_(torch.tensor([3.0, 1]))
    norm.running_var.copy_(torch.tensor([5.0, 2]))
    with record_batch_statistics(norm) as statistics:
        norm(images)
    loss = bn_statistics_loss(statistics)
    loss.backward()
    assert loss.item() == 0 and not images.grad.any()


def test_layers_in_the_order_of_the_pass():
    net = network().eval()
    assert len(batch_norm_layers(net)) == 3  # one has no running statistics
    images = torch.randn(4, 2, 8, 8)
    with record_batch_statistics(net) as statistics:
        net(images)
    assert [len(layer.mean) for layer in statistics] == [3, 4, 144]
    maps = net[0](images)
    torch.testing.assert_close(statistics[0].mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(statistics[0].var, maps.var((0, 2, 3), correction=0))
    vectors = net[:7](images)
    torch.testing.assert_close(statistics[2].mean, vectors.mean(0))
    torch.testing.assert_close(statistics[2].var, vectors.var(0, correction=0))


def test_nothing_stays_behind():
    net = network().eval()
    before = copy.deepcopy(net.state_dict())
    with record_batch_statistics(net) as statistics:
        net(torch.randn(4, 2, 8, 8))
    seen = [layer.mean.clone() for layer in statistics]
    net(torch.randn(4, 2, 8, 8))
    assert all(torch.equal(layer.mean, mean) for layer, mean in zip(statistics, seen, strict=True))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_hooks_go_when_the_pass_fails():
    net = network().eval()
    with pytest.raises(RuntimeError), record_batch_statistics(net):
        net(torch.randn(1, 5, 8, 8))
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_half_precision_is_counted_in_single(norm):
    with record_batch_statistics(norm) as statistics:
        norm(IMAGES.to(torch.bfloat16))  # these values are exact
    assert statistics[0].var.dtype == torch.float32
    assert statistics[0].var.tolist() == [5, 2]


def test_train_mode_is_refused(norm):
    with pytest.raises(UsageError, match='train mode'), record_batch_statistics(norm.train()):
        pass


def test_a_network_that_remembers_nothing():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
    with pytest.raises(UsageError, match='The teacher Sequential has no BatchNorm.*DAFL'):
        batch_norm_layers(net)
    words = r'The student Sequential has no BatchNorm.*\(model\.student\).*data\. Leave it\.$'
    with pytest.raises(UsageError, match=words):
        batch_norm_layers(net, 'student', 'Leave it.')


def test_statistics_kept():
    net = network().train()
    before = copy.deepcopy(net.state_dict())
    images = torch.randn(4, 2, 8, 8)
    with statistics_kept(net):
        inside = net(images)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net(images), inside)  # of the batch, as in train mode
    assert net[1].num_batches_tracked == 1
    with statistics_kept(net, keep=False):
        net(images)
    assert net[1].num_batches_tracked == 2
    assert not net[5].track_running_stats  # as it was


# Several processes ----------------------------------------------------------------------------


@pytest.mark.parametrize('shape', [(5, 3), (5, 3, 4), (5, 3, 4, 2), (1, 3, 2, 2, 2)])
@pytest.mark.parametrize('last', [False, True])
def test_moments_are_those_of_torch(shape, last):
    """Values and gradient, of vectors and maps, in either layout of the memory."""
    maps = 3 * torch.randn(shape, dtype=torch.float64) + 2
    if last and len(shape) == 4:
        maps = maps.contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    found = _Moments.apply(maps)
    others = [d for d in range(maps.ndim) if d != 1]
    var, mean = torch.var_mean(maps, others, correction=0)
    torch.testing.assert_close(found, (mean, var))
    assert torch.autograd.gradcheck(_Moments.apply, (maps,))


def test_moments_far_from_zero_stay_exact():
    """A mean a thousand times the deviation, in single precision."""
    maps = torch.randn(64, 2, 8, 8) + 1000
    expected = maps.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(_Moments.apply(maps)[1].double(), expected, rtol=1e-3, atol=0)


def _whole(images, weight, form):
    weight = weight.clone().requires_grad_()
    norm = nn.BatchNorm2d(2).eval()
    with record_batch_statistics(norm) as statistics:
        norm(images * weight.view(-1, 1, 1))
    loss = bn_statistics_loss(statistics, form)
    loss.backward()
    return loss.detach(), weight.grad, statistics[0].mean.detach(), statistics[0].var.detach()


def _half(rank, folder, images, weight):
    dist.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=2)
    results = {form: _whole(images.chunk(2)[rank], weight, form) for form in ('l2', 'gauss_kl')}
    torch.save(results, f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.dist
def test_two_processes_have_the_statistics_of_their_common_batch(in_two_processes, tmp_path):
    images = torch.randn(8, 2, 3, 3) + torch.arange(8.0).view(8, 1, 1, 1)  # the halves differ
    weight = torch.tensor([0.5, 2.0])
    in_two_processes(_half, str(tmp_path), images, weight)
    ranks = [torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(2)]
    for form in ('l2', 'gauss_kl'):
        loss, gradient, mean, var = _whole(images, weight, form)
        for rank in ranks:
            torch.testing.assert_close(rank[form][0], loss)
            torch.testing.assert_close(rank[form][2], mean)
            torch.testing.assert_close(rank[form][3], var)
        torch.testing.assert_close((ranks[0][form][1] + ranks[1][form][1]) / 2, gradient)
