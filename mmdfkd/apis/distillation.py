# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A run of ``tools/train.py`` as a call, for a teacher and images that are in memory."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from mmdfkd.datasets import PackedDataset
from mmdfkd.engine import DistillRunner, set_loader_defaults
from mmdfkd.models.algorithms import BaseDistiller
from mmdfkd.models.classifiers import Classifier, ForeignClassifier, load_classifier
from mmdfkd.registry import MODELS, describes
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import apply_options, load_config
from mmdfkd.utils.progress import stop_bars
from mmdfkd.utils.seeds import check_seed

from .given import Images, as_dataset, as_student, as_teacher
from .methods import find_method, find_recipe

#: What of a config an argument of :func:`distill` may give, and which one.
ARGUMENTS = {
    'work_dir': 'work_dir',
    'resume': 'resume',
    'load_from': 'student',
    'randomness.seed': 'seed',
    'model.teacher': 'teacher',
    'model.student': 'student',
    'train_dataloader.dataset': 'images',
    'train_dataloader.dataset.collected': 'images',
    'val_dataloader.dataset': 'evaluation',
}
ONE_PROCESS = 'distill() is one process. For several use tools/train.py and a config.'


class Distilled(NamedTuple):
    """What came of a run.

    Attributes:
        student: The trained network, in eval mode on the CPU; it maps images, normalised like the
            teacher's, ``(B, C, H, W)`` to logits ``(B, K)``. Of the class of the module that was
            given; a ``Classifier`` where a config was.
        accuracy: The student's on the evaluation set, in percent; ``None`` without one.
        agreement: How often student and teacher agree there, in percent; likewise.
        seconds: Time of the training steps.
        work_dir: Where ``student.pth``, ``summary.json``, the log and the checkpoints are.
        summary: All of ``summary.json``.
    """

    student: nn.Module
    accuracy: float | None
    agreement: float | None
    seconds: float
    work_dir: Path
    summary: dict[str, Any]


