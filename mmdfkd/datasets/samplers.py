# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Samplers whose answer is the same on one process and on many."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor
from torch.utils.data import Sampler

from mmdfkd.registry import DATA_SAMPLERS
from mmdfkd.utils import UsageError, check_least
from mmdfkd.utils.seeds import derive_seed


class SharedSampler(Sampler[int]):
    """Base of our samplers: all ranks draw alike, each takes its share of an epoch.

    Args:
        seed: Seed shared by all ranks; drawn and shared when ``None``.
    """

    #: What makes batches of it, unless a config says otherwise.
    batch_sampler = 'EvenBatchSampler'

    def __init__(self, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the draws those of ``epoch``."""
        self.epoch = epoch

    @abstractmethod
    def share(self) -> Tensor:
        """This rank's indices of this epoch, in their order, int64."""

    @abstractmethod
    def __len__(self) -> int:
        """Images per rank."""

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's share."""
        return iter(self.share().tolist())


@DATA_SAMPLERS.register_module()
class SelectionSampler(SharedSampler):
    """Pass over the selected images of a dataset, shuffled anew each epoch.

    Everything counts until :meth:`select` says otherwise, so it also serves datasets nobody
    selects from. All ranks shuffle alike and each takes every ``world_size``-th image; the list is
    filled up from its start so that they take equally many.

    Args:
        dataset: The dataset, of which only the length is used.
        shuffle: Whether to shuffle.
        seed: Seed shared by all ranks; drawn and shared when ``None``.
    """

    def __init__(self, dataset: Any, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(seed)
        self.shuffle = shuffle
        self.indices = torch.arange(len(dataset))

    def select(self, indices: Tensor, batch_size: int = 1) -> None:
        """From now on pass over ``indices`` ``(M,)`` only.

        With ``batch_size`` above one, a last batch of a single image is avoided by seeing one image
        twice: BatchNorm cannot take a batch of one.
        """
        share = -(-len(indices) // self.world_size)
        if batch_size > 1 and share % batch_size == 1:
            indices = indices[torch.arange(len(indices) + self.world_size) % len(indices)]
        self.indices = indices

    def share(self) -> Tensor:
        """This rank's indices of this epoch, in their order, int64."""
        indices = self.indices
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            indices = indices[torch.randperm(len(indices), generator=generator)]
        share = torch.arange(self.rank, len(self) * self.world_size, self.world_size)
        return indices[share % len(indices)]

    def __len__(self) -> int:
        """Images per rank."""
        return -(-len(self.indices) // self.world_size)


@DATA_SAMPLERS.register_module()
class BankSampler(SharedSampler):
    """A fixed number of draws an epoch from a set that grows from epoch to epoch.

    Random permutations of all images there are, one after the other: no image comes twice before
    all others came once. They depend on the seed, the epoch and the size of the bank; all ranks
    draw alike and each takes every ``world_size``-th image.

    Args:
        dataset: The bank, of which only the length is used, when an epoch begins.
        length: Images per epoch, of all ranks together; divided by the batch size it is the number
            of iterations.
        seed: Seed shared by all ranks; drawn and shared when ``None``.

    Raises:
        UsageError: ``length`` is below one, or an epoch begins with an empty bank.
    """

    def __init__(self, dataset: Any, length: int, seed: int | None = None) -> None:
        check_least('train_dataloader.sampler.length', length, 1)
        super().__init__(seed)
        self.dataset = dataset
        self.length = length

    def share(self) -> Tensor:
        """This rank's indices of this epoch, in their order, int64."""
        size = len(self.dataset)
        if size == 0:
            raise UsageError(
                'The bank is empty, so there is nothing to draw from. Keep '
                'default_hooks.synthesis, which fills it, or train from a finished one: '
                "dataset=dict(type='ImagePool', root=...)."
            )
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        total = len(self) * self.world_size
        passes = [torch.randperm(size, generator=generator) for _ in range(-(-total // size))]
        return torch.cat(passes)[self.rank : total : self.world_size]

    def __len__(self) -> int:
        """Images per rank."""
        return -(-self.length // self.world_size)


@DATA_SAMPLERS.register_module()
class EvenBatchSampler(Sampler[Tensor]):
    """Batches of equal size, at most one image apart, instead of a small last one.

    The number of selected images changes every epoch. A last batch of a handful of images would
    make a noisy step and, worse, leave its statistics in BatchNorm's running ones just before
    the student is evaluated.

    Args:
        sampler: What to take the epoch's indices from.
        batch_size: Largest size of a batch.
        drop_last: Not used; every image counts.
    """

    def __init__(self, sampler: SharedSampler, batch_size: int, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the indices of one batch after the other, each int64 ``(B,)``."""
        return iter(self.sampler.share().tensor_split(len(self)))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.sampler) // self.batch_size)
