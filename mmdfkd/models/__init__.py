# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from .algorithms import *  # noqa: F403
from .backbones import *  # noqa: F403
from .classifiers import *  # noqa: F403
from .data_preprocessors import *  # noqa: F403
from .discriminators import *  # noqa: F403
from .generators import *  # noqa: F403
from .losses import *  # noqa: F403
from .modules import *  # noqa: F403
from .selectors import *  # noqa: F403
