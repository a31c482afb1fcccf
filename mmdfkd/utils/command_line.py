# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the command lines of the tools share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction


class KeyValues(DictAction):
    """mmengine's action for ``--cfg-options KEY=VALUE ...``.

    It says what is no such pair, and leaves spaces within a path or a name where they are.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Take the pairs up."""
        for value in values or ():
            if '=' not in value:
                parser.error(f'argument {option_string}: {value!r} is no KEY=VALUE')
            try:
                self._parse_iterable(value.partition('=')[2])
            except ValueError as error:
                parser.error(
                    f'argument {option_string}: {value!r} {error}. Lists are KEY=[1,2]; of a dict '
                    'give every key by itself, KEY.NAME=VALUE'
                )
        super().__call__(parser, namespace, values, option_string)

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """The value of a text: a list or tuple of such values where it has commas or brackets."""
        val = val.strip('\'" ')
        brackets = val[:1] + val[-1:]
        if brackets not in ('()', '[]') and ',' not in val:
            return DictAction._parse_int_float_bool(val)
        parts = _split(val)
        one = parts == [val]  # commas, if any, are within brackets
        if one:
            if brackets not in ('()', '[]'):
                raise ValueError('has commas within brackets only')
            parts = _split(val[1:-1])
        items = [KeyValues._parse_iterable(part) for part in parts]
        return tuple(items) if one and brackets == '()' else items


def add_cfg_options(parser: argparse.ArgumentParser, help: str = 'override keys') -> None:
    """Add ``--cfg-options`` to a command line."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE', help=help
    )


def _split(text: str) -> list[str]:
    """The parts between commas that are in no brackets; what follows the last one may be empty.

    Raises:
        ValueError: Brackets do not match.
    """
    parts, depth = [''], 0
    for character in text:
        depth += (character in '([') - (character in ')]')
        if depth < 0:
            break
        if character == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += character
    if depth:
        raise ValueError('has brackets that do not match')
    return parts if parts[-1].strip() else parts[:-1]
