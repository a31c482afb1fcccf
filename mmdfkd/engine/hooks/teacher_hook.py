# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The teacher's accuracy, before the first step."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook

from mmdfkd.datasets.packed import PackedDataset, none_of_ours
from mmdfkd.evaluation import Accuracy
from mmdfkd.evaluation.metrics import without_labels
from mmdfkd.registry import HOOKS
from mmdfkd.utils import UsageError
from mmdfkd.utils.errors import shorten

from ..prediction import LogitsCache


@HOOKS.register_module()
class TeacherHook(Hook):
    """Evaluate the teacher on the validation (or test) set and say so before anything is trained.

    It also hands the teacher's predictions to the algorithm, for the agreement metric, and writes
    the teacher's fingerprint into checkpoints, so that no run resumes with another teacher.

    Args:
        batch_size: Images per forward pass.
    """

    def __init__(self, batch_size: int = 512) -> None:
        self.cache = LogitsCache(batch_size=batch_size)

    def before_train(self, runner: Any) -> None:
        """Hold labels against classes; evaluate on the validation set, if the run has one."""
        if runner.model.reads_labels:
            check_classes(runner.model, runner.train_dataloader.dataset, 'train')
        if runner.val_loop is None:
            runner.logger.info('No validation set: accuracies are not measured during training.')
        else:
            self._report(runner, runner.val_loop, 'val')

    def before_test(self, runner: Any) -> None:
        """Evaluate on the test set."""
        self._report(runner, runner.test_loop, 'test')

    def _report(self, runner: Any, loop: Any, split: str) -> None:
        model, dataset = runner.model, loop.dataloader.dataset
        check_classes(model, dataset, split)
        if dataset.labels is None:
            for metric in loop.evaluator.metrics:
                if type(metric) is Accuracy:  # one that derives from it may read others
                    raise without_labels(split)
        name = dataset.metainfo['name']
        runner.message_hub.update_info('eval_dataset', name)
        if model.teacher is None:
            return
        logits = self.cache.get(model.teacher, dataset, model.test_preprocessor)
        if not logits.isfinite().all():
            raise UsageError(
                f'The teacher {model.teacher.name} predicts NaN or infinity on {name}. Look at '
                'model.teacher.checkpoint, and at mean and std of its images.'
            )
        model.remember_teacher(logits.argmax(1))
        if dataset.labels is None:
            runner.logger.info(f'{name} has no labels: accuracies are not measured on it.')
            return
        labels = torch.as_tensor(dataset.labels)[: len(logits)]  # of a few batches, by mmengine
        hits = logits.argmax(1) == labels
        accuracy = 100 * hits.double().mean().item()
        runner.message_hub.update_info('teacher_accuracy', accuracy)
        runner.logger.info(
            f'Teacher {model.teacher.name}: {accuracy:.2f} % on {name} ({len(dataset):,} images).'
        )
        if accuracy <= 100 / logits.shape[1]:
            runner.logger.warning(
                f'The teacher is no better than guessing on {name}. Does the set have its classes, '
                'in its order? Are mean and std of model.teacher those of its training, in units '
                'of 0 to 255?'
            )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Sign the checkpoint."""
        checkpoint['meta']['teacher_fingerprint'] = runner.model.teacher_fingerprint()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuse a checkpoint made with another teacher."""
        found = checkpoint.get('meta', {}).get('teacher_fingerprint')
        own = runner.model.teacher_fingerprint()
        if found is not None and found != own:
            raise UsageError(
                f'This checkpoint was trained with another teacher (fingerprint {found}, the '
                f'config loads {own}). Set model.teacher.checkpoint to the one used then.'
            )


def check_classes(model: Any, dataset: Any, split: str) -> None:
    """Hold a dataset's classes and labels against the networks.

    Args:
        model: The algorithm.
        dataset: What it learns from or is measured on.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        UsageError: It is none of ours, or has other classes.
    """
    loader, count = f'{split}_dataloader', model.student.num_classes
    if not isinstance(dataset, PackedDataset):
        dataset = getattr(dataset, '_dataset', dataset)  # mmengine's slice of an epoch
    if not isinstance(dataset, PackedDataset):
        raise none_of_ours(f'{loader}.dataset', dataset)
    name, classes = dataset.metainfo['name'], dataset.metainfo.get('classes')
    remedy = (
        f'Choose the teacher of this dataset (model.teacher), or the dataset of this teacher '
        f'({loader}.dataset)'
    )
    if classes is not None and len(classes) != count:
        raise UsageError(
            f'The dataset {name} has {len(classes)} classes ({shorten(classes)}), the networks '
            f'have {count}. {remedy}; where it lacks folders of some classes, name them all by '
            'classes=[...].'
        )
    if dataset.labels is not None and dataset.labels.max(initial=0) >= count:
        raise UsageError(
            f'The dataset {name} has labels up to {dataset.labels.max()}, the networks have '
            f'{count} classes, counted from 0. {remedy}.'
        )
