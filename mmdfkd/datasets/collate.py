# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Collating where the dataset has already built the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from torch import Tensor

from mmdfkd.registry import FUNCTIONS


# mmengine's runner looks a collate function up in its own registry, whatever the default scope.
@MMENGINE_FUNCTIONS.register_module()
@FUNCTIONS.register_module()
def whole_batch_collate(
    batch: dict[str, Tensor] | Sequence[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Passes a whole batch on untouched; stacks single samples where it gets a list of them.

    Args:
        batch: What ``PackedDataset.__getitems__`` returned, or a list of its single samples.

    Returns:
        A dict of tensors whose first axis is the batch.
    """
    if isinstance(batch, dict):
        return batch
    return {key: torch.stack([sample[key] for sample in batch]) for key in batch[0]}
