# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
r"""Where in an image a network finds a class: gradient-weighted class activation maps.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv 1610.02391. With the map :math:`A` of ``(C, H', W')`` values, of
which a channel has :math:`Z = H' W'`, and the score :math:`y^c` of class :math:`c` before the
softmax:

.. math:: \alpha_k^c = \frac{1}{Z} \sum_i \sum_j \frac{\partial y^c}{\partial A^k_{ij}}
          \quad (1), \qquad
          L^c = \mathrm{ReLU}\Big(\sum_k \alpha_k^c A^k\Big) \quad (2)

Where the map is averaged and a linear layer follows, :math:`\alpha_k^c = w_k^c / Z`, so :math:`L^c`
is the ReLU of CAM (Zhou et al., CVPR 2016, arXiv 1512.04150) divided by :math:`Z`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmdfkd.models.classifiers import Classifier, Features
from mmdfkd.utils import UsageError
from mmdfkd.utils.modes import dry_run, in_mode


def grad_cam(network: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """What speaks for a class, place by place, in the last map of more than one pixel.

    The network is in eval mode meanwhile; its parameters may be frozen, and get no gradient.

    Args:
        network: Teacher or student.
        images: Normalised images, ``(B, C, H, W)``.
        classes: The class that is looked for in each, integers in [0, K), ``(B,)``.

    Returns:
        ``(B, H', W')``, at least 0, in the unit of the logits; comparable within an image. Where
        nothing speaks for the class all of it is 0.

    Raises:
        UsageError: The network has no such map.
    """
    with torch.enable_grad(), in_mode(network, 'eval'), _every_map(network):
        features = network.extract(images.detach().requires_grad_())  # a graph, if frozen, too
        feature_map = last_map(features, network.name)  # A
        scores = features.logits.gather(1, classes[:, None])  # y^c; no image depends on another
        (gradient,) = torch.autograd.grad(scores.sum(), feature_map)
    weights = gradient.mean((2, 3), keepdim=True)  # Eq. (1)
    return (weights * feature_map.detach()).sum(1).relu()  # Eq. (2)


def last_map(features: Features, name: str) -> Tensor:
    """The last map ``(B, C, H', W')`` of more than one pixel, behind the neck if there is one.

    Args:
        features: What a network yields.
        name: What it is called, for the message.

    Raises:
        UsageError: There is none.
    """
    found = [m for m in (*features.maps, features.map) if m.ndim == 4 and m[0, 0].numel() > 1]
    if not found:
        raise UsageError(
            f'{name} yields no map of more than one pixel, so there is no telling where it looks. '
            'Of a ForeignClassifier, name a layer that yields one, (B, C, H, W): maps=[...].'
        )
    return found[-1]


def map_reach(network: Classifier) -> float:
    """The share of an image's side over which the places of ``last_map`` are spread.

    It is 1 for networks that pad their convolutions. LeNet5, which does not, has 5 places on a side
    with 4 pixels from one to the next: they stand in the middle 20 of 32 pixels. Of backbones of
    other libraries it is taken to be 1.
    """
    if not _is_ours(network):
        return 1.0
    channels, height, width = network.input_shape
    sides = []  # of all maps of its backbone, for images of two sizes
    with _every_map(network):
        for times in (1, 2):
            with dry_run(network, (channels, times * height, times * width)) as image:
                sides.append([m.shape[3] for m in network.backbone(image)])
    found = [(side, twice) for side, twice in zip(*sides, strict=True) if side > 1]
    if not found:
        return 1.0
    side, twice = found[-1]
    step = width / (twice - side)  # pixels from place to place
    return min(1.0, side * step / width)


def _is_ours(network: Classifier) -> bool:
    """Whether its backbone is one of this package."""
    return type(getattr(network, 'backbone', None)).__module__.startswith('mmdfkd.')


@contextmanager
def _every_map(network: Classifier) -> Iterator[None]:
    """Inside, one of our backbones yields its earlier maps too: LeNet5's last one is a pixel."""
    if not _is_ours(network):
        yield
        return
    backbone = network.backbone
    indices = backbone.out_indices
    backbone.out_indices = tuple(range(indices[-1] + 1))
    try:
        yield
    finally:
        backbone.out_indices = indices
