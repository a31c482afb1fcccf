# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CTKD: Collaborative Teaching Knowledge Distillation (not Curriculum Temperature)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, ForeignClassifier, build_student, map_shapes
from mmdfkd.models.losses import LogitRegressionLoss, fit_attention
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice

from .base import BaseDistiller, add_up, detached


@MODELS.register_module()
class CTKD(BaseDistiller):
    """`Highlight Every Step: Knowledge Distillation via Collaborative Teaching
    <https://arxiv.org/abs/1907.09643>`_ (IEEE Transactions on Cybernetics, 2022).

    Two teachers: the *expert*, trained and frozen, shows where to look; the *scratch teacher*, of
    the same architecture, starts from random weights together with the student and shows the path,
    by its logits of the moment. Needs original, labelled data. Unrelated to "Curriculum Temperature
    for Knowledge Distillation" (AAAI 2023), which shares the abbreviation.

    =======  =========================  =======================================================
    symbol   variable                   meaning
    =======  =========================  =======================================================
    E        ``teacher``, ``expert``    frozen
    R        ``scratch_teacher``        trained by its own cross-entropy
    S        ``student``                trained; the only network kept
    r, s     ``*.logits``               of R and S, ``(B, K)``
    F^g      ``*.maps``                 maps of group g, those of the backbones' ``out_indices``
    AT       ``attention``              distance of attention maps, see ``attention_transfer``
    gamma    ``hint_weight``            0.03
    beta     ``attention.loss_weight``  1000
    =======  =========================  =======================================================

    Args:
        teacher: Config of E.
        student: Config of S.
        scratch_teacher: ``Classifier`` config of R; default: the architecture of E.
        attention: Config of ``beta sum_g AT``; ``type`` defaults to ``AttentionTransferLoss``. Give
            both backbones ``out_indices``; for ``WideResNet`` with ``raw_last=True`` and
            ``indices=[0, 1, 2]`` the maps are the sums that leave the groups. ``loss_weight=0``
            leaves E out.
        attention_on: Who looks where E looks: ``'student'`` (paper), ``'scratch'`` (what the
            published code computes) or ``'both'``.
        hint_weight: gamma, weight of the regression of s on r. 0 with ``attention`` alone is
            attention transfer; gamma with ``attention.loss_weight=0`` is Rocket Launching, arXiv
            1708.04106, without shared layers.
        divergence: Config of ``KLDivergence`` of S from E, a further term. The published code
            computes it at T = 4 and leaves it out of its loss; its weight would be 1.8 / K here.
        share_stem: R and S share their first convolution (published code). Both losses train it,
            by the student's optimiser; with float16 loss scaling both roles need the same scale.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.

    Differs from the paper: its full text was not available to us. The loss is that of the first
    author's public code of 2019, except that attention is the student's, as the abstract says. Both
    weights are 0 by default there; here they are those published for Rocket Launching and attention
    transfer, of which that code is made. R and S share no layer unless told to.
    """

    learns_from = 'original'
    reads_labels = True
    teacher: Classifier

    default_types = dict(
        scratch_teacher='Classifier', attention='AttentionTransferLoss', divergence='KLDivergence'
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        scratch_teacher: dict | Classifier | None = None,
        attention: dict | None = None,
        attention_on: Literal['student', 'scratch', 'both'] = 'student',
        hint_weight: float = 0.03,
        divergence: dict | None = None,
        share_stem: bool = False,
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.attention_on', attention_on, ('student', 'scratch', 'both'))
        if hint_weight < 0:
            raise UsageError(f'model.hint_weight is {hint_weight}; give 0 or more, 0.03 is usual.')
        super().__init__(student, teacher, data_preprocessor=data_preprocessor)
        scratch_teacher = architecture(self.teacher) if scratch_teacher is None else scratch_teacher
        self.scratch_teacher = build_student(
            scratch_teacher, self.teacher, self.method, 'model.scratch_teacher'
        )
        if self.scratch_teacher.num_classes != self.teacher.num_classes:
            raise UsageError(
                f'model.scratch_teacher has {self.scratch_teacher.num_classes} classes, '
                f'model.teacher {self.teacher.num_classes}. Set '
                f'model.scratch_teacher.head.num_classes to {self.teacher.num_classes}.'
            )
        if share_stem:
            share_first_convolution(self.student.backbone, self.scratch_teacher.backbone)
        self.attention = self.build_part('attention', attention)
        self.looks = dict(
            student=attention_on in ('student', 'both') and self.attention.loss_weight > 0,
            scratch_teacher=attention_on in ('scratch', 'both') and self.attention.loss_weight > 0,
        )
        looking = [name for name, looks in self.looks.items() if looks]
        shapes = {name: map_shapes(getattr(self, name)) for name in looking}
        fit_attention(self.attention, map_shapes(self.teacher), **shapes)
        self.hint = LogitRegressionLoss('sum_l2', loss_weight=hint_weight)
        self.divergence: Any = None
        if divergence is not None:
            self.divergence = self.build_part('divergence', divergence)

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser each for S and R; nothing of one's loss depends on the other's weights."""
        return dict(student=[self.student], scratch_teacher=[self.scratch_teacher])

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step on ``CE(r, y) + CE(s, y) + gamma |sg(r) - s|^2 / B + beta sum_g AT(S, E)``."""
        batch = self.data_preprocessor(data, training=True)
        images, labels = batch['inputs'], self.labels(batch)

        # Scratch teacher: learns from labels, sees nothing of the student.
        with optim_wrapper['scratch_teacher'].optim_context(self):
            with torch.no_grad():
                expert: Any = self.teacher.extract(images) if self.asks_expert else None
            scratch = self.scratch_teacher.extract(images)
            logs = dict(loss_scratch_ce=F.cross_entropy(scratch.logits, labels))
            if self.looks['scratch_teacher']:
                logs['loss_scratch_attention'] = self.attention(scratch.maps, expert.maps)
            scratch_loss = add_up(logs)
        optim_wrapper['scratch_teacher'].update_params(scratch_loss)

        # Student: labels, where the expert looks, what the scratch teacher answers at this step.
        with optim_wrapper['student'].optim_context(self):
            student = self.student.extract(images)
            own = dict(loss_ce=F.cross_entropy(student.logits, labels))
            if self.hint.loss_weight > 0:
                own['loss_hint'] = self.hint(student.logits, scratch.logits.detach())  # sg(r)
            if self.looks['student']:
                own['loss_attention'] = self.attention(student.maps, expert.maps)
            if self.divergence is not None:
                own['loss_kd'] = self.divergence(student.logits, expert.logits)
            loss = add_up(own)
        optim_wrapper['student'].update_params(loss)
        return detached(dict(loss=loss + scratch_loss, **own, **logs))

    @property
    def asks_expert(self) -> bool:
        """Whether any term needs E."""
        return any(self.looks.values()) or self.divergence is not None

    @torch.no_grad()
    def val_step(self, data: dict) -> list[dict[str, Tensor]]:
        """Predict a batch with S, and with R as ``scratch_teacher_logits`` ``(B, K)``."""
        (batch,) = super().val_step(data)
        images = self.test_preprocessor(data, training=False)['inputs']
        batch['scratch_teacher_logits'] = self.scratch_teacher(images)
        return [batch]

    @staticmethod
    def labels(batch: dict) -> Tensor:
        """Labels of the batch."""
        if 'label' not in batch:
            raise UsageError(
                'CTKD needs labels and the training images have none. Set '
                'train_dataloader.dataset to a labelled dataset, or choose a data-free method.'
            )
        return batch['label']


def architecture(teacher: Classifier) -> dict[str, Any]:
    """Config of a network like the teacher, with random weights.

    Raises:
        UsageError: Its weights come from a function, so that nobody can build it without them.
    """
    config = dict(teacher.config)
    if isinstance(teacher, ForeignClassifier):
        if ':' in config['source']:
            raise UsageError(
                f'The scratch teacher should be like the teacher {teacher.name}, which a function '
                'makes, perhaps with its weights. Describe it: model.scratch_teacher=dict(...).'
            )
        return {**config, 'pretrained': False}
    backbone = dict(config['backbone'])
    if 'Pretrained' in str(backbone.get('init_cfg')):
        del backbone['init_cfg']
    return {**config, 'backbone': backbone}


class BorrowedLayer(nn.Module):
    """A layer of another network: used here, but trained, moved and saved there.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.lent = (layer,)  # in a tuple it is no submodule

    def forward(self, inputs: Tensor) -> Tensor:
        """What the layer answers."""
        return self.lent[0](inputs)


def share_first_convolution(owner: nn.Module, borrower: nn.Module) -> None:
    """Let ``borrower`` use the first convolution of ``owner`` instead of its own.

    Raises:
        UsageError: The two are not alike.
    """
    layers = [
        next(((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
        for network in (owner, borrower)
    ]
    if layers[0] is None or layers[1] is None or str(layers[0][1]) != str(layers[1][1]):
        own, other = [layer and layer[1] for layer in layers]
        raise UsageError(
            f'model.share_stem: the first convolutions differ: {own} in model.student, {other} in '
            'model.scratch_teacher. Choose networks that begin alike, or share_stem=False.'
        )
    parent, _, child = layers[1][0].rpartition('.')
    setattr(borrower.get_submodule(parent), child, BorrowedLayer(layers[0][1]))
