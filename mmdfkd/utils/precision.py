# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How exact computations are."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Turns integers and half precision into float32; what is more precise stays as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
