# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""DeepInversion: Dreaming to Distill, with its adaptive form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.losses import bn_statistics_loss
from mmdfkd.models.modules import BestIterate, batch_norm_layers, record_batch_statistics
from mmdfkd.registry import MODELS, OPTIMIZERS
from mmdfkd.utils.errors import UsageError, check_choice, check_least

from .base import add_up, detached
from .inversion import InversionDistiller, Synthesis


@MODELS.register_module()
class DeepInversion(InversionDistiller):
    """`Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion
    <https://arxiv.org/abs/1912.08795>`_ (CVPR 2020).

    Pixels are optimised from noise until the teacher sees the classes asked for and its BatchNorm
    layers the statistics they remember. Adaptive DeepInversion (ADI), the default here, also asks
    for images that student and teacher disagree about; ``compete=dict(loss_weight=0)`` is plain
    DeepInversion.

    =============  ======================  ======================================================
    symbol         variable                meaning
    =============  ======================  ======================================================
    x              ``images``              the pixels that are optimised, ``(N, C, H, W)``, in the
                                           teacher's normalised space
    y              ``targets``             classes asked for, ``(N,)``
    p_T, p_S       ``*_logits``            ``(N, K)``, before the softmax
    R_feature      ``bn_statistics(...)``  distance of batch from running statistics
    R_TV, R_l2     ``total_variation``,    priors of natural images
                   ``image_norm``
    R_compete      ``1 - compete(...)``    one minus the Jensen-Shannon divergence of p_T and p_S
    alpha          ``*.loss_weight``       one weight per term
    =============  ======================  ======================================================

    Args:
        teacher: Config of the teacher; it needs BatchNorm unless ``bn_statistics.loss_weight=0``.
        student: Config of the student.
        iterations: Steps of a round.
        optimizer: Config of the optimiser of pixels, new in each round; Adam, learning rate 0.05
            unless it says otherwise.
        warmup: Iterations in which the learning rate grows to that of ``optimizer``; from there it
            falls to zero along a cosine. ``None`` keeps it constant.
        bn_statistics: Config of R_feature; ``type`` defaults to ``BNStatisticsLoss``, its
            ``loss_weight`` to 10. ``first_weight`` is a further factor on the first layer.
        total_variation: Config of R_TV; ``type`` defaults to ``TotalVariationLoss``, its
            ``loss_weight`` to 2.5e-5.
        image_norm: Config of R_l2; ``type`` defaults to ``ImageNormLoss``, its ``loss_weight`` to
            3e-8.
        compete: Config of the divergence in R_compete; ``type`` defaults to ``JSDivergence``, its
            ``loss_weight`` to 10, its ``temperature`` to 3. ``form='exact'`` is the definition.
        student_bn_weight: Weight of the *student's* R_feature, which is subtracted: it drives
            images away from what the student has seen. FastDFKD's benchmark has 0.01.
        targets: Classes at random (``'random'``) or in turn, equally many of each
            (``'balanced'``).
        jitter: Largest shift of the view of the images that the networks see, in pixels; what
            leaves at one side comes in at the other.
        flip: Whether half of the views are mirrored left to right, all images together.
        priors_on: Whether R_TV is that of the ``'view'`` or of the ``'pixels'`` themselves; shifts
            make them differ at the border.
        clamp: Whether pixels are kept within 0 to 255 after each step.
        keep: ``'best'``: the iterate with the lowest loss. ``'last'``: what the last step left.
        coarse_share: Share of the iterations, the first ones, that see the images at half their
            resolution, with half the jitter. Each part has an optimiser and a schedule of its own.
        temperature: T of the student's loss.
        **kwargs: Those of :class:`InversionDistiller`. BatchNorm statistics of a ``batch_size``
            below 64 are poor; there is no R_compete in ``warmup_rounds``.

    Raises:
        UsageError: A number is out of range, or the teacher does not fit what is asked of it.

    Differs from the paper: pixels are kept within their range, as its code does for ImageNet only,
    since a bank stores them in 8 bits; ``clamp=False`` gives the other. The lowest loss decides
    about the iterate that produced it; the published code compares it with the iterate of the next
    step, for CIFAR always the last one: ``keep='last'``. The divergence is that of the code, with
    clamps and the arguments exchanged. How the student learns is not published: it trains on the
    whole growing bank, as in the benchmarks of CMI and FastDFKD.
    """

    default_types = dict(
        optimizer='Adam',
        bn_statistics='BNStatisticsLoss',
        total_variation='TotalVariationLoss',
        image_norm='ImageNormLoss',
        compete='JSDivergence',
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        iterations: int = 2000,
        optimizer: dict | None = None,
        warmup: int | None = None,
        bn_statistics: dict | None = None,
        total_variation: dict | None = None,
        image_norm: dict | None = None,
        compete: dict | None = None,
        student_bn_weight: float = 0.0,
        targets: Literal['random', 'balanced'] = 'random',
        jitter: int = 2,
        flip: bool = False,
        priors_on: Literal['view', 'pixels'] = 'view',
        clamp: bool = True,
        keep: Literal['best', 'last'] = 'best',
        coarse_share: float = 0.0,
        temperature: float = 3.0,
        **kwargs: Any,
    ) -> None:
        check_choice('model.targets', targets, ('random', 'balanced'))
        check_choice('model.priors_on', priors_on, ('view', 'pixels'))
        check_choice('model.keep', keep, ('best', 'last'))
        check_least('model.jitter', jitter, 0)
        check_least('model.warmup', warmup, 0)
        if not 0 <= coarse_share < 1:
            raise UsageError(f'model.coarse_share is {coarse_share}; give a share in [0, 1).')
        super().__init__(teacher, student, iterations=iterations, temperature=temperature, **kwargs)
        self.optimizer = self.describe_part('optimizer', optimizer, lr=0.05)
        self.warmup = warmup
        self.bn_statistics = self.build_part('bn_statistics', bn_statistics, loss_weight=10.0)
        self.total_variation = self.build_part(
            'total_variation', total_variation, loss_weight=2.5e-5
        )
        self.image_norm = self.build_part('image_norm', image_norm, loss_weight=3e-8)
        self.compete = self.build_part('compete', compete, loss_weight=10.0, temperature=3.0)
        self.student_bn_weight = student_bn_weight
        self.targets = targets
        self.jitter = jitter
        self.flip = flip
        self.priors_on = priors_on
        self.clamp = clamp
        self.keep = keep
        self.coarse_share = coarse_share
        if self.bn_statistics.loss_weight:
            batch_norm_layers(self.teacher)  # says so where there are none
        if student_bn_weight:
            batch_norm_layers(self.student, 'student', 'Set model.student_bn_weight to 0.')

    def synthesize(
        self,
        optim_wrapper: OptimWrapperDict,
        round_number: int = 0,
        adversary: bool = True,
        on_step: Callable[[], None] = lambda: None,
    ) -> Synthesis:
        """Turn noise into images that the teacher knows, see :class:`InversionDistiller`."""
        targets = self.draw_targets()
        images = self.draw_noise()
        coarse = min(round(self.coarse_share * self.iterations), self.iterations - 1)
        with self.gradient_only_through(self.student, 'eval'):
            for steps, scale in ((coarse, 2), (self.iterations - coarse, 1)):  # at half, then whole
                images = images.detach().clone().requires_grad_()
                optimizer = OPTIMIZERS.build(dict(self.optimizer, params=[images]))
                rate = optimizer.param_groups[0]['lr']
                best = BestIterate()
                for step in range(steps):
                    if self.warmup is not None:
                        factor = warmup_cosine(step, self.warmup, steps)
                        optimizer.param_groups[0]['lr'] = factor * rate
                    with optim_wrapper['student'].optim_context(self):
                        view = self.view(images, scale)
                        loss, logs = self.image_loss(images, view, targets, adversary)
                    if self.keep == 'best':
                        best.offer(loss, images=images, **logs)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if self.clamp:
                        self.clamp_pixels(images)
                    on_step()
        if self.keep == 'last':
            return Synthesis(images.detach(), targets, detached(logs))
        best.check(round_number)
        return Synthesis(best['images'], targets, {name: best[name] for name in logs})

    def image_loss(
        self, images: Tensor, view: Tensor, targets: Tensor, adversary: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``R_feature + CE(p_T, y) + R_TV + R_l2 + R_compete``, and its weighted terms to log."""
        logs: dict[str, Tensor] = {}
        with record_batch_statistics(self.teacher, self.bn_statistics.loss_weight) as statistics:
            teacher_logits = self.teacher(view)
        if statistics:
            logs['loss_bn'] = self.bn_statistics(statistics)
        logs['loss_class'] = self.class_loss(teacher_logits, targets)
        logs['loss_tv'] = self.total_variation(view if self.priors_on == 'view' else images)
        logs['loss_norm'] = self.image_norm(images)
        if adversary and (self.compete.loss_weight or self.student_bn_weight):
            with record_batch_statistics(self.student, self.student_bn_weight) as statistics:
                student_logits = self.student(view)
            if statistics:
                logs['loss_student_bn'] = -self.student_bn_weight * bn_statistics_loss(statistics)
            # loss_weight - loss_weight * JS: the constant does not move x
            weight = self.compete.loss_weight
            logs['loss_compete'] = weight - self.compete(student_logits, teacher_logits)
        return add_up(logs), logs

    # Draws: on the CPU, so that every device draws alike and none is waited for -----------------

    def draw_noise(self) -> Tensor:
        """Standard normal pixels ``(N, C, H, W)`` to begin with."""
        return self.draw_normal(*self.teacher.input_shape)

    def draw_targets(self) -> Tensor:
        """Classes of one round's images, in ascending order, ``(N,)``."""
        if self.targets == 'random':
            return super().draw_targets()
        device = next(self.teacher.parameters()).device
        return (torch.arange(self.batch_size) % self.teacher.num_classes).sort()[0].to(device)

    def draw_view(self, jitter: int) -> tuple[tuple[int, int], bool]:
        """Shift along height and width, and whether to mirror."""
        shift = torch.randint(-jitter, jitter + 1, (2,))
        mirrored = self.flip and bool(torch.rand(()) > 0.5)
        return (int(shift[0]), int(shift[1])), mirrored

    def view(self, images: Tensor, scale: int = 1) -> Tensor:
        """What the networks see of the images: made smaller, shifted and mirrored at random."""
        if scale > 1:
            images = F.avg_pool2d(images, scale)
        shift, mirrored = self.draw_view(self.jitter // scale)
        images = images.roll(shift, (2, 3))
        return images.flip(3) if mirrored else images

    @torch.no_grad()
    def clamp_pixels(self, images: Tensor) -> None:
        """Keep normalised images, in place, within what pixels of 0 to 255 become."""
        statistics = zip(self.teacher.mean, self.teacher.std, strict=True)
        for channel, (mean, std) in enumerate(statistics):
            images[:, channel].clamp_(-mean / std, (255 - mean) / std)


def warmup_cosine(iteration: int, warmup: int, iterations: int) -> float:
    """Factor of a learning rate: up to 1 in a line, then down towards 0 along half a cosine.

    Args:
        iteration: From 0 on.
        warmup: Iterations of the line; the last of them has the factor 1.
        iterations: Of both parts together.
    """
    if iteration < warmup:
        return (iteration + 1) / warmup
    done = (iteration - warmup) / max(iterations - warmup, 1)
    return (1 + math.cos(math.pi * done)) / 2
