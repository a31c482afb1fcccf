# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Labelled image sets, for teachers, baselines and evaluation."""

from .cifar import CIFAR10

__all__ = ['CIFAR10']