def distill(
    teacher: nn.Module,
    student: nn.Module | dict,
    images: Images | None = None,
    *,
    method: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: Sequence[int] | None = None,
    evaluation: Images | tuple[Any, Any] | None = None,
    recipe: str | os.PathLike | None = None,
    options: dict[str, Any] | None = None,
    work_dir: str | os.PathLike | None = None,
    seed: int | None = None,
    resume: bool | str | os.PathLike = False,
) -> Distilled:
    """Distil a teacher into a student.

    .. code-block:: python

        result = distill(
            teacher,  # any module that maps normalised images to logits
            student,
            images,  # uint8 (N, H, W, C), of anything
            method='DFND',
            mean=[125.3, 123.0, 113.9],  # of the teacher's training, in units of 0 to 255
            std=[63.0, 62.1, 66.7],
            options={'model.teacher_accuracy': 'mean_confidence'},
        )
        logits = result.student(normalised_images)

    It is the run that ``tools/train.py`` would make of the recipe with these networks and images,
    with the same log, records and checkpoints. Teacher and student are copied: those of the caller
    stay as they are. Of the process, random states, default scope, start method of workers and
    settings of cuDNN and memory are left as the run has set them.

    Args:
        teacher: Maps normalised images ``(B, C, H, W)`` to logits ``(B, K)``. A ``Classifier`` is
            taken as it is, for instance a ``ForeignClassifier(network, size=224, ...)`` that sees
            the images enlarged or names inner ``maps`` for methods that compare them.
        student: Such a module, trained from the weights it has, or a ``Classifier`` config, whose
            weights begin at random. Methods that build the student around the teacher's classifier
            (KD3, HiDFD) need the config: ``dict(backbone=dict(type=...))``.
        images: What the student learns from: uint8 ``(N, H, W, C)`` with values 0 to 255, the
            folder of a packed pool, or one of ``mmdfkd.datasets``; with labels
            ``PackedDataset(images, labels)``. ``None`` for methods that make their own.
        method: A name of :func:`list_methods`.
        mean: Per-channel mean the teacher's inputs are normalised with, in units of 0 to 255.
        std: Per-channel standard deviation, same units.
        input_shape: ``(C, H, W)`` of what the teacher sees. Default: that of ``images``, else of
            ``evaluation``.
        evaluation: ``(images, labels)`` to measure accuracies on, or a labelled dataset.
        recipe: Config of that method whose optimisers, schedule, generator and augmentation are
            taken over, by name or path; random crops become as large as the teacher's images.
            Default: for grey images that of the digits benchmark, which takes minutes; for colour
            images the published one of CIFAR-10, which may take hours on a GPU.
        options: Like ``--cfg-options``: dotted keys of the recipe and their new values, such as
            ``{'train_cfg.max_epochs': 20}``.
        work_dir: Where the run goes. Default: ``work_dirs/distill/<name of the recipe>``.
        seed: Random seed. Default: that of the recipe, 0.
        resume: Continue from the latest checkpoint in ``work_dir``, if there is one, or from the
            one at this path.

    Returns:
        The student and what was measured.

    Raises:
        UsageError: An argument is wrong; the message names it, and the remedy.
    """
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise UsageError(ONE_PROCESS)
    check_seed('seed', seed)
    if not isinstance(options or {}, dict):
        raise UsageError("options: give a dict, such as {'train_cfg.max_epochs': 20}.")
    kind = find_method(method)
    pool = _training_images(kind, images)
    tests = None if evaluation is None else as_dataset('evaluation', evaluation)
    teacher = as_teacher(
        teacher, mean, std, _shape(teacher, input_shape, tests if pool is None else pool)
    )
    for argument, dataset in dict(images=pool, evaluation=tests).items():
        _check_labels(argument, dataset, teacher)
    parts: dict[str, Any] = {'model.teacher': teacher}
    if not isinstance(student, dict):
        parts['model.student'] = as_student(student, teacher)
    if pool is not None:
        place = 'train_dataloader.dataset'
        parts[f'{place}.collected' if kind.learns_from == 'both' else place] = pool
    if tests is not None:
        parts['val_dataloader.dataset'] = tests

    path = find_recipe(kind, recipe, teacher.input_shape[0])
    given = {*parts, 'work_dir', 'resume', 'load_from'}
    if seed is not None:
        given.add('randomness.seed')
    for option in _keys(options or {}):
        _check_read(option, given)
    cfg = _config(path, kind, parts, student, options or {}, teacher, recipe is None)
    folder = _make_folder(work_dir or Path('work_dirs', 'distill', path.stem))
    cfg.work_dir = str(folder)
    cfg.experiment_name = f'{path.stem}_{uuid.uuid4().hex[:8]}'  # two runs of a second are two
    cfg.resume = bool(resume)
    if isinstance(resume, (str, os.PathLike)):
        cfg.load_from = os.fspath(resume)
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=int(seed))
    set_loader_defaults(cfg)
    try:
        DistillRunner.from_cfg(cfg, parts).train()
    except BaseException:
        stop_bars()
        raise
    finally:
        _close_log(cfg.experiment_name)

    summary = json.loads((folder / 'summary.json').read_text(encoding='utf-8'))
    return Distilled(
        student=_trained(folder / 'student.pth', student, parts.get('model.student'), teacher),
        accuracy=summary['student_accuracy_last'],
        agreement=summary['agreement'],
        seconds=summary['seconds'],
        work_dir=folder,
        summary=summary,
    )


def _training_images(method: type[BaseDistiller], images: Images | None) -> PackedDataset | None:
    """The images to learn from, where the method wants any."""
    if (images is None) == (method.learns_from == 'generated'):
        return None if images is None else as_dataset('images', images)
    name = method.__name__
    if images is not None:
        raise UsageError(f'images: {name} makes its own images. Leave them out.')
    raise UsageError(
        f'images: {name} learns from {method.learns_from} images and got none. Give some, or '
        'choose a method that makes its own: list_methods().'
    )


def _shape(teacher: nn.Module, stated: Any, dataset: PackedDataset | None) -> tuple[int, ...]:
    """``(C, H, W)`` of what the teacher sees."""
    if isinstance(teacher, Classifier):
        if stated is not None and tuple(stated) != teacher.input_shape:
            raise UsageError(
                f'input_shape={tuple(stated)}: {teacher.name} states its own, '
                f'{teacher.input_shape}. Leave it out.'
            )
        return teacher.input_shape
    if stated is not None:
        try:
            sizes = tuple(int(size) for size in stated)
        except (TypeError, ValueError):
            sizes = ()
        if len(sizes) != 3 or (sizes[2] in (1, 3) and sizes[0] not in (1, 3)):
            raise UsageError(f'input_shape={stated}: give (C, H, W), such as (3, 32, 32).')
        return sizes
    if dataset is None:
        raise UsageError(
            'input_shape: there are neither images nor an evaluation set to read it off. Give '
            '(C, H, W) of the images the teacher was trained on.'
        )
    height, width, channels = dataset.images.shape[1:]
    return channels, height, width


