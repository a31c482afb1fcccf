# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What every method shares: a frozen teacher, a student, one normalisation, one evaluation."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, build_student, build_teacher, network_fingerprint
from mmdfkd.models.selectors import Selector
from mmdfkd.registry import MODELS, TASK_UTILS
from mmdfkd.utils import UsageError
from mmdfkd.utils.modes import in_mode


class BaseDistiller(BaseModel):
    """Base of the methods. It loads and freezes the teacher, keeps modes right and evaluates.

    A method adds its parts in ``__init__``, says in :meth:`roles` which optimiser trains which
    part, and writes its algorithm box in :meth:`train_step`.

    Args:
        student: ``Classifier`` config of the student. Input shape and normalisation default to
            the teacher's.
        teacher: ``Classifier`` config of the teacher with one more key, ``checkpoint``: a path or
            ``mmdfkd://<stem>``. A config with that key alone takes the architecture from the file.
            ``None`` is for training on labels only. Built networks are taken as they are.
        selector: Config of the selector that decides which pool images count; ``None`` uses all.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``; mean, standard
            deviation and input shape default to the teacher's. Evaluation always uses the
            teacher's.

    Raises:
        UsageError: The checkpoint does not fit the teacher, or teacher and student disagree about
            the number of classes.
    """

    # What a part is where its config names no type; configs are checked against it.
    default_types = dict(
        teacher='Classifier', student='Classifier', data_preprocessor='BatchPreprocessor'
    )

    # Which images a method learns from; None where nothing is distilled.
    learns_from: Literal['original', 'collected', 'generated', 'both'] | None = None

    # Whether a method asks its selector about every batch, where that is ``by_batch``.
    asks_by_batch: bool = False

    # Whether a step reads the labels of its images.
    reads_labels: bool = False

    # What a method does outside of its optimisers' wrappers, where float16 would not scale losses.
    unscaled: str = ''

    teacher: Classifier | None
    student: Classifier

    def __init__(
        self,
        student: dict | Classifier,
        teacher: dict | Classifier | None = None,
        selector: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        distils = teacher is not None or self.learns_from is not None
        teacher = build_teacher(teacher) if distils else None
        student = build_student(student, teacher, self.method)
        inputs = dict(mean=student.mean, std=student.std, input_shape=student.input_shape)
        super().__init__(self.build_part('data_preprocessor', data_preprocessor, **inputs))
        self.test_preprocessor = MODELS.build(dict(inputs, type='BatchPreprocessor'))
        self.teacher = teacher
        self.student = student
        self.selector = self.build_selector(selector) if selector else None
        self.teacher_predictions: Tensor | None = None
        self.check_classes()

    def check_classes(self) -> None:
        """Teacher and student must speak of the same classes."""
        if self.teacher is not None and self.teacher.num_classes != self.student.num_classes:
            raise UsageError(
                f'model.teacher has {self.teacher.num_classes} classes, model.student has '
                f'{self.student.num_classes}. Set model.student.head.num_classes to '
                f'{self.teacher.num_classes}.'
            )

    def build_selector(self, config: dict) -> Selector:
        """Build the selector from its config.

        Raises:
            UsageError: It is none, or wants predictions of nobody, or to be asked about batches,
                which this method does not.
        """
        selector = TASK_UTILS.build(config)
        if not isinstance(selector, Selector):
            raise UsageError(
                f'model.selector is a {type(selector).__name__}, which is no selector. Derive it '
                'from mmdfkd.models.selectors.Selector.'
            )
        unknown = set(selector.needs) - {'teacher', 'student'}
        if unknown:
            raise UsageError(
                f'{type(selector).__name__}.needs has {unknown.pop()!r}. Give any of '
                "('teacher', 'student')."
            )
        if selector.by_batch and not self.asks_by_batch:
            raise UsageError(
                f'model.selector keeps a share of every batch, and {self.method} asks it about '
                "the pool only, so all images would count. Set model.selector.scope='global'."
            )
        return selector

    def build_part(self, name: str, config: dict | None, **defaults: Any) -> Any:
        """Build the loss or module that an argument describes; see :meth:`describe_part`."""
        return MODELS.build(self.describe_part(name, config, **defaults))

    def describe_part(self, name: str, config: dict | None, **defaults: Any) -> dict[str, Any]:
        """The whole config of an argument.

        Args:
            name: The argument, whose type is that of ``default_types`` unless its config has one.
            config: What a user says.
            **defaults: What else there is to say.
        """
        types = ChainMap(*(vars(kind).get('default_types', {}) for kind in type(self).__mro__))
        described = dict(defaults, type=types.get(name)) | (config or {})
        if described['type'] is None:
            raise UsageError(
                f'model.{name} has no type, and default_types of {self.method} none for it. Add '
                'it there, or to the config.'
            )
        return described

    @property
    def method(self) -> str:
        """Name of the method, as in the registry."""
        return type(self).__name__

    @property
    def latent_shape(self) -> tuple[int, int] | None:
        """Shape of one item of the training data where these are latents, not images."""
        return None

    # Training -------------------------------------------------------------------------------

    @abstractmethod
    def roles(self) -> dict[str, list[nn.Module]]:
        """Which modules each optimiser role trains, for instance ``{'student': [...]}``."""

    @abstractmethod
    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """The method's algorithm box on one batch. Returns detached scalars to log."""

    def train(self, mode: bool = True) -> BaseDistiller:
        """Set the mode of everything but the teacher, which is in eval mode whatever happens."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @contextmanager
    def gradient_only_through(
        self, network: nn.Module, mode: Literal['train', 'eval']
    ) -> Iterator[None]:
        """Inside, a network passes gradient on to the images and receives none itself.

        Args:
            network: The student, while images, or their generator, are trained against it.
            mode: In ``'train'`` mode its BatchNorm uses, and remembers, the statistics of these
                images.
        """
        trained = [p for p in network.parameters() if p.requires_grad]
        network.requires_grad_(False)
        try:
            with in_mode(network, mode):
                yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def init_weights(self) -> None:
        """Initialise what is trained; the teacher keeps the weights of its checkpoint."""
        for name, child in self.named_children():
            is_new = hasattr(child, 'init_weights') and not getattr(child, 'is_init', False)
            if name != 'teacher' and is_new:
                child.init_weights()

    # Evaluation -----------------------------------------------------------------------------

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Tensor:
        """Student logits ``(B, K)`` of normalised images ``(B, C, H, W)``."""
        return self.student(inputs)

    @torch.no_grad()
    def val_step(self, data: dict) -> list[dict[str, Tensor]]:
        """Predict a batch with the student; images take the teacher's normalisation.

        Returns:
            One dict for the whole batch, with ``logits`` ``(B, K)``, ``label`` ``(B,)``, ``index``
            ``(B,)`` and, where they are known, ``teacher_prediction`` ``(B,)``.
        """
        batch = self.test_preprocessor(data, training=False)
        batch['logits'] = self.student(batch.pop('inputs'))
        if self.teacher_predictions is not None:
            batch['teacher_prediction'] = self.teacher_predictions[batch['index']]
        return [batch]

    test_step = val_step

    def remember_teacher(self, predictions: Tensor) -> None:
        """Keep the teacher's predicted classes ``(N,)`` of the evaluation set."""
        self.teacher_predictions = predictions.to(self.test_preprocessor.device)

    # State ----------------------------------------------------------------------------------

    def teacher_fingerprint(self) -> str:
        """Hash of the teacher's tensors: names its caches and guards resuming."""
        return network_fingerprint(self.teacher) if self.teacher is not None else ''

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """State of everything but the teacher, whose tensors live in its own file."""
        state = super().state_dict(*args, **kwargs)
        teacher = f'{kwargs.get("prefix", "")}teacher.'
        for key in [key for key in state if key.startswith(teacher)]:
            del state[key]
        return state

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load what :meth:`state_dict` gave."""
        whole = super().state_dict()  # knows the versions of the layers
        known = getattr(state_dict, '_metadata', whole._metadata)
        for key in [key for key in whole if not key.startswith('teacher.')]:
            del whole[key]
        whole.update(state_dict)
        whole._metadata = known
        return super().load_state_dict(whole, strict, assign)


def add_up(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of the terms of a loss, each a scalar, at least one."""
    return functools.reduce(torch.add, terms.values())


def detached(logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a step logs, without its graph."""
    return {name: value.detach() for name, value in logs.items()}


def check_adversary(student: Any, teacher: Classifier) -> None:
    """Where images are made against the student, it must be another network than the teacher.

    Raises:
        UsageError: Both are one.
    """
    if student is teacher:
        raise UsageError(
            'model.student is the teacher itself, so their discrepancy is always zero and there '
            'is no adversary. Give the student a network of its own.'
        )
