# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""DDAD: Dual Discriminator Adversarial Distillation for Data-free Model Compression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.losses import ActivationLoss, js_divergence, kl_divergence
from mmdfkd.models.modules import batch_norm_layers, record_batch_statistics
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice

from .dfad import DFAD


@MODELS.register_module()
class DDAD(DFAD):
    """`Dual Discriminator Adversarial Distillation for Data-free Model Compression
    <https://arxiv.org/abs/2104.05382>`_.

    Two networks judge generated images: the teacher asks that its BatchNorm layers see what they
    remember of the original data, the student that it cannot yet predict them. The game is that of
    :class:`DFAD`, whose symbols and imitation stage it shares.

    ============  =============================  ============================================
    symbol        variable                       meaning
    ============  =============================  ============================================
    L_BN          ``bn_statistics(...)``         sum over layers of the distances of mean and
                                                 variance of their *inputs* to running ones
    lambda_bn     ``bn_statistics.loss_weight``  0.01
    lambda_adv    ``adversarial_weight``         0.1
    ============  =============================  ============================================

    Args:
        teacher: Config of the teacher; it needs BatchNorm unless ``lambda_bn`` is 0.
        student: Config of the student.
        bn_statistics: Config of L_BN; ``type`` defaults to ``BNStatisticsLoss``, its
            ``loss_weight`` to 0.01. With 0 and ``adversarial_weight=1`` this is DFAD.
        adversarial_weight: ``lambda_adv``; 0 leaves a generator of BN statistics only, which does
            not ask the student.
        discrepancy: ``'l1'``, or what the published code carries switched off: ``'kl'`` lets the
            student imitate by ``T^2 KL`` at T = 4 while the generator keeps ``-D``; ``'js'`` puts
            DeepInversion's divergence at T = 3 in the place of D for both.
        priors: Names of further terms of L_G to their configs, none by default: those of DAFL, for
            instance ``dict(balance=dict(type='ClassBalanceLoss', loss_weight=5.0))``. They are
            logged as ``loss_<name>``.
        **kwargs: Those of :class:`DFAD`.

    Differs from the paper: its full text was not at hand; this is the objective of its code.
    """

    default_types = dict(bn_statistics='BNStatisticsLoss')

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        bn_statistics: dict | None = None,
        adversarial_weight: float = 0.1,
        discrepancy: Literal['l1', 'kl', 'js'] = 'l1',
        priors: Mapping[str, dict] | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice('model.discrepancy', discrepancy, ('l1', 'kl', 'js'))
        for name, prior in (priors or {}).items():
            check_prior(name, prior)
        super().__init__(teacher, student, **kwargs)
        self.bn_statistics = self.build_part('bn_statistics', bn_statistics, loss_weight=0.01)
        self.adversarial_weight = adversarial_weight
        self.discrepancy = discrepancy
        self.priors = nn.ModuleDict({name: MODELS.build(c) for name, c in (priors or {}).items()})
        if self.bn_statistics.loss_weight:
            batch_norm_layers(self.teacher)  # says so where there are none
        elif not self.adversarial_weight and not priors:
            raise UsageError(
                'model.bn_statistics.loss_weight and model.adversarial_weight are both 0, so the '
                'generator has nothing to learn. Give one of them a weight.'
            )

    def imitation_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """``L_S = D(x)``, or one of the alternatives."""
        if self.discrepancy == 'kl':
            return kl_divergence(by_place(student_logits), by_place(teacher_logits), 4.0)
        return self.distance(student_logits, teacher_logits)

    def generator_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``L_G = lambda_bn L_BN - lambda_adv D(x)``."""
        with record_batch_statistics(self.teacher, self.bn_statistics.loss_weight) as statistics:
            teacher = self.teacher.extract(images)
        terms, logs = [], {}
        if statistics:
            logs['loss_bn'] = self.bn_statistics(statistics)
            terms.append(logs['loss_bn'])
        if self.adversarial_weight:
            logs['discrepancy'] = self.distance(self.student(images), teacher.logits)
            terms.append(self.adversarial_weight * self.adversarial(logs['discrepancy']))
        for name, prior in self.priors.items():
            features = isinstance(prior, ActivationLoss)
            logs[f'loss_{name}'] = prior(teacher.vector if features else by_place(teacher.logits))
            terms.append(logs[f'loss_{name}'])
        return torch.stack(terms).sum(), logs

    def distance(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """``D`` of logits ``(B, K)`` or ``(B, K, H, W)``."""
        if self.discrepancy == 'js':
            return js_divergence(by_place(student_logits), by_place(teacher_logits), 3.0)
        return F.l1_loss(student_logits, teacher_logits)


def check_prior(name: str, config: dict) -> None:
    """A prior is a named loss of the teacher's answers.

    Raises:
        UsageError: The name is taken by something else, or there is no type.
    """
    if name in ('bn', 'student') or hasattr(nn.ModuleDict(), name) or not name.isidentifier():
        raise UsageError(
            f'model.priors has a term {name!r}, a name that is taken or none at all. Choose '
            "another, for instance 'balance'."
        )
    if 'type' not in config:
        raise UsageError(
            f"model.priors.{name} names no type. Give one: 'OneHotLoss', 'ClassBalanceLoss' or "
            "'ActivationLoss'."
        )


def by_place(logits: Tensor) -> Tensor:
    """Rows of classes: ``(B, K, H, W)`` to ``(B H W, K)``; ``(B, K)`` stays."""
    return logits.movedim(1, -1).flatten(0, -2)
