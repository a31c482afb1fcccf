# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks that make images from latents, in the teacher's normalised space."""

from .generator import TransposedGenerator, UpsamplingGenerator

__all__ = ['TransposedGenerator', 'UpsamplingGenerator']
