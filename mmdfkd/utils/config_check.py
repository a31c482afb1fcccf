# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Finding the mistakes of a config before anything is built.

Building stops at the first mistake with a traceback, after the data were loaded; worse, a key that
nobody reads goes unnoticed. Here every key is held against the class that will receive it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, Literal

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import Registry
from mmengine.runner import set_random_seed
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from .config_read import TYPO, closest, load_config
from .config_slots import (
    DICTS,
    ENVIRONMENT_KEYS,
    PATTERNS,
    PHASES,
    REQUIRED,
    RUNNER_KEYS,
    SCALING_KEYS,
    WHOLE_BATCHES,
    KeyPath,
    Slot,
    argument_of,
    slot_of,
)
from .errors import UsageError, check_choice, check_least
from .seeds import check_seed
from .signatures import Arguments, keyword_arguments

__all__ = ['check_config', 'load_config']  # users read and check from here

#: Classes whose ``**kwargs`` go where no further key is known.
CLOSED = ('CheckpointHook',)

#: Libraries that take no list where they annotate a number.
PLAIN_SPOKEN = ('mmdfkd.', 'mmengine.', 'torch.')


def check_config(cfg: Config, phase: Literal['train', 'test'] = 'train') -> None:
    """Check every key of a config against the class that will receive it.

    Unknown top-level keys are allowed, since configs keep their variables there, unless one looks
    like a misspelt runner key. A dict without ``type`` is checked where the framework has a
    default type for it, or where the class it is given to names one in a class attribute
    ``default_types: dict[argument, type]``.

    Args:
        cfg: The whole config of a run. Nothing in it is changed.
        phase: What the run is for: it must have that dataloader, loop and optimiser or evaluator.

    Raises:
        UsageError: The first mistake found: an unknown type, an argument that its class does not
            take, a missing one. The message has the dotted path of the key and a remedy.
    """
    _check_top_level(cfg, phase)
    scope = cfg.get('default_scope') or 'mmengine'
    _import_scope(scope, ('default_scope',))
    if scope == 'mmdfkd':
        _check_ours(cfg)
    if 'runner_type' in cfg:
        _find(cfg.runner_type, ('runner_type',), ['RUNNERS'], scope)
    for key, value in cfg.items():
        if key in RUNNER_KEYS:
            _check(value, (key,), scope)
    logger = (cfg.get('default_hooks') or {}).get('logger')
    if isinstance(logger, dict):
        check_least('default_hooks.logger.interval', logger.get('interval'), 1)


