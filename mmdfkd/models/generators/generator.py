# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The generators of the data-free methods, as two networks with options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mmdfkd.models.modules import normalise_spectrum
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice

Head = Literal['tanh_bn', 'bn', 'sigmoid', 'tanh']


class ImageHead(nn.Module):
    """What ends a generator: raw maps to images in the teacher's normalised space.

    Args:
        kind: ``'tanh_bn'``: tanh and a batch norm without weights (DAFL, DFAD): every channel has
            mean 0 and variance 1 over the batch, which is normalised space. ``'bn'``: a batch norm
            with weights and nothing else (ZSKT). ``'sigmoid'`` (DFQ, CMI, FastDFKD) and ``'tanh'``:
            pixels between black and white, normalised here.
        channels: Channels C of the images.
        mean: The teacher's mean per channel, in units of 0 to 255.
        std: Likewise its standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, kind: Head, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        check_choice('model.generator.head', kind, get_args(Head))
        self.kind = kind
        self.norm: nn.Module = nn.Identity()
        if kind in ('tanh_bn', 'bn'):
            self.norm = nn.BatchNorm2d(channels, affine=kind == 'bn')
        for name, values in dict(mean=mean, std=std).items():
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` of any range to normalised images of that shape."""
        if self.kind == 'bn':
            return self.norm(maps)
        if self.kind == 'tanh_bn':
            return self.norm(maps.tanh())
        unit = maps.sigmoid() if self.kind == 'sigmoid' else (maps.tanh() + 1) / 2
        return (255 * unit - self.mean) / self.std


