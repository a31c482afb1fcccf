# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""DFND: Learning Student Networks in the Wild."""

from __future__ import annotations

from typing import Any, Literal

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.models.losses import kl_divergence
from mmdfkd.models.modules import AdaptationMatrix, gather_batch
from mmdfkd.models.selectors import Selection
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice

from .base import BaseDistiller, add_up, detached

#: Statistics of ImageNet in units of 0 to 255, as everybody uses them.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@MODELS.register_module()
class DFND(BaseDistiller):
    """`Learning Student Networks in the Wild
    <https://openaccess.thecvf.com/content/CVPR2021/html/Chen_Learning_Student_Networks_in_the_Wild_CVPR_2021_paper.html>`_
    (CVPR 2021).

    Of a large pool of images from the web, those count of whose class the teacher is most certain.
    The student learns the teacher's soft predictions on them, and its hard ones as noisy labels:
    the student's probabilities pass through a learned matrix that says how these labels are
    corrupted. The matrix is no part of the student.

    ========  =======================  ======================================================
    symbol    variable                 meaning
    ========  =======================  ======================================================
    v, M      ``selector``             score, and number of images kept
    t, s      ``*_logits``             teacher (frozen) and student, ``(B, K)``
    y~        ``pseudo_labels``        argmax of t, ``(B,)``
    W, Q      ``adaptation``           parameters ``(K, K - 1)``, matrix ``(K, K)``
    a         ``adaptation.accuracy``  the teacher's accuracy on its own data
    T         ``temperature``          4
    lambda    ``noisy.loss_weight``    1
    ========  =======================  ======================================================

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        selector: Config of the collection; ``type`` defaults to ``ConfidenceSelector``. With its
            ``scope='batch'`` the student sees every image and both losses take those kept of each
            batch, judged by the augmented view.
        temperature: T > 0.
        noisy: Config of lambda L_nll; ``type`` defaults to ``NoisyLabelLoss``. ``loss_weight=0``
            leaves it out: KD on selected images.
        diagonal: Of Q: ``'fixed'`` to a, or ``'learned'`` from a on, one for each class.
        teacher_accuracy: a, a share in (0, 1]. ``None`` takes what the teacher's file records.
            ``'mean_confidence'`` needs nothing from the original data: the mean largest probability
            of the selected images, clipped to [0.5, 0.99].
        class_balance: ``'inverse_freq'`` weighs an image by the rarity of its pseudo-label among
            those selected, see ``inverse_frequency``. A class that is absent takes most of the
            weight with it: then the divergence shrinks, the other terms do not.
        kd_norm: With ``scope='batch'``, whether the divergences are averaged over the images
            ``'kept'`` or divided by the size of the ``'batch'``. The same where all are kept.
        pool_normalization: Whether pool images are selected and trained on with the statistics of
            the ``'teacher'`` or those of ``'imagenet'`` (three channels; for grey images give
            ``mean`` and ``std`` in ``data_preprocessor``). Tested is always with the teacher's.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.

    Differs from the paper: its body was not available to us; this is the published code, with these
    differences. Images have the teacher's normalisation [ImageNet's, though the teacher expects its
    own]; a must be known of this teacher [constants of two]; the score is computed so that very
    certain images do not tie [float32 cross-entropy]; last epoch counts [best one on the test set].
    The paper's figure shows a diagonal that differs by class: ``diagonal='learned'``. Class weights
    and T = 2 are from an earlier upload of the code. ``scope='batch'`` with ``kd_norm='batch'`` is
    the KD term of `MMRazor's unmerged port <https://github.com/open-mmlab/mmrazor/pull/586>`_,
    whose noisy term takes all images.
    """

    learns_from = 'collected'
    teacher: Classifier
    selector: Any
    class_weights: Tensor

    default_types = dict(selector='ConfidenceSelector', noisy='NoisyLabelLoss')
    asks_by_batch = True

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        selector: dict | None = None,
        temperature: float = 4.0,
        noisy: dict | None = None,
        diagonal: Literal['fixed', 'learned'] = 'fixed',
        teacher_accuracy: float | Literal['mean_confidence'] | None = None,
        class_balance: Literal['none', 'inverse_freq'] = 'none',
        kd_norm: Literal['kept', 'batch'] = 'kept',
        pool_normalization: Literal['teacher', 'imagenet'] = 'teacher',
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.diagonal', diagonal, ('fixed', 'learned'))
        check_choice('model.class_balance', class_balance, ('none', 'inverse_freq'))
        check_choice('model.kd_norm', kd_norm, ('kept', 'batch'))
        check_choice('model.pool_normalization', pool_normalization, ('teacher', 'imagenet'))
        if temperature <= 0:
            raise UsageError(f'model.temperature is {temperature}; give a number above 0.')
        teacher = build_teacher(teacher)
        if pool_normalization == 'imagenet':
            data_preprocessor = {**imagenet_statistics(teacher), **(data_preprocessor or {})}
        selector = self.describe_part('selector', selector)
        super().__init__(student, teacher, selector, data_preprocessor)
        self.estimated = teacher_accuracy == 'mean_confidence'
        self.balanced = class_balance == 'inverse_freq'
        # Until it is estimated, any accuracy will do.
        accuracy = 0.99 if self.estimated else known_accuracy(teacher, teacher_accuracy)
        self.adaptation = AdaptationMatrix(self.student.num_classes, accuracy, diagonal)
        self.noisy = self.build_part('noisy', noisy)
        self.temperature = temperature
        self.kd_norm = kd_norm
        self.by_batch = self.selector.by_batch  # else a step needs no selector
        # Who asks for a selection; nobody once there was one.
        asking = {
            'model.teacher_accuracy=mean_confidence': self.estimated,
            'model.class_balance=inverse_freq': self.balanced,
        }
        self.awaiting = next((key for key, asks in asking.items() if asks), '')
        if self.awaiting and self.by_batch:
            raise UsageError(
                f"{self.awaiting} is computed from the selected images, and with scope='batch' "
                "nothing is selected beforehand. Set model.selector.scope='global', or another "
                'value here.'
            )
        weights = torch.ones(self.student.num_classes)
        self.register_buffer('class_weights', weights, persistent=False)

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser for the student, one for Q: W must neither decay nor follow a schedule."""
        return dict(student=[self.student], adaptation=[self.adaptation])

    def remember_selection(self, selection: Selection) -> None:
        """Compute from the selected images what depends on them: a and the class weights."""
        if not (self.estimated or self.balanced):
            return
        if not len(selection.counts):
            raise UsageError(
                f'{self.awaiting} is computed from the predictions of the selected images, and '
                f'{type(self.selector).__name__} makes none. Set model.selector.type='
                "'ConfidenceSelector', or another value here."
            )
        if self.estimated:
            confidence = selection.confidence[selection.indices].double().mean()
            self.adaptation.set_accuracy(confidence.clamp(0.5, 0.99).item())
            print_log(
                f'Estimated accuracy of the pseudo-labels: {self.adaptation.accuracy:.4f} (mean '
                f'confidence {confidence:.4f}).',
                'current',
            )
        if self.balanced:
            labels = selection.pseudo_labels[selection.indices]
            counts = torch.bincount(labels, minlength=len(self.class_weights))
            self.class_weights.copy_(inverse_frequency(counts))
        self.awaiting = ''

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step on kept images: ``L = T^2 KL(t^T || s^T) + lambda L_nll(softmax(s) Q, y~)``."""
        if self.awaiting:
            raise UsageError(
                f'{self.awaiting} is computed from a selection, and there was none. Keep '
                'default_hooks.selection.'
            )
        images = self.data_preprocessor(data, training=True)['inputs']

        # Student: both terms; Q only passes gradient.
        with optim_wrapper['student'].optim_context(self):
            with torch.no_grad():
                teacher_logits = self.teacher(images)  # t
                pseudo_labels = teacher_logits.argmax(1)  # y~
                weight, share = self.weigh(teacher_logits, pseudo_labels)
                log_matrix = self.adaptation.log()  # ln Q
            student_logits = self.student(images)  # s
            logs = dict(loss_kd=self.match(student_logits, teacher_logits, weight, share))
            if self.noisy.loss_weight > 0:
                logs['loss_nll'] = self.noisy(student_logits, log_matrix, pseudo_labels, weight)
            loss = add_up(logs)
        optim_wrapper['student'].update_params(loss)

        # Matrix: the same L_nll, of the student before its step.
        if self.noisy.loss_weight > 0:
            with optim_wrapper['adaptation'].optim_context(self):
                log_matrix = self.adaptation.log()
                noisy_loss = self.noisy(student_logits.detach(), log_matrix, pseudo_labels, weight)
            optim_wrapper['adaptation'].update_params(noisy_loss)
            logs['diagonal'] = log_matrix.diagonal().exp().mean()
        return detached(dict(loss=loss, **logs))

    def weigh(
        self, teacher_logits: Tensor, pseudo_labels: Tensor
    ) -> tuple[Tensor | None, Tensor | float]:
        """Weights ``(B,)`` of a batch's images, ``None`` for none, and the share that is kept."""
        if self.by_batch:
            kept = self.selector.in_batch(teacher_logits)
            return kept, gather_batch(kept).mean() if self.kd_norm == 'kept' else 1.0
        return (self.class_weights[pseudo_labels] if self.balanced else None), 1.0

    def match(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        weight: Tensor | None,
        share: Tensor | float,
    ) -> Tensor:
        """``T^2 sum_b w_b KL_b / (share B)``."""
        if weight is None:
            return kl_divergence(student_logits, teacher_logits, self.temperature)
        loss = kl_divergence(student_logits, teacher_logits, self.temperature, reduction='none')
        return (weight * loss).mean() / share

    def records(self) -> dict[str, dict[str, Any]]:
        """What to keep for figures: Q at the end of the run."""
        return dict(adaptation_matrix=dict(matrix=self.adaptation().detach().cpu().numpy()))


