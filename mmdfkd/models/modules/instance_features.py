# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What layers of a network see of each image: their maps, averaged over all places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from mmdfkd.utils import UsageError
from mmdfkd.utils.modes import dry_run
from mmdfkd.utils.precision import at_least_float32


@contextmanager
def record_instance_features(
    layers: Sequence[nn.Module], on: Literal['input', 'output'] = 'input'
) -> Iterator[list[Tensor]]:
    """Record the features of the forward pass inside; the list is filled as layers are passed.

    It goes together with ``record_batch_statistics`` around the same pass.

    Args:
        layers: Layers whose maps are averaged; of one that takes or gives several, as backbones do,
            the last.
        on: Whether what enters them counts, or what leaves them.

    Yields:
        Features ``(N, C_l)`` of each layer, with gradient to the images, in float32 at least, in
        the order of the forward pass.
    """
    features: list[Tensor] = []

    def record(maps: Tensor | Sequence[Tensor]) -> None:
        maps = at_least_float32(maps if isinstance(maps, Tensor) else maps[-1])
        features.append(maps.flatten(2).mean(2) if maps.ndim > 2 else maps)

    def before(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        record(arguments[0])

    def after(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        record(output)

    handles = [
        layer.register_forward_pre_hook(before)
        if on == 'input'
        else layer.register_forward_hook(after)
        for layer in layers
    ]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def named_layers(network: nn.Module, names: Sequence[str], key: str) -> list[nn.Module]:
    """Layers of a network by their names, such as ``'backbone.layer1'``.

    Args:
        network: The network.
        names: Names as in ``network.named_modules()``.
        key: Config key the names come from, for the message.

    Raises:
        UsageError: There is no such layer.
    """
    modules = dict(network.named_modules())
    for name in names:
        if name not in modules:
            direct = [known for known in modules if known and known.count('.') < 2]
            raise UsageError(
                f'{key}: the network has no layer {name!r}. It has, among others, '
                f'{", ".join(direct[:12])}.'
            )
    return [modules[name] for name in names]


def feature_widths(
    network: Any, layers: Sequence[nn.Module], on: Literal['input', 'output'] = 'input'
) -> list[int]:
    """Lengths ``C_l`` of the features a network with an ``input_shape`` yields per image.

    Args:
        network: A classifier.
        layers: Layers of it.
        on: As in :func:`record_instance_features`.
    """
    with (
        dry_run(network, network.input_shape) as image,
        record_instance_features(layers, on) as features,
    ):
        network(image)
    return [feature.shape[1] for feature in features]
