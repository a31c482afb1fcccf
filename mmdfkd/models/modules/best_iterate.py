# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The iterate of an optimisation whose loss was lowest."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdfkd.utils import UsageError


class BestIterate:
    """Keep copies of the tensors of the best iterate, without ever waiting for the device.

    A loss that is not a number is worse than any other.

    Attributes:
        loss: Lowest loss so far, a scalar.
        last: Loss of the last iterate.
        kept: Tensors of that iterate by name, detached; never the memory of what was offered.
    """

    loss: Tensor
    last: Tensor

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.kept[name]

    def check(self, number: int) -> None:
        """Raise where round ``number`` (from 0) diverged, at once or in the end; waits once.

        An optimisation that ends at infinity had its best iterate at the beginning, and what
        outlives the round has become infinite too.
        """
        if not self.loss.isfinite() & self.last.isfinite():
            what = 'did not stay' if self.loss.isfinite() else 'was never'
            raise UsageError(
                f'The loss of round {number + 1} of synthesis {what} a finite number, so none '
                'of its images is any good. Lower model.optimizer.lr, or do without --amp.'
            )

    @torch.no_grad()
    def offer(self, loss: Tensor, **tensors: Tensor) -> None:
        """Offer an iterate; the earlier one of two with equal losses stays.

        Args:
            loss: A scalar.
            **tensors: What to keep of it, the same names and shapes every time.
        """
        self.last = loss.detach()
        if not self.kept:
            self.loss = loss.detach().clone()
            self.kept = {name: value.detach().clone() for name, value in tensors.items()}
            return
        better = (loss < self.loss) | (self.loss.isnan() & ~loss.isnan())
        self.loss = torch.where(better, loss, self.loss)
        for name, value in tensors.items():
            self.kept[name] = torch.where(better, value, self.kept[name])
