# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Backbones that mmpretrain lacks."""

from .cifar_resnet import CifarResNet
from .lenet import LeNet5
from .mobilenet_v2 import SmallMobileNetV2
from .shufflenet_v1 import SmallShuffleNetV1
from .shufflenet_v2 import SmallShuffleNetV2
from .vgg import SmallVGG
from .wide_resnet import WideResNet

__all__ = [
    'CifarResNet',
    'LeNet5',
    'SmallMobileNetV2',
    'SmallShuffleNetV1',
    'SmallShuffleNetV2',
    'SmallVGG',
    'WideResNet',
]
