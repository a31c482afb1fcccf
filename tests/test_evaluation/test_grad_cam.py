# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.evaluation import grad_cam, map_reach
from mmdfkd.models.classifiers import Classifier, Features, ForeignClassifier
from mmdfkd.utils import UsageError


class Linear(nn.Module):
    """Its map is the image, of two channels and 1x2 pixels; class 1 scores the negative of 0."""

    name = 'Linear'

    def __init__(self):
        super().__init__()
        weights = torch.tensor([[2.0, 4.0], [-1.0, 0.0]])
        self.weight = nn.Parameter(torch.stack([weights, -weights])[:, :, None])

    def extract(self, images):
        found = images * 1.0
        logits = torch.einsum('bchw,kchw->bk', found, self.weight)
        return Features((found,), found, found.mean((2, 3)), logits)


def build(backbone, in_channels, shape, hidden=(), **others):
    """A network in eval mode with random weights and statistics."""
    head = dict(in_channels=in_channels, num_classes=5, hidden_channels=hidden)
    network = Classifier(backbone, head, input_shape=shape, mean=[0.0], std=[1.0], **others)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def resnet():
    widths = dict(widths=(4, 6, 8), in_channels=1)
    return build(dict(type='CifarResNet', depth=8, **widths), 8, (1, 16, 16))


def lenet():
    return build(dict(type='LeNet5'), 120, (1, 32, 32), hidden=[84])


def tensors(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_by_hand():
    """Eq. (1): channel weights are the mean of 2 and 4, and of -1 and 0: 3 and -1/2.

    Eq. (2): of the first image 3 * 1 - 2/2 = 2 and 3 * 0 - 4/2 < 0, which is cut off at 0. Those
    of class 1 have the other sign.
    """
    images = torch.tensor([[[[1.0, 0.0]], [[2.0, 4.0]]]]).repeat(2, 1, 1, 1)
    maps = grad_cam(Linear(), images, torch.tensor([0, 1]))
    assert maps.tolist() == [[[2.0, 0.0]], [[0.0, 2.0]]]


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='CifarResNet', depth=8, widths=(4, 6, 8), in_channels=1), 8),
        (dict(type='WideResNet', depth=10, widen_factor=1, in_channels=1), 64),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_with_pooling_and_a_linear_layer_it_is_cam(backbone, channels, frozen):
    """Zhou et al., Eq. (2): M_c(i, j) = sum_k w_k^c A^k(i, j); here its ReLU, divided by Z."""
    network = build(backbone, channels, (1, 16, 16)).requires_grad_(not frozen)
    images, classes = torch.randn(6, 1, 16, 16), torch.arange(6) % 5
    maps = grad_cam(network, images, classes)
    with torch.no_grad():
        last = network.extract(images).map
        cam = torch.einsum('bk,bkij->bij', network.head.fc.weight[classes], last)
    assert maps.shape == last[:, 0].shape and (maps > 0).any()
    torch.testing.assert_close(maps, cam.relu() / last[0, 0].numel())


@pytest.mark.parametrize('make', [resnet, lenet])
@pytest.mark.parametrize('training', [False, True])
def test_networks_stay_as_they_are(make, training):
    network = make().train(training)
    network.backbone.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in network.parameters()]
    before, indices = tensors(network), network.backbone.out_indices
    images = torch.randn(3, *network.input_shape)
    maps = grad_cam(network, images, torch.tensor([0, 1, 2]))
    assert not maps.requires_grad and not images.requires_grad
    assert flags == [parameter.requires_grad for parameter in network.parameters()]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in tensors(network).items())
    assert all(module.training is training for module in network.modules())
    assert network.backbone.out_indices == indices
    assert torch.equal(maps, grad_cam(network.eval(), images, torch.tensor([0, 1, 2])))


