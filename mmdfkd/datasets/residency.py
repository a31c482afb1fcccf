# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Whether a set lives on the device that trains, or is read from its memory map batch by batch."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import print_log

from mmdfkd.utils import UsageError, check_choice

from .packed import PackedDataset

#: Largest share of a device's free memory that a set takes without being told to.
SHARE = 0.5
_GIB = 2**30


def make_resident(dataset: PackedDataset, device: torch.device | str) -> bool:
    """Moves the images of a set to a device where ``dataset.resident`` says so.

    ``'auto'`` does it on an accelerator where the images take at most half of the free memory;
    on a CPU the memory map already is where the batches are made. ``True`` does it wherever
    there is room, on a CPU by reading the map into memory; ``False`` never. The choice is logged.

    Args:
        dataset: The set; :meth:`~mmdfkd.datasets.PackedDataset.to_device` is called on it.
        device: Where the networks are.

    Returns:
        Whether the images are on the device now. A loader then needs neither worker processes
        nor pinned memory, and can have neither.

    Raises:
        UsageError: ``resident`` has no meaning, or is True where there is no room.
    """
    device = torch.device(device)
    check_choice('dataset.resident', dataset.resident, ('auto', True, False))
    if dataset.resident is False or (dataset.resident == 'auto' and device.type == 'cpu'):
        return False
    if not fits(dataset, dataset.images.nbytes, device):
        return False
    dataset.to_device(device)
    facts = _facts(dataset.images.nbytes, free_memory(device), device)
    print_log(f'{dataset.metainfo["name"]} lives on {device} ({facts}).', 'current')
    return True


def fits(dataset: PackedDataset, size: int, device: torch.device) -> bool:
    """Whether ``size`` bytes of a set may live on a device; a refusal is logged.

    Raises:
        UsageError: ``resident`` is True and there is no room.
    """
    free, name = free_memory(device), dataset.metainfo['name']
    if dataset.resident == 'auto' and (free is None or size > SHARE * free):
        print_log(f'{name} stays memory-mapped ({_facts(size, free, device)}).', 'current')
        return False
    if free is not None and size > free:
        raise UsageError(
            f"dataset.resident=True does not fit: the images of '{name}' take "
            f"{_facts(size, free, device)}. Set it to 'auto' or False, or use a smaller ratio of "
            'the pool.'
        )
    return True


def _facts(size: int, free: int | None, device: torch.device) -> str:
    there = '' if free is None else f', {free / _GIB:.2f} GiB are free on {device}'
    return f'{size / _GIB:.2f} GiB{there}'


def free_memory(device: torch.device) -> int | None:
    """Free bytes of an accelerator; None where it does not tell, or for a CPU.

    What PyTorch holds in reserve, of tensors that are gone, is free too.
    """
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, 'mem_get_info'):
        return None
    reserve = module.memory_reserved(device) - module.memory_allocated(device)
    return module.mem_get_info(device)[0] + reserve
