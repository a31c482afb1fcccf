# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How costs grow with pool, classes, batch and images; memory."""

from __future__ import annotations

import argparse
import gc
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmdfkd.datasets import PackedDataset, whole_batch_collate
from mmdfkd.datasets.samplers import EvenBatchSampler, SelectionSampler
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.models.losses import class_balance_loss, kl_divergence, noisy_nll, nt_xent
from mmdfkd.models.modules import AdaptationMatrix
from mmdfkd.models.selectors import ConfidenceSelector, DynamicSelector
from mmdfkd.models.selectors.dynamic_selector import class_thresholds
from mmdfkd.visualization import style

from .timing import Clock, compare, median

#: What grows.
SIZES: dict[str, tuple[int, ...]] = dict(
    images=(10**3, 10**4, 10**5, 10**6),
    classes=(10, 30, 100, 300, 1000),
    batch=(64, 128, 256, 512, 1024, 2048),
    pixels=(32**2, 64**2, 96**2, 128**2, 224**2),
)


def measure_growth(args: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Cost of what is not a network, over images, classes, images of a batch, and pixels."""
    actions: dict[str, Callable[[int, str], dict[str, Callable[[], Any]]]] = dict(
        images=selectors, classes=losses_of_classes, batch=losses_of_batch, pixels=data_road
    )
    for axis, sizes in SIZES.items():
        for size in sizes:
            times = compare(clock, args.pairs, **actions[axis](size, args.device))
            for what, seconds in times.items():
                us = 1e6 * median(seconds)
                yield {'axis': axis, 'size': size, 'what': what, 'us': us, 'us/each': us / size}


def selectors(images: int, device: str) -> dict[str, Callable[[], Any]]:
    """Selecting from the logits of a pool, 10 classes, and telling the sampler."""
    teacher, student = 5 * torch.randn(2, images, 10)
    sampler = SelectionSampler(range(images), seed=0)

    def select(selector: Any, **logits: Tensor) -> None:
        logits = dict(logits, teacher_logits=teacher, pool_size=images)
        chosen = selector(epoch=1, max_epochs=2, **logits)
        sampler.select(chosen.indices, 128)

    confidence, guesses = teacher.softmax(1).max(1)

    def threshold() -> None:
        counts = guesses.bincount(minlength=10)
        chosen = confidence > class_thresholds(counts, 0.95)[guesses]
        sampler.select(chosen.nonzero().flatten(), 128)

    dynamic, confident = DynamicSelector(), ConfidenceSelector(keep_ratio=0.5)
    return {
        "KD3's selection": lambda: select(dynamic, student_logits=student),
        "KD3's thresholds and index": threshold,
        "DFND's selection": lambda: select(confident),
    }


def losses_of_classes(classes: int, device: str) -> dict[str, Callable[[], Any]]:
    """Losses of 128 images, forward and backward, and thresholds for 10,000 images."""
    teacher, student = torch.randn(2, 128, classes, device=device)
    labels, noise = teacher.argmax(1), AdaptationMatrix(classes, 0.9).to(device)
    pool = 5 * torch.randn(2, 10_000, classes)
    selector = DynamicSelector()
    student.requires_grad_()

    return {
        'noise matrix and its loss': lambda: noisy_nll(student, noise.log(), labels).backward(),
        'KL divergence': lambda: kl_divergence(student, teacher).backward(),
        'class balance': lambda: class_balance_loss(student).backward(),
        "KD3's thresholds, 10,000 images": lambda: selector(
            teacher_logits=pool[0], student_logits=pool[1], epoch=1, max_epochs=2
        ),
    }


def losses_of_batch(batch: int, device: str) -> dict[str, Callable[[], Any]]:
    """Losses of 10 classes and of vectors of 128 numbers, forward and backward."""
    teacher, student = torch.randn(2, batch, 10, device=device)
    first, second = torch.randn(2, batch, 128, device=device)
    labels, noise = teacher.argmax(1), AdaptationMatrix(10, 0.9).to(device)
    student.requires_grad_(), first.requires_grad_()
    return {
        "KD3's contrast": lambda: nt_xent(first, second, 0.3).backward(),
        'noise matrix and its loss': lambda: noisy_nll(student, noise.log(), labels).backward(),
        'KL divergence': lambda: kl_divergence(student, teacher).backward(),
    }


def data_road(pixels: int, device: str) -> dict[str, Callable[[], Any]]:
    """From a pool to 64 normalised, square colour images."""
    size = round(pixels**0.5)
    pool = PackedDataset(np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8))
    order = torch.randperm(64)

    def road(crop: dict) -> Callable[[], Any]:
        augment = [dict(crop, size=size), dict(type='BatchRandomFlip')]
        preprocessor = BatchPreprocessor([120.0] * 3, [60.0] * 3, augment).to(device)
        return lambda: preprocessor(pool.__getitems__(order), training=True)

    return {
        'gather, crop, flip, normalise': road(dict(type='BatchRandomCrop', padding=4)),
        'with a resized crop': road(dict(type='BatchRandomResizedCrop')),
    }


def measure_memory(folder: str | Path) -> list[dict[str, Any]]:
    """Memory of the process over the size of a pool on disk, in MiB; Linux only.

    What is mapped from files is not counted: the system keeps as much of it as it likes. First a
    sampler, a loader and a hundred batches, then both networks' logits and a selection from them.
    Where the process keeps what it frees, that counts too.
    """
    rows = []
    for images in SIZES['images']:
        path = Path(folder, f'{images}.pool')
        pool = PackedDataset(np.memmap(path, np.uint8, 'w+', shape=(images, 32, 32, 3)))  # sparse
        before = own_memory()
        sampler = SelectionSampler(pool, seed=0)
        loader = DataLoader(
            pool, batch_sampler=EvenBatchSampler(sampler, 128), collate_fn=whole_batch_collate
        )
        for _ in itertools.islice(loader, 100):
            pass
        road = own_memory() - before
        teacher, student = 5 * torch.randn(2, images, 10)
        chosen = DynamicSelector()(
            teacher_logits=teacher, student_logits=student, epoch=1, max_epochs=2
        )
        sampler.select(chosen.indices, 128)
        selected = own_memory() - before
        rows.append(
            {
                'pool': f'{images:,} images',
                'on disk': 3 * 32**2 * images / 2**20,
                'loader and sampler': road / 2**20,
                'with logits and selection': selected / 2**20,
            }
        )
        del pool, loader, sampler, teacher, student, chosen
        path.unlink()
    return rows


def own_memory() -> int:
    """Bytes of memory in use that do not come from files."""
    gc.collect()
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.partition('RssAnon:')[2].split()[0])


def draw_growth(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Draw the rows of :func:`measure_growth`: a panel for each axis, both scales logarithmic.

    Args:
        path: The PNG file to write.
        rows: The rows.
    """
    from matplotlib.ticker import NullLocator

    labels = dict(
        images='images of the pool',
        classes='classes',
        batch='images of a batch',
        pixels='pixels of an image, batches of 64',
    )
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        lines = panels.setdefault(row['axis'], {})
        lines.setdefault(row['what'], []).append((row['size'], row['us'] / 1000))
    top, height, pitch = 90, 230, 390  # of the first panel, of a panel, from row to row
    width = (style.WIDTH - 2 * 62 - 2 * 24) / 2
    with style.canvas(path, style.WIDTH, top + pitch * -(-len(panels) // 2)) as figure:
        page = style.page_of(figure)
        note = 'Milliseconds, both axes logarithmic. Dotted: growth in proportion to the size.'
        style.draw_title(page, 'What is no network, as it grows', note)
        for number, (axis, lines) in enumerate(panels.items()):
            left = 62 + number % 2 * (width + 24 + 62)
            above = top + number // 2 * pitch
            axes = style.axes_at(figure, left, above, width, height)
            axes.set(xscale='log', yscale='log')
            axes.grid(axis='y', color=style.FAINT, linewidth=0.8)
            sizes = sorted({row['size'] for row in rows if row['axis'] == axis})
            axes.set_xticks(sizes, [f'{size:,}' for size in sizes])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(lambda value, place: f'{value:g}')
            axes.tick_params(labelsize=11)
            axes.set_xlabel(labels[axis], fontsize=12)
            for colour, points in zip(style.CYCLE, lines.values(), strict=False):
                x, y = zip(*points, strict=True)
                axes.plot(x, [y[-1] * size / x[-1] for size in x], ':', color=colour, alpha=0.5)
                axes.plot(x, y, 'o-', color=colour, markersize=5)
            for place, (colour, name) in enumerate(zip(style.CYCLE, lines, strict=False)):
                y0 = above + height + 62 + 18 * place
                page.plot([left, left + 18], [y0 - 4, y0 - 4], color=colour)
                style.write_fitting(page, left + 26, y0, name, 12, width - 26)
    return Path(path)
