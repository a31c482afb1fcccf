# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A small BigGAN generator: residual blocks, class-conditional norms, spectral norms."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.models.modules import ClassConditionalNorm, normalise_spectrum
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

#: Channels of the first map and after each block, in multiples of ``width``, by image size.
MULTIPLES = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2)}


@MODELS.register_module()
class BigGANGenerator(nn.Module):
    """Conditional generator of ADC-GAN's and HiDFD's experiments on small images.

    A linear layer makes a 4 x 4 map; each block doubles its size; then batch norm, ReLU, a 3x3
    convolution and tanh. The class enters through the norms alone. All convolutions and the linear
    layer have the spectral norm one. 4,304,387 parameters for 32 pixels and 10 classes.

    Source: Brock et al., BigGAN, arXiv 1809.11096; Hou et al., ADC-GAN, arXiv 2107.10060.

    Args:
        num_classes: Number of classes K; filled in from the teacher.
        input_shape: Shape ``(C, H, W)`` of the images; filled in from the teacher.
        latent_size: Length L of a latent.
        width: What ``multiples`` are of.
        multiples: Channels of the first map and after each block, in multiples of ``width``; known
            for images of 32 and 64 pixels. One block per doubling of the size 4.

    Raises:
        UsageError: There are no such sizes.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        latent_size: int = 128,
        width: int = 64,
        multiples: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        channels, *size = input_shape
        if size[0] != size[1] or size[0] not in (4 * 2**n for n in range(20)):
            raise UsageError(
                'model.generator makes squares whose side is 4, doubled: 8, 16, 32, 64 and so on '
                f'pixels; the teacher takes {size[0]} x {size[1]}. Give another '
                'model.generator.type, or such images: input_shape=(3, 64, 64), say, and, for a '
                'ForeignClassifier, as size the side its network sees.'
            )
        multiples = image_multiples(MULTIPLES, multiples, size, 'model.generator')
        if 4 * 2 ** (len(multiples) - 1) != size[0]:
            raise UsageError(
                f'model.generator.multiples has {len(multiples)} numbers, which makes images of '
                f'{4 * 2 ** (len(multiples) - 1)} pixels; the teacher takes {size[0]}. Give one '
                'for the 4 x 4 map and one for each doubling.'
            )
        widths = [width * multiple for multiple in multiples]
        self.num_classes = num_classes
        self.latent_size = latent_size
        self.linear = normalise_spectrum(nn.Linear(latent_size, widths[0] * 16), fresh=True)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, num_classes)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = normalise_spectrum(nn.Conv2d(widths[-1], channels, 3, padding=1), fresh=True)
        biggan_init(self)

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Make images ``(B, C, H, W)`` in [-1, 1] of latents ``(B, L)`` and classes ``(B,)``."""
        maps = self.linear(latent).view(len(latent), -1, 4, 4)
        for block in self.blocks:
            maps = block(maps, labels)
        return self.conv(F.relu(self.norm(maps))).tanh()


class UpBlock(nn.Module):
    """Residual block that doubles the size of a map.

    Args:
        before: Channels of its input.
        after: Channels of its output.
        num_classes: Number of classes K.
    """

    def __init__(self, before: int, after: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ClassConditionalNorm(before, num_classes)
        self.conv1 = normalise_spectrum(nn.Conv2d(before, after, 3, padding=1), fresh=True)
        self.norm2 = ClassConditionalNorm(after, num_classes)
        self.conv2 = normalise_spectrum(nn.Conv2d(after, after, 3, padding=1), fresh=True)
        self.shortcut = normalise_spectrum(nn.Conv2d(before, after, 1), fresh=True)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Map ``(B, before, H, W)`` of classes ``(B,)`` to ``(B, after, 2H, 2W)``."""
        hidden = F.interpolate(F.relu(self.norm1(maps, labels)), scale_factor=2.0)
        hidden = self.conv1(hidden)
        hidden = self.conv2(F.relu(self.norm2(hidden, labels)))
        # A 1x1 convolution of an enlarged map is the enlarged one of the small map: a quarter.
        return hidden + F.interpolate(self.shortcut(maps), scale_factor=2.0)


def image_multiples(
    known: dict[int, tuple[int, ...]],
    multiples: Sequence[int] | None,
    size: Sequence[int],
    key: str,
) -> Sequence[int]:
    """The multiples of a network for square images of a size.

    Raises:
        UsageError: Images are not square, or their size is none of those known and nothing is
            given.
    """
    if size[0] != size[1] or (multiples is None and size[0] not in known):
        raise UsageError(
            f'{key} is known for images of {" and ".join(map(str, known))} pixels; the teacher '
            f'takes {size[0]} x {size[1]}. Give {key}.multiples for a square size, or another '
            f'{key}.type.'
        )
    return multiples if multiples is not None else known[size[0]]


def biggan_init(network: nn.Module) -> None:
    """Draw weights of convolutions, linear layers and embeddings from N(0, 0.02), in place."""
    for name, parameter in network.named_parameters():
        if name.endswith(('weight.original', 'gain.weight', 'bias.weight')):
            nn.init.normal_(parameter, 0, 0.02)
