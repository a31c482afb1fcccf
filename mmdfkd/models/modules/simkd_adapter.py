# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Adapter that lets a student use its teacher's classifier.

Chen et al., "Knowledge Distillation with the Reused Teacher Classifier" (SimKD), CVPR 2022,
arXiv 2203.14001; used by KD³ (Tang et al., ICCV 2023, arXiv 2307.11469).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice


@MODELS.register_module()
class SimKDAdapter(BaseModule):
    """Maps the student's last feature map to the channels of the teacher's.

    Before comparison the larger of the two maps is adaptively average-pooled to the size of the
    smaller, S = min(in_size, out_size): the student's in :meth:`forward`, the teacher's in
    :meth:`match_teacher`. S is fixed here, so that the exported student needs no teacher.

    Forms, with m = out_channels // factor:

    * 'bottleneck' (SimKD, KD³): 1x1 conv to m, BN, ReLU; 3x3 conv m to m, BN, ReLU; 1x1 conv to
      out_channels, BN, ReLU; convolutions without bias. 854,016 parameters for 512 -> 512.
    * 'linear': one 1x1 convolution with bias, no normalisation, no ReLU (a FitNets regressor).
    * 'none': no parameters; needs equal channels.

    Args:
        in_channels: Channels of the student's map.
        out_channels: Channels of the teacher's map.
        in_size: Height (= width) of the student's map in pixels.
        out_size: Height (= width) of the teacher's map in pixels. Leave both sizes out when the
            maps are known to be equally large; nothing is pooled or checked then.
        form: 'bottleneck', 'linear' or 'none'.
        factor: Reduction of the bottleneck's middle width.
        init_cfg: As in mmengine; PyTorch's default initialisation if None.

    Raises:
        UsageError: If only one size is given, the form is unknown, the middle width would be 0,
            or the form is 'none' and the channels differ.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        in_size: int | None = None,
        out_size: int | None = None,
        form: Literal['bottleneck', 'linear', 'none'] = 'bottleneck',
        factor: int = 2,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_choice('SimKDAdapter: form', form, ('bottleneck', 'linear', 'none'))
        if (in_size is None) != (out_size is None):
            raise UsageError(
                f'SimKDAdapter: in_size={in_size} and out_size={out_size}; give the sizes of both '
                'last maps, or neither when they are equal.'
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_size, self.out_size = in_size, out_size
        self.size = None if in_size is None or out_size is None else min(in_size, out_size)
        self.transfer = self._build(form, factor)

    def _build(self, form: str, factor: int) -> nn.Module:
        source, target = self.in_channels, self.out_channels
        if form == 'bottleneck':
            middle = target // factor
            if middle < 1:
                raise UsageError(
                    f'SimKDAdapter: factor={factor} leaves no channel of out_channels={target}; '
                    f'use a factor from 1 to {target}.'
                )
            return nn.Sequential(
                nn.Conv2d(source, middle, 1, bias=False),
                nn.BatchNorm2d(middle),
                nn.ReLU(inplace=True),
                nn.Conv2d(middle, middle, 3, padding=1, bias=False),
                nn.BatchNorm2d(middle),
                nn.ReLU(inplace=True),
                nn.Conv2d(middle, target, 1, bias=False),
                nn.BatchNorm2d(target),
                nn.ReLU(inplace=True),
            )
        if form == 'linear':
            return nn.Conv2d(source, target, 1)
        if source != target:
            raise UsageError(
                f"SimKDAdapter: form='none' needs equal channels, found {source} in the student's "
                f"and {target} in the teacher's last map; use form='bottleneck'."
            )
        return nn.Identity()

    def forward(self, feature: Tensor) -> Tensor:
        """Adapt the student's map ``(B, in_channels, H, H)`` to ``(B, out_channels, S, S)``."""
        return self.transfer(self._pool(feature, self.in_size, 'in_size'))

    def match_teacher(self, feature: Tensor) -> Tensor:
        """Pool the teacher's map ``(B, out_channels, H, H)`` to ``(B, out_channels, S, S)``."""
        return self._pool(feature, self.out_size, 'out_size')

    def _pool(self, feature: Tensor, size: int | None, key: str) -> Tensor:
        if size is None or self.size is None:
            return feature
        if feature.shape[2] != size or feature.shape[3] != size:
            raise UsageError(
                f'SimKDAdapter: {key}={size}, but the feature map is {feature.shape[2]}x'
                f'{feature.shape[3]}; set {key} to the size of the last map at this input size.'
            )
        return feature if size == self.size else F.adaptive_avg_pool2d(feature, self.size)
