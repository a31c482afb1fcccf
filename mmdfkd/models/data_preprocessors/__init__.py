# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What happens to a batch between the dataloader and the algorithm."""

from .batch_preprocessor import BatchPreprocessor

__all__ = ['BatchPreprocessor']