def _check_labels(argument: str, dataset: PackedDataset | None, teacher: Classifier) -> None:
    """Labels must be classes of the teacher."""
    labels = None if dataset is None else dataset.labels
    if labels is None or labels.max() < teacher.num_classes:
        return
    raise UsageError(
        f'{argument}: there are labels up to {labels.max()}, the teacher has '
        f'{teacher.num_classes} classes, counted from 0. Give the labels of these classes.'
    )


def _config(
    path: Path,
    method: type[BaseDistiller],
    parts: dict[str, Any],
    student: Any,
    options: dict[str, Any],
    teacher: Classifier,
    by_default: bool,
) -> Config:
    """The recipe with what the caller gives in it, checked; parts are described."""
    cfg = load_config(path)
    if MODELS.get(cfg.model.type) is not method:
        raise UsageError(
            f'recipe: {path.name} is one of {cfg.model.type}, not of {method.__name__}. Choose '
            'another, or the other method.'
        )
    if 'model.student' not in parts:
        cfg.model.student = dict(student)
    for transform in (cfg.get('data_preprocessor') or {}).get('augment') or ():
        if 'size' in transform:
            transform.size = tuple(teacher.input_shape[1:])
    cfg.model.pop('teacher_accuracy', None)  # is that of the recipe's own teacher
    layers = dict(teacher.named_modules())
    if by_default and not all(name in layers for name in cfg.model.get('feature_layers') or ()):
        del cfg.model.feature_layers  # which are those of the recipe's own teacher
    apply_options(cfg, options, 'options')
    if 'val_dataloader.dataset' not in parts:
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    check_config(cfg)
    cfg.merge_from_dict({place: dict(_record(p), _delete_=True) for place, p in parts.items()})
    return cfg


def _keys(options: dict[str, Any], prefix: str = '') -> Iterator[str]:
    """Dotted keys of options, those inside of dicts too."""
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}'


def _check_read(option: str, given: set[str]) -> None:
    """An option must reach what reads it; ``given`` are the places that arguments fill."""
    for place, argument in ARGUMENTS.items():
        if place in given and f'{option}.'.startswith(f'{place}.'):
            raise UsageError(
                f'options: {option} is what the argument {argument} gives. Change it there.'
            )
    if option == 'launcher':
        raise UsageError(f'options: {option}: {ONE_PROCESS}')
    if option == 'experiment_name':
        raise UsageError(f'options: {option} is set by distill() itself. Leave it out.')
    phase = option.partition('_')[0]
    if phase == 'test' or (phase == 'val' and 'val_dataloader.dataset' not in given):
        raise UsageError(
            f'options: {option} has no effect, since nothing is measured. Leave it out'
            + (', or give an evaluation set.' if phase == 'val' else '.')
        )


def _make_folder(work_dir: str | os.PathLike) -> Path:
    """The folder of the run, which is there from now on."""
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f'work_dir={str(work_dir)!r} cannot be a folder ({error.strerror}). Choose another.'
        ) from error
    return Path(work_dir)


def _close_log(run: str) -> None:
    """Close the log file of a run that is over: what comes later is none of it."""
    logger = MMLogger.get_current_instance()
    if not logger.instance_name.startswith(run):  # the run never came to have one
        return
    for handler in [*logger.handlers]:
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)  # closed alone it would open again
            handler.close()


def _record(part: Classifier | PackedDataset) -> dict[str, Any]:
    """What the config of the run says of something that was there already."""
    if isinstance(part, Classifier):
        return part.config
    known = dict(root=str(part.root)) if hasattr(part, 'root') else dict(metainfo=part.metainfo)
    content = dict(num_images=len(part), content_hash=part.content_hash)
    return dict(type=type(part).__name__, **known, **content)


def _trained(
    path: Path, given: nn.Module | dict, part: Classifier | None, teacher: Classifier
) -> nn.Module:
    """The student of a run as the caller knows it."""
    foreign = describes(MODELS, given, ForeignClassifier)
    if isinstance(given, dict) and foreign:  # its file cannot rebuild it
        images = dict(input_shape=teacher.input_shape, mean=teacher.mean, std=teacher.std)
        return load_classifier(path, MODELS.build({**given, **images})).eval()
    if not isinstance(part, ForeignClassifier):
        return load_classifier(path).eval()
    network = load_classifier(path, part.cpu()).eval()
    return network if isinstance(given, Classifier) else part.original().eval()