def _check_top_level(cfg: Config, phase: str) -> None:
    known = {key: key for key in RUNNER_KEYS}
    for key in set(cfg) - RUNNER_KEYS:
        meant = closest(key, known, 0.8)  # finds 'model' in 'modle'
        if meant:
            raise UsageError(
                f'Nothing reads the key {key!r}. Did you mean {meant!r}? '
                '(A variable of your own needs a name less like it.)'
            )
    for key in (*DICTS, *(key for keys in PHASES.values() for key in keys)):
        if isinstance(cfg.get(key), (str, int, float)):
            raise UsageError(f'{key}={cfg[key]!r}: give a dict, or set its keys, {key}.KEY=....')
    _check_keys(cfg.get('env_cfg') or {}, 'env_cfg', 'the environment', ENVIRONMENT_KEYS)
    _check_keys(cfg.get('auto_scale_lr') or {}, 'auto_scale_lr', 'the scaling', SCALING_KEYS)
    scaling = cfg.get('auto_scale_lr') or {}
    if scaling.get('enable') and not scaling.get('base_batch_size'):
        raise UsageError(
            'auto_scale_lr.enable=True, and nothing says to which batch size the learning rates '
            'belong. Add auto_scale_lr.base_batch_size=....'
        )
    seeds, randomness = keyword_arguments(set_random_seed), cfg.get('randomness') or {}
    _check_keys(randomness, 'randomness', 'set_random_seed', seeds.names)
    _check_kinds(randomness, ('randomness',), 'set_random_seed', seeds)
    check_seed('randomness.seed', randomness.get('seed'))
    level = cfg.get('log_level') or 'INFO'
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        raise UsageError(f"log_level={level!r} is not known; give 'DEBUG', 'INFO' or 'WARNING'.")
    if not cfg.get('model'):
        raise UsageError("The config has no 'model'. Add model=dict(type=..., ...).")
    for name, keys in PHASES.items():
        present = [key for key in keys if cfg.get(key) is not None]
        absent = [key for key in keys if cfg.get(key) is None]
        if absent and present:
            raise UsageError(
                f'The config has {_listed(present)} without {_listed(absent)}. '
                'Add what is missing, or set all three to None.'
            )
        if absent and name == phase:
            raise UsageError(f'The config cannot {phase}: it has no {_listed(keys)}. Add them.')
        loader = cfg.get(f'{name}_dataloader')
        if isinstance(loader, dict):
            _check_dataloader(loader, f'{name}_dataloader')
    hooks = cfg.get('custom_hooks') or []
    for hook in hooks if isinstance(hooks, (list, tuple)) else [hooks]:
        if not isinstance(hook, (dict, Hook)):
            raise UsageError(
                f'custom_hooks has {hook!r}, which is no hook. Write custom_hooks = '
                "[dict(type='...')] in a config file: a command line takes no dict."
            )
    loop = cfg.get('train_cfg')
    if loop and 'type' not in loop and 'by_epoch' not in loop:
        raise UsageError(
            "train_cfg has neither 'type' nor 'by_epoch'. Add train_cfg.by_epoch=True, or False to "
            'count in iterations.'
        )
    if loop and 'type' in loop and 'by_epoch' in loop:
        raise UsageError(
            f"train_cfg has a 'type', {loop.type!r}, and 'by_epoch'. Give one of them: "
            "train_cfg.type='IterBasedTrainLoop' counts in iterations."
        )


def _check_ours(cfg: Config) -> None:
    """What mmengine has and methods with several roles have not."""
    if cfg.get('compile'):
        raise UsageError(
            'compile is the switch of mmengine for whole models. Set '
            "default_hooks.speed.compile=['teacher', 'student'], which compiles networks."
        )
    if cfg.get('tta_model'):
        raise UsageError(
            'tta_model is how mmengine augments tests. Leave it out: python tools/test.py --tta '
            'averages over each image and its mirror image.'
        )
    if 'optimizer' in (cfg.get('optim_wrapper') or {}):
        raise UsageError(
            'optim_wrapper.optimizer is one for all, and every role has its own here. Set '
            'optim_wrapper.student.optimizer, and so on; from scratch: optim_wrapper=dict('
            "constructor='RoleOptimWrapperConstructor', student=dict(optimizer=dict(type=...)))."
        )


def _check_keys(value: dict, path: str, name: str, known: Iterable[str]) -> None:
    for key in value:
        if key not in known:
            raise _unknown_argument((path, key), name, known)


def _check_dataloader(loader: dict, path: str) -> None:
    arguments = keyword_arguments(DataLoader)
    known = {*arguments.names, 'num_batch_per_epoch', 'disable_subprocess_warning', '_scope_'}
    _check_keys(loader, path, 'DataLoader', known)
    _check_kinds(loader, (path,), 'DataLoader', arguments)
    for key in ('dataset', 'sampler'):
        if key not in loader:
            raise UsageError(f'{path} has no {key!r}. Add {path}.{key}=dict(type=...).')
    for key, least in dict(batch_size=1, num_workers=0).items():
        check_least(f'{path}.{key}', loader.get(key), least)


