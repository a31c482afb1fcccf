# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Few collected images and many generated ones as one set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmdfkd.registry import DATA_SAMPLERS, DATASETS
from mmdfkd.utils import UsageError, check_least
from mmdfkd.utils.seeds import derive_seed

from .image_bank import ImageBank
from .packed import PackedDataset
from .samplers import EvenBatchSampler, SharedSampler

Stage = Literal['gan', 'student']


@DATASETS.register_module()
class HybridDataset(Dataset):
    """A pool of collected images, followed by synthetic ones.

    Positions below ``len(collected)`` are the pool's, those from there on the synthetic set's,
    which may be a bank that is still empty. Nothing is copied.

    Args:
        collected: Config of the pool, or the pool.
        synthetic: Config of the synthetic images, such as an ``ImageBank`` that this run fills (the
            runner tells it where), or the ``ImagePool`` of an earlier run's; ``None`` for none.

    Raises:
        UsageError: Images of the two differ in shape.
    """

    def __init__(
        self,
        collected: dict | PackedDataset,
        synthetic: dict | PackedDataset | None = None,
    ) -> None:
        self.collected = DATASETS.build(collected) if isinstance(collected, dict) else collected
        self.synthetic = DATASETS.build(synthetic) if isinstance(synthetic, dict) else synthetic
        name = self.collected.metainfo['name']
        self.metainfo: dict[str, Any] = dict(name=f'{name} and synthetic images', classes=None)
        if self.synthetic is None:
            self.metainfo['name'] = name
            return
        if self.bank is not None and not self.bank.is_placed:  # nobody needs its images
            return
        shapes = [part.images.shape[1:] for part in (self.collected, self.synthetic)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f'train_dataloader.dataset.collected has images of shape {shapes[0]} (H, W, C), '
                f'its synthetic ones {shapes[1]}. Give two sets for the same teacher.'
            )

    @property
    def parts(self) -> list[PackedDataset]:
        """The sets it is made of."""
        return [part for part in (self.collected, self.synthetic) if part is not None]

    @property
    def bank(self) -> ImageBank | None:
        """The bank that this run fills, if there is one."""
        return self.synthetic if isinstance(self.synthetic, ImageBank) else None

    def __len__(self) -> int:
        """Images of both."""
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image: ``inputs`` (C, H, W) uint8 and ``index``."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray | Tensor) -> dict[str, Tensor]:
        """A whole batch in the order of ``indices``.

        Returns:
            ``inputs`` uint8 (B, C, H, W) and ``index`` int64 (B,). Labels, if there are any, stay
            behind.
        """
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        first = len(self.collected)
        is_synthetic = index >= first
        if not is_synthetic.any():
            return dict(inputs=self.collected.__getitems__(index)['inputs'], index=index)
        assert self.synthetic is not None
        parts = [
            self.collected.__getitems__(index[~is_synthetic])['inputs'],
            self.synthetic.__getitems__(index[is_synthetic] - first)['inputs'],
        ]
        device = max((part.device for part in parts), key=lambda device: device.type != 'cpu')
        # Cut and joined as they lie in memory, channels last.
        rows = torch.cat([part.to(device, non_blocking=True).permute(0, 2, 3, 1) for part in parts])
        order = torch.cat([(~is_synthetic).nonzero(), is_synthetic.nonzero()]).flatten().argsort()
        order = order.to(device, non_blocking=True)
        return dict(inputs=rows[order].permute(0, 3, 1, 2), index=index)


@DATA_SAMPLERS.register_module()
class HybridSampler(SharedSampler):
    """Sampler of a :class:`HybridDataset`, whose epochs depend on the stage of the run.

    While the GAN is trained, an epoch is some passes over the selected collected images. While the
    student is trained, it is ``repeat`` copies of each of them and all synthetic images, shuffled
    together: data inflation. Copies are indices; each is augmented on its own. All ranks draw alike
    and take turns.

    Args:
        dataset: The set.
        repeat: N, copies of each collected image in an epoch of the student; 0 leaves them out.
        passes: Passes over the collected images in an epoch of the GAN, one permutation after the
            other.
        seed: Seed shared by all ranks; drawn and shared when ``None``.

    Raises:
        UsageError: ``repeat`` or ``passes`` is out of range.
    """

    batch_sampler = 'HybridBatchSampler'

    def __init__(
        self, dataset: HybridDataset, repeat: int = 10, passes: int = 1, seed: int | None = None
    ) -> None:
        for name, value, least in (('repeat', repeat, 0), ('passes', passes, 1)):
            check_least(f'train_dataloader.sampler.{name}', value, least)
        super().__init__(seed)
        self.dataset = dataset
        self.collected = torch.arange(len(dataset.collected))
        self.repeat = repeat
        self.passes = passes
        self.stage: Stage = 'student'

    @property
    def indices(self) -> Tensor:
        """All positions of an epoch, in their order, each as often as it comes."""
        if self.stage == 'gan':
            return self.collected.repeat(self.passes)
        synthetic = torch.arange(len(self.dataset.collected), len(self.dataset))
        return torch.cat([self.collected.repeat(self.repeat), synthetic])

    def select(self, indices: Tensor, batch_size: int = 1) -> None:
        """From now on ``indices`` ``(M,)`` are the collected images, each as often as listed."""
        self.collected = indices

    def share(self) -> Tensor:
        """This rank's positions of this epoch, int64."""
        indices = self.indices
        if len(indices) == 0:
            raise UsageError(
                'There are no images to train the student on: train_dataloader.sampler.repeat is 0 '
                'and there are no synthetic images. Raise it, or give dataset.synthetic.'
            )
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        rows = 1 if self.stage == 'student' else self.passes
        shuffled = torch.cat(
            [part[torch.randperm(len(part), generator=generator)] for part in indices.chunk(rows)]
        )
        places = torch.arange(self.rank, len(self) * self.world_size, self.world_size)
        return shuffled[places % len(shuffled)]

    def __len__(self) -> int:
        """Images per rank; counted, not listed, since loops ask in every iteration."""
        if self.stage == 'gan':
            total = self.passes * len(self.collected)
        else:
            synthetic = len(self.dataset) - len(self.dataset.collected)
            total = self.repeat * len(self.collected) + synthetic
        return -(-total // self.world_size)


@DATA_SAMPLERS.register_module()
class HybridBatchSampler(EvenBatchSampler):
    """Even batches of a :class:`HybridSampler`, of one size for the GAN, another for the student.

    Args:
        sampler: The sampler.
        batch_size: Largest size of a student's batch.
        drop_last: Not used; every image counts.
        gan_batch_size: Largest size of a batch of collected images for the GAN; by default
            ``batch_size``.
    """

    sampler: HybridSampler

    def __init__(
        self,
        sampler: HybridSampler,
        batch_size: int,
        drop_last: bool = False,
        gan_batch_size: int | None = None,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.gan_batch_size = gan_batch_size or batch_size

    def __len__(self) -> int:
        """Number of batches."""
        gan = self.sampler.stage == 'gan'
        return -(-len(self.sampler) // (self.gan_batch_size if gan else self.batch_size))
