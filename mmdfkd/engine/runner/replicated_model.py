# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Data parallelism for algorithms with several networks, optimisers and passes per step."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import broadcast, get_world_size
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from torch import Tensor, nn
from torch.autograd import Variable
from torch.distributed import all_reduce

from mmdfkd.registry import MODEL_WRAPPERS


# mmengine's runner looks a wrapper up in its own registry, whatever the default scope.
@MMENGINE_MODEL_WRAPPERS.register_module()
@MODEL_WRAPPERS.register_module()
class ReplicatedModel(nn.Module):
    """The same model on every process; gradients are averaged at the end of each backward.

    Unlike ``DistributedDataParallel`` it wraps no single forward pass, so a training step may run
    any network any number of times and step any optimiser. Parameters that get no gradient take
    no part; the processes must agree about which ones do. Every attribute of the model is reached
    through the wrapper, so nothing outside asks whether it is there.

    Args:
        module: The algorithm.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._ready: list[Tensor] = []
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._collect)

    def _collect(self, parameter: Tensor) -> None:
        if not self._ready:
            # Private, but what DDP and FSDP use: runs when this backward pass has ended.
            Variable._execution_engine.queue_callback(self._average)
        self._ready.append(parameter)

    @torch.no_grad()
    def _average(self) -> None:
        gradients = [p.grad for p in self._ready if p.grad is not None]
        self._ready = []
        for dtype in dict.fromkeys(g.dtype for g in gradients):
            group = [g for g in gradients if g.dtype == dtype]
            flat = torch.cat([g.reshape(-1) for g in group]).div_(get_world_size())
            all_reduce(flat)
            for gradient, mean in zip(group, flat.split([g.numel() for g in group]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('module'), name)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The algorithm's state: checkpoints do not tell how many processes there were."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load what :meth:`state_dict` gave."""
        return self.module.load_state_dict(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The algorithm's forward."""
        return self.module(*args, **kwargs)
