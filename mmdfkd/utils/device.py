# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Where runs compute, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.device import get_device

from .errors import check_choice
from .memory import keep_freed_memory


def choose_device() -> str:
    """The device that mmengine finds, but on a Mac its CPU.

    Apple's ``mps`` has no float64, which folding, crops and figures use, nor all distributions.
    """
    found = get_device()
    return 'cpu' if found == 'mps' else found


def set_up_device(env_cfg: Mapping[str, Any]) -> None:
    """Do what a config says of this process's device.

    Args:
        env_cfg: With ``keep_memory``, a process on a CPU keeps what it frees, see
            :func:`~mmdfkd.utils.memory.keep_freed_memory`. ``tf32`` allows or forbids TF32 in
            convolutions and products of a GPU; without it PyTorch allows the former.
            ``cudnn_benchmark`` lets cuDNN try which algorithm is the fastest for each shape.

    Raises:
        UsageError: One of them is none of True, False and None.
    """
    for switch in ('keep_memory', 'tf32', 'cudnn_benchmark'):
        check_choice(f'env_cfg.{switch}', env_cfg.get(switch), (True, False, None))
    tf32 = env_cfg.get('tf32')
    if tf32 is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    if env_cfg.get('cudnn_benchmark'):
        torch.backends.cudnn.benchmark = True
    if env_cfg.get('keep_memory') and choose_device() == 'cpu':
        keep_freed_memory()
