# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""VGG with BatchNorm for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .parts import check_out_indices, he_initialise

WIDTHS = (64, 128, 256, 512, 512)
LAYERS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@MODELS.register_module()
class SmallVGG(BaseModule):
    """VGG-BN of the distillation papers: three max-pools instead of five, one linear layer.

    Five blocks of 3x3 convolutions *with bias*, each followed by BatchNorm and ReLU, 64, 128, 256,
    512 and 512 channels. Only the first ``num_pools`` blocks are followed by 2x2 max-pooling, so
    that 32-pixel images (three pools) and 64-pixel images (four) both end in 4x4 maps. With a
    linear head for 10 classes VGG16 has 14,728,266 parameters, VGG13 9,416,010. (mmpretrain's
    ``VGG`` pools five times and leaves a 1x1 map.)

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015, arXiv 1409.1556, as adapted by Tian et al., "Contrastive Representation
    Distillation", ICLR 2020, arXiv 1910.10699.

    Args:
        depth: Number of convolutions plus the layers of the original classifier: 8, 11, 13, 16, 19.
        num_pools: After how many of the blocks to pool, 0 to 4.
        in_channels: Channels of the images.
        out_indices: Blocks (0 to 4) whose maps, before pooling, are returned; ascending, the last
            one included.
        init_cfg: As in mmengine; if None, convolutions get He's normal initialisation.

    Attributes:
        out_channels: Channels of the last map, 512.

    Raises:
        UsageError: If depth, num_pools or out_indices are not among the above.
    """

    def __init__(
        self,
        depth: int = 16,
        num_pools: int = 3,
        in_channels: int = 3,
        out_indices: Sequence[int] = (4,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if depth not in LAYERS:
            raise UsageError(f'SmallVGG: depth={depth}, expected one of {sorted(LAYERS)}.')
        if not 0 <= num_pools <= 4:
            raise UsageError(
                f'SmallVGG: num_pools={num_pools}, expected 0 to 4; the papers have 3 for 32-pixel '
                'and 4 for 64-pixel images.'
            )
        self.num_pools = num_pools
        self.out_indices = check_out_indices('SmallVGG', out_indices, groups=5)
        self.out_channels = WIDTHS[-1]
        self.blocks = nn.ModuleList()
        previous = in_channels
        for width, count in zip(WIDTHS, LAYERS[depth], strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers.append(nn.Conv2d(previous, width, 3, padding=1))
                layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                previous = width
            self.blocks.append(nn.Sequential(*layers))
        he_initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)`` to one map per entry of ``out_indices``.

        The map of block i is ``(B, WIDTHS[i], H / s, W / s)`` with s = 2^min(i, num_pools).
        """
        x = images
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.out_indices:
                maps.append(x)
            if index < self.num_pools:
                x = F.max_pool2d(x, 2)
        return tuple(maps)
