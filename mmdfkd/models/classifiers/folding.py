# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
r"""BatchNorm of a frozen network, folded into the convolutions before it.

In eval mode BatchNorm is one affine map per channel, and so is the end of a convolution:

.. math:: \gamma \frac{(w * x + b) - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
          = (s w) * x + (s (b - \mu) + \beta), \qquad
          s = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}

One pass over every map is saved. Weights, names and fingerprint of the network stay what they are:
the folded weights are further tensors beside them and not part of its state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdfkd.utils import UsageError

from .classifier import Classifier

# Equal but for rounding, which is some 1e-6. A wrong fold is off by the size of the values.
TOLERANCE = 1e-4


class BatchNormFolding:
    """The pairs of convolution and BatchNorm of a frozen network that are folded on demand.

    A pair is a ``Conv2d`` whose output goes straight into a ``BatchNorm2d``, each passed once;
    subclasses with a forward of their own are left alone. Pairs are found by watching a forward
    pass, so networks of other libraries have theirs too, and those of a pre-activation network are
    the ones inside its blocks. A pair that cannot be folded, since something else takes the output
    of its convolution too, shows in the outputs and is left out.

    Nothing is folded outside :meth:`active`, in train mode, or in a pass in which a forward hook
    listens to the convolution or to the BatchNorm: who reads statistics reads the true ones.

    Args:
        network: In eval mode, its parameters frozen. Classes of paired layers are replaced by
            subclasses.

    Attributes:
        pairs: What can be folded.
        total: Number of BatchNorm layers in the network.

    Raises:
        UsageError: The network trains or is trained.
    """

    def __init__(self, network: Classifier) -> None:
        if network.training or any(p.requires_grad for p in network.parameters()):
            raise UsageError(
                f'BatchNorm of {network.name} cannot be folded: it changes while the network is '
                'trained. Fold that of a frozen network in eval mode (fold_teacher).'
            )
        self.enabled = False
        self.total = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
        images = probe_images(network)
        plain = tensors_of(network, images)
        self.pairs: list[_Pair] = []
        for conv, norm in conv_norm_pairs(network, images):
            pair = _Pair(self, conv, norm)
            pair.folds = True
            with self.active():
                same = equal(tensors_of(network, images), plain)
            pair.folds = False
            if same:
                self.pairs.append(pair)
            else:
                pair.undo()
        for pair in self.pairs:
            pair.folds = True

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the network is folded."""
        self.enabled = True
        try:
            yield
        finally:
            self.enabled = False

    def undo(self) -> None:
        """Make the layers what they were."""
        for pair in self.pairs:
            pair.undo()
        self.pairs = []


class _Pair:
    """A convolution and the BatchNorm behind it; they keep what the two become together."""

    def __init__(self, folding: BatchNormFolding, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        self.folding, self.conv, self.norm = folding, conv, norm
        self.folds = False
        weight, bias = folded_weights(conv, norm)
        conv.register_buffer('folded_weight', weight, persistent=False)
        conv.register_buffer('folded_bias', bias, persistent=False)
        conv.__class__, norm.__class__ = _FoldableConv2d, _FoldableBatchNorm2d
        for layer in (cast(Any, conv), cast(Any, norm)):
            layer.pair = self

    def is_folded(self) -> bool:
        """Whether this pass is one through the folded weights."""
        conv, norm = self.conv, self.norm
        heard = conv._forward_hooks or norm._forward_hooks or norm._forward_pre_hooks
        return self.folding.enabled and self.folds and not norm.training and not heard

    def undo(self) -> None:
        """Give both their classes back."""
        self.conv.__class__, self.norm.__class__ = nn.Conv2d, nn.BatchNorm2d
        for layer in (cast(Any, self.conv), cast(Any, self.norm)):
            del layer.pair
        del self.conv.folded_weight, self.conv.folded_bias


class _FoldableConv2d(nn.Conv2d):
    pair: _Pair
    folded_weight: Tensor
    folded_bias: Tensor

    def forward(self, input: Tensor) -> Tensor:
        if self.pair.is_folded():
            return self._conv_forward(input, self.folded_weight, self.folded_bias)
        return super().forward(input)


class _FoldableBatchNorm2d(nn.BatchNorm2d):
    pair: _Pair

    def forward(self, input: Tensor) -> Tensor:
        return input if self.pair.is_folded() else super().forward(input)


@torch.no_grad()
def folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias ``(C,)`` of the convolution that does what both do; in double, then rounded.

    The weight keeps the memory format of the convolution's.
    """
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = (var + norm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if norm.affine:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    bias = 0.0 if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    return weight.to(conv.weight), (scale * (bias - mean) + shift).to(conv.weight)


@torch.no_grad()
def conv_norm_pairs(network: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output enters a BatchNorm as it is, in the order of a forward pass.

    Args:
        network: In eval mode.
        images: What to run it on, ``(B, C, H, W)``.
    """
    # Outputs are kept, or else a later tensor could take the identity of an earlier one.
    outputs: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    passed: Counter[nn.Module] = Counter()

    def leaves(conv: nn.Module, inputs: Any, output: Tensor) -> None:
        passed[conv] += 1
        outputs[id(output)] = (cast(nn.Conv2d, conv), output, output._version)

    def enters(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        passed[norm] += 1
        conv, output, version = outputs.get(id(inputs[0]) if inputs else 0, (None, None, 0))
        if conv is not None and output is not None and output._version == version:
            found.append((conv, cast(nn.BatchNorm2d, norm)))

    handles = [m.register_forward_hook(leaves) for m in network.modules() if type(m) is nn.Conv2d]
    handles += [
        m.register_forward_pre_hook(enters)
        for m in network.modules()
        if type(m) is nn.BatchNorm2d and m.track_running_stats
    ]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if passed[pair[0]] == passed[pair[1]] == 1]


def probe_images(network: Classifier) -> Tensor:
    """Two random images of the network's shape, on its device; torch's seeded state stays."""
    images = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    return images.to(next(network.parameters()))


@torch.no_grad()
def tensors_of(network: Classifier, images: Tensor) -> list[Tensor]:
    """All that passes in full float32 yield: maps, vector and logits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        features, logits = network.extract(images), network(images)
    return [*features.maps, features.map, features.vector, features.logits, logits]


def equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether tensors are equal but for rounding, each relative to its largest value."""
    return all(
        (a - b).abs().max() <= TOLERANCE * b.abs().max()
        for a, b in zip(found, expected, strict=True)
    )
