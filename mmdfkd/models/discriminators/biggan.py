# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A small BigGAN discriminator with the heads of HiDFD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.models.generators.biggan import biggan_init, image_multiples
from mmdfkd.models.modules import normalise_spectrum
from mmdfkd.registry import MODELS

#: Channels after each block in multiples of ``width``, by image size; and how many halve the map.
MULTIPLES = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16)}
HALVINGS = {32: 2, 64: 4}


class Judgement(NamedTuple):
    """What a discriminator says of images.

    Attributes:
        score: Real (above) or fake (below zero), ``(B,)``.
        classes: Logits of the auxiliary discriminative classifier, ``(B, 2K)``: slot 2k is "real,
            class k", slot 2k + 1 "fake, class k".
        aligned: What is compared with the teacher's pooled feature, ``(B, D)``.
    """

    score: Tensor
    classes: Tensor
    aligned: Tensor


class Heads(nn.Module):
    """The linear heads on a discriminator's feature, all of spectral norm one.

    Args:
        channels: Width F of the feature.
        num_classes: Number of classes K.
        feature_size: Width D of the teacher's pooled feature.
        align_hidden: Width between the two layers of the aligning head, which have nothing but
            linear maps between them.
    """

    def __init__(
        self, channels: int, num_classes: int, feature_size: int, align_hidden: int
    ) -> None:
        super().__init__()
        self.score = _linear(channels, 1)
        self.classes = _linear(channels, 2 * num_classes)
        self.align = nn.Sequential(
            _linear(channels, align_hidden), _linear(align_hidden, feature_size)
        )

    def forward(self, feature: Tensor) -> Judgement:
        """Judge features ``(B, F)``."""
        return Judgement(self.score(feature).squeeze(1), self.classes(feature), self.align(feature))


@MODELS.register_module()
class BigGANDiscriminator(nn.Module):
    """Discriminator of ADC-GAN's and HiDFD's experiments on small images.

    Residual blocks, ReLU, a *sum* over all places, and the heads. All layers have the spectral norm
    one.

    Source: Brock et al., BigGAN, arXiv 1809.11096; Hou et al., ADC-GAN, arXiv 2107.10060; the
    aligning head: Tang et al., HiDFD, arXiv 2412.13525.

    Args:
        num_classes: Number of classes K; filled in from the teacher.
        input_shape: Shape ``(C, H, W)`` of the images; filled in from the teacher.
        feature_size: Width of the teacher's pooled feature; filled in from the teacher.
        width: What ``multiples`` are of.
        multiples: Channels after each block, in multiples of ``width``; known for images of 32 and
            64 pixels.
        halvings: How many of the blocks, the first ones, halve the map; known likewise.
        align_hidden: Width inside the aligning head; by default 16 times ``width``.
    """

    #: It judges images in [-1, 1].
    judges = 'images'

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        feature_size: int,
        width: int = 64,
        multiples: Sequence[int] | None = None,
        halvings: int | None = None,
        align_hidden: int | None = None,
    ) -> None:
        super().__init__()
        channels, *size = input_shape
        multiples = image_multiples(MULTIPLES, multiples, size, 'model.discriminator')
        halvings = HALVINGS.get(size[0], 2) if halvings is None else halvings
        widths = [channels, *(width * multiple for multiple in multiples)]
        self.blocks = nn.Sequential(
            *(
                DownBlock(before, after, activate=number > 0, halve=number < halvings)
                for number, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
            )
        )
        self.heads = Heads(widths[-1], num_classes, feature_size, align_hidden or 16 * width)
        biggan_init(self)

    def forward(self, images: Tensor) -> Judgement:
        """Judge images ``(B, C, H, W)`` in [-1, 1]."""
        return self.heads(F.relu(self.blocks(images)).sum((2, 3)))


@MODELS.register_module()
class TeacherDiscriminator(nn.Module):
    """Discriminator on the frozen teacher's pooled feature: one linear layer and the heads.

    Ships with HiDFD's published code, which never uses it. The teacher is no part of it: nothing
    of the teacher is trained or leaves eval mode.

    Args:
        num_classes: Number of classes K; filled in from the teacher.
        input_shape: Not used; filled in from the teacher.
        feature_size: Width D of the teacher's pooled feature; filled in from the teacher.
        width: A quarter of the width of the feature the heads are on.
        align_hidden: Width inside the aligning head; by default 16 times ``width``.
    """

    #: It judges the teacher's pooled features of images.
    judges = 'features'

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        feature_size: int,
        width: int = 64,
        align_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.linear = _linear(feature_size, 4 * width)
        self.heads = Heads(4 * width, num_classes, feature_size, align_hidden or 16 * width)
        biggan_init(self)

    def forward(self, features: Tensor) -> Judgement:
        """Judge images by the teacher's features ``(B, D)``."""
        return self.heads(self.linear(features))


class DownBlock(nn.Module):
    """Residual block that keeps the size of a map or halves it.

    Args:
        before: Channels of its input.
        after: Channels of its output.
        activate: Whether a ReLU comes first: not in the first block, which sees pixels.
        halve: Whether it halves the map by average pooling.
    """

    def __init__(self, before: int, after: int, activate: bool, halve: bool) -> None:
        super().__init__()
        self.activate = activate
        self.conv1 = normalise_spectrum(nn.Conv2d(before, after, 3, padding=1), fresh=True)
        self.conv2 = normalise_spectrum(nn.Conv2d(after, after, 3, padding=1), fresh=True)
        convolve = halve or before != after
        self.shortcut = (
            normalise_spectrum(nn.Conv2d(before, after, 1), fresh=True) if convolve else None
        )
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(B, before, H, W)`` to ``(B, after, H', W')``."""
        hidden = self.conv1(F.relu(maps) if self.activate else maps)
        hidden = self.pool(self.conv2(F.relu(hidden)))
        # Pooling and a 1x1 convolution may change places: pooled first, it costs a quarter.
        short = self.pool(maps)
        return hidden + (short if self.shortcut is None else self.shortcut(short))


def _linear(before: int, after: int) -> nn.Module:
    return normalise_spectrum(nn.Linear(before, after), fresh=True)
