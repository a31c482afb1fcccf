# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Numbers of a command line."""

from __future__ import annotations

import argparse


def check_least(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str, least: int = 1
) -> None:
    """Refuse numbers that are too small, of options that take one or several."""
    for name in names:
        value = getattr(args, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < least:
                parser.error(f'--{name} {number}: give {least} or more')
