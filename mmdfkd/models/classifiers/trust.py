# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the file of a network may build: modules, and nothing else."""

from __future__ import annotations

import inspect
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from mmengine.model import BaseInit
from torch import nn

from mmdfkd.registry import MODELS, WEIGHT_INITIALIZERS
from mmdfkd.utils import UsageError

from .foreign import ForeignClassifier


def refuse_functions(config: Any, source: str | os.PathLike) -> None:
    """Check that a config from a file builds modules and calls nothing else.

    A registry takes names that it does not know for Python objects: ``type='os.system'`` would be
    called in building the network. A network of another library calls a function that it names.

    Raises:
        UsageError: Some ``type`` would import or call something else than a module class.
    """
    if isinstance(config, (list, tuple)):
        for value in config:
            refuse_functions(value, source)
    elif isinstance(config, dict):
        kind, scope = config.get('type'), config.get('_scope_')
        if isinstance(kind, str) and scope and '.' not in kind:
            kind = f'{scope}.{kind}'
        found = _named(kind, source) if isinstance(kind, str) else None
        if inspect.isclass(found) and issubclass(found, ForeignClassifier):
            raise UsageError(
                f'Checkpoint {source} holds a network of another library, which its file cannot '
                "rebuild. Describe it in the config: dict(type='ForeignClassifier', source=..., "
                'checkpoint=...).'
            )
        refuse_functions(list(config.values()), source)


def _named(kind: str, source: str | os.PathLike) -> Any:
    """What a ``type`` names: something registered or a class; ``None`` for a word like another."""
    if '.' not in kind:
        # Libraries that are asked for by their scope have been imported with what is around.
        known = (MODELS, MODELS.root, *MODELS.root.children.values())
        found = next((each.module_dict[kind] for each in known if kind in each.module_dict), None)
        if found is None and kind and (kind in sys.modules or find_spec(kind)):
            raise not_registered(kind, source)  # the registry would import it
        return found
    found = None
    for registry in (MODELS, WEIGHT_INITIALIZERS):
        with suppress(RuntimeError, TypeError):  # a module breaks, a name begins with a dot
            found = found or registry.get(kind)
    if found is None:
        raise not_registered(kind, source)
    if not (inspect.isclass(found) and issubclass(found, (nn.Module, BaseInit))):
        raise UsageError(
            f'Checkpoint {source} wants to build its network with {kind!r}, which is no module. Do '
            'not trust this file.'
        )
    return found


def not_registered(kind: str, source: str | os.PathLike) -> UsageError:
    """What to say of a class that nobody knows."""
    return UsageError(
        f'Checkpoint {source} was made of a class that is not registered: {kind}. Import the '
        'module that registers it.'
    )
