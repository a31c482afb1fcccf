# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""HiDFD: Hybrid Data-Free Knowledge Distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, build_teacher, map_shape, pool, share_classifier
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.models.discriminators import Judgement
from mmdfkd.models.losses import (
    hinge_loss,
    pass_for_real_loss,
    real_or_fake_class_loss,
    weighted_feature_alignment,
)
from mmdfkd.models.selectors import ConfidenceSelector, Selection
from mmdfkd.registry import MODELS, TASK_UTILS, describes
from mmdfkd.utils.errors import UsageError, check_choice, check_least
from mmdfkd.utils.modes import in_mode
from mmdfkd.utils.precision import at_least_float32

from .base import BaseDistiller, add_up, detached
from .generative import same_latents, seen_by
from .inversion import Synthesis


@MODELS.register_module()
class HiDFD(BaseDistiller):
    """`Hybrid Data-Free Knowledge Distillation <https://arxiv.org/abs/2412.13525>`_ (AAAI 2025).

    Few collected images are enough where a GAN, guided by the teacher, adds many to them. First the
    GAN: the discriminator takes over the teacher's features (feature integration), and the
    generator is told to make the classes the teacher rarely sees (category frequency smoothing).
    Then its images are made once, and the student learns from them and from several copies of each
    collected image. The student shares the teacher's classifier, so no label is needed.

    ============  =========================  ======================================================
    symbol        variable                   meaning
    ============  =========================  ======================================================
    R, y_r        ``real``, ``labels``       collected images in [-1, 1], classes the teacher sees
    z, y          ``latent``, ``wanted``     latents N(0, 1), classes drawn uniformly
    G(z, y)       ``generator``              images in [-1, 1]
    D             ``discriminator``          score, 2K real-or-fake classes, a
    t, a          ``.vector``, ``.aligned``  the teacher's pooled feature, D's counterpart
    N_k, c_k, w   ``smoothing``              frequencies, counts and weights of classes
    P             ``student.neck``           projector, trained with the student's backbone
    N             ``HybridSampler.repeat``   copies of each collected image in an epoch
    ============  =========================  ======================================================

    Epochs 1 to ``gan_epochs`` train the GAN, the others the student; ``GANHook`` says which it is.
    A run of GAN epochs only leaves its images in ``<work_dir>/bank``, and with ``gan_epochs=0`` a
    run begins with images of an earlier one.

    Args:
        teacher: Config of the teacher.
        student: Config of the student. Its own head, if any, is not used.
        gan_epochs: Epochs that train the GAN before those that train the student.
        num_synthetic: Images to make with it, of all classes equally many.
        selector: Config of the collection; ``type`` defaults to ``ConfidenceSelector``, whose
            ``num_select`` is 5,000 here unless it has a ``keep_ratio``, its ``class_cap`` 'even'.
        generator: Config of G; ``type`` defaults to ``BigGANGenerator``.
        discriminator: Config of D; ``type`` defaults to ``BigGANDiscriminator``;
            ``TeacherDiscriminator`` judges the teacher's features instead of images.
        feature_integration: Config of the ``FeatureIntegrationLoss``; weight 0 leaves it out.
        class_weight: Factor of the real-or-fake class losses of D and G.
        smoothing: Config of the ``CategoryFrequencySmoothing``; weight 0 leaves it out.
        average: Config of the ``MovingAverage`` of G.
        synthetic_from: Whether the images come from the ``'average'`` of G or from the
            ``'generator'`` as it ended (published code).
        synthetic_range: ``'half_shift'``: (x + 1) / 2. ``'per_image'``: each image stretched from
            black to white (published code).
        teacher_input: ``'renormalised'``: the teacher sees generated images as it sees others.
            ``'raw'``: it is fed [-1, 1] (published code).
        pair_labels: Draw D's fakes of the classes of the real images they are paired with.
        gan_augment: Batch transforms of the collected images in the GAN's epochs.
        adapter: Config of P; ``type`` defaults to ``SimKDAdapter``.
        target: What is aligned: ``'map'`` (published code) or ``'pooled'``.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``, for the student.

    Differs from the published code: there, feature integration is without effect
    (``feature_integration.detach`` restores that), classes are never counted
    (``smoothing.interval=0``), each collected image comes once (``HybridSampler.repeat=1``), and
    both stages draw collected images of their own, for which there is no argument.
    """

    learns_from = 'both'
    teacher: Classifier

    default_types = dict(
        selector='ConfidenceSelector',
        generator='BigGANGenerator',
        discriminator='BigGANDiscriminator',
        feature_integration='FeatureIntegrationLoss',
        smoothing='CategoryFrequencySmoothing',
        average='MovingAverage',
        adapter='SimKDAdapter',
    )

    #: A round of making images; see ``SynthesisHook``.
    batch_size = 500
    iterations = 1
    warmup_rounds = 0

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict,
        gan_epochs: int = 400,
        num_synthetic: int = 50_000,
        selector: dict | None = None,
        generator: dict | None = None,
        discriminator: dict | None = None,
        feature_integration: dict | None = None,
        class_weight: float = 1.0,
        smoothing: dict | None = None,
        average: dict | None = None,
        synthetic_from: Literal['average', 'generator'] = 'average',
        synthetic_range: Literal['half_shift', 'per_image'] = 'half_shift',
        teacher_input: Literal['renormalised', 'raw'] = 'renormalised',
        pair_labels: bool = False,
        gan_augment: list | None = None,
        adapter: dict | None = None,
        target: Literal['map', 'pooled'] = 'map',
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.synthetic_from', synthetic_from, ('average', 'generator'))
        check_choice('model.synthetic_range', synthetic_range, ('half_shift', 'per_image'))
        check_choice('model.teacher_input', teacher_input, ('renormalised', 'raw'))
        check_choice('model.target', target, ('map', 'pooled'))
        check_least('model.gan_epochs', gan_epochs, 0)
        check_least('model.num_synthetic', num_synthetic, 0)
        teacher = build_teacher(teacher)
        network = share_classifier(student, teacher, self.describe_part('adapter', adapter))
        selector = self.describe_part('selector', selector)
        if describes(TASK_UTILS, selector, ConfidenceSelector):
            if selector.get('keep_ratio') is None:
                selector.setdefault('num_select', 5000)
            selector.setdefault('class_cap', 'even')
        super().__init__(network, teacher, selector, data_preprocessor)
        classes, shape = teacher.num_classes, teacher.input_shape
        sizes = dict(num_classes=classes, input_shape=shape)
        width = map_shape(teacher, shape)[0]  # of t
        self.generator = self.build_part('generator', generator, **sizes)
        self.average = self.build_part('average', average, network=self.generator)
        self.discriminator = self.build_part(
            'discriminator', discriminator, feature_size=width, **sizes
        )
        self.feature_integration = self.build_part('feature_integration', feature_integration)
        self.smoothing = self.build_part('smoothing', smoothing, num_classes=classes)
        half = [127.5] * shape[0]  # [0, 255] to [-1, 1]
        self.gan_preprocessor = BatchPreprocessor(half, half, gan_augment, shape)
        self.gan_epochs = gan_epochs
        self.num_synthetic = num_synthetic
        self.class_weight = class_weight
        self.synthetic_from = synthetic_from
        self.synthetic_range = synthetic_range
        self.teacher_input = teacher_input
        self.pair_labels = pair_labels
        self.target = target
        self.stage: Literal['gan', 'student'] = 'gan' if gan_epochs else 'student'
        self.iteration = 0
        self.pseudo_labels: Tensor | None = None  # of the whole pool
        self.held_out: Tensor | None = None  # images not collected, the most certain ones first

    def roles(self) -> dict[str, list[nn.Module]]:
        """Optimisers of the student with P, of G, and of D; the classifier is frozen."""
        return dict(
            student=[self.student],
            generator=[self.generator],
            discriminator=[self.discriminator],
        )

    def set_stage(self, stage: Literal['gan', 'student']) -> None:
        """Say what the next epochs train."""
        self.stage = stage

    def train(self, mode: bool = True) -> HiDFD:
        """Set the modes; the GAN is in eval mode once it is trained."""
        super().train(mode)
        if self.stage == 'student':
            self.generator.eval()
            self.discriminator.eval()
        return self

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration of the stage."""
        if self.stage == 'student':
            return self.distil(data, optim_wrapper['student'])
        return self.play(data, optim_wrapper)

    # Stage 1: the GAN -----------------------------------------------------------------------

    def remember_selection(self, selection: Selection) -> None:
        """Keep which class the teacher sees in each pool image, and which images are left over."""
        if not len(selection.pseudo_labels):
            raise UsageError(
                f'{type(self.selector).__name__} does not say which classes the teacher sees, '
                "which HiDFD's GAN needs. Set model.selector.type='ConfidenceSelector'."
            )
        device = next(self.generator.parameters()).device  # each step looks labels up
        self.pseudo_labels = selection.pseudo_labels.to(device)
        others = torch.ones(len(selection.pseudo_labels), dtype=torch.bool)
        others[selection.indices] = False
        best = selection.confidence.where(others, -1).argsort(descending=True, stable=True)
        self.held_out = best[: int(others.sum())]

    def play(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration of the GAN: D moves, G moves, then what follows G is updated."""
        assert self.pseudo_labels is not None, 'the selection comes first'
        batch = self.gan_preprocessor(data, training=True)
        real, labels = batch['inputs'], self.pseudo_labels[batch['index']]
        logs = self.move_discriminator(
            real, labels, *self.draw(labels), optim_wrapper['discriminator']
        )
        logs |= self.move_generator(*self.draw(labels), optim_wrapper['generator'])
        self.iteration += 1
        self.smoothing.refresh_when_due(self.iteration)
        self.average.update(self.generator, self.iteration)
        return detached(logs)

    def draw(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(B, L)`` and classes ``(B,)`` for as many fakes as there are ``labels``.

        Drawn where the labels are: nothing waits for a copy.
        """
        count, device = len(labels), labels.device
        latent = torch.randn(count, self.generator.latent_size, device=device)
        latent = latent.to(next(self.generator.parameters()).dtype)
        return latent, torch.randint(self.teacher.num_classes, (count,), device=device)

    def move_discriminator(
        self,
        real: Tensor,
        labels: Tensor,
        latent: Tensor,
        wanted: Tensor,
        optim_wrapper: OptimWrapper,
    ) -> dict[str, Tensor]:
        """D minimises hinge, class loss and feature integration, on fakes and reals in one batch.

        Args:
            real: Collected images in [-1, 1], ``(B, C, H, W)``.
            labels: Their classes ``(B,)``.
            latent: Of the fakes, ``(B, L)``.
            wanted: Their classes ``(B,)``.
            optim_wrapper: Of D.
        """
        if self.pair_labels:
            wanted = labels
        with optim_wrapper.optim_context(self):
            with torch.no_grad():
                images = torch.cat([self.generator(latent, wanted), real])
            guided = self.feature_integration.is_used
            features: Any = None  # t
            if guided or self.judges_features:
                features = self.teacher_features(images)
            fake_says, real_says = self.judge(images, features)
            logs = dict(
                loss_d_real=hinge_loss(real_says.score, True),
                loss_d_fake=hinge_loss(fake_says.score, False),
            )
            class_loss = real_or_fake_class_loss(real_says.classes, labels, True)
            class_loss = class_loss + real_or_fake_class_loss(fake_says.classes, wanted, False)
            logs['loss_d_class'] = self.class_weight * class_loss
            if guided:
                seen_fake, seen_real = features.chunk(2)
                parts = self.feature_integration(
                    seen_real, seen_fake, real_says.aligned, fake_says.aligned
                )
                logs |= dict(loss_transfer=parts.transfer, loss_blend=parts.blend)
            loss = add_up(logs)
        optim_wrapper.update_params(loss)
        return logs

    def move_generator(
        self, latent: Tensor, wanted: Tensor, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """G minimises ``-D(x)``, its class loss and category frequency smoothing.

        The gradient of the last one comes through the teacher, that of the others through D.
        """
        passing = self.gradient_only_through(self.discriminator, 'train')
        with optim_wrapper.optim_context(self), passing:
            fake = self.generator(latent, wanted)
            seen: Any = None
            if self.smoothing.loss_weight or self.judges_features:
                seen = self.teacher.extract(self.to_teacher(fake))
            says = self.discriminator(seen.vector if self.judges_features else fake)
            logs = dict(
                loss_g=-says.score.mean(),
                loss_g_class=self.class_weight * pass_for_real_loss(says.classes, wanted),
            )
            if self.smoothing.loss_weight:
                logs['loss_smoothing'] = self.smoothing(seen.logits)
            loss = add_up(logs)
        optim_wrapper.update_params(loss)
        if seen is not None:
            self.smoothing.count(seen.logits.argmax(1))
        return logs

    @torch.no_grad()
    def score(self, data: dict) -> Tensor:
        """D's mean score of a batch of pool images; nothing is changed by looking."""
        return self._score(self.gan_preprocessor(data)['inputs'])

    @torch.no_grad()
    def score_generated(self, count: int, seed: int = 0) -> Tensor:
        """D's mean score of images of G in eval mode, of always the same latents."""
        with in_mode(self.generator, 'eval'):
            return self._score(self.generator(*self.same_draws(count, seed)))

    def _score(self, images: Tensor) -> Tensor:
        judged = self.teacher_features(images) if self.judges_features else images
        with in_mode(self.discriminator, 'eval'):
            return self.discriminator(judged).score.mean()

    @property
    def judges_features(self) -> bool:
        """Whether D judges the teacher's features instead of images."""
        return self.discriminator.judges == 'features'

    def judge(self, images: Tensor, features: Tensor | None) -> tuple[Judgement, Judgement]:
        """D's judgements of the two halves of a batch, in one pass."""
        says = self.discriminator(features if self.judges_features else images)
        first, second = zip(*(value.chunk(2) for value in says), strict=True)
        return Judgement(*first), Judgement(*second)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> Tensor:
        """The teacher's pooled features t ``(B, D)`` of images in [-1, 1], as constants."""
        return at_least_float32(self.teacher.extract(self.to_teacher(images)).vector)

    def to_teacher(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] as the teacher sees them in stage 1."""
        return images if self.teacher_input == 'raw' else self.normalize(images)

    def normalize(self, images: Tensor) -> Tensor:
        """From [-1, 1] to the space all but the GAN see images in."""
        return self.test_preprocessor.normalize(127.5 * (images + 1))

    # Between the stages: synthetic images ---------------------------------------------------

    def rounds_before(self, epoch: int, max_epochs: int) -> int:
        """How many rounds of images there must be when this epoch, counted from 0, begins."""
        return -(-self.num_synthetic // self.batch_size) if epoch >= self.gan_epochs else 0

    @torch.no_grad()
    def synthesize(
        self,
        optim_wrapper: OptimWrapperDict,
        round_number: int = 0,
        adversary: bool = True,
        on_step: Callable[[], None] = lambda: None,
    ) -> Synthesis:
        """Make the next images for the student; classes take turns."""
        if not self.iteration:
            raise UsageError(
                'The generator was never trained, so there is nothing to make images with. Train '
                'it first (model.gan_epochs), or begin from its checkpoint (load_from).'
            )
        first = round_number * self.batch_size
        last = min(first + self.batch_size, self.num_synthetic)
        weight = next(self.generator.parameters())
        latent = torch.randn(last - first, self.generator.latent_size).to(weight)
        wanted = torch.arange(first, last, device=weight.device) % self.teacher.num_classes
        on_step()
        return Synthesis(self.make(latent, wanted), wanted, {})

    @torch.no_grad()
    def make(self, latent: Tensor, wanted: Tensor) -> Tensor:
        """Normalised images as the student gets them, ``(B, C, H, W)``."""
        network = self.average if self.synthetic_from == 'average' else self.generator
        with in_mode(network, 'eval'):
            images = network(latent, wanted)
        if self.synthetic_range == 'per_image':
            low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
            images = 2 * (images - low) / (high - low).clamp(min=1e-5) - 1
        return self.normalize(images)

    @torch.no_grad()
    def sample(
        self, count: int, seed: int = 0, batch_size: int = 256, shown: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`GenerativeDistiller.sample`; classes take turns."""
        batches = -(-count // batch_size)
        draws = (each.tensor_split(batches) for each in self.same_draws(count, seed))
        parts = (self.make(*batch) for batch in zip(*draws, strict=True))
        return seen_by(self.teacher, parts, count if shown is None else shown)

    def same_draws(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Latents ``(count, L)`` that depend on the seed alone, and classes in turn."""
        latent = same_latents(self.generator, count, seed)
        return latent, torch.arange(count, device=latent.device) % self.teacher.num_classes

    # Stage 2: the student -------------------------------------------------------------------

    def distil(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One step on collected and synthetic images: S minimises ``(P(F_s) - F_t)^2``."""
        images = self.data_preprocessor(data, training=True)['inputs']
        with optim_wrapper.optim_context(self):
            with torch.no_grad():
                teacher_map = self.student.neck.match_teacher(self.teacher.extract(images).map)
            student_map = self.student.neck(self.student.backbone(images)[-1])
            if self.target == 'pooled':
                student_map, teacher_map = pool(student_map), pool(teacher_map)
            everyone = student_map.new_ones(len(images), dtype=torch.float32)
            loss = weighted_feature_alignment(student_map, teacher_map, everyone)
        optim_wrapper.update_params(loss)
        return dict(loss_student=loss.detach())

    # Where the run is: a resumed one goes on there.

    def get_extra_state(self) -> Tensor:
        """Number of iterations of the GAN so far, for checkpoints."""
        return torch.tensor(self.iteration)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the number of iterations of a checkpoint."""
        self.iteration = int(state)
