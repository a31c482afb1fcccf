# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Gathering a batch from all processes, with gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor
from torch.autograd.function import once_differentiable


class _GatherBatch(torch.autograd.Function):
    """All-gather along the first dimension; the backward sums every rank's gradient."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        local = local.contiguous()
        parts = [torch.empty_like(local) for _ in range(get_world_size())]
        dist.all_gather(parts, local)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(get_world_size())[get_rank()]


def gather_batch(local: Tensor) -> Tensor:
    """Concatenate the local batches of all processes, in the order of their ranks.

    The gradient that arrives at a rank's slice is the *sum* over the losses of all ranks. So when
    every rank's loss is the mean over its local samples, averaging parameter gradients over the
    ranks (what DistributedDataParallel does) gives the gradient of the global mean. Every rank
    must call this, and run the backward, equally often.

    Args:
        local: ``(B, ...)``, of the same shape on every rank.

    Returns:
        ``(world * B, ...)``; ``local`` itself when there is one process.
    """
    return local if get_world_size() == 1 else _GatherBatch.apply(local)
