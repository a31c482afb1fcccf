# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The one kind of network that teachers and students are: ``logits = g(pool(neck(phi(x))))``."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS, class_of
from mmdfkd.utils import UsageError
from mmdfkd.utils.modes import dry_run


class Features(NamedTuple):
    """What one pass through a :class:`Classifier` yields.

    Attributes:
        maps: Maps of the backbone's ``out_indices``, each ``(B, C_i, H_i, W_i)``.
        map: The map that is pooled, ``(B, C, H, W)``: the last one, after the neck if any.
        vector: Input of the head, ``(B, C)``.
        logits: Class scores before the softmax, ``(B, K)``.
    """

    maps: tuple[Tensor, ...]
    map: Tensor
    vector: Tensor
    logits: Tensor


def pool(feature_map: Tensor) -> Tensor:
    """Global average pooling, ``(B, C, H, W) -> (B, C)``; a neck may have pooled already."""
    return feature_map.mean((2, 3)) if feature_map.ndim == 4 else feature_map


@MODELS.register_module()
class Classifier(BaseModule):
    """An image classifier in three parts: backbone, optional neck, head.

    It is as small as an exported model should be (no loss, no preprocessing inside) and carries
    what another program must know to use it: input shape and normalisation.

    Args:
        backbone: Config of a backbone that returns a tuple of maps, ours or mmpretrain's.
        head: Config of the head; ``type`` defaults to ``ClsHead``.
        neck: Config of a module between the last map and the pooling, for instance the
            ``SimKDAdapter`` of a student that shares its teacher's head.
        input_shape: ``(C, H, W)`` of the images the network was made for.
        mean: Per-channel mean its inputs are normalised with, in units of 0 to 255.
        std: Per-channel standard deviation, same units.
        name: What people call it, for tables and summaries. Default: the backbone's type.
        init_cfg: Initialisation config of mmengine.

    Raises:
        UsageError: The head does not fit the last map of one of our backbones.
    """

    default_types = dict(head='ClsHead')

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        input_shape: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        # The config that rebuilds this network: it travels with the weights.
        self.config: dict[str, Any] = plain(
            dict(
                type='Classifier',
                name=name or str(backbone['type']),
                backbone=backbone,
                neck=neck,
                head=head,
                input_shape=input_shape,
                mean=mean,
                std=std,
            )
        )
        self.meta: dict[str, Any] = {}  # what its checkpoint says: accuracy, data, recipe
        self.backbone = MODELS.build(backbone)
        self.neck: Any = MODELS.build(neck) if neck else nn.Identity()
        self.head = MODELS.build({'type': self.default_types['head'], **head})
        found = getattr(self.backbone, 'out_channels', None)
        stated = head.get('in_channels', found)
        ours = type(self.backbone).__module__.startswith('mmdfkd.')  # whose attribute is known
        if ours and not neck and found != stated:
            raise UsageError(
                f'The head of {self.name} takes in_channels={stated}, and the last map of its '
                f'backbone has {found}. Set head.in_channels={found}.'
            )

    @property
    def name(self) -> str:
        """What people call it."""
        return self.config['name']

    @property
    def num_classes(self) -> int:
        """Number of classes ``K``."""
        return self.head.num_classes

    @property
    def head_config(self) -> dict[str, Any]:
        """Config of a head of the same form."""
        return self.config['head']

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of the images the network was made for."""
        return tuple(self._declared('input_shape'))

    @property
    def mean(self) -> list[float]:
        """Per-channel mean of its inputs, in units of 0 to 255."""
        return self._declared('mean')

    @property
    def std(self) -> list[float]:
        """Per-channel standard deviation of its inputs, in units of 0 to 255."""
        return self._declared('std')

    def _declared(self, key: str) -> Any:
        if self.config[key] is None:
            raise UsageError(
                f'The network {self.name} does not state its {key!r}. '
                f'Add {key}=... to its Classifier config; a teacher must carry its own truth.'
            )
        return self.config[key]

    def own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint under this network's names; here they have them."""
        return state

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, C, H, W)`` to logits ``(B, K)``."""
        return self.head(pool(self.neck(self.backbone(images)[-1])))

    def extract(self, images: Tensor) -> Features:
        """Like :meth:`forward`, and keep the maps and the pooled vector."""
        maps = self.backbone(images)
        last = self.neck(maps[-1])
        vector = pool(last)
        return Features(maps, last, vector, self.head(vector))


def map_shapes(network: Classifier) -> list[tuple[int, int, int]]:
    """Shapes ``(C, H, W)`` of :attr:`Features.maps` for images of the network's own shape."""
    with dry_run(network, network.input_shape) as image:
        maps = network.extract(image).maps
    return [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]