def _check(value: Any, path: KeyPath, scope: str, owner: type | None = None) -> None:
    """Check a part of the config and all inside it.

    Args:
        value: The part.
        path: Where it is.
        scope: Library whose names need no prefix here.
        owner: Class that it is an argument of; ``None`` where the framework builds it.
    """
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, (*path, index), scope, owner)
    if not isinstance(value, dict):
        _check_plain(value, path, owner)
        return
    if '_scope_' in value:
        scope = value['_scope_']
        _import_scope(scope, (*path, '_scope_'))
    if path[:1] == ('optim_wrapper',) and path[-1] == 'clip_grad':
        _check_clipping(value, path)
        return
    slot = slot_of(path)
    target = _target(value, path, scope, slot, owner)
    if target is not None:
        _check_arguments(value, path, target, slot, owner)
    inner = target if inspect.isclass(target) else None
    if path == ('optim_wrapper',) and 'constructor' in value:
        where = ('optim_wrapper', 'constructor')
        builder = _find(value['constructor'], where, ['OPTIM_WRAPPER_CONSTRUCTORS'], scope)
        if inspect.isclass(builder) and not builder.__module__.startswith('mmdfkd.'):
            inner = inner or builder  # which may take what it likes
    for key, item in value.items():
        if not str(key).endswith('_cfg'):  # norm_cfg, init_cfg, ...: read by rules of their own
            _check(item, (*path, key), scope, inner)


def _check_plain(value: Any, path: KeyPath, owner: type | None) -> None:
    """No string or number may stand where the runner builds something."""
    pattern = slot_of(path).pattern
    # Where a list or roles may stand, one part may: this is an argument of it.
    inside = owner is not None and pattern.endswith('*') or path == ('optim_wrapper', 'constructor')
    if isinstance(value, (str, int, float)) and pattern in PATTERNS and not inside:
        where = _dotted(path)
        raise UsageError(f'{where}={value!r}: give a dict, on a command line {where}.type=....')


def _check_clipping(value: dict, path: KeyPath) -> None:
    """Check how gradients are clipped: arguments of one of PyTorch's two functions."""
    functions: dict[str, Any] = dict(norm=clip_grad_norm_, value=clip_grad_value_)
    kind = value.get('type', 'norm')
    check_choice(f'{_dotted(path)}.type', kind, tuple(functions))
    arguments = keyword_arguments(functions[kind])
    given = {key: item for key, item in value.items() if key != 'type'}
    _check_keys(given, _dotted(path), functions[kind].__name__, arguments.names)
    _check_kinds(given, path, functions[kind].__name__, arguments)


def _target(
    value: dict, path: KeyPath, scope: str, slot: Slot, owner: type | None
) -> Callable | None:
    """Return the class or function that ``value`` configures, ``None`` if it is a plain dict."""
    name = value.get('type')
    if name is None and path == ('data_preprocessor',) and scope == 'mmdfkd':
        name = 'BatchPreprocessor'
    if name is None:
        name = _default_type(value, path, slot, owner)
    if name is None:
        return None
    if name == REQUIRED:
        raise UsageError(f"{_dotted(path)} has no 'type'. Add {_dotted(path)}.type=....")
    return _find(name, (*path, 'type'), slot.registries, scope)


def _default_type(value: dict, path: KeyPath, slot: Slot, owner: type | None) -> str | None:
    if path == ('train_cfg',):
        return 'EpochBasedTrainLoop' if value['by_epoch'] else 'IterBasedTrainLoop'
    if slot.registries == ['OPTIM_WRAPPERS']:  # without an optimizer: roles, or clip_grad
        return 'OptimWrapper' if 'optimizer' in value else None
    if slot.default is not None:
        return slot.default
    for parent in inspect.getmro(owner) if owner else ():
        if argument_of(path) in vars(parent).get('default_types', {}):
            return vars(parent)['default_types'][argument_of(path)]
    return None


def _find(name: Any, path: KeyPath, known_to: Iterable[str], scope: str) -> Callable:
    """Look a type up as the framework will; a class is what it is."""
    if callable(name):
        return name
    for registry in _in_scope(known_to, scope) if isinstance(name, str) else ():
        try:
            found = registry.get(name)
        except RuntimeError as error:
            if not str(error).startswith('Failed to get'):
                raise
            continue
        single_images = found is not None and found.__module__.startswith(('mmcv.', 'mmpretrain.'))
        if single_images and scope == 'mmdfkd' and registry.name in WHOLE_BATCHES:
            continue
        if callable(found):
            return found
    meant = _similar_types(str(name), known_to, scope)
    raise UsageError(
        f'{_dotted(path)}={name!r} is not registered. '
        + (f'Did you mean {meant}? ' if meant else 'Check the spelling. ')
        + '(A class of your own must be imported: add its module to custom_imports.)'
    )


