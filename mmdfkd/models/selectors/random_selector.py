# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Selection by lot."""

from __future__ import annotations

import torch

from mmdfkd.registry import TASK_UTILS
from mmdfkd.utils.errors import UsageError, check_least

from .base import Selector
from .selection import Selection


@TASK_UTILS.register_module()
class RandomSelector(Selector):
    """Draw images at random, anew each epoch: the control every selector must beat.

    Args:
        num_images: How many; wins over ``ratio``.
        ratio: Share of the pool in (0, 1].
    """

    def __init__(self, num_images: int | None = None, ratio: float = 1.0) -> None:
        check_least('model.selector.num_images', num_images, 1)
        if not 0 < ratio <= 1:
            raise UsageError(f'model.selector.ratio is {ratio}; it must lie in (0, 1].')
        self.num_images = num_images
        self.ratio = ratio

    def __call__(self, *, pool_size: int, **ignored: object) -> Selection:
        """Select from a pool of ``pool_size`` images without looking at any."""
        count = self.num_images or max(1, round(self.ratio * pool_size))
        if count > pool_size:
            raise UsageError(
                f'model.selector.num_images asks for {count} images, the pool has {pool_size}.'
            )
        return Selection(torch.randperm(pool_size)[:count].sort().values)
