# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Mixed precision on CPU and GPU."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from mmdfkd.registry import MODELS, OPTIM_WRAPPERS, class_of
from mmdfkd.utils.errors import check_choice

from .role_wrapper import RoleOptimWrapper


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(RoleOptimWrapper):
    """Forward passes in bfloat16, on whichever device the weights are.

    bfloat16 has float32's range, so that no loss is scaled, nothing overflows and no step is
    skipped. Weights, gradients and optimiser states stay float32. (mmengine's ``AmpOptimWrapper``
    refuses a CPU; it remains the choice for float16 on GPUs without bfloat16.) On a device that has
    to emulate bfloat16, which is slower than float32, the run goes on in float32 and says so.

    Only what is inside an algorithm's ``optim_context`` is cast: the forward passes of training
    steps and of synthesis. Selection, cached teacher logits and evaluation stay in float32, so that
    the switch moves no image across a threshold and accuracies are those of the exported student.

    Args:
        dtype: ``'bfloat16'``, or ``'float32'`` to switch autocast off.
        **kwargs: What mmengine's ``OptimWrapper`` takes: ``optimizer``, ``clip_grad``, ….
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        check_choice('optim_wrapper.*.dtype', dtype, ('bfloat16', 'float32'))
        super().__init__(**kwargs)
        self.device = self.optimizer.param_groups[0]['params'][0].device.type
        if dtype == 'bfloat16' and not has_bfloat16(self.device):
            name, remedy = 'CPU', ''
            if self.device == 'cuda':
                name, remedy = 'GPU', " For float16 set optim_wrapper.*.type='AmpOptimWrapper'."
            _say_once(
                f'This {name} has no bfloat16 arithmetic: training goes on in float32.{remedy}'
            )
            dtype = 'float32'
        self.dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward passes inside; backward passes follow their forward's types."""
        cast = torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)
        with super().optim_context(model), cast:
            yield


def use_amp(cfg: Config) -> None:
    """Train every role in mixed precision, in place: what ``--amp`` does.

    That is bfloat16, or float16 on a GPU that lacks it, but for methods that optimise images or
    latents outside of any wrapper that would scale losses.

    Args:
        cfg: A config whose ``optim_wrapper`` has the roles.
    """
    unscaled = getattr(class_of(MODELS, cfg.model), 'unscaled', '')
    half = torch.cuda.is_available() and not has_bfloat16('cuda') and not unscaled
    for role, wrapper in cfg.optim_wrapper.items():
        if role != 'constructor' and wrapper:
            wrapper.type = 'AmpOptimWrapper' if half else 'AutocastOptimWrapper'
            for key in () if half else ('loss_scale', 'use_fp16_params'):
                wrapper.pop(key, None)  # of a wrapper that it replaces


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself: GPUs since Ampere, CPUs since AVX-512.

    Args:
        device: ``'cuda'`` or ``'cpu'``; of others it is assumed.
    """
    if device == 'cuda':  # torch.cuda.is_bf16_supported() says yes to emulation too
        return torch.version.hip is not None or torch.cuda.get_device_capability()[0] >= 8
    if device == 'cpu':
        try:
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        except (AttributeError, RuntimeError):  # a torch without oneDNN
            return False
    return True


@functools.cache
def _say_once(line: str) -> None:
    """One warning for all roles."""
    print_log(line, 'current', logging.WARNING)
