# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The latest features of a method, to be compared with new ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmdfkd.utils import UsageError


class FeatureBank(nn.Module):
    """A ring of rows: what is added last takes the place of what was added first.

    The rows are a buffer, so that checkpoints hold them and resuming continues with the same
    ones. (CMI's published code takes a ring that is exactly full for an empty one; here it is
    full.)

    Args:
        size: Number of rows it holds.
        width: Length of a row. It takes ``4 * size * width`` bytes.

    Attributes:
        rows: ``(size, width)``, of which the first ``len(self)`` are filled.
        added: How many rows were ever added.
    """

    rows: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer('rows', torch.zeros(size, width))
        self.added = 0

    def __len__(self) -> int:
        """Number of rows that are filled."""
        return min(self.added, len(self.rows))

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """Add rows ``(N, width)``, at most ``size``; behind the end they go on at the front."""
        size = len(self.rows)
        if len(rows) > size:
            raise UsageError(
                f'{len(rows)} features at once do not fit into a bank of {size}. Set '
                'model.bank_size to a multiple of model.batch_size.'
            )
        place = torch.arange(self.added, self.added + len(rows), device=self.rows.device) % size
        self.rows[place] = rows.to(self.rows)
        self.added += len(rows)

    def draw(self, count: int) -> Tensor:
        """Draw ``min(count, len(self))`` different filled rows, on their device."""
        return self.rows[torch.randperm(len(self), device=self.rows.device)[:count]]

    def get_extra_state(self) -> Tensor:
        """Number of rows ever added, for checkpoints."""
        return torch.tensor(self.added)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the number of rows of a checkpoint."""
        self.added = int(state)
