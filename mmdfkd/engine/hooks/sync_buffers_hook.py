# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One set of BatchNorm statistics on all processes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook

from mmdfkd.registry import HOOKS


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Average the model's buffers over the processes at the end of each epoch.

    Takes the place of mmengine's hook of this name, whose mean in single precision does not give
    equal values back when the number of processes is no power of two: it would change the teacher.
    """

    def after_train_epoch(self, runner: Any) -> None:
        """Average; in double precision, so that what is equal everywhere stays as it is."""
        buffers = list(runner.model.buffers())
        if get_world_size() == 1 or not buffers:
            return
        flat = torch.cat([buffer.detach().reshape(-1).double() for buffer in buffers])
        all_reduce(flat, 'mean')
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))
