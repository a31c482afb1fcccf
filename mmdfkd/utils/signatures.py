# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Which keyword arguments a class takes, of what kind, also those it only passes on to parents."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

#: Types that a value of a config can be held against, in words.
PLAIN: dict[Any, str] = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    str: '',
    Sequence[int]: 'a list of whole numbers',
    Sequence[float]: 'a list of numbers',
    dict: 'a dict',
    type(None): 'None',
    Tensor: '',
}
NUMBERS = {int, float, bool, Tensor}
LISTS: set[Any] = {Sequence[int], Sequence[float]}
WHOLES: set[Any] = {*LISTS, dict}


class Arguments(NamedTuple):
    """Keyword arguments of a class or function.

    Attributes:
        names: Every argument that may be given by name.
        required: Those without a default.
        complete: ``False`` where ``**kwargs`` go somewhere that cannot be read off the code, so
            that other names may be good as well.
        kinds: The types of arguments that are numbers, lists of them, strings and the like, and
            nothing else.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    complete: bool
    kinds: dict[str, set[Any]]

    def misfit(self, name: str, value: Any, lists: bool = True) -> str:
        """In words, what an argument has to be instead; empty if the value is fine.

        A string does not fit, nor one number for a list or a dict; a fraction for a whole number
        may: where others annotate ``int``, they may well take it.

        Args:
            name: The argument.
            value: What a config gives it.
            lists: Whether a list for a number, or one of strings, does not fit either; some
                libraries annotate ``int`` and take pairs.
        """
        kinds = self.kinds.get(name, {str})
        wrong = isinstance(value, str)
        if isinstance(value, (int, float)):
            wrong = bool(kinds & WHOLES) and not kinds & NUMBERS
        elif lists and isinstance(value, (list, tuple)):
            strings = any(isinstance(item, str) for item in value)
            wrong = kinds <= {*NUMBERS, type(None)} or bool(kinds & LISTS) and strings
        if not wrong or str in kinds:
            return ''
        return ' or '.join(words for kind, words in PLAIN.items() if kind in kinds and words)


def keyword_arguments(target: Callable) -> Arguments:
    """Read the arguments of a function, or of a class along its inheritance.

    ``class B(A): def __init__(self, x, **kwargs): super().__init__(5, y=6, **kwargs)`` takes ``x``
    and what ``A`` takes, less A's first argument and ``y``.
    """
    if not inspect.isclass(target):
        return _of_function(target)
    found: dict[str, inspect.Parameter] = {}
    given_by_name: set[str] = set()  # by the subclasses seen so far
    given_by_place = 0
    for parent in target.__mro__:
        init = vars(parent).get('__init__')
        if init is None:
            continue
        if parent in (object, nn.Module):  # neither takes an argument
            break
        try:
            parameters = _parameters(init)[1:]
        except (TypeError, ValueError):  # written in C
            return _arguments(found.values(), complete=False)
        for place, parameter in enumerate(parameters):
            if _is_named(parameter) and place >= given_by_place:
                if parameter.name not in given_by_name:
                    found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
        call = _super_call(init, parameters)
        if call is None:
            return _arguments(found.values(), complete=False)
        given_by_place = sum(not isinstance(value, ast.Starred) for value in call.args)
        given_by_name |= {keyword.arg for keyword in call.keywords if keyword.arg}
    return _arguments(found.values(), complete=True)


def _of_function(function: Callable) -> Arguments:
    try:
        parameters = _parameters(function)
    except (TypeError, ValueError):
        return _arguments([], complete=False)
    found = [parameter for parameter in parameters if _is_named(parameter)]
    return _arguments(found, all(p.kind is not p.VAR_KEYWORD for p in parameters))


def _parameters(function: Callable) -> list[inspect.Parameter]:
    """The parameters of a function, annotations evaluated where they can be."""
    names = getattr(inspect.unwrap(function), '__globals__', {})

    def evaluated(annotation: Any) -> Any:
        try:
            return eval(annotation, names) if isinstance(annotation, str) else annotation
        except Exception:  # a name for type checkers only, or whatever else others write
            return Any

    parameters = inspect.signature(function).parameters.values()
    return [p.replace(annotation=evaluated(p.annotation)) for p in parameters]


def _arguments(found: Iterable[inspect.Parameter], complete: bool) -> Arguments:
    found = list(found)
    kinds = {p.name: _kinds(p) for p in found}
    return Arguments(
        tuple(p.name for p in found),
        tuple(p.name for p in found if p.default is p.empty),
        complete,
        {name: known for name, known in kinds.items() if known},
    )


def _kinds(parameter: inspect.Parameter) -> set[type]:
    """Plain types that a parameter is annotated with; empty if there is anything else."""
    hint = parameter.annotation
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint)) if union else {hint}
    if dict in kinds:  # ``dict | Classifier``: no string is a network
        kinds -= {kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, nn.Module)}
    if not all(kind in PLAIN for kind in kinds) or kinds == {Tensor}:
        return set()
    if parameter.default is not parameter.empty:  # ``limit: int = None``
        kinds.add(type(parameter.default))
    return kinds


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