def check_inputs(student: dict, teacher: Classifier, key: str = 'model.student') -> None:
    """Check that a student's config states no other images than those of its teacher.

    Args:
        student: ``Classifier`` config.
        teacher: The network that knows.
        key: Where the config is, for the message.

    Raises:
        UsageError: Input shape, mean or standard deviation differ.
    """
    for name in ('input_shape', 'mean', 'std'):
        own, expected = student.get(name), getattr(teacher, name)
        if own is not None and list(own) != list(expected):
            raise UsageError(
                f'{key}.{name} is {list(own)}, that of the teacher {teacher.name} is '
                f'{list(expected)}, and both see the same images. Leave it out of {key}.'
            )


def check_sight(network: nn.Module, shape: Sequence[int], key: str = 'model.student') -> None:
    """Check that a network of a backbone and a head can see the images that it is meant for.

    Args:
        network: ``Classifier`` or backbone.
        shape: ``(C, H, W)`` of the images.
        key: Where its config is, for the message.

    Raises:
        UsageError: They have other channels, or are too small for it, or its head does not fit, or
            its backbone returns no maps.
    """
    backbone = getattr(network, 'backbone', network)
    try:
        with dry_run(network, shape) as image:
            bare = isinstance(backbone(image), Tensor)
            if not bare and network is not backbone:
                network(image)
    except RuntimeError as error:
        reason = str(error).partition('\n')[0]
        raise UsageError(
            f'{key} cannot see images of {"x".join(map(str, shape))}: {reason}. Correct '
            f'{key}.backbone, for instance in_channels={shape[0]}, or the in_channels of the head.'
        ) from error
    if bare:
        raise UsageError(
            f'{key}.backbone: {type(backbone).__name__} returns a tensor. Return a tuple of maps, '
            'the last of them (B, C, H, W), from its forward.'
        )


def check_parts(config: dict, key: str, head_for: str = '') -> None:
    """Check that the config of a ``Classifier`` has the parts that nothing else gives it.

    Args:
        config: The config.
        key: Where it is, for the message.
        head_for: The method that needs a head in it; empty where the head is somebody else's.

    Raises:
        UsageError: It has no backbone, or no head.
    """
    if class_of(MODELS, {'type': 'Classifier', **config}) is not Classifier:
        return
    if 'type' not in (config.get('backbone') or {}):
        raise UsageError(f'{key}: the config has no backbone. Add backbone=dict(type=...).')
    head = config.get('head') or {}
    if head_for and 'type' not in head and not {'in_channels', 'num_classes'} <= {*head}:
        raise UsageError(
            f'{key}: {head_for} needs the head in the config. Add '
            'head=dict(in_channels=..., num_classes=...).'
        )


def plain(config: Any) -> Any:
    """Turn a (nested) mmengine config into plain dicts, lists and scalars; classes into names."""
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    if isinstance(config, (np.ndarray, np.generic, Tensor)):
        return config.tolist()
    if isinstance(config, (type, FunctionType)):
        return f'{config.__module__}.{config.__qualname__}'
    return config
