# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""mmengine's Runner with checkpoints that are whole, safe to read, and strict."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmdfkd.datasets import (
    LatentDataset,
)
from mmdfkd.models.classifiers import read_checkpoint
from mmdfkd.models.classifiers.checkpoint import FORMAT, load_state, state_dict_of
from mmdfkd.registry import DATA_SAMPLERS, RUNNERS, describes
from mmdfkd.utils import UsageError
from mmdfkd.utils.device import choose_device, set_up_device
from mmdfkd.utils.errors import check_least
from mmdfkd.utils.files import atomic_path

from .checkpoints import (
    check_best,
    check_optimizers,
    checkpoint_folders,
    latest_checkpoint,
    move_best,
    restore_histories,
    to_plain,
)
from .launch import check_launcher, join_by_gloo, set_meeting_place
from .loaders import complete_dataset, complete_loader, settle
from .schedules import Schedules, check_length, check_schedules

#: Default hooks that mmengine has in any run.
OF_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


@RUNNERS.register_module()
class DistillRunner(Runner):
    """The runner of every mmdfkd config.

    It differs from mmengine's in its checkpoints: they are written beside their place and renamed,
    contain tensors and plain values only, are read with ``weights_only=True``, and must match the
    model key by key. ``load_from`` takes a training checkpoint or a ``student.pth``.

    Its arguments are those of mmengine's ``Runner``, the keys of a config; :meth:`from_cfg` takes a
    whole one.
    """

    _resume: bool
    _load_from: str | None

    @classmethod
    def from_cfg(cls, cfg: Config, parts: Mapping[str, Any] | None = None) -> DistillRunner:
        """Build a runner.

        Args:
            cfg: The config, which becomes the record of the run.
            parts: What is built already, by its dotted place in the config: a network, a dataset.
                It is used as it is; the config is left to describe it.
        """
        arguments = inspect.signature(Runner.__init__).parameters
        given = [name for name in arguments if cfg.get(name) is not None]
        settings = {name: copy.deepcopy(cfg[name]) for name in given}
        for split in ('val', 'test'):  # no image counts twice where processes share them unevenly
            sampler: Any = (settings.get(f'{split}_dataloader') or {}).get('sampler')
            if describes(DATA_SAMPLERS, sampler, DefaultSampler):
                sampler.setdefault('round_up', False)
        hooks = settings.get('default_hooks') or {}
        for name in [name for name, hook in hooks.items() if hook is None]:
            if name not in OF_MMENGINE:  # which mmengine leaves out itself
                hooks.pop(name)
        checkpoint = hooks.get('checkpoint')
        if isinstance(checkpoint, dict) and checkpoint.get('save_best'):
            better = [*CheckpointHook._default_greater_keys, 'agreement']  # the more there is of it
            checkpoint.setdefault('greater_keys', better)
        schedules = settings.get('param_scheduler')
        if isinstance(schedules, dict) and 'type' not in schedules:
            settings['param_scheduler'] = {role: each or [] for role, each in schedules.items()}
        for place, part in (parts or {}).items():
            *path, key = place.split('.')
            node = settings
            for name in path:
                node = node[name]
            node[key] = part
        runner = cls(**settings, cfg=cfg)
        # The work directory has its text, formatted; each checkpoint would take 0.2 s for that.
        object.__setattr__(runner.cfg, '_format_python_code', False)
        return runner

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader of whole batches, see ``complete_loader`` and ``settle``."""
        if isinstance(dataloader, dict):
            dataloader = complete_loader(dataloader)
        return settle(Runner.build_dataloader(dataloader, seed, diff_rank_seed))

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop; images learn of their run by ``complete_dataset``.

        Raises:
            UsageError: The images are none for the method, the run has no length, or a warm-up
                without the student, or what is accumulated for a step, is as long.
        """
        dataset = self._train_dataloader['dataset']
        if isinstance(dataset, dict):  # else it is built already
            complete_dataset(dataset, self.model, self.work_dir, self.seed)
        if isinstance(loop, dict):
            for key in ('max_epochs', 'max_iters', 'val_interval'):
                check_least(f'train_cfg.{key}', loop.get(key), 1)
                if (loop.get(key) or 1) % 1:
                    raise UsageError(f'train_cfg.{key} is {loop[key]}; give a whole number.')
        loop = super().build_train_loop(loop)
        for hook in self.hooks:  # a run of iterations has no epochs to log its validations by
            if isinstance(hook, LoggerHook) and isinstance(loop, IterBasedTrainLoop):
                hook.log_metric_by_epoch = False
        warm_up = getattr(self.model, 'warmup_iterations', 0)
        check_length(loop.max_iters, warm_up, self.optim_wrapper)
        return loop

    def build_val_loop(self, loop: Any) -> Any:
        """Build the validation loop.

        Raises:
            UsageError: The best checkpoint is to be kept by something that no metric reports.
        """
        loop = super().build_val_loop(loop)
        check_best(self.hooks, loop.evaluator.metrics, self.model.teacher is not None)
        return loop

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedulers of each role; a role that has none keeps its learning rate.

        Raises:
            UsageError: A role is named that the algorithm does not train, or a schedule begins
                behind the end, or counts iterations of whole pools where epochs are shorter.
        """
        roles = list(self.optim_wrapper.keys())
        listed = scheduler if isinstance(scheduler, list) else [scheduler]
        if all(isinstance(one, dict) and 'type' in one for one in listed):
            scheduler = dict.fromkeys(roles, listed)
        if isinstance(scheduler, dict):
            unknown = [role for role in scheduler if role not in roles]
            if unknown:
                raise UsageError(
                    f'param_scheduler has the roles {sorted(scheduler)}, {self.model.method} '
                    f'trains {sorted(roles)}. Rename or remove {unknown[0]!r}.'
                )
            scheduler = {role: scheduler.get(role, []) for role in roles}
            selects = self.model.selector is not None
            in_epochs = not isinstance(self.train_loop, IterBasedTrainLoop)
            check_schedules(scheduler, self.max_epochs, self.max_iters, selects, in_epochs)
        return super().build_param_scheduler(scheduler)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """Scale learning rates of roles that learn from the loader's batches with their size.

        Where a method fills a bank, that is the student: the others learn from rounds, whose size
        is that of ``model.batch_size``, or are a GAN, whose batches only processes make larger.

        Each keeps the rate it begins with, as it does for schedules.
        """
        others = [optim_wrapper[role] for role in self.model.roles() if role != 'student']
        if hasattr(self.model, 'gan_epochs') and auto_scale_lr:
            alone = dict(auto_scale_lr, base_batch_size=self._train_dataloader['batch_size'])
            for wrapper in others:
                super().scale_lr(wrapper, alone)
        fills = hasattr(self.model, 'rounds_before')
        super().scale_lr(optim_wrapper['student'] if fills else optim_wrapper, auto_scale_lr)
        for wrapper in optim_wrapper.values():
            for group in wrapper.param_groups:
                group.setdefault('initial_lr', group['lr'])

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the environment.

        Without a GPU, processes talk by gloo. ``keep_memory`` and ``tf32`` are ours, see
        :func:`~mmdfkd.utils.device.set_up_device`.
        """
        started = torch.distributed.is_initialized()
        if not started:
            check_launcher(self.launcher)
        if self.launcher != 'none' and choose_device() != get_device():
            raise UsageError(
                f'--launcher {self.launcher}: a run on a Mac is one process on its CPU. Leave '
                '--launcher out.'
            )
        set_up_device(env_cfg)
        if self.launcher != 'none' and not started:
            if not torch.cuda.is_available():
                join_by_gloo(self.launcher, env_cfg.get('dist_cfg', {}).get('timeout'))
            elif self.launcher == 'mpi':  # mmengine finds it for the others
                set_meeting_place(self.launcher)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: Any) -> Any:
        """Put the model on its device, see :func:`~mmdfkd.utils.device.choose_device`."""
        if choose_device() != get_device():  # it was built there
            return revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint atomically; arguments are those of mmengine's runner."""
        if self.rank != 0:
            return
        with atomic_path(Path(out_dir, filename)) as temporary:
            super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)

    @functools.cached_property
    def _acting(self) -> dict[str, list[Hook]]:
        """Which hooks do something in a stage, as far as it was asked."""
        return {}

    def register_hook(self, hook: Hook | dict, priority: str | int | None = None) -> None:
        """Register a hook; arguments are those of mmengine's runner."""
        super().register_hook(hook, priority)
        self._acting.clear()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a stage of the hooks that do something in it.

        Most do nothing in most, which would be some thirty calls in each iteration. After the
        hooks, a checkpoint to be saved is turned into plain data.
        """
        if fn_name not in self._acting:
            self._acting[fn_name] = [hook for hook in self._hooks if acts(hook, fn_name)]
        for hook in self._acting[fn_name]:
            getattr(hook, fn_name)(self, **kwargs)
        if fn_name == 'before_save_checkpoint':
            if 'optimizer' in kwargs['checkpoint']:
                optimizers = {role: each.optimizer for role, each in self.optim_wrapper.items()}
                kinds = {role: type(each).__name__ for role, each in optimizers.items()}
                kwargs['checkpoint']['meta']['optimizers'] = kinds
            to_plain(kwargs['checkpoint'])

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: list | None = None,
    ) -> dict:
        """Load a training checkpoint, or a student file into the student.

        Always strictly: ``strict`` and ``revise_keys`` are mmengine's and change nothing.

        Raises:
            UsageError: The file is damaged, holds code, or does not fit the config's networks.
        """
        checkpoint = read_checkpoint(filename, map_location)
        source, teacher = f'Checkpoint {filename}', self.model.teacher_fingerprint()
        if checkpoint.get('meta', {}).get('format') == FORMAT:
            load_state(self.model.student, state_dict_of(checkpoint, filename), source)
            whole = dict(checkpoint, state_dict=self.model.state_dict())
            self.call_hook('after_load_checkpoint', checkpoint=whole)
        else:
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
            load_state(self.model, state_dict_of(checkpoint, filename), source)
        if self.model.teacher_fingerprint() != teacher:  # by the layers that it shares
            raise UsageError(
                f'{source} has another classifier than the teacher, with whom this student shares '
                "it. Load a student of this teacher with model.classifier='shared', or set "
                'model.classifier to what it was then.'
            )
        restore_histories(checkpoint)
        self._has_loaded = True
        self.logger.info(f'Loaded checkpoint {filename}')
        return checkpoint

    def load_or_resume(self) -> None:
        """Load or resume a checkpoint; the latest one is that of this work directory."""
        if self._resume and self._load_from is None:
            self._load_from = latest_checkpoint(self.work_dir)
            self._resume = self._load_from is not None
        super().load_or_resume()

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'cpu',
    ) -> None:
        """Resume from a training checkpoint; arguments are those of mmengine's runner."""
        checkpoint = read_checkpoint(filename)
        meta = checkpoint.get('meta', {})
        if 'epoch' not in meta or 'optimizer' not in checkpoint:
            raise UsageError(
                f'{filename} holds a network, not the state of a training (those of the best epoch '
                'have none either, nor have those written with save_optimizer=False), so nothing '
                'can be resumed from it. Resume from an epoch_N.pth, or use load_from to start '
                'from it.'
            )
        check_optimizers(checkpoint, self.optim_wrapper, filename)
        seed = self.seed
        schedules = Schedules(self.param_schedulers or {}, self.optim_wrapper)
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        self._go_on(schedules, checkpoint.get('param_schedulers') or {})
        move_best(self.message_hub.runtime_info, checkpoint_folders(self))
        if self.seed != seed:
            self.logger.info(f'Goes on with the seed {self.seed} of the checkpoint, not {seed}.')
        # Loader and data were made with the config's seed.
        sampler, dataset = (
            self.train_dataloader.batch_sampler.sampler,
            self.train_dataloader.dataset,
        )
        for part in (sampler, dataset) if isinstance(dataset, LatentDataset) else (sampler,):
            if getattr(part, 'seed', None) == seed:
                part.seed = self.seed

    def _go_on(self, schedules: Schedules, known: Mapping[str, list]) -> None:
        """Where schedules are no longer those of the checkpoint, follow those of this run."""
        iterations = self.iter
        if isinstance(self.train_loop, EpochBasedTrainLoop) and self.model.selector is None:
            iterations = self.epoch * len(self.train_dataloader)  # of as many processes as now
        for role in schedules.states:
            if not schedules.changed(role, known.get(role, [])):
                continue
            before = self.optim_wrapper[role].get_lr()['lr']
            schedules.replay(role, self.epoch, iterations)
            now = self.optim_wrapper[role].get_lr()['lr']
            if now != before:
                self.logger.info(
                    f'The schedule of {role} is not that of the checkpoint: its learning rate goes '
                    f'on at {now[0]:.4g}, where a run of this config would be, not at '
                    f'{before[0]:.4g}.'
                )


def acts(hook: Hook, stage: str) -> bool:
    """Tells whether a hook has a stage of its own, be it one that mmengine does not know."""
    if stage in Hook.stages:
        return stage in vars(hook) or stage in hook.get_triggered_stages()
    return hasattr(hook, stage)
