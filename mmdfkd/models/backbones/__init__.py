# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Backbones that mmpretrain lacks."""

from .cifar_resnet import CifarResNet
from .lenet import LeNet5
from .wide_resnet import WideResNet

__all__ = ['CifarResNet', 'LeNet5', 'WideResNet']
