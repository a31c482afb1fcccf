# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Reading a config with its bases and options; what is wrong with them is said in words."""

from __future__ import annotations

import ast
import difflib
import os
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

import mmdfkd.registry  # noqa: F401 - lets configs inherit from mmdfkd::

from .config_slots import RUNNER_KEYS
from .errors import UsageError

#: Above this similarity a name nobody knows is taken for a misspelt one.
TYPO = 0.85


def load_config(path: str | os.PathLike, cfg_options: dict[str, Any] | None = None) -> Config:
    """Read a config file with its bases and apply ``--cfg-options``.

    Args:
        path: Config file.
        cfg_options: Dotted keys and their new values, as mmengine's ``DictAction`` gives them.

    Raises:
        UsageError: The file or a base is missing or does not run, or an option names a key that
            the config does not have. Arguments of a class may be new: :func:`check_config` knows
            which ones there are.
    """
    files = _config_files(Path(path))
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        _check_imports(error)
        if 'lazy_import' in str(error):
            importing = [file for file in files if Config._is_lazy_import(str(file))]
            raise UsageError(
                f'{(importing or files)[0]} imports a module above _base_, and mmengine takes such '
                'a file for a config of another kind. Write _base_ first, _base_ = [] where it has '
                'none.'
            ) from error
        reason = error.args[0] if error.args else error
        raise UsageError(
            f'{_failed_at(error, files)}: {reason} ({type(error).__name__}). Correct the config.'
        ) from error
    options = cfg_options or {}
    apply_options(cfg, options)
    chosen = any(option.partition('.')[0] == 'custom_imports' for option in options)
    if chosen and isinstance(cfg.custom_imports, dict):  # else check_config says what it has to be
        try:  # those of the file were imported with it
            import_modules_from_strings(**cfg.custom_imports)
        except Exception as error:
            _check_imports(error)
            raise
    _drop_delete(cfg._cfg_dict)
    return cfg


def _drop_delete(node: Any) -> None:
    """Take out what mmengine leaves of ``_delete_`` where the bases have nothing to delete."""
    if isinstance(node, dict):
        node.pop('_delete_', None)
    for item in node.values() if isinstance(node, dict) else node:
        if isinstance(item, (dict, list, tuple)):
            _drop_delete(item)


def apply_options(cfg: Config, options: dict[str, Any], name: str = '--cfg-options') -> None:
    """Override keys of a config, in place.

    Args:
        cfg: The config.
        options: As for :func:`load_config`, which says what may be wrong with them.
        name: What the user knows them by.
    """
    for option in options:
        _check_option(option, cfg, name)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise UsageError(f'{name} does not fit the config: {error.args[0]}') from error


def _config_files(path: Path, heir: Path | None = None) -> list[Path]:
    """Return a config file and its bases, having made sure that all of them can be parsed."""
    if not path.is_file():
        inherited = f', which {heir} names in _base_' if heir else ''
        folder = path.parent
        meant = closest(path.name, {file.name: file for file in folder.glob('*.py')}, 0.4)
        meant = meant or closest(path.name, {f.name: f for f in folder.parent.glob('*/*.py')})
        hint = f'Did you mean {meant}?' if meant else 'Check the path.'
        raise UsageError(f'There is no config file {path}{inherited}. {hint}')
    if path.suffix not in ('.py', '.json', '.yaml', '.yml'):
        raise UsageError(f'{path} is no config: expected a file ending in .py, .json or .yaml.')
    files = [path]
    if path.suffix == '.py':
        try:
            code = ast.parse(path.read_text(encoding='utf-8'))
        except SyntaxError as error:
            line = (error.text or '').strip()
            raise UsageError(f'{path}, line {error.lineno}: {error.msg}: {line}') from error
        for base in _bases(code):
            if '::' not in base:  # mmpretrain::... is looked up by mmengine
                files += _config_files(Path(os.path.normpath(path.parent / base)), heir=path)
    return files


def _bases(code: ast.Module) -> list[str]:
    for node in code.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            try:
                bases = ast.literal_eval(node.value)
            except ValueError:  # computed: mmengine's to find
                return []
            return [bases] if isinstance(bases, str) else list(bases)
    return []


def _failed_at(error: Exception, files: list[Path]) -> str:
    """Return file and line of the config statement that raised ``error``."""
    known = {os.path.abspath(file): file for file in files}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in known:
            return f'{known[frame.filename]}, line {frame.lineno}'
    return str(files[0])


def _check_imports(error: Exception) -> None:
    """Say what is wrong with a module of ``custom_imports``, if it was one that failed."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    traces = [traceback.extract_tb(each.__traceback__) for each in chain]
    called = {frame.name for frames in traces for frame in frames}
    if 'import_modules_from_strings' not in called:
        return
    root, frames = chain[-1], traces[-1]
    own = [frame for frame in frames if not frame.filename.startswith('<frozen')]
    file, line = own[-1].filename, own[-1].lineno
    if isinstance(root, SyntaxError):
        file, line = root.filename or file, root.lineno
    elif file == import_module.__code__.co_filename:  # nothing of it was run
        raise UsageError(
            f'custom_imports: {root}. Correct the name, or put the folder of its file on '
            'PYTHONPATH (PYTHONPATH=. before the command for the current folder).'
        ) from error
    reason = root.msg if isinstance(root, SyntaxError) else root
    raise UsageError(
        f'custom_imports: {file}, line {line}: {reason} ({type(root).__name__}). Correct that file.'
    ) from error


def _check_option(option: str, cfg: Config, name: str) -> None:
    node: Any = cfg.to_dict()
    parts = option.split('.')
    for depth, part in enumerate(parts):
        where = '.'.join(parts[:depth])
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                remedy = f'Give an index up to {len(node) - 1} instead of {part!r}.'
                raise UsageError(
                    f'{name} {option}: {where} is a list of {len(node)}. '
                    + (remedy if node else 'Give a whole list in the config.')
                )
            node = node[int(part)]
        elif not isinstance(node, dict):
            raise UsageError(
                f'{name} {option}: {where} is {node!r} and has no {part!r} inside. '
                f'Set {where} itself.'
            )
        elif part in node:
            node = node[part]
        else:
            _check_new_key(f'{name} {option}', part, node, top_level=depth == 0)
            return


def _check_new_key(option: str, key: str, node: dict, top_level: bool) -> None:
    if top_level and key in RUNNER_KEYS:
        return
    if not top_level and 'type' in node:  # check_config knows the arguments of its class
        return
    known = RUNNER_KEYS | set(node) if top_level else set(node)
    meant = closest(key, {name: name for name in known}, 0.6 if top_level else TYPO)
    if top_level or meant:
        hint = f'Did you mean {meant!r}?' if meant else 'Check the spelling.'
        raise UsageError(f'{option}: there is no {key!r} here. {hint}')


def closest(name: str, known: dict[str, Any], cutoff: float = 0.6) -> Any:
    """Return the value of the key most like ``name``, or ``None``."""
    matches = difflib.get_close_matches(name, sorted(known), 1, cutoff)
    return known[matches[0]] if matches else None
