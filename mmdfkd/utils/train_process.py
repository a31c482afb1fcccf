# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Runs of ``tools/train.py`` that another tool starts, several at once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

Run = TypeVar('Run', bound='TrainProcess')


def recipe_hash(cfg: Any, more: str) -> str:
    """Hash of a resolved config and of what else decides what is trained."""
    recipe = json.dumps(cfg.to_dict(), sort_keys=True, default=str) + more
    return hashlib.sha256(recipe.encode()).hexdigest()[:6]


class TrainProcess:
    """A process of ``script``, which is ``tools/train.py``; it goes on where it was interrupted."""

    def __init__(
        self, script: Path, config: Path, seed: int, work_dir: Path, quick: bool, *more: str
    ) -> None:
        self.root, self.config, self.seed = script.parents[1], config, seed
        self.work_dir = work_dir.parent / 'quick' / work_dir.name if quick else work_dir
        self.log = self.work_dir.parent / f'{work_dir.name}.log'
        self.command = [sys.executable, str(script), str(config), '--resume', '--seed', str(seed)]
        self.command += ['--work-dir', str(work_dir), *['--quick'] * quick, *more]
        self.process: subprocess.Popen | None = None
        self.problem: str | None = None  # why it failed, in words

    def start(self, slot: int = 0) -> None:
        """Start on one thread; ``slot`` numbers the runs under way."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open('w') as log:
            self.launch(log, OMP_NUM_THREADS='1')

    def launch(self, log: IO, **variables: str) -> None:
        """Start with these environment variables, and with the ``mmdfkd`` beside its script."""
        paths = [str(self.root), os.environ.get('PYTHONPATH')]
        variables['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
        self.process = subprocess.Popen(
            self.command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | variables
        )

    def poll(self) -> bool:
        """Whether it has ended; :attr:`problem` says if badly."""
        code = self.process.poll() if self.process else 0
        if code:
            lines = self.log.read_text(errors='replace').strip().splitlines() or ['no output']
            said = [line for line in lines if line.startswith('error: ')] or lines
            self.problem = f'{said[-1].removeprefix("error: ")} Its log is {self.log}.'
        return code is not None


def side_by_side(runs: Sequence[Run], slots: int) -> Iterator[tuple[Run, bool]]:
    """Yield what is under way and whether it has ended, again and again; closing it stops all."""
    waiting, free, running = list(runs), list(range(slots)), dict[Run, int]()
    try:
        while waiting or running:
            while waiting and free:
                run, slot = waiting.pop(0), free.pop(0)
                running[run] = slot
                run.start(slot)
            time.sleep(0.2)
            for run in list(running):
                ended = run.poll()
                if ended:
                    free.append(running.pop(run))
                yield run, ended
    finally:
        for run in running:
            if run.process:
                run.process.terminate()
                run.process.wait()
