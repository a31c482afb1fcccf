# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Classifiers of other libraries, and any network that is there already."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .classifier import Classifier, Features, plain, pool
from .cls_head import ClsHead
from .foreign_sources import build_foreign


@MODELS.register_module()
class ForeignClassifier(Classifier):
    """A network of timm, torchvision, Hugging Face, a function or the caller, as a ``Classifier``.

    It works as the teacher of any method:

    .. code-block:: python

        teacher = dict(type='ForeignClassifier', source='timm', model='resnet18', num_classes=10,
                       checkpoint='mine.pth', input_shape=(3, 32, 32), mean=[...], std=[...])
        teacher = dict(type='ForeignClassifier', source='torchvision', model='resnet50',
                       pretrained=True, input_shape=(3, 32, 32))  # sees 32 pixels as 224

    Its final linear layer is taken out of the network and becomes ``head.fc``; what entered that
    layer is the pooled vector. ``Features.map`` is the map whose global average that vector is;
    where there is none (transformers, VGG with hidden layers, a norm behind the pooling) it is the
    vector itself, as a 1x1 map. All of this is verified on a random image when the network is
    built.

    Images of the run, normalised with this network's statistics, are resized inside to ``size``
    (bilinear, antialiased, differentiable), so that pool and student stay small.

    Args:
        source: ``'timm'``, ``'torchvision'``, ``'transformers'``, or ``'package.module:function'``
            for a function that returns a network; or the network itself, which becomes part of this
            one and loses its final layer: give a copy where the original is needed.
        model: Name of the network in that library; for transformers also a folder.
        pretrained: The library brings the weights, if need be by a download, and with them the
            defaults of mean, std and size; a function is trusted to have loaded its own. If False,
            ``checkpoint`` names a file with a state dict of the original network.
        num_classes: Number of classes to build it with; ``None`` leaves it to the library.
        size: Height and width the network expects. ``None``: those of its pretraining, else it
            sees the run's images as they are.
        fc: Name of the final linear layer, should it not be found.
        maps: Names of layers whose outputs are ``Features.maps``, for methods that compare inner
            maps. Default: the pooled map alone.
        input_shape: ``(C, H, W)`` of the images of the run. Default: ``(3, size, size)``.
        mean: Per-channel mean its inputs are normalised with, in units of 0 to 255.
        std: Per-channel standard deviation, same units.
        name: What people call it. Default: ``model``, or the function, or the network's class.
        arguments: More keyword arguments for the library or the function.

    Raises:
        UsageError: The network cannot be built, cannot see such images, or its final linear layer
            cannot be found.
    """

    def __init__(
        self,
        source: str | nn.Module,
        model: str | None = None,
        pretrained: bool = False,
        num_classes: int | None = None,
        size: int | None = None,
        fc: str | None = None,
        maps: Sequence[str] | None = None,
        input_shape: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str | None = None,
        arguments: dict | None = None,
    ) -> None:
        BaseModule.__init__(self)
        classes = 'num_labels' if source == 'transformers' else 'num_classes'
        given = {} if num_classes is None else {classes: num_classes}
        foreign = build_foreign(source, model, pretrained, {**given, **(arguments or {})})
        if isinstance(source, nn.Module):
            if model or pretrained or arguments:
                raise UsageError(
                    f'source is a {type(source).__name__} that is built already, so model, '
                    'pretrained and arguments have nothing to build. Leave them out.'
                )
            name = name or type(source).__name__
            source = f'{type(source).__module__}:{type(source).__qualname__}'
        self.size = size or foreign.size
        if input_shape is None and self.size is not None:
            input_shape = (3, self.size, self.size)
        self.config = plain(
            dict(
                type='ForeignClassifier',
                source=source,
                model=model,
                pretrained=pretrained,
                num_classes=num_classes,
                size=self.size,
                fc=fc,
                maps=maps,
                input_shape=input_shape,
                mean=mean if mean is not None else foreign.mean,
                std=std if std is not None else foreign.std,
                name=name or model or source,
                arguments=arguments,
            )
        )
        self.meta: dict[str, Any] = {}
        self.network = foreign.network.eval()
        images = torch.randn(2, *self.input_shape, generator=torch.Generator().manual_seed(0))
        logits = self._probe(images)
        self.fc_name = fc or self._find_fc(images, logits)
        self.head = self._take_out(self.fc_name)
        if num_classes not in (None, self.num_classes):
            raise UsageError(
                f'{self.name} was asked for {num_classes} classes and its layer {self.fc_name!r} '
                f'has {self.num_classes}. Correct num_classes or fc.'
            )
        self.map_name = self._find_map(images, logits)
        self.map_names = tuple(maps) if maps else ()
        self._check_maps(images)

    # The interface of a classifier -------------------------------------------------------------

    @property
    def head_config(self) -> dict[str, Any]:
        """Config of a head of the same form."""
        sizes = dict(in_channels=self.head.in_channels, num_classes=self.num_classes)
        return dict(type='ClsHead', **sizes, bias=self.head.fc.bias is not None)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, C, H, W)`` of the run to logits ``(B, K)``."""
        return self.head(self._run(images))

    def extract(self, images: Tensor) -> Features:
        """Like :meth:`forward`, and keep maps and vector."""
        names = [*self.map_names, *([self.map_name] if self.map_name is not None else [])]
        with outputs_of(self.network, names) as outputs:
            vector = self._run(images)
        last = vector[:, :, None, None] if self.map_name is None else outputs[self.map_name]
        maps = tuple(outputs[name] for name in self.map_names) or (last,)
        return Features(maps, last, vector, self.head(vector))

    def own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Translate the names of the original network into ours; ours stay."""
        if state.keys() == self.state_dict().keys():
            return state
        prefix = f'{self.fc_name}.'
        return {
            f'head.fc.{key.removeprefix(prefix)}' if key.startswith(prefix) else f'network.{key}': t
            for key, t in state.items()
        }

    def init_weights(self) -> None:
        """Nothing: its weights are those it came with."""

    def original(self) -> nn.Module:
        """A copy of the network as its library knows it: the final layer is back in its place."""
        network, layer = copy.deepcopy(self.network), copy.deepcopy(self.head.fc)
        parent, _, child = self.fc_name.rpartition('.')
        setattr(network.get_submodule(parent), child, layer)
        return network

    def _run(self, images: Tensor) -> Tensor:
        """Output of the network, as it stands, for images of the run."""
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            size = (self.size, self.size)
            images = F.interpolate(images, size, mode='bilinear', antialias=True)
        output = self.network(images)
        output = getattr(output, 'logits', output)
        if not isinstance(output, Tensor):
            mode = 'train' if self.training else 'eval'
            raise UsageError(
                f'{self.name} returns a {type(output).__name__} in {mode} mode, expected logits '
                '(B, classes). Wrap it in a module that returns them.'
            )
        return output

    # Finding its parts -------------------------------------------------------------------------

    @torch.no_grad()
    def _probe(self, images: Tensor) -> Tensor:
        """Logits of the untouched network."""
        try:
            logits = self._run(images)
        except UsageError:
            raise
        except Exception as error:
            seen = images.shape[1:] if self.size is None else (images.shape[1], *[self.size] * 2)
            raise UsageError(
                f'{self.name} cannot see images of {"x".join(map(str, seen))}: '
                f'{type(error).__name__}: {str(error).rstrip(".")}. Set input_shape to that of the '
                'images of the run and size to what the network expects.'
            ) from error
        if logits.ndim != 2:
            raise UsageError(
                f'{self.name} returns a tensor of shape {tuple(logits.shape)} for two images, a '
                'classifier returns (2, classes).'
            )
        return logits

    @torch.no_grad()
    def _find_fc(self, images: Tensor, logits: Tensor) -> str:
        """Name of the linear layer whose output the logits are."""
        linear = [n for n, m in self.network.named_modules() if isinstance(m, nn.Linear)]
        with outputs_of(self.network, linear) as outputs:
            self._run(images)
        found = [n for n, out in outputs.items() if out.shape == logits.shape and out.equal(logits)]
        if not found:
            raise UsageError(
                f'{self.name} has no linear layer whose output is its logits. If it has one that '
                f'should be, name it: fc=... (it has: {", ".join(linear[-6:]) or "none"}). '
                'Methods need the last layer to be linear.'
            )
        return found[-1]

    def _take_out(self, name: str) -> ClsHead:
        """Replace the final linear layer by the identity and return it as a head."""
        layers = dict(self.network.named_modules())
        layer = layers.get(name)
        if not isinstance(layer, nn.Linear):
            linear = [n for n, m in layers.items() if isinstance(m, nn.Linear)]
            raise UsageError(
                f'fc={name!r} is {"no layer" if layer is None else f"a {type(layer).__name__}"} of '
                f'{self.name}; its linear layers are {", ".join(linear[-6:]) or "none"}.'
            )
        parent, _, child = name.rpartition('.')
        if not name:
            raise UsageError(f'{self.name} is a linear layer and nothing else; it has no features.')
        setattr(layers[parent], child, nn.Identity())
        with torch.device('meta'):  # draws no random weights
            head = ClsHead(layer.in_features, layer.out_features, bias=layer.bias is not None)
        head.fc = layer
        return head

    @torch.no_grad()
    def _find_map(self, images: Tensor, logits: Tensor) -> str | None:
        """Name of the layer whose output, averaged over its pixels, is the vector."""
        names = [name for name, _ in self.network.named_modules()]
        try:
            with outputs_of(self.network, names) as outputs:
                vector = self._run(images)
            fits = close(self.head(vector), logits)
        except RuntimeError:  # the rest of the network does not take the vector
            fits = False
        if not fits:
            raise UsageError(
                f'{self.name} is not a vector followed by the linear layer {self.fc_name!r}: '
                'without that layer it yields something else than what the layer takes. Name the '
                'right one with fc=..., or wrap the network in a function of your own.'
            )
        maps = {
            name: out
            for name, out in outputs.items()
            if out.ndim == 4 and out.shape[:2] == vector.shape and close(pool(out), vector)
        }
        # Largest first: pooling layers yield 1x1 maps; outermost first: blocks before their parts.
        return min(maps, key=lambda name: (-maps[name][0, 0].numel(), len(name)), default=None)

    @torch.no_grad()
    def _check_maps(self, images: Tensor) -> None:
        """Every layer named in ``maps`` must yield a map."""
        known = dict(self.network.named_modules())
        with outputs_of(self.network, [name for name in self.map_names if name in known]) as found:
            self._run(images)
        for name in self.map_names:
            if name not in found or found[name].ndim != 4:
                what = 'yields no map (B, C, H, W)' if name in known else 'does not exist'
                raise UsageError(f'maps: the layer {name!r} of {self.name} {what}.')


@contextmanager
def outputs_of(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, collect the output tensors of the layers of these names; the last call counts."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs.pop(name, None)  # keep the order of the calls
                outputs[name] = output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5 * max(1.0, b.abs().max().item()))
