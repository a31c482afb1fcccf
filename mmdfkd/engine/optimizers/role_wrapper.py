# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""An optimiser of one role that never makes the host wait for the device."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmdfkd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class RoleOptimWrapper(OptimWrapper):
    """mmengine's ``OptimWrapper``, but the norm of clipped gradients stays on the device.

    There it is read and recorded in every step. Here the norms add up, until somebody who reads
    the losses anyway takes their mean.

    Args:
        *args: As of ``OptimWrapper``.
        **kwargs: Likewise: ``optimizer``, ``clip_grad``, ``accumulative_counts``, ….
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norm_sum: Tensor | None = None
        self.norm_count = 0

    def scale_loss(self, loss: Tensor) -> Tensor:
        """A batch's share of the loss, where the gradients of several batches add up."""
        return loss if self._accumulative_counts == 1 else super().scale_loss(loss)

    def _clip_grad(self) -> None:
        groups = self.optimizer.param_groups
        parameters = [p for group in groups for p in group['params'] if p.grad is not None]
        norm = self.clip_func(parameters, **self.clip_grad_kwargs) if parameters else None
        if norm is not None:  # as it is where values are clipped
            self.norm_sum = norm if self.norm_sum is None else self.norm_sum + norm
            self.norm_count += 1

    def take_grad_norm(self) -> Tensor | None:
        """Mean norm, before clipping, since the last call; None where nothing was clipped."""
        norm_sum, count = self.norm_sum, self.norm_count
        self.norm_sum, self.norm_count = None, 0
        return None if norm_sum is None else torch.div(norm_sum, count)
