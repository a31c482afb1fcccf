# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks that make images from latents, in the teacher's normalised space, and back."""

from .biggan import BigGANGenerator
from .encoder import VAEEncoder
from .generator import ImageHead, TransposedGenerator, UpsamplingGenerator, dcgan_init

__all__ = [
    'BigGANGenerator',
    'ImageHead',
    'TransposedGenerator',
    'UpsamplingGenerator',
    'VAEEncoder',
    'dcgan_init',
]
