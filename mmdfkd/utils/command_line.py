# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the command lines of the tools share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction


class KeyValues(DictAction):
    """mmengine's action for ``--cfg-options KEY=VALUE ...``, which says what is no such pair."""

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
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser, help: str = 'override keys') -> None:
    """Add ``--cfg-options`` to a command line."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE', help=help
    )
