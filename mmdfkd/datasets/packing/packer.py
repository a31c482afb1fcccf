# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Packing images of any kind into a pool: in parallel, resumable, in memory that stays flat."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import folder_to_make
from mmdfkd.utils.progress import progress_bar

from ..image_pool import is_pool
from .decode import Recipe, decode_block
from .part import Block, PartialPool
from .sources import CutArchive, Entry, Source

_BLOCK_IMAGES = 256
_BLOCK_BYTES = 2**23  # of files; photographs fill a block before 256 of them do
_AHEAD = 3  # blocks per worker that may be under way


class PackReport(NamedTuple):
    """What :func:`pack` did.

    Attributes:
        root: The pool.
        images: Their number.
        resumed: How many of them an earlier, interrupted call had packed.
        skipped: Images that could not be read; ``skipped.txt`` in the pool lists them.
        reasons: How often, by reason.
        ignored: What is no image, by suffix or kind.
        cuts: Archives of which the end is missing.
    """

    root: Path
    images: int
    resumed: int
    skipped: int
    reasons: Counter[str]
    ignored: Counter[str]
    cuts: list[str]


def pack(
    sources: Sequence[Source],
    root: str | os.PathLike,
    recipe: Recipe,
    name: str | None = None,
    workers: int | None = None,
    limit: int | None = None,
    labels: bool = False,
) -> PackReport:
    """Packs images into an :class:`~mmdfkd.datasets.ImagePool` folder.

    The images are sorted by source, then by name, folder by folder; neither the number of workers
    nor an interruption changes a byte. Beside ``images.npy`` and ``meta.json`` the pool holds
    ``names.txt`` (a line per image) and ``skipped.txt`` (name, tab, reason). Until it is complete
    everything lies in ``<root>.part``; the same call continues from there.

    Args:
        sources: Where the images come from.
        root: Folder to make; where it is a link, the folder it leads to.
        recipe: Size, filter, mode and colours.
        name: Name of the pool; that of the folder by default.
        workers: Processes that decode; 0 decodes in this one. By default one per processor.
        limit: Read at most the first images of the sources, in the order of :class:`Source`.
        labels: Keep the classes aside in ``labels.npy`` and the description.

    Raises:
        UsageError: ``root`` is taken, nothing can be read, an archive is cut short, or the disk is
            full. What has been packed is kept.
    """
    root = folder_to_make(root)
    recipe.check()
    workers = default_workers() if workers is None else workers
    if workers < 0 or (limit is not None and limit < 1):
        raise UsageError(
            f'workers={workers} and limit={limit} ask for nothing; give 0 or more workers and a '
            'limit of 1 or more images, or none.'
        )
    for source in sources:
        source.leave_out(root)
    header = {
        'format': 'mmdfkd-packing/1',
        **recipe._asdict(),
        'sources': [{**source.stamp, 'include': list(source.include)} for source in sources],
        'limit': limit,
        'labels': labels,
    }
    try:
        with PartialPool(root, header, recipe.shape) as part:
            resumed = part.count
            if not part.is_complete:
                _fill(part, sources, recipe, workers, limit, labels)
                _require_images(part, sources)
            meta = _describe(recipe, sources, part)
            many = len(sources) > 1
            prefixes = [f'{source.path}/' if many else '' for source in sources]
            part.finish(name or root.name, prefixes, labels, meta)
    except OSError as error:
        raise UsageError(
            f'Packing into {root}.part failed: {error}. Free some space there or make it '
            'writable, and run the same command again: it continues with what is there.'
        ) from error
    ignored = _total(sources)
    skipped = sum(part.reasons.values())
    cuts = [cut for source in sources for cut in source.cuts]
    return PackReport(root, part.count, resumed, skipped, part.reasons, ignored, cuts)