def inverse_frequency(counts: Tensor) -> Tensor:
    """Class weights ``c_k`` proportional to ``1 / (1 + n_k)`` that sum to K.

    Args:
        counts: ``n_k``, images kept of each class, ``(K,)``.
    """
    weights = 1 / (1 + counts.double())
    return (weights * len(weights) / weights.sum()).float()


def known_accuracy(teacher: Classifier, stated: Any) -> float:
    """The teacher's accuracy as a share: what is stated, or what its file records in percent.

    Raises:
        UsageError: Neither is there, or what is stated is no number.
    """
    if isinstance(stated, (int, float)):
        return stated
    if stated is not None:
        raise UsageError(
            f'model.teacher_accuracy={stated!r} is not known; give a share in (0, 1], '
            "'mean_confidence', or nothing where the teacher's file records it."
        )
    recorded = teacher.meta.get('accuracy')
    if recorded is None:
        raise UsageError(
            f'The file of the teacher {teacher.name} does not record its accuracy. Give '
            "model.teacher_accuracy: a share such as 0.95, or 'mean_confidence' to estimate it "
            'from the pool.'
        )
    return recorded / 100


def imagenet_statistics(teacher: Classifier) -> dict[str, list[float]]:
    """Mean and standard deviation of ImageNet.

    Raises:
        UsageError: The teacher's images have no three channels.
    """
    if teacher.input_shape[0] != 3:
        raise UsageError(
            "model.pool_normalization='imagenet' has statistics of three channels, the teacher "
            f'{teacher.name} expects {teacher.input_shape[0]}. Give data_preprocessor.mean and '
            ".std instead, or leave it 'teacher'."
        )
    return IMAGENET
