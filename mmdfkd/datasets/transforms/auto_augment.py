# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""AutoAugment of a whole batch: one call per drawn operation instead of one per image."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError

LEVELS = 10  # magnitudes of an operation


class AutoAugmentParams(NamedTuple):
    """What each sample drew, on the CPU; the second axis is first and second operation.

    Attributes:
        policy: Number of the sub-policy: int64 ``(B,)``.
        applied: Whether each of its two operations happens: bool ``(B, 2)``.
        negative: Whether each magnitude changes its sign, where it has one: bool ``(B, 2)``.
    """

    policy: Tensor
    applied: Tensor
    negative: Tensor


@TRANSFORMS.register_module()
class BatchAutoAugment:
    """AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501) per sample, by groups.

    Each sample draws one of the policy's 25 sub-policies of two operations. The images that drew
    the same operation, level and sign are augmented together by torchvision's operators, so results
    equal torchvision's ``AutoAugment`` (nearest neighbour, empty space black) image by image. On
    grey images ``Color`` is the identity, in torchvision as in PIL.

    The parameters are drawn and grouped on the CPU, from its global generator, whatever the device
    of the images. On a GPU torchvision's rotations, shears and sharpness wait for small copies.

    Args:
        policy: ``'cifar10'``, ``'imagenet'`` or ``'svhn'``: the set it was learned on.

    Raises:
        UsageError: For an unknown policy, and in the call for images other than uint8 with 1 or 3
            channels.
    """

    def __init__(self, policy: str = 'cifar10') -> None:
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy

        known = [p.value for p in AutoAugmentPolicy]
        if policy not in known:
            raise UsageError(
                f'BatchAutoAugment: policy={policy!r} is unknown; '
                f'choose one of {", ".join(map(repr, sorted(known)))}.'
            )
        self.policy = policy
        # [((operation, probability, level or None), (operation, probability, level or None))]
        self.sub_policies = AutoAugment(AutoAugmentPolicy(policy)).policies
        # The distinct (operation, level), and their numbers in the sub-policies: (25, 2).
        pairs = [[(name, level) for name, _, level in pair] for pair in self.sub_policies]
        self._operations = list(dict.fromkeys(operation for pair in pairs for operation in pair))
        self._numbers = torch.tensor(
            [[self._operations.index(op) for op in pair] for pair in pairs]
        )
        self._signed = torch.tensor([name in _SIGNED for name, _ in self._operations])

    def __call__(self, images: Tensor) -> Tensor:
        """Augment uint8 ``images (B, C, H, W)`` with freshly drawn parameters."""
        return self.apply(images, self.draw(len(images)))

    def draw(self, batch: int) -> AutoAugmentParams:
        """A sub-policy, and for each of its operations whether it happens and its sign."""
        probabilities = torch.tensor([[op[1] for op in pair] for pair in self.sub_policies])
        policy = torch.randint(len(self.sub_policies), (batch,))
        return AutoAugmentParams(
            policy=policy,
            applied=torch.rand(batch, 2) < probabilities[policy],
            negative=torch.rand(batch, 2) < 0.5,
        )

    def apply(self, images: Tensor, params: AutoAugmentParams) -> Tensor:
        """Augment ``images (B, C, H, W)``: same shape, uint8 and memory format; pure."""
        if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
            raise UsageError(
                f'BatchAutoAugment: got {images.shape[1]}-channel {images.dtype} images, needs '
                'uint8 images of 1 or 3 channels; put it first in data_preprocessor.augment, or '
                'leave it out for such images.'
            )
        images = images.clone()
        for slot in (0, 1):
            for (name, magnitude), members in self._groups(params, slot, *images.shape[-2:]):
                members = members.to(images.device, non_blocking=True)
                with torch.autocast(images.device.type, enabled=False):  # Sharpness convolves
                    images[members] = _operators()[name](images[members], magnitude)
        return images

    def _groups(
        self, params: AutoAugmentParams, slot: int, height: int, width: int
    ) -> Iterator[tuple[tuple[str, float], Tensor]]:
        """The samples that share their ``slot``-th operation: (name, magnitude), their numbers."""
        samples = params.applied[:, slot].nonzero().squeeze(1)
        operation = self._numbers[params.policy[samples], slot]
        negative = params.negative[samples, slot] & self._signed[operation]
        keys = 2 * operation + negative
        found, counts = keys.unique(return_counts=True)
        for key, order in zip(found.tolist(), keys.argsort().split(counts.tolist()), strict=True):
            name, level = self._operations[key // 2]
            magnitude = _magnitude(name, level, height, width)
            yield (name, -magnitude if key % 2 else magnitude), samples[order]


def _magnitude(name: str, level: int | None, height: int, width: int) -> float:
    """Strength of an operation at ``level`` (0-9) on images of ``height`` x ``width`` pixels.

    As in torchvision: AutoAugment's ranges, where the paper's translations of up to 150 pixels were
    meant for images of 331. Float32, as there, since truncation and nearest neighbours would show
    the last bit.
    """
    if level is None:
        return 0.0
    if name == 'Posterize':
        return 8 - round(level / ((LEVELS - 1) / 4))  # bits kept
    low, high = {
        'ShearX': (0.0, 0.3),
        'ShearY': (0.0, 0.3),
        'TranslateX': (0.0, 150.0 / 331.0 * width),
        'TranslateY': (0.0, 150.0 / 331.0 * height),
        'Rotate': (0.0, 30.0),
        'Solarize': (255.0, 0.0),
    }.get(name, (0.0, 0.9))
    return float(torch.linspace(low, high, LEVELS)[level])


_SIGNED = frozenset(
    'ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness'.split()
)


@functools.cache
def _operators() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """What each operation does to uint8 images ``(B, C, H, W)``, given its magnitude."""
    from torchvision.transforms.v2 import functional as F  # a second, for this augmentation alone

    def affine(
        images: Tensor,
        translate: tuple[int, int] = (0, 0),
        shear: tuple[float, float] = (0.0, 0.0),
        center: list[float] | None = None,
    ) -> Tensor:
        slant = [math.degrees(math.atan(s)) for s in shear]
        return F.affine(images, 0.0, list(translate), 1.0, slant, center=center)

    return {
        # Shears keep the upper left corner in place, not the centre.
        'ShearX': lambda images, m: affine(images, shear=(m, 0.0), center=[0.0, 0.0]),
        'ShearY': lambda images, m: affine(images, shear=(0.0, m), center=[0.0, 0.0]),
        'TranslateX': lambda images, m: affine(images, translate=(int(m), 0)),
        'TranslateY': lambda images, m: affine(images, translate=(0, int(m))),
        'Rotate': lambda images, m: F.rotate(images, m),
        'Brightness': lambda images, m: F.adjust_brightness(images, 1.0 + m),
        'Color': lambda images, m: F.adjust_saturation(images, 1.0 + m),
        'Contrast': lambda images, m: F.adjust_contrast(images, 1.0 + m),
        'Sharpness': lambda images, m: F.adjust_sharpness(images, 1.0 + m),
        'Posterize': lambda images, m: F.posterize(images, int(m)),
        'Solarize': lambda images, m: F.solarize(images, m),
        'AutoContrast': lambda images, _: F.autocontrast(images),
        'Equalize': lambda images, _: F.equalize(images),
        'Invert': lambda images, _: F.invert(images),
    }
