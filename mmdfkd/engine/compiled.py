# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Forward passes through ``torch.compile``, for as long as they are asked for."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

#: Modes of ``torch.compile``.
MODES = ('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs')

#: Those in which a GPU replays a recording of all kernels, into the same memory each time.
CUDA_GRAPHS = ('reduce-overhead', 'max-autotune')


class CompiledForward:
    """A module's forward pass, compiled; it stands in for the module's own inside :meth:`active`.

    The module stays the object it is: nothing is wrapped, parameters and their names are untouched.
    One kernel serves all batch sizes from the first batch on, since they change from epoch to
    epoch, and results must not depend on what ran before. A pass in which a hook listens to some
    layer is run as it is, since compiled code would ignore the hook.

    Args:
        module: What to compile.
        mode: One of :data:`MODES`.
    """

    def __init__(self, module: nn.Module, mode: str) -> None:
        self.module = module
        self.layers = list(module.modules())
        self.eager = module.forward
        self.compiled = torch.compile(self.eager, mode=mode)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the module is compiled."""
        self.module.forward = self
        try:
            yield
        finally:
            del self.module.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Pass the module."""
        if any(map(is_heard, self.layers)):
            return self.eager(*args, **kwargs)
        for value in args:
            if isinstance(value, torch.Tensor):
                torch._dynamo.maybe_mark_dynamic(value, 0)
        return self.compiled(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """What a copy of the module gets: its own forward, as it is."""
        return copy.deepcopy(self.eager, memo)


def begin_step() -> None:
    """Say that a step begins, for which CUDA graphs may overwrite the results of the last one.

    Where nothing was compiled there are none, and the compiler need not be imported for it.
    """
    if 'torch._inductor' in sys.modules:
        torch.compiler.cudagraph_mark_step_begin()


def is_heard(layer: nn.Module) -> bool:
    """Whether a forward hook listens to a layer."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def parts_to_compile(network: nn.Module) -> list[nn.Module]:
    """What of a network is called as a whole in every pass, also where inner maps are kept.

    A classifier's head is left out: it is one small product, and student and teacher may share it.
    """
    names = ('backbone', 'neck', 'network')  # the last one is that of a ForeignClassifier
    parts = [getattr(network, name) for name in names if hasattr(network, name)]
    return [part for part in parts if not isinstance(part, nn.Identity)] or [network]


def compiler_error(device: torch.device) -> str:
    """What keeps ``torch.compile`` from working for a device; empty if it works. Takes seconds."""

    def probe(x: torch.Tensor) -> torch.Tensor:
        return (x + 1).relu().sum()

    try:
        torch.compile(probe)(torch.zeros(64, device=device))
    except Exception as error:  # a compiler or Triton is missing, Python is too new, ...
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        lines = [line for line in lines if not line.endswith('raised:')]  # it says what next
        return f'{type(error).__name__}: {lines[0][:160] if lines else "no reason given"}'
    return ''
