# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Which keyword arguments a class takes, also those it only passes on to its parents."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from torch import nn


class Arguments(NamedTuple):
    """Keyword arguments of a class or function.

    Attributes:
        names: Every argument that may be given by name.
        required: Those without a default.
        complete: ``False`` where ``**kwargs`` go somewhere that cannot be read off the code, so
            that other names may be good as well.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    complete: bool


def keyword_arguments(target: Callable) -> Arguments:
    """Read the arguments of a function, or of a class along its inheritance.

    ``class B(A): def __init__(self, x, **kwargs): super().__init__(5, y=6, **kwargs)`` takes ``x``
    and what ``A`` takes, less A's first argument and ``y``.
    """
    if not inspect.isclass(target):
        return _of_function(target)
    found: dict[str, bool] = {}  # name -> whether it is required
    given_by_name: set[str] = set()  # by the subclasses seen so far
    given_by_place = 0
    for parent in target.__mro__:
        init = vars(parent).get('__init__')
        if init is None:
            continue
        if parent in (object, nn.Module):  # neither takes an argument
            break
        try:
            parameters = list(inspect.signature(init).parameters.values())[1:]
        except (TypeError, ValueError):  # written in C
            return _arguments(found, complete=False)
        for place, parameter in enumerate(parameters):
            if _is_named(parameter) and place >= given_by_place:
                if parameter.name not in given_by_name:
                    found.setdefault(parameter.name, parameter.default is parameter.empty)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
        call = _super_call(init, parameters)
        if call is None:
            return _arguments(found, complete=False)
        given_by_place = sum(not isinstance(value, ast.Starred) for value in call.args)
        given_by_name |= {keyword.arg for keyword in call.keywords if keyword.arg}
    return _arguments(found, complete=True)


def _of_function(function: Callable) -> Arguments:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return _arguments({}, complete=False)
    found = {p.name: p.default is p.empty for p in parameters if _is_named(p)}
    return _arguments(found, all(p.kind is not p.VAR_KEYWORD for p in parameters))


def _arguments(found: dict[str, bool], complete: bool) -> Arguments:
    return Arguments(tuple(found), tuple(n for n, required in found.items() if required), complete)


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _super_call(init: Callable, parameters: list[inspect.Parameter]) -> ast.Call | None:
    """Return the call ``super().__init__(..., **kwargs)`` if that is all ``kwargs`` are for."""
    try:
        code = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(init))))
    except (OSError, SyntaxError, TypeError):
        return None
    kwargs = next(p.name for p in parameters if p.kind is p.VAR_KEYWORD)
    # Configs give everything by name, so the constructor's own *args are empty.
    own_args = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    uses = [n for n in ast.walk(code) if isinstance(n, ast.Name) and n.id == kwargs]
    for node in ast.walk(code):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith('super('):
            passed_on = [k.value for k in node.keywords if k.arg is None]
            starred = [ast.unparse(a.value) for a in node.args if isinstance(a, ast.Starred)]
            if ast.unparse(node.func).endswith(').__init__') and passed_on == uses:
                return node if starred in ([], own_args) else None
    return None