def _in_scope(names: Iterable[str], scope: str) -> Iterator[Registry]:
    for name in names:
        root = getattr(registries, name)
        yield root.children.get(scope, root)


def _similar_types(name: str, known_to: Iterable[str], scope: str) -> str:
    """Return the registered names most like ``name``, with the prefix they need in ``scope``."""
    import_module('mmpretrain.registry')  # its names are searched too
    spellings: dict[str, set[str]] = {}
    for registry in _in_scope(known_to, scope):
        whole_batches = scope == 'mmdfkd' and registry.name in WHOLE_BATCHES
        libraries = (registry.root, *registry.root.children.values())
        for library in (registry,) if whole_batches else libraries:
            if library.scope == 'mmpretrain':  # ours and the root's have been imported by now
                library.import_from_location()
            prefix = '' if library in (registry, registry.root) else f'{library.scope}.'
            for key in library.module_dict:
                if prefix + key != name:  # which the import above may have registered
                    spellings.setdefault(key.lower(), set()).add(prefix + key)
    bare = name.rpartition('.')[2].lower()
    close = [bare] if bare in spellings else difflib.get_close_matches(bare, spellings, 2)
    return ' or '.join(repr(spelling) for key in close for spelling in sorted(spellings[key]))


def _check_arguments(
    value: dict, path: KeyPath, target: Callable, slot: Slot, owner: type | None
) -> None:
    arguments = keyword_arguments(target)
    name = getattr(target, '__name__', str(target))
    known = {key: key for key in arguments.names}
    for key in value:
        if key in known or key in ('type', '_scope_', *slot.takes):
            continue
        if arguments.complete or name in CLOSED or closest(key, known, TYPO):
            raise _unknown_argument((*path, key), name, arguments.names)
    _check_kinds(value, path, name, arguments, target.__module__.startswith(PLAIN_SPOKEN))
    # A model may complete the configs of its parts; so may whoever chooses a default type.
    completed = owner is not None and issubclass(owner, BaseModel)
    if completed or 'type' not in value or not inspect.isclass(target):
        return
    for key in arguments.required:
        if key not in value and key not in slot.adds:
            where = _dotted(path)
            raise UsageError(f'{where} has no {key!r}, which {name} needs. Add {where}.{key}=....')


def _check_kinds(
    value: dict, path: KeyPath, name: str, arguments: Arguments, lists: bool = True
) -> None:
    """No string may stand where a signature wants a number, and no number for a list of them."""
    for key, item in value.items():
        wanted = arguments.misfit(key, item, lists)
        if wanted:
            where = _dotted((*path, key))
            hint = f' Set its keys, {where}.KEY=....' if 'a dict' in wanted else ''
            raise UsageError(f'{where}={item!r}: {name} needs {wanted} here.{hint}')


def _unknown_argument(path: KeyPath, name: str, known: Iterable[str]) -> UsageError:
    meant = closest(str(path[-1]), {key: key for key in known})
    hint = f'Did you mean {meant!r}?' if meant else f'It takes: {", ".join(sorted(known))}.'
    return UsageError(f'{_dotted(path)} is no argument of {name}. {hint}')


def _import_scope(scope: str, path: KeyPath) -> None:
    try:
        import_module(f'{scope}.registry')
    except ModuleNotFoundError as error:
        if error.name not in (scope, f'{scope}.registry'):
            raise
        raise UsageError(
            f"{_dotted(path)}={scope!r} is no installed library with registries. Use 'mmdfkd'."
        ) from None


def _dotted(path: KeyPath) -> str:
    return '.'.join(map(str, path))


def _listed(names: Iterable[str]) -> str:
    return ' and '.join(map(repr, names))
