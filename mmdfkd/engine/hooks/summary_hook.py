# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A run is a record: ``summary.json`` and ``student.pth``."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop

from mmdfkd.datasets.latents import LatentDataset
from mmdfkd.datasets.packed import none_of_ours
from mmdfkd.models.classifiers import save_classifier
from mmdfkd.registry import HOOKS
from mmdfkd.utils.counting import count_macs, count_parameters
from mmdfkd.utils.files import write_json
from mmdfkd.utils.seeds import random_numbers_apart
from mmdfkd.version import __version__

from ..first_process import on_first_process
from ..runner.checkpoints import checkpoint_folders
from ..runner.schedules import needs_metrics


@HOOKS.register_module()
class SummaryHook(Hook):
    """Write what a run was and what came of it.

    ``summary.json`` is there from the first validation on (``"finished": false``), so that a killed
    run leaves its record too. ``student.pth`` holds the deployable student alone, with what is
    needed to rebuild it; a run that trains none has none.
    """

    priority = 'LOW'

    within_epoch = False  # whether a checkpoint was written there

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note whether a checkpoint is from within an epoch: mmengine says when one begins."""
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        self.within_epoch = info.get('epoch') == checkpoint.get('meta', {}).get('epoch')

    def before_train(self, runner: Any) -> None:
        """Collect what is known beforehand."""
        model = runner.model
        dataset = runner.train_dataloader.dataset
        if not hasattr(dataset, 'metainfo'):
            raise none_of_ours('train_dataloader.dataset', dataset)
        hub = runner.message_hub.runtime_info
        self.seconds_before = hub.get('train_seconds', 0.0)
        self.images_before = hub.get('images_seen', 0)
        self.seconds = 0.0
        self.images = 0
        self.used = torch.zeros(len(dataset), dtype=torch.bool)
        known = hub.get('images_used')
        if known is not None and len(known) == len(dataset):
            self.used |= known.cpu()
        # By number of iterations: a checkpoint is older than the validation of its epoch.
        self.accuracies: dict[int, float] = dict(hub.get('student_accuracies', ()))
        self.agreement: float | None = None
        # After how many iterations, the last time; of a checkpoint, if it was written behind that.
        told = self.validated = hub.get('student_validated_at')
        if runner.iter:
            self._recall(runner)
        elif runner.rank == 0:  # what an earlier run left here is not to be gone on with
            for name in ('last_checkpoint', 'summary.json'):
                Path(runner.work_dir, name).unlink(missing_ok=True)
        done = [told] if has_plateau(runner) else [told, self.validated, *self.accuracies]
        within = self.within_epoch and not isinstance(runner.train_loop, IterBasedTrainLoop)
        due = runner.iter > 0 and not within and is_due(runner)
        # One process answers for all: others may not see the record.
        self.missed = on_first_process(lambda: due and runner.iter not in done)
        teacher = model.teacher
        self.facts = dict(
            method=model.method,
            teacher=teacher.name if teacher is not None else None,
            student=model.student.name,
            dataset=hub.get('eval_dataset'),
            train_images=dataset.metainfo['name'],
            config=runner.cfg.filename,
            teacher_params=count_parameters(teacher),
            student_params=count_parameters(model.student),
            teacher_macs=count_macs(teacher),
            student_macs=count_macs(model.student),
            teacher_fingerprint=model.teacher_fingerprint(),
            seed=runner.seed,
            processes=runner.world_size,
            device=device_name(),
            versions=versions(),
            commit=commit(),
        )

    def _recall(self, runner: Any) -> None:
        """On resuming, take over what the record says of the part that is not repeated."""
        path = Path(runner.work_dir, 'summary.json')
        if Path(runner._load_from).parent.resolve() not in checkpoint_folders(runner):
            return  # it is that of another run
        record = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        history = record.get('student_accuracies', [])
        self.accuracies.update((step, value) for step, value in history if step <= runner.iter)
        self.validated = record.get('validated_at', max(self.accuracies, default=None))
        if self.validated == runner.iter:
            self.agreement = record.get('agreement')

    def before_train_epoch(self, runner: Any) -> None:
        """Start the clock and mark the images this epoch uses."""
        self._catch_up(runner)
        sampler = runner.train_dataloader.batch_sampler.sampler
        indices = getattr(sampler, 'indices', None)
        if not isinstance(indices, torch.Tensor):  # none, or a generator of mmengine's
            indices = None
        grown = len(runner.train_dataloader.dataset) - len(self.used)  # a bank grows
        self.used = torch.cat([self.used, torch.zeros(grown, dtype=torch.bool)])
        self.used[slice(None) if indices is None else indices] = True
        self.started = time.perf_counter()

    def _catch_up(self, runner: Any) -> None:
        """Repeat a validation that is missing: a checkpoint is older than that of its epoch."""
        if self.missed:
            self.missed = False
            with random_numbers_apart():
                runner.val_loop.run()
            runner.model.train()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count images."""
        self.images += len(data_batch['index']) * runner.world_size
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self._note(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Stop the clock."""
        self._note(runner)

    def _note(self, runner: Any) -> None:
        """Take the time and let checkpoints know what was done so far."""
        now = time.perf_counter()
        self.seconds += now - self.started
        self.started = now
        hub = runner.message_hub
        hub.update_info('train_seconds', self.seconds_before + self.seconds)
        hub.update_info('images_seen', self.images_before + self.images)
        hub.update_info('images_used', self.used)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Note the accuracy and write the record so far."""
        metrics = metrics or {}
        self.validated = runner.iter
        runner.message_hub.update_info('student_validated_at', runner.iter)
        if 'accuracy/top1' in metrics:
            self.accuracies[runner.iter] = metrics['accuracy/top1']
            history = [list(pair) for pair in self.accuracies.items()]
            runner.message_hub.update_info('student_accuracies', history)
        self.agreement = metrics.get('agreement/teacher')
        self.write(runner, finished=False)
        self.started = time.perf_counter()  # a validation is no training

    def after_train(self, runner: Any) -> None:
        """Write the final record and the student."""
        self._catch_up(runner)
        summary = self.write(runner, finished=True)
        if getattr(runner.model, 'gan_epochs', 0) >= runner.max_epochs:
            runner.logger.info(f'Wrote summary.json to {runner.work_dir}. No student was trained.')
        elif runner.rank == 0:
            keys = ('method', 'teacher', 'dataset', 'config', 'seed', 'versions', 'commit')
            meta = {key: summary[key] for key in keys}
            meta['accuracy'] = summary['student_accuracy_last']
            with averaged(runner):
                save_classifier(Path(runner.work_dir, 'student.pth'), runner.model.student, meta)
            runner.logger.info(f'Wrote summary.json and student.pth to {runner.work_dir}.')

    def write(self, runner: Any, finished: bool) -> dict[str, Any]:
        """Write ``summary.json`` on the main process; return its content."""
        seconds = self.seconds_before + self.seconds
        seen = self.images_before + self.images
        new = isinstance(runner.train_dataloader.dataset, LatentDataset)  # no latent comes twice
        summary = dict(
            self.facts,
            finished=finished,
            epoch=runner.epoch,
            teacher_accuracy=runner.message_hub.runtime_info.get('teacher_accuracy'),
            **accuracy_over_epochs(list(self.accuracies.values())),
            student_accuracies=[list(pair) for pair in self.accuracies.items()],
            agreement=self.agreement,
            validated_at=self.validated,
            images_used=seen if new else int(self.used.sum()),
            images_seen=seen,
            seconds=round(seconds, 3),
            images_per_second=round(seen / max(seconds, 1e-9), 1),
        )
        bank = runner.message_hub.runtime_info.get('bank')
        if bank is not None:
            summary['bank'] = bank
        self._dump(runner.work_dir, summary)
        return summary

    @staticmethod
    @master_only
    def _dump(work_dir: str, summary: dict[str, Any]) -> None:
        write_json(Path(work_dir, 'summary.json'), summary)


def is_due(runner: Any) -> bool:
    """Whether a run validates what it has done so far."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    counts_iterations = isinstance(loop, IterBasedTrainLoop)
    loop._decide_current_val_interval()  # as it does before each validation
    done, last = (loop.iter, loop.max_iters) if counts_iterations else (loop.epoch, loop.max_epochs)
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)


def has_plateau(runner: Any) -> bool:
    """Whether some schedule depends on validations, of which its checkpoint is ignorant."""
    schedulers = (runner.param_schedulers or {}).values()
    return any(needs_metrics(scheduler) for each in schedulers for scheduler in each)


@contextmanager
def averaged(runner: Any) -> Iterator[None]:
    """Inside, the student is the one that validations see: mmengine's ``EMAHook`` averages it."""
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averages:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in averages:
            hook.after_val_epoch(runner)


def accuracy_over_epochs(accuracies: list[float]) -> dict[str, float | None]:
    """Last, best, mean and standard deviation of a run's accuracies, ``None`` where there are none.

    A run without data does not know which of its epochs is the best one. So PRE-DFKD (arXiv
    2201.03019) asks for a high mean and a small variance over all of them.
    """
    known = bool(accuracies)
    return dict(
        student_accuracy_last=accuracies[-1] if known else None,
        student_accuracy_best=max(accuracies) if known else None,
        student_accuracy_mean=statistics.fmean(accuracies) if known else None,
        student_accuracy_std=statistics.pstdev(accuracies) if known else None,
    )


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    packages = ('torch', 'torchvision', 'onedl-mmengine', 'onedl-mmcv', 'numpy')
    return {
        'python': platform.python_version(),
        'mmdfkd': __version__,
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return 'unknown'


def commit() -> str:
    """Commit of the checkout this package runs from; ``'unknown'`` where it is none."""
    here = Path(__file__)

    def git(*command: str) -> str:
        words = ['git', '-C', str(here.parent), *command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git('ls-files', '--error-unmatch', here.name)  # else this is another project's checkout
        return git('rev-parse', 'HEAD')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def device_name() -> str:
    """The GPU's name, or the CPU's architecture and thread count."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU {platform.machine()}, {torch.get_num_threads()} threads'
