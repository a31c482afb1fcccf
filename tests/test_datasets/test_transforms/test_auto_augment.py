# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Batched AutoAugment equals torchvision's v2.AutoAugment, image by image, for equal draws."""

from itertools import product

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mmdfkd.datasets.transforms import AutoAugmentParams, BatchAutoAugment
from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError

POLICIES = ['cifar10', 'imagenet', 'svhn']
SIGNED = {'ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate'}
SIGNED |= {'Brightness', 'Color', 'Contrast', 'Sharpness'}


def make_images(batch, channels=3, low=40, high=200):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(low, high, (batch, channels, 32, 24), generator=generator)
    return images.to(torch.uint8)


def every_draw():
    """Each of the 25 sub-policies with each pattern of operations that happen, and of signs."""
    rows = list(product(range(25), *[(False, True)] * 4))
    policy, first, second, first_negative, second_negative = zip(*rows, strict=True)
    return AutoAugmentParams(
        policy=torch.tensor(policy),
        applied=torch.tensor([first, second]).T,
        negative=torch.tensor([first_negative, second_negative]).T,
    )


def forced(monkeypatch, reference, sub_policy, policy, applied, negative):
    """Make torchvision draw what is given: a sub-policy, then per operation a chance and a sign."""
    chances = []
    for (name, _, _), happens, minus in zip(sub_policy, applied, negative, strict=True):
        chances.append(0.0 if happens else 2.0)  # it happens where the chance is <= probability
        if happens and name in SIGNED:
            chances.append(0.0 if minus else 1.0)  # and is negative where it is <= 0.5
    chances = iter(chances)
    with monkeypatch.context() as patch:
        patch.setattr(torch, 'randint', lambda *_: torch.tensor(policy))
        patch.setattr(torch, 'rand', lambda *_: torch.tensor(next(chances)))
        output = reference()
    assert next(chances, None) is None  # every draw was asked for
    return output


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', POLICIES)
def test_equals_torchvision_for_every_sub_policy(name, channels, monkeypatch):
    params = every_draw()
    images = make_images(len(params.policy), channels)
    augment = BatchAutoAugment(name)
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy(name))
    output = augment.apply(images, params)
    for i, draw in enumerate(zip(*(p.tolist() for p in params), strict=True)):
        sub_policy = augment.sub_policies[draw[0]]
        expected = forced(monkeypatch, lambda i=i: theirs(images[i]), sub_policy, *draw)
        assert torch.equal(output[i], expected), (sub_policy, draw)


def test_draws_follow_the_policy():
    torch.manual_seed(0)
    augment, count = BatchAutoAugment('svhn'), 50_000
    policy, applied, negative = augment.draw(count)
    # 2,000 expected of each sub-policy, standard deviation sqrt(50000 * 1/25 * 24/25) = 44.
    assert (torch.bincount(policy, minlength=25) - 2000).abs().max() < 5 * 44
    # At most 1/2 / sqrt(about 2000) = 0.0112 of standard deviation for a fraction.
    for number, pair in enumerate(augment.sub_policies):
        happened = applied[policy == number].float().mean(dim=0)
        probability = torch.tensor([pair[0][1], pair[1][1]])
        assert (happened - probability).abs().max() < 5 * 0.0112
    assert (negative.float().mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / count**0.5
    # Both operations are drawn on their own.
    assert ((negative[:, 0] == negative[:, 1]).float().mean() - 0.5).abs() < 5 * 0.5 / count**0.5


def test_operations_of_probability_zero_never_happen():
    augment = BatchAutoAugment('cifar10')
    policy, applied, _ = augment.draw(20_000)
    never = (policy == 14) & applied[:, 1]
    assert augment.sub_policies[14][1][:2] == ('Invert', 0.0)
    assert not never.any()


def test_colour_is_the_identity_on_grey_images_as_in_pil():
    grey = make_images(1, channels=1)
    pil = Image.fromarray(grey[0, 0].numpy())
    assert torch.equal(F.pil_to_tensor(F.adjust_saturation(pil, 1.9)), grey[0])
    augment = BatchAutoAugment('imagenet')
    number = next(i for i, pair in enumerate(augment.sub_policies) if pair[0][:2] == ('Color', 0.8))
    params = AutoAugmentParams(
        policy=torch.tensor([number]),
        applied=torch.tensor([[True, False]]),
        negative=torch.tensor([[False, False]]),
    )
    assert torch.equal(augment.apply(grey, params), grey)
    assert not torch.equal(augment.apply(make_images(1), params), make_images(1))


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_keeps_dtype_layout_and_input(memory_format):
    images = make_images(64).contiguous(memory_format=memory_format)
    before = images.clone()
    output = BatchAutoAugment('cifar10')(images)
    assert output.dtype == torch.uint8 and output.shape == images.shape
    assert output.is_contiguous(memory_format=memory_format)
    assert torch.equal(images, before) and not torch.equal(output, images)


def test_same_seed_same_output_and_samples_differ():
    images, augment = make_images(1).expand(64, -1, -1, -1), BatchAutoAugment('cifar10')
    torch.manual_seed(1)
    first, second = augment(images), augment(images)
    torch.manual_seed(1)
    assert torch.equal(augment(images), first)
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) > 20


def test_autocast_does_not_coarsen_pixels():
    params = every_draw()
    images, augment = make_images(len(params.policy)), BatchAutoAugment('cifar10')
    expected = augment.apply(images, params)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(augment.apply(images, params), expected)


def test_permuted_batch_with_permuted_parameters():
    torch.manual_seed(0)
    images, augment, order = make_images(200), BatchAutoAugment('imagenet'), torch.randperm(200)
    params = augment.draw(200)
    permuted = augment.apply(images[order], AutoAugmentParams(*(p[order] for p in params)))
    assert torch.equal(permuted, augment.apply(images, params)[order])


def test_errors_name_the_remedy():
    with pytest.raises(UsageError, match="'mnist'.*'cifar10', 'imagenet', 'svhn'"):
        TRANSFORMS.build(dict(type='BatchAutoAugment', policy='mnist'))
    with pytest.raises(UsageError, match='float32.*put it first'):
        BatchAutoAugment()(make_images(2).float())
    with pytest.raises(UsageError, match='4-channel'):
        BatchAutoAugment()(make_images(2, channels=4))
