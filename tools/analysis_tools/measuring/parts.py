# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What surrounds the networks, per image, beside what one would write in plain torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdfkd.datasets import NoisePool
from mmdfkd.datasets.residency import make_resident
from mmdfkd.datasets.samplers import SelectionSampler
from mmdfkd.datasets.transforms import BatchRandomResizedCrop
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.models.selectors import DynamicSelector

from .timing import Clock, compare, error, median, ratio

MEAN, STD = 120.0, 60.0


def measure_parts(args: argparse.Namespace, clock: Clock) -> list[dict[str, float | str]]:
    """Ours and the plain way, in turn."""
    batch, pool = 128, NoisePool(4096, channels=3)
    make_resident(pool, args.device)
    order = torch.randperm(len(pool)).split(batch)
    batches = [pool.__getitems__(part) for part in order]
    images = [part['inputs'].contiguous().to(args.device) for part in batches]
    teacher, student = 5 * torch.randn(2, 20_000, 10)
    selector, sampler = DynamicSelector(), SelectionSampler(range(len(teacher)), seed=0)

    def select() -> None:
        chosen = selector(teacher_logits=teacher, student_logits=student, epoch=1, max_epochs=2)
        sampler.select(chosen.indices, batch)

    def gather() -> None:
        for part in order:
            pool.__getitems__(part)

    def road(*augment: dict) -> Callable[[], None]:
        preprocessor = BatchPreprocessor([MEAN] * 3, [STD] * 3, augment).to(args.device)

        def run() -> None:
            for part in batches:
                preprocessor(part, training=True)

        return run

    def plain(augment: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for part in images:
                (augment(part) - MEAN) / STD

        return run

    resident = torch.cat(images)
    flip = dict(type='BatchRandomFlip')
    ours = {
        'combine + threshold + index': select,
        'gather a shuffled batch': gather,
        'normalise': road(),
        'crop + flip + normalise': road(dict(type='BatchRandomCrop', size=32, padding=4), flip),
        'resized crop + flip + normalise': road(dict(type='BatchRandomResizedCrop', size=32), flip),
    }
    rivals: dict[str, Callable[[], object]] = {
        'gather a shuffled batch': lambda: [
            resident[part.to(args.device, non_blocking=True)] for part in order
        ],
        'normalise': plain(Tensor.float),
        'crop + flip + normalise': plain(crop_and_flip),
        'resized crop + flip + normalise': plain(resized_crop_and_flip),
    }
    plain_of = {f'{name}, plain': action for name, action in rivals.items()}
    times = compare(clock, args.pairs, **ours, **plain_of)
    rows = []
    for name in ours:
        us = 1e6 / (len(teacher) if name not in rivals else len(pool))
        row: dict[str, float | str]
        row = {'3x32x32 images, 10 classes': name, 'us/image': us * median(times[name])}
        row |= {'plain us/image': '-', 'ours/plain': '-', '+-': '-'}
        if name in rivals:
            rival = times[f'{name}, plain']
            row['plain us/image'] = us * median(rival)
            row['ours/plain'], row['+-'] = ratio(times[name], rival), error(times[name], rival)
        rows.append(row)
    return rows


def crop_and_flip(images: Tensor, padding: int = 4) -> Tensor:
    """Padded, a window cut from each by one index, half of them mirrored: ``(B, C, H, W)``."""
    batch, _, height, width = images.shape
    at_all_places = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * padding + 1, (2, batch), device=images.device)
    windows = at_all_places[torch.arange(batch, device=images.device), :, top, left]
    return torch.where(coins(images), windows.flip(-1), windows).float()


def resized_crop_and_flip(images: Tensor) -> Tensor:
    """Windows resized by one ``grid_sample`` that mirrors half of them: ``(B, C, H, W)``."""
    size: Sequence[int] = images.shape[2:]
    drawn = BatchRandomResizedCrop(size).draw(len(images), *size, images.device)
    top, left, height, width = (each.float() for each in drawn)
    scale_y, scale_x = height / size[0], width / size[1]
    shift_y, shift_x = 2 * top / size[0] + scale_y - 1, 2 * left / size[1] + scale_x - 1
    scale_x = torch.where(coins(images).flatten(), -scale_x, scale_x)
    nothing = torch.zeros_like(top)
    matrix = torch.stack([scale_x, nothing, shift_x, nothing, scale_y, shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode='border', align_corners=False)


def coins(images: Tensor) -> Tensor:
    """One for each image: bool ``(B, 1, 1, 1)``."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
