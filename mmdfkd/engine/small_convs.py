# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
r"""Convolutions of tiny networks as matrix products, which a CPU computes in less time.

Libraries make convolutions fast for many channels and large maps. Two kinds of layers have neither:

* LeNet5's first, from up to three channels to a few, and the pooling behind. The rows of a map on
  which two rows of the result depend, :math:`r`, times a matrix whose rows are kernels, each moved
  down by :math:`p` and right by :math:`2j + q` pixels, and zeros:

  .. math:: y_{pqj} = M_{pqj} \cdot r + b, \qquad \text{pooled}_j = \max_{p, q \in \{0, 1\}} y_{pqj}

  Most of M is zero, yet its products use the vector units fully, and what pooling compares lies in
  long runs side by side.
* From a map to one pixel, under a kernel that covers the map: a product with the kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmdfkd.models.backbones.lenet import LeNet5, MaxPool

from .compiled import is_heard

# Of maps that a banded matrix convolves: above, its zeros cost more than is saved.
FEW_CHANNELS = 3


class SmallConvs:
    """Small convolutions of a network as products, inside :meth:`active`.

    Weights and their names stay what they are, results differ by rounding. Layers that a forward
    hook listens to are passed as they are.

    Args:
        network: Any; subclasses of ``Conv2d`` in it are left alone.

    Attributes:
        forwards: The layers that may be passed in another way, and how.
    """

    def __init__(self, network: nn.Module) -> None:
        self.forwards: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
        for layer in network.modules():
            if type(layer) is nn.Conv2d and _is_plain(layer):
                self.forwards[layer] = functools.partial(_as_product, layer)
        for backbone in network.modules():
            if isinstance(backbone, LeNet5):
                layers: Any = backbone.layers
                for conv, pool in pairwise(layers):
                    if isinstance(pool, MaxPool) and conv.in_channels <= FEW_CHANNELS:
                        pair = _Pair(conv, pool)
                        self.forwards |= {conv: pair.convolve, pool: pair.finish}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, these layers are passed in their other forms."""
        for layer, forward in self.forwards.items():
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self.forwards:
                del layer.forward


def _is_plain(conv: nn.Conv2d) -> bool:
    zeros = conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)
    return zeros and conv.groups == 1 and conv.dilation == (1, 1)


def _as_product(conv: Any, x: Tensor) -> Tensor:
    """A convolution; a product in float32 if its kernel covers the padded map ``(B, C, H, W)``."""
    (height, width), (top, left) = x.shape[2:], conv.padding
    if (height + 2 * top, width + 2 * left) != conv.kernel_size or is_heard(conv):
        return nn.Conv2d.forward(conv, x)
    with torch.autocast('cpu', enabled=False):  # converting would take longer than it saves
        weight = conv.weight[:, :, top : top + height, left : left + width]
        weight, x = weight.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)  # as maps lie in memory
        pixels = F.linear(x.flatten(1).to(weight.dtype), weight.flatten(1), conv.bias)
        return pixels[:, :, None, None]


