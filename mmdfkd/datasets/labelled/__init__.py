# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Labelled image sets, for teachers, baselines and evaluation."""

from .base import LabelledSet
from .cifar import CIFAR10, CIFAR100
from .cinic import CINIC10
from .image_folder import LabelledFolder
from .mnist import MNIST
from .svhn import SVHN
from .tiny_imagenet import TinyImageNet

__all__ = [
    'CIFAR10',
    'CIFAR100',
    'CINIC10',
    'LabelledFolder',
    'LabelledSet',
    'MNIST',
    'SVHN',
    'TinyImageNet',
]
