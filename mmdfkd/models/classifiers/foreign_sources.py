# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Building classifiers of other libraries; each library is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from mmdfkd.utils import UsageError


class Foreign(NamedTuple):
    """A network of another library and what its weights say about their images.

    Attributes:
        network: Maps images to logits, or to an object with an attribute ``logits``.
        mean: Per channel, in units of 0 to 255; ``None`` where nobody knows.
        std: Likewise.
        size: Height and width of the images it was trained on; ``None`` where nobody knows.
    """

    network: nn.Module
    mean: list[float] | None = None
    std: list[float] | None = None
    size: int | None = None


def build_foreign(
    source: str | nn.Module, model: str | None, pretrained: bool, arguments: dict
) -> Foreign:
    """Build a network that another library or a user's function defines; take one that is built.

    Args:
        source: ``'timm'``, ``'torchvision'``, ``'transformers'`` or ``'package.module:function'``,
            or the network.
        model: Its name in that library; ``None`` for a function.
        pretrained: Whether the library shall bring its weights, if need be by a download.
        arguments: More keyword arguments.

    Raises:
        UsageError: The library is not installed, or it cannot build that.
    """
    if isinstance(source, nn.Module):
        return Foreign(source)
    if ':' not in source and source not in LIBRARIES:
        raise UsageError(
            f'source={source!r} is no source of networks. Use one of {", ".join(LIBRARIES)}, or a '
            "function of your own as 'package.module:function'."
        )
    if source in LIBRARIES and model is None:
        raise UsageError(f"source={source!r} needs the name of a network: add model='...'.")
    try:
        if source in LIBRARIES:
            return LIBRARIES[source](model, pretrained, arguments)
        return Foreign(_factory(source)(**arguments))
    except UsageError:
        raise
    except Exception as error:  # other people's code fails in its own ways
        what = f'{model!r} of {source}' if model else source
        raise UsageError(
            f'{what} cannot be built: {type(error).__name__}: {str(error).rstrip(".")}. Correct '
            'model and arguments, or, if weights could not be downloaded, pretrained.'
        ) from error


def _timm(model: str, pretrained: bool, arguments: dict) -> Foreign:
    """PyTorch Image Models; ``model`` as in ``timm.create_model``."""
    timm = _library('timm')
    network = timm.create_model(model, pretrained=pretrained, **arguments)
    if not pretrained:
        return Foreign(network)
    truth = import_module('timm.data').resolve_data_config({}, model=network)
    return Foreign(network, _in_255(truth['mean']), _in_255(truth['std']), truth['input_size'][-1])


def _torchvision(model: str, pretrained: bool, arguments: dict) -> Foreign:
    """torchvision's; ``model`` as in ``torchvision.models.get_model``."""
    models = _library('torchvision').models
    if not pretrained:
        return Foreign(models.get_model(model, **arguments))
    weights = models.get_model_weights(model).DEFAULT
    truth = weights.transforms()
    network = models.get_model(model, weights=weights, **arguments)
    return Foreign(network, _in_255(truth.mean), _in_255(truth.std), truth.crop_size[0])


def _transformers(model: str, pretrained: bool, arguments: dict) -> Foreign:
    """Image classifiers of Hugging Face; ``model`` is a folder or a name on their hub."""
    transformers = _library('transformers')
    classifiers = transformers.AutoModelForImageClassification
    if not pretrained:
        config = transformers.AutoConfig.from_pretrained(model, **arguments)
        return Foreign(classifiers.from_config(config))
    network = classifiers.from_pretrained(model, **arguments)
    truth = transformers.AutoImageProcessor.from_pretrained(model)
    size = dict(getattr(truth, 'crop_size', None) or truth.size)
    side = size.get('height') or size.get('shortest_edge')
    return Foreign(network, _in_255(truth.image_mean), _in_255(truth.image_std), side)


LIBRARIES: dict[str, Callable[..., Foreign]] = dict(
    timm=_timm, torchvision=_torchvision, transformers=_transformers
)


def _factory(source: str) -> Callable[..., Any]:
    module, _, function = source.partition(':')
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"source={source!r} cannot be imported: {error}. Write it 'package.module:function', "
            'and put the folder of the package on PYTHONPATH.'
        ) from error


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f'source={name!r} needs the package {name}, which cannot be imported ({error}). '
            f'Install it: pip install {name}'
        ) from error


def _in_255(statistic: Any) -> list[float]:
    return [255 * value for value in statistic]
