# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Random codes for generators: the only data of a run without images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmdfkd.registry import DATA_SAMPLERS, DATASETS
from mmdfkd.utils import UsageError, check_least
from mmdfkd.utils.seeds import derive_seed

from .samplers import SelectionSampler

_BLOCK = 64


@DATASETS.register_module()
class LatentDataset(Dataset):
    """Standard normal latents, numbered: the n-th latent of a run is always the same.

    It does not depend on batch size, process or resumption. With :class:`CountingSampler` an epoch
    goes on where the last one ended, so no latent comes twice.

    Args:
        length: Latents per epoch; divided by the batch size it is the number of iterations.
        shape: Shape of an item, ``(draws, size)``: as many latents of that size as the algorithm
            uses per iteration and image. The runner asks the algorithm.
        seed: Seed of the whole sequence.
    """

    def __init__(self, length: int, shape: Sequence[int] | None = None, seed: int = 0) -> None:
        check_least('train_dataloader.dataset.length', length, 1)
        self.length = length
        self.shape = tuple(shape or ())
        self.seed = seed
        self.metainfo: dict[str, Any] = dict(name='latents', classes=None)

    def __len__(self) -> int:
        """Latents per epoch."""
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """One item: ``latent`` (draws, size) and ``index``."""
        return {key: value[0] for key, value in self.__getitems__([number]).items()}

    def __getitems__(self, numbers: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """A batch: ``latent`` (B, draws, size) float32 and their numbers ``index`` (B,) int64.

        Args:
            numbers: B numbers, from 0 on without end.
        """
        if not self.shape:
            raise UsageError(
                'The LatentDataset does not know the shape of a latent: this algorithm has no '
                'generator. Give an algorithm that has one, or images to train on.'
            )
        index = np.asarray(numbers, dtype=np.int64)
        blocks, block_of = np.unique(index // _BLOCK, return_inverse=True)
        latents = torch.stack([self._block(int(block)) for block in blocks])
        rows = latents[torch.from_numpy(block_of), torch.from_numpy(index % _BLOCK)]
        return dict(latent=rows, index=torch.from_numpy(index))

    def _block(self, block: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, block))
        return torch.randn(_BLOCK, *self.shape, generator=generator)


@DATA_SAMPLERS.register_module()
class CountingSampler(SelectionSampler):
    """Count on from epoch to epoch: epoch e of a set of N items begins with number e N.

    Batches are consecutive numbers; ranks take turns within them.

    Args:
        dataset: Of which only the length N is used.
        seed: Not used; the numbers are not shuffled.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=False, seed=0)

    def share(self) -> Tensor:
        """This rank's numbers of this epoch, int64."""
        return super().share() + self.epoch * len(self.indices)
