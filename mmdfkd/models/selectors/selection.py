# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a selector answers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Selection(NamedTuple):
    """Outcome of one selection over a pool of ``N`` images.

    Attributes:
        indices: Selected images, ascending, ``(M,)`` int64.
        confidence: ``p_i`` of every image, ``(N,)``; empty where a selector needs none.
        pseudo_labels: ``y_i`` of every image, ``(N,)`` int64; empty likewise.
        thresholds: ``T_c``, ``(K,)``; empty likewise.
        counts: ``n_c``, ``(K,)`` int64; empty likewise.
        student_weight: ``a(t)``.
        scores: What was ranked by, lowest first, ``(N,)``; empty where nothing was ranked.
    """

    indices: Tensor
    confidence: Tensor = torch.empty(0)
    pseudo_labels: Tensor = torch.empty(0, dtype=torch.long)
    thresholds: Tensor = torch.empty(0)
    counts: Tensor = torch.empty(0, dtype=torch.long)
    student_weight: float = float('nan')
    scores: Tensor = torch.empty(0)
