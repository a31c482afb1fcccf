# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Counting what a step does: passes of each network, operations, values read from the device.

None of it depends on the machine or on its load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that make the host wait for the device: values, or sizes that depend on values.
READS = (
    '_local_scalar_dense',
    '_unique2',
    'equal',
    'is_nonzero',
    'masked_index',
    'masked_select',
    'nonzero',
    'unique_dim',
)


def has_mask(args: tuple[Any, ...]) -> bool:
    """Whether one of the indices of ``tensor[indices]`` is a mask: the result's size is a value."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


class OperationCount(TorchDispatchMode):
    """Counts the operations inside, of the backward pass too; those of optimisers apart.

    PyTorch's optimisers read their step counter, a number in the memory of the host.

    Attributes:
        operations: Names of operations to how often they ran.
        of_optimizers: Likewise, inside of ``step`` of an optimiser.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.of_optimizers: Counter[str] = Counter()
        self.optimizers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one."""
        if func.namespace == 'aten':
            counts = self.of_optimizers if self.optimizers else self.operations
            name = func.overloadpacket.__name__
            counts['masked_index' if name.startswith('index') and has_mask(args) else name] += 1
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> OperationCount:
        """Begin."""

        def change(by: int) -> Any:
            return lambda *ignored: setattr(self, 'optimizers', self.optimizers + by)

        self.handles = [
            register_optimizer_step_pre_hook(change(1)),
            register_optimizer_step_post_hook(change(-1)),
        ]
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        """Stop."""
        super().__exit__(*args)
        for handle in self.handles:
            handle.remove()

    @property
    def reads(self) -> int:
        """How often the host waited for a value."""
        return sum(self.operations[name] for name in READS)


@contextmanager
def count_passes(networks: Mapping[str, nn.Module]) -> Iterator[Counter[str]]:
    """Count the images that pass through networks, under ``<name>`` where a graph is kept.

    Passes without one, whose result no gradient flows through, are ``<name>, no graph``.

    Args:
        networks: By name; of a classifier its backbone, since not all passes use the head.
    """
    images: Counter[str] = Counter()

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            last = output[-1] if isinstance(output, tuple) else output
            images[name if last.requires_grad else f'{name}, no graph'] += len(inputs[0])

        return hook

    handles = [network.register_forward_hook(count(name)) for name, network in networks.items()]
    try:
        yield images
    finally:
        for handle in handles:
            handle.remove()