def default_workers() -> int:
    """One per processor that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_names(root: str | os.PathLike) -> list[str]:
    """Reads where each image of a packed pool comes from."""
    return os.fsdecode((Path(root) / 'names.txt').read_bytes()).split('\n')[:-1]


def _fill(
    part: PartialPool,
    sources: Sequence[Source],
    recipe: Recipe,
    workers: int,
    limit: int | None,
    with_labels: bool,
) -> None:
    blocks = _blocks(sources, part.entries, limit)
    with _Decoder(recipe, workers) as decoder, progress_bar() as bar:
        task = bar.add_task('Packing', total=None, completed=part.entries)
        try:
            for source, entries, rows, reasons in decoder.decode(blocks):
                kept = [entry for k, entry in enumerate(entries) if k not in reasons]
                skipped = [(entries[k].name, reason) for k, reason in reasons.items()]
                names = [entry.name for entry in kept]
                labels = [entry.label or '' for entry in kept] if with_labels else []
                part.append(Block(source, names, labels, skipped), rows)
                share = (source + sources[source].share) / len(sources)
                total = part.entries / max(share, 1e-6)
                bar.update(task, completed=part.entries, total=min(total, limit or total))
        except CutArchive as error:
            state = f'wait in {part.folder}' if part.count else 'were kept'
            remedy = 'Copy the archive again'
            if not part.count:
                part.discard()
            elif any(source.cuts and source.path.is_file() for source in sources):
                # What waits can only be continued with an archive of the same size and time.
                remedy += f' and remove {part.folder}'
            raise UsageError(
                f'{error}. {part.count:,} images could be read so far and {state}. {remedy}, or '
                'pass --allow-truncated to make do with what precedes the damage.'
            ) from error
        except BrokenProcessPool as error:
            raise UsageError(
                'A worker was killed, most likely for want of memory. Run the same command again '
                f'with fewer --workers: {part.count:,} images are kept in {part.folder}.'
            ) from error


def _blocks(
    sources: Iterable[Source], start: int, limit: int | None
) -> Iterator[tuple[int, list[Entry]]]:
    """Yields entries in blocks of one source each, from the ``start``-th on, ``limit`` in all.

    Where a source fails, what it yielded before comes first.
    """
    seen = 0
    for place, source in enumerate(sources):
        block: list[Entry] = []
        size = 0
        problem: UsageError | None = None
        try:
            for entry in islice(source, None if limit is None else limit - seen):
                seen += 1
                if seen > start:
                    block.append(entry)
                    size += len(entry.content) if isinstance(entry.content, bytes) else 0
                if len(block) == _BLOCK_IMAGES or size >= _BLOCK_BYTES:
                    yield place, block
                    block, size = [], 0
        except UsageError as error:
            problem = error
        if block:
            yield place, block
        if problem is not None:
            raise problem


class _Decoder:
    """Decodes blocks in other processes, in their order."""

    def __init__(self, recipe: Recipe, workers: int) -> None:
        self.recipe = recipe
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Decoder:
        if self.workers > 0:
            # Forked workers share the memory of what is imported; elsewhere the system's way.
            context = multiprocessing.get_context('fork' if sys.platform == 'linux' else None)
            self.pool = ProcessPoolExecutor(self.workers, context, initializer=_prepare_worker)
            self.pool.submit(int).result()  # start them before there are threads
        return self

    def __exit__(self, *exception: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def decode(
        self, blocks: Iterator[tuple[int, list[Entry]]]
    ) -> Iterator[tuple[int, list[Entry], np.ndarray, dict[int, str]]]:
        """Yields source, entries, rows and reasons of each block; a failure comes last."""
        waiting: deque[tuple[int, list[Entry], Future]] = deque()
        problem: UsageError | None = None
        try:
            for place, entries in blocks:
                contents = [entry.content for entry in entries]
                if self.pool is None:
                    yield place, entries, *decode_block(contents, self.recipe)
                    continue
                future = self.pool.submit(decode_block, contents, self.recipe)
                emptied = [entry._replace(content=b'') for entry in entries]
                waiting.append((place, emptied, future))
                while len(waiting) > _AHEAD * self.workers or (waiting and waiting[0][2].done()):
                    place, emptied, future = waiting.popleft()
                    yield place, emptied, *future.result()
        except UsageError as error:
            problem = error
        for place, emptied, future in waiting:
            yield place, emptied, *future.result()
        if problem is not None:
            raise problem


def _prepare_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and goes when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _total(sources: Sequence[Source]) -> Counter[str]:
    return sum((source.ignored for source in sources), Counter())


def _require_images(part: PartialPool, sources: Sequence[Source]) -> None:
    if part.count:
        return
    found = [f'{count:,} unreadable ({reason})' for reason, count in part.reasons.most_common(3)]
    for kind, count in _total(sources).most_common(5):
        found.append(f'{count:,} {kind}' + ' files' * kind.startswith('.'))
    part.discard()
    folders = [source.path for source in sources if source.path.is_dir()]
    remedy = 'Check the path and --include.'
    if any(is_pool(child) for folder in folders for child in folder.iterdir()):
        remedy = 'It holds pools: give each pool as its own SOURCE.'
    raise UsageError(
        f'{", ".join(str(source.path) for source in sources)} holds no readable image (found: '
        f'{", ".join(found) or "nothing"}). {remedy}'
    )


def _describe(recipe: Recipe, sources: Sequence[Source], part: PartialPool) -> dict[str, Any]:
    return {
        'created_by': 'mmdfkd.datasets.packing',
        'filter': recipe.filter,
        'mode': recipe.mode,
        'colour': 'grey' if recipe.grey else 'rgb',
        'pillow': PIL.__version__,
        'sources': [str(source.path) for source in sources],
        'include': sorted({rule for source in sources for rule in source.include}),
        'skipped': sum(part.reasons.values()),
        'cut_archives': [cut for source in sources for cut in source.cuts],
    }
