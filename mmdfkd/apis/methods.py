# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Which methods there are, and the recipes that their settings come from."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import mmdfkd
from mmdfkd.models.algorithms import BaseDistiller
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

#: The pair and the images of a method's default recipe, by the number of channels.
DEFAULTS = {
    1: 'resnet8_resnet8-half_1xb*[0-9]e_digits',
    3: 'resnet34_resnet18_1xb*[0-9]e_cifar10',
}


class Method(NamedTuple):
    """A method.

    Attributes:
        name: As in the registry, for ``distill(method=...)`` and ``model.type``.
        title: Title of its paper.
        link: Where the paper is.
        images: What the student learns from: ``'original'`` images, ``'collected'`` ones, those
            that the method ``'generated'`` itself, or ``'both'``: collected and generated ones.
    """

    name: str
    title: str
    link: str
    images: str


def list_methods() -> list[Method]:
    """All methods, by name.

    .. code-block:: python

        from mmdfkd.apis import list_methods

        for method in list_methods():
            print(f'{method.name}: {method.title}, {method.images} images')
    """
    return [_describe(name, method) for name, method in sorted(_methods().items())]


def find_method(name: str) -> type[BaseDistiller]:
    """The class of a method.

    Raises:
        UsageError: There is none of that name; the message has the nearest one, or says what a
            registered class lacks.
    """
    methods = _methods()
    if name not in methods:
        kind = MODELS.module_dict.get(name)
        if _distils(kind) and not kind.__module__.startswith('mmdfkd.'):
            raise UsageError(
                f'method={name!r} states no learns_from. Set it in the class {kind.__name__} to '
                "the images that it learns from: 'original', 'collected', 'generated' or 'both'."
            )
        hint = _nearest(name, methods) or f'Choose one of {", ".join(sorted(methods))}.'
        raise UsageError(f'method={name!r} is not known. {hint}')
    return methods[name]


def find_recipe(
    method: type[BaseDistiller], recipe: str | os.PathLike | None, channels: int
) -> Path:
    """The config whose settings a run takes over.

    Args:
        method: Class of the method.
        recipe: Path of a config, or the name of one of ours without ``.py``. ``None``: the method's
            default for such images.
        channels: Channels of the images.

    Raises:
        UsageError: There is none of that name, or no default.
    """
    if recipe is None:
        folder = method.__module__.rpartition('.')[2]
        found = sorted(configs().glob(f'{folder}/{folder}_{DEFAULTS.get(channels)}.py'))
        if not found:
            raise UsageError(
                f'There is no default recipe of {method.__name__} for images of {channels} '
                "channels. Name a config: recipe='PATH'."
            )
        return found[0]
    if Path(recipe).suffix == '.py':
        return Path(recipe)
    stems = {path.stem: path for path in configs().rglob('*.py') if '_base_' not in path.parts}
    if str(recipe) not in stems:
        hint = _nearest(str(recipe), stems) or 'Name one of the files in configs, or give its path.'
        raise UsageError(f'recipe={str(recipe)!r} is no config of mmdfkd. {hint}')
    return stems[str(recipe)]


def configs() -> Path:
    """The folder of the configs: packed into the package, or beside it in a clone."""
    package = Path(mmdfkd.__file__).parent
    packed = (package / '.mim' / 'configs').resolve()  # in a clone a link
    return packed if packed.is_dir() else package.parent / 'configs'


def _methods() -> dict[str, type[BaseDistiller]]:
    return {
        name: kind
        for name, kind in MODELS.module_dict.items()
        if _distils(kind) and kind.learns_from
    }


def _distils(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseDistiller)


def _describe(name: str, method: type[BaseDistiller]) -> Method:
    """What a class and the first words of its docstring, title and link, say."""
    text = ' '.join((inspect.getdoc(method) or '').split())
    title, link = re.findall(r'^`(.+?) <(\S+)>`_|$', text)[0]
    return Method(name, title, link, str(method.learns_from))


def _nearest(name: str, known: Iterable[str]) -> str:
    spellings = {spelling.lower(): spelling for spelling in known}
    close = difflib.get_close_matches(name.lower(), spellings, 1, 0.4)
    return f'Did you mean {spellings[close[0]]!r}?' if close else ''
