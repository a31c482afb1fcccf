# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks that tell collected images from generated ones."""

from .biggan import BigGANDiscriminator, Judgement, TeacherDiscriminator

__all__ = ['BigGANDiscriminator', 'Judgement', 'TeacherDiscriminator']