@pytest.mark.parametrize('make', [resnet, lenet])
def test_no_image_matters_to_another(make):
    network = make()
    images, classes = torch.randn(4, *network.input_shape), torch.tensor([3, 0, 0, 4])
    with torch.no_grad():  # as inside of an evaluation
        maps = grad_cam(network, images, classes)
    alone = [grad_cam(network, images[i : i + 1], classes[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(maps, torch.cat(alone))


def test_scores_count_before_the_softmax_and_in_their_unit():
    network, images, classes = resnet(), torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 3])
    maps = grad_cam(network, images, classes)
    with torch.no_grad():
        network.head.fc.bias += torch.randn(5)
    torch.testing.assert_close(grad_cam(network, images, classes), maps)
    with torch.no_grad():
        network.head.fc.weight *= 3
    torch.testing.assert_close(grad_cam(network, images, classes), 3 * maps)


def test_lenet_has_its_second_map():
    """Its last one is a pixel, which says nothing of places."""
    network, images, classes = lenet(), torch.randn(2, 1, 32, 32), torch.tensor([1, 4])
    second = network.backbone.layers[:6](images).detach().requires_grad_()
    logits = network.head(network.backbone.layers[6:](second).flatten(1))
    (gradient,) = torch.autograd.grad(logits[0, 1] + logits[1, 4], second)
    expected = torch.einsum('bk,bkij->bij', gradient.mean((2, 3)), second).relu()
    maps = grad_cam(network, images, classes)
    assert maps.shape == (2, 5, 5) and (maps > 0).any()
    torch.testing.assert_close(maps, expected.detach())


def test_behind_an_adapter_its_map_counts():
    neck = dict(type='SimKDAdapter', in_channels=8, out_channels=6, form='linear')
    widths = dict(widths=(4, 6, 8), in_channels=1)
    backbone = dict(type='CifarResNet', depth=8, **widths)
    network = build(backbone, 6, (1, 16, 16), neck=neck)
    images, classes = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    with torch.no_grad():
        cam = torch.einsum(
            'bk,bkij->bij', network.head.fc.weight[classes], network.extract(images).map
        )
    torch.testing.assert_close(grad_cam(network, images, classes), cam.relu() / 16)


def foreign(*layers, **options):
    options = dict(input_shape=(1, 8, 8), mean=[0.0], std=[1.0], name='N') | options
    return ForeignClassifier(nn.Sequential(*layers), **options)


def test_networks_of_other_libraries():
    pooled = (nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = foreign(*pooled, nn.Linear(4, 5))
    images, classes = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    last = network.extract(images).map.detach()
    cam = torch.einsum('bk,bkij->bij', network.head.fc.weight[classes], last)
    maps = grad_cam(network, images, classes)
    torch.testing.assert_close(maps, cam.relu().detach() / 9)
    assert map_reach(network) == 1


def test_a_network_without_maps():
    images, classes = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    layers = (nn.Conv2d(1, 4, 3, 2), nn.Flatten(), nn.ReLU(), nn.Linear(36, 5))
    with pytest.raises(UsageError, match=r'^N yields no map of more than one pixel.*maps='):
        grad_cam(foreign(*layers), images, classes)
    assert grad_cam(foreign(*layers, maps=['0']), images, classes).shape == (3, 3, 3)


def test_how_far_the_places_reach():
    """LeNet5: 5 places, 4 pixels apart, of 32 pixels."""
    network = lenet()
    assert map_reach(network) == 5 * 4 / 32 and network.backbone.out_indices == (2,)
    assert map_reach(resnet()) == 1


def test_the_reach_is_where_the_pixels_matter():
    """The middle of what the corner place of LeNet5's map sees is where the reach has it."""
    network = lenet()
    image = torch.randn(1, 1, 32, 32).requires_grad_()
    convolutions = [layer for layer in network.backbone.layers[:6] if isinstance(layer, nn.Conv2d)]
    seen = image
    for convolution in convolutions:  # mean pooling and no ReLU: no pixel is left out by chance
        seen = nn.functional.avg_pool2d(convolution(seen), 2)
    (gradient,) = torch.autograd.grad(seen[0, :, 0, 0].sum(), image)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    middle = (rows[0] + rows[-1] + 1).item() / 2 / 32
    assert middle == pytest.approx(0.5 - map_reach(network) / 2 + map_reach(network) / 5 / 2)
