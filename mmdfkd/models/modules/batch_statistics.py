# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the BatchNorm layers of a frozen network see of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmdfkd.utils import UsageError
from mmdfkd.utils.precision import at_least_float32

from .gather import gather_batch


class BatchStatistics(NamedTuple):
    """Statistics of the input of one BatchNorm layer, each ``(C,)``, in float32 at least.

    Attributes:
        mean: Mean over batch and place, with gradient to the images.
        var: Biased variance likewise.
        running_mean: What the layer remembers of the original data.
        running_var: Likewise.
    """

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


def batch_norm_layers(
    network: nn.Module,
    role: str = 'teacher',
    remedy: str = 'Set the weight of the BN loss to 0, or choose a method that does without, such '
    'as DAFL, DFAD or ZSKT.',
) -> list[Any]:
    """Layers with running statistics, in the order of the network's modules.

    Args:
        network: The network.
        role: What it is under ``model``, for the message.
        remedy: What to do without such layers, for the message.

    Raises:
        UsageError: There are none, so that nothing is remembered of the original data.
    """
    layers = [m for m in network.modules() if getattr(m, 'running_mean', None) is not None]
    if not layers:
        raise UsageError(
            f'The {role} {getattr(network, "name", type(network).__name__)} has no BatchNorm '
            f'layer with running statistics (model.{role}), so it remembers nothing of its data. '
            f'{remedy}'
        )
    return layers


@contextmanager
def record_batch_statistics(
    network: nn.Module, weight: float = 1.0
) -> Iterator[list[BatchStatistics]]:
    """Record the statistics of the forward pass inside; the list is filled on leaving.

    Only the pass inside is seen: no hook stays, and no graph is kept alive by one. On several
    processes the statistics are those of the whole batch, with gradient.

    Args:
        network: In eval mode, since in train mode it would remember what it is compared with.
        weight: Of the loss they are for; 0 records nothing, and any network will do.

    Yields:
        One :class:`BatchStatistics` per BatchNorm layer, in the order of the forward pass.

    Raises:
        UsageError: The network has no BatchNorm layer, or is in train mode.
    """
    statistics: list[BatchStatistics] = []
    if weight == 0:
        yield statistics
        return
    layers = batch_norm_layers(network)
    if any(layer.training for layer in layers):
        raise UsageError('The teacher is in train mode; statistics are compared in eval mode only.')
    inputs: list[tuple[Any, Tensor, Tensor]] = []

    def record(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.append((layer, *_Moments.apply(at_least_float32(arguments[0]))))

    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()
    passed, local_means, local_variances = zip(*inputs, strict=True)
    sizes = [len(mean) for mean in local_means]
    means, variances = global_statistics(torch.cat(local_means), torch.cat(local_variances))
    for layer, mean, var in zip(passed, means.split(sizes), variances.split(sizes), strict=True):
        remembered = layer.running_mean.to(mean.dtype), layer.running_var.to(mean.dtype)
        statistics.append(BatchStatistics(mean, var, *remembered))


def global_statistics(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and biased variance of the union of equally large batches, one per process.

    .. math:: \mu = \overline{\mu_r}, \qquad
              \sigma^2 = \overline{\sigma_r^2} + \overline{(\mu_r - \mu)^2}

    Args:
        mean: Of this process's batch, ``(C,)``.
        var: Likewise.
    """
    means, variances = gather_batch(torch.stack([mean, var])[None]).unbind(1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class _Moments(torch.autograd.Function):
    """Mean and biased variance of each channel, several times as fast as autograd's var_mean.

    The gradient with respect to the maps is one affine map per channel, done in one pass.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        mean = channel_mean(maps)
        var = channel_mean((maps - _per_channel(mean, maps)).square_())
        ctx.save_for_backward(maps, mean)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_grad: Tensor, var_grad: Tensor) -> Tensor:
        maps, mean = ctx.saved_tensors
        count = maps.numel() / maps.shape[1]
        slope = 2 * var_grad / count
        offset = mean_grad / count - slope * mean
        return torch.addcmul(_per_channel(offset, maps), maps, _per_channel(slope, maps))


def channel_mean(maps: Tensor) -> Tensor:
    """Mean ``(C,)`` over all but the second dimension, along the memory of either layout."""
    if maps.ndim > 2 and maps.is_contiguous():
        return maps.flatten(2).mean(2).mean(0)
    return maps.movedim(1, -1).flatten(0, -2).mean(0)


def _per_channel(values: Tensor, maps: Tensor) -> Tensor:
    """Values ``(C,)`` in a shape that goes with maps ``(B, C, ...)``."""
    return values.view(-1, *[1] * (maps.ndim - 2))
