# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What mmengine puts into a checkpoint, as plain data and back; and which one is the latest."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapperDict
from mmengine.runner.checkpoint import find_latest_checkpoint

from mmdfkd.evaluation.metrics import Accuracy, Agreement
from mmdfkd.utils import UsageError
from mmdfkd.utils.errors import shorten


def latest_checkpoint(work_dir: str) -> str | None:
    """The checkpoint to resume from; a directory may have been copied or renamed since."""
    if not Path(work_dir, 'last_checkpoint').is_file():
        return None
    found = find_latest_checkpoint(work_dir)
    here = Path(work_dir, Path(found).name)
    return str(here) if here.is_file() else found


def check_best(hooks: Sequence[Hook], metrics: Sequence[Any], distils: bool) -> None:
    """Hold what ``save_best`` names against what validations will report, as far as that is known.

    Metrics of a user's own, those that derive from ours too, may report anything.

    Args:
        hooks: Of a run.
        metrics: Of its validations.
        distils: Whether there is a teacher to agree with.

    Raises:
        UsageError: Nothing of that name is reported.
    """
    if not all(type(metric) in (Accuracy, Agreement) for metric in metrics):
        return
    metrics = [metric for metric in metrics if distils or type(metric) is Accuracy]
    known = [f'{metric.prefix}/{name}' for metric in metrics for name in metric.names]
    # A method may evaluate another network too: accuracy/<network>_top1.
    patterns = [*known, *(name.replace('/', '/*_') for name in known), 'auto']
    for hook in hooks:
        for key in (hook.save_best or []) if isinstance(hook, CheckpointHook) else []:
            if not any(fnmatchcase(key, pattern) for pattern in patterns):
                raise UsageError(
                    f'default_hooks.checkpoint.save_best={key!r} is nothing that validations '
                    f'report: those are {shorten(known)}.'
                )


def to_plain(checkpoint: dict) -> None:
    """Turn what mmengine says about a run into tensors and plain Python values, in place."""
    for part in ('message_hub', 'meta'):
        checkpoint[part] = as_data(checkpoint[part])
    for schedulers in (checkpoint.get('param_schedulers') or {}).values():
        for state in schedulers:  # OneCycleLR keeps a function of its own
            for key in [key for key, value in state.items() if callable(value)]:
                del state[key]


def check_optimizers(checkpoint: dict, optim_wrapper: OptimWrapperDict, filename: str) -> None:
    """The state of another optimiser is none of this one's.

    Args:
        checkpoint: To resume from.
        optim_wrapper: The optimisers of the run by role.
        filename: Where it is, for messages.

    Raises:
        UsageError: It holds the state of other optimisers, or of other networks.
    """
    kinds = checkpoint['meta'].get('optimizers', {})
    for role, wrapper in optim_wrapper.items():
        known, own = checkpoint['optimizer'].get(role, {}), wrapper.optimizer
        groups = [len(group['params']) for group in known.get('param_groups', ())]
        wanted = [len(group['params']) for group in own.param_groups]
        same = kinds.get(role, type(own).__name__) == type(own).__name__
        if same and len(groups) == len(wanted) and groups != wanted:
            raise UsageError(
                f'{filename} is of another network: the optimiser of {role} knows '
                f'{sum(groups)} tensors there, {sum(wanted)} in this run. Resume with the '
                'networks of that run.'
            )
        if not same or groups != wanted:
            raise UsageError(
                f'{filename} holds the state of another optimiser of {role} '
                f'({kinds.get(role, "unknown")}, {len(groups)} groups of parameters) than '
                f'optim_wrapper.{role} describes ({type(own).__name__}, '
                f'{len(own.param_groups)}). Resume with that of the run, or use load_from to '
                'start from its weights.'
            )


def checkpoint_folders(runner: Any) -> list[Path]:
    """Where checkpoints of a run are: its work directory, and its folder in any ``out_dir``.

    As soon as training begins, mmengine calls that folder ``out_dir``.
    """
    others = [hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    name = Path(runner.work_dir).name
    folders = [Path(runner.work_dir)]
    folders += [Path(out, *inner) for out in others if out for inner in ((), (name,))]
    return [folder.resolve() for folder in folders]


def move_best(runtime_info: dict[str, Any], folders: Sequence[Path]) -> None:
    """Let a copied run know its own best checkpoints, in place, and forget those of the other.

    With one that is forgotten goes its score, or else a run might end without a best checkpoint.

    Args:
        runtime_info: Of a checkpoint.
        folders: As :func:`checkpoint_folders` gives them.
    """
    for key in [key for key in runtime_info if key.startswith(('best_ckpt', 'last_ckpt'))]:
        path = Path(str(runtime_info[key]))
        if path.parent.resolve() in folders:
            continue
        here = [folder / path.name for folder in folders if (folder / path.name).is_file()]
        del runtime_info[key]
        if here:
            runtime_info[key] = str(here[0])
        else:
            runtime_info.pop(key.replace('best_ckpt', 'best_score'), None)


def restore_histories(checkpoint: dict) -> None:
    """Undo :func:`to_plain` on the histories of the message hub, if there is one, in place."""
    message_hub = checkpoint.get('message_hub', {})
    for name, history in message_hub.get('log_scalars', {}).items():
        message_hub['log_scalars'][name] = HistoryBuffer(history['log'], history['count'])


def as_data(value: Any) -> Any:
    """Turn histories, numpy values and config types into tensors and plain Python values."""
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(log=np.asarray(log).tolist(), count=np.asarray(count).tolist())
    if isinstance(value, dict):
        return {str(key): as_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_data(item) for item in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return str(value)
