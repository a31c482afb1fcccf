# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Mixed precision on CPU and GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmdfkd.registry import OPTIM_WRAPPERS
from mmdfkd.utils.errors import check_choice


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Forward passes in bfloat16, on whichever device the weights are.

    bfloat16 has float32's range, so that no loss is scaled, nothing overflows and no step is
    skipped. Weights, gradients and optimiser states stay float32. (mmengine's ``AmpOptimWrapper``
    refuses a CPU; it remains the choice for float16 on GPUs without bfloat16.)

    Args:
        dtype: ``'bfloat16'``, or ``'float32'`` to switch autocast off.
        **kwargs: What mmengine's ``OptimWrapper`` takes: ``optimizer``, ``clip_grad``, ….
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        check_choice('optim_wrapper.*.dtype', dtype, ('bfloat16', 'float32'))
        super().__init__(**kwargs)
        self.dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward passes inside; backward passes follow their forward's types."""
        device = self.optimizer.param_groups[0]['params'][0].device.type
        cast = torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)
        with super().optim_context(model), cast:
            yield