class _Pair:
    """A convolution and the pooling behind it, of which the first may do the work of both."""

    def __init__(self, conv: Any, pool: MaxPool) -> None:
        self.conv, self.pool = conv, pool
        self.is_pooled = False

    def convolve(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, H, W)`` to ``(B, C', H', W')``, or pooled, to half the height and width.

        Without bfloat16, and without a gradient for which places of maxima must be known, the
        product does not pay.
        """
        conv, low = self.conv, torch.is_autocast_enabled('cpu')
        learns = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
        self.is_pooled = (low or learns) and not is_heard(conv) and not is_heard(self.pool)
        if not self.is_pooled:
            return nn.Conv2d.forward(conv, x)
        dtype = torch.get_autocast_dtype('cpu') if low else conv.weight.dtype
        x, weight, bias = (tensor.to(dtype) for tensor in (x, conv.weight, conv.bias))
        with torch.autocast('cpu', enabled=False):
            return convolve_and_pool(x, weight, bias)

    def finish(self, x: Tensor) -> Tensor:
        """Pool what is not pooled yet."""
        return x if self.is_pooled else MaxPool.forward(self.pool, x)


def convolve_and_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``max_pool2d(conv2d(x, weight, bias), 2)`` by one product with a banded matrix.

    Args:
        x: Maps ``(B, C, H, W)``.
        weight: ``(C', C, k, k)``, of the same type.
        bias: ``(C',)``.

    Returns:
        ``(B, C', h, w)`` with ``h = (H - k + 1) // 2``, channels last. Once differentiable.
    """
    return _ConvolutionAndPooling.apply(x, weight, bias)


class _ConvolutionAndPooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        out, _, size, _ = weight.shape
        h, w, row = (height - size + 1) // 2, (width - size + 1) // 2, width * channels
        # Rows of a map lie behind each other, so those of a window do.
        windows = x.permute(0, 2, 3, 1).reshape(batch, -1).unfold(1, (size + 1) * row, 2 * row)
        windows = windows.reshape(batch * h, -1)
        matrix = weight.new_zeros(4 * w * out, windows.shape[1])
        _bands(matrix, weight, width).copy_(weight.permute(0, 2, 3, 1))

        maps = F.linear(windows, matrix, bias.expand(4 * w, -1).reshape(-1))
        left, right = maps.view(batch * h, 2, 2, w * out).unbind(2)
        halved = torch.maximum(left, right)
        upper, lower = halved.unbind(1)
        if any(ctx.needs_input_grad):
            ctx.input_shape = x.shape
            # Of equal values the first one counts, as in torch's pooling.
            wins = _as_numbers(left, right), _as_numbers(upper, lower)
            ctx.save_for_backward(windows, matrix, weight, *wins)
        pooled = torch.empty((batch, out, h, w), dtype=x.dtype, memory_format=torch.channels_last)
        torch.maximum(upper, lower, out=pooled.permute(0, 2, 3, 1).view(batch * h, w * out))
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        batch, channels, height, width = ctx.input_shape
        windows, matrix, weight, left_wins, upper_wins = ctx.saved_tensors
        out, _, size, _ = weight.shape
        grad = grad.permute(0, 2, 3, 1).reshape(len(windows), -1)
        halved = torch.empty_like(left_wins)
        upper, lower = halved.unbind(1)
        torch.sub(grad, torch.mul(grad, upper_wins, out=upper), out=lower)
        grad_maps = grad.new_empty(len(grad), 2, 2, grad.shape[1])
        left, right = grad_maps.unbind(2)
        torch.sub(halved, torch.mul(halved, left_wins, out=left), out=right)
        grad_maps = grad_maps.flatten(1)

        grad_x = None
        if ctx.needs_input_grad[0]:
            row = width * channels
            of_windows = (grad_maps @ matrix).view(batch, -1, (size + 1) * row)
            rows = grad.new_zeros(batch, height * row)
            for place, of_window in enumerate(of_windows.unbind(1)):
                rows[:, 2 * place * row :][:, : of_window.shape[1]] += of_window
            grad_x = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        if not any(ctx.needs_input_grad[1:]):  # a frozen network passes gradient on
            return grad_x, None, None
        grad_matrix = grad_maps.t() @ windows
        grad_weight = _bands(grad_matrix, weight, width).sum((0, 1, 2)).permute(0, 3, 1, 2)
        return grad_x, grad_weight, grad.view(-1, out).sum(0)


def _bands(matrix: Tensor, weight: Tensor, width: int) -> Tensor:
    """Where ``matrix`` holds weights: a view ``(p, q, j, c', y, x, c)``.

    In row (p, q, j, c') lies kernel c', moved down by p and right by 2 j + q pixels; in column
    (y, x, c) what image row y has at x in channel c.
    """
    out, channels, size, _ = weight.shape
    length, row, half = matrix.shape[1], width * channels, (width - size + 1) // 2
    strides = (
        *(2 * half * out * length + row, half * out * length + channels),
        *(out * length + 2 * channels, length),
        *(row, channels, 1),
    )
    return matrix.as_strided((2, 2, half, out, size, size, channels), strides)


def _as_numbers(first: Tensor, second: Tensor) -> Tensor:
    """Where ``first >= second``, as 0 and 1 in their type, with which one can multiply fast."""
    return torch.ge(first, second, out=torch.empty_like(first))