class Generator(nn.Module):
    """Base of the generators: checks sizes and ends in an :class:`ImageHead`.

    Args:
        input_shape: Shape ``(C, H, W)`` of the images; the teacher's by default.
        mean: The teacher's mean per channel, 0 to 255; filled in from the teacher.
        std: Likewise its standard deviation.
        latent_size: Length L of a latent.
        upsamplings: How often the side doubles.
        head: What ends the network, see :class:`ImageHead`.
        enlarge: Factor by which the last maps are enlarged before the head.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        latent_size: int,
        upsamplings: int,
        head: Head,
        enlarge: int = 1,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        factor = 2**upsamplings * enlarge
        if height % factor or width % factor:
            last = f' and enlarges it {enlarge} times' if enlarge > 1 else ''
            fits = [n for n in range(upsamplings) if not math.gcd(height, width) % (2**n * enlarge)]
            remedy = f'at most {max(fits) + 1}' if fits else 'another number of'
            raise UsageError(
                f'The generator doubles its side {upsamplings} times{last}, which cannot give '
                f'{height} x {width} pixels: both must be multiples of {factor}. Give '
                f'model.generator.widths {remedy} entries; it has {upsamplings + 1}.'
            )
        self.latent_size = latent_size
        self.input_shape = tuple(input_shape)
        self.start = (height // factor, width // factor)
        self.head = ImageHead(head, channels, mean, std)

    def grow(self, linear: nn.Linear, latent: Tensor) -> Tensor:
        """First map ``(B, C0, H0, W0)`` of latents ``(B, L)``, channels last: twice as fast."""
        first = linear(latent.flatten(1)).view(len(latent), -1, *self.start)
        return first.contiguous(memory_format=torch.channels_last)


def dcgan_init(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02), those of batch norms from N(1, 0.02); biases become 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            drawn: Any = module.weight
            if is_parametrized(module, 'weight'):  # then it is what spectral norm divides
                drawn = cast(Any, module).parametrizations.weight.original
            nn.init.normal_(drawn, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
        bias = getattr(module, 'bias', None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def uniform_init(layers: Iterable[nn.Linear | nn.Conv2d], init_range: float) -> None:
    """Draw weights from U(-init_range, init_range); biases become 0."""
    for layer in layers:
        nn.init.uniform_(layer.weight, -init_range, init_range)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


@MODELS.register_module()
class UpsamplingGenerator(Generator):
    """Nearest-neighbour up-sampling and 3x3 convolutions: DAFL's generator and its relatives.

    A linear layer makes the first map, ``H / 2^n`` wide, where ``n = len(widths) - 1``. Then n
    times [up-sample x2, convolution, batch norm, leaky ReLU], a convolution to C channels, and the
    head.

    ============  =========  ==========  ======  =====  ===========  ==========================
    method        latent     widths      bias    eps    head         parameters, 3 x 32 x 32
    ============  =========  ==========  ======  =====  ===========  ==========================
    DAFL          1000       128 128 64  yes     0.8    ``tanh_bn``  8,423,939
    DFAD, DDAD    256        128 128 64  yes     1e-5   ``tanh_bn``  2,329,091
    ZSKT          100        128 128 64  yes     1e-5   ``bn``       1,051,145
    DFQ           256        128 128 64  no      1e-5   ``sigmoid``  2,328,899
    PRE-DFKD      1000       128 128 64  yes     0.8    ``tanh_bn``  8,423,939
    ============  =========  ==========  ======  =====  ===========  ==========================

    Args:
        input_shape: Shape ``(C, H, W)`` of the images; filled in from the teacher.
        mean: Filled in from the teacher.
        std: Filled in from the teacher.
        latent_size: Length L of a latent.
        widths: Channels of the first map and after each up-sampling.
        head: What ends the network, see :class:`ImageHead`.
        bias: Whether hidden convolutions have a bias (it has no effect before a batch norm).
        eps: Epsilon of the hidden batch norms but the first, whose is 1e-5. DAFL's 0.8 was likely
            meant as a momentum; it is part of the published behaviour.
        first_norm: Whether the first map is batch normalised.
        slope: Negative slope of the activations; 0 makes them ReLU.
        spectral_norm: Whether the convolutions have weights of spectral norm 1 (PRE-DFKD's
            generator of new images).
        init_range: r of an initialisation by U(-r, r), biases 0 (PRE-DFKD: 0.08); by default that
            of PyTorch.
        enlarge: The last maps are enlarged by this factor, bilinearly, before the head: smooth
            images for small experiments, where a generator soon finds its way into fine noise.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        latent_size: int = 256,
        widths: Sequence[int] = (128, 128, 64),
        head: Head = 'tanh_bn',
        bias: bool = True,
        eps: float = 1e-5,
        first_norm: bool = True,
        slope: float = 0.2,
        spectral_norm: bool = False,
        init_range: float | None = None,
        enlarge: int = 1,
    ) -> None:
        super().__init__(input_shape, mean, std, latent_size, len(widths) - 1, head, enlarge)
        self.linear = nn.Linear(latent_size, widths[0] * self.start[0] * self.start[1])
        self.norm = nn.BatchNorm2d(widths[0]) if first_norm else nn.Identity()
        blocks = [
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=bias),
                nn.BatchNorm2d(after, eps=eps),
                nn.LeakyReLU(slope, inplace=True),
            )
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.conv = nn.Conv2d(widths[-1], input_shape[0], 3, padding=1)
        self.enlarge = nn.Identity() if enlarge == 1 else nn.Upsample(None, enlarge, 'bilinear')
        layers = [m for m in self.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        if init_range is not None:
            uniform_init(layers, init_range)
        if spectral_norm:
            for layer in layers[1:]:
                normalise_spectrum(layer)

    def forward(self, latent: Tensor) -> Tensor:
        """Make normalised images ``(B, C, H, W)`` of latents ``(B, L)``."""
        maps = self.blocks(self.norm(self.grow(self.linear, latent)))
        return self.head(self.enlarge(self.conv(maps)))


@MODELS.register_module()
class TransposedGenerator(Generator):
    """Transposed convolutions, as in DCGAN: DFAD's and DDAD's generator for 64 pixels and more.

    A linear layer makes the first map, ``H / 2^n`` wide. Then n times [4x4 transposed convolution
    of stride 2, batch norm, leaky ReLU], a 3x3 convolution to C channels, and the head.

    Args:
        input_shape: Shape ``(C, H, W)`` of the images; filled in from the teacher.
        mean: Filled in from the teacher.
        std: Filled in from the teacher.
        latent_size: Length L of a latent.
        widths: Channels of the first map and after each of the n up-samplings.
        head: What ends the network, see :class:`ImageHead`.
        slope: Negative slope of the activations.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        latent_size: int = 256,
        widths: Sequence[int] = (512, 256, 128, 64, 64),
        head: Head = 'tanh',
        slope: float = 0.2,
    ) -> None:
        super().__init__(input_shape, mean, std, latent_size, len(widths) - 1, head)
        self.linear = nn.Linear(latent_size, widths[0] * self.start[0] * self.start[1])
        self.norm = nn.BatchNorm2d(widths[0])
        blocks = [
            nn.Sequential(
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(slope, inplace=True),
            )
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.conv = nn.Conv2d(widths[-1], input_shape[0], 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """DCGAN's initialisation."""
        dcgan_init(self)

    def forward(self, latent: Tensor) -> Tensor:
        """Make normalised images ``(B, C, H, W)`` of latents ``(B, L)``."""
        return self.head(self.conv(self.blocks(self.norm(self.grow(self.linear, latent)))))
