# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Reading and writing the file a network travels in.

A network file is ``dict(meta=..., state_dict=...)`` with ``meta['format'] = 'mmdfkd-classifier/1'``
and in ``meta['model']`` the config that rebuilds the network. Checkpoints are data, not code: they
are read with ``weights_only=True`` and nothing else is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, shorten
from mmdfkd.utils.files import atomic_path, recipe_of

from .classifier import Classifier
from .trust import not_registered, refuse_functions

FORMAT = 'mmdfkd-classifier/1'
ZOO = Path(__file__).parents[2] / 'zoo'
ZOO_PREFIX = 'mmdfkd://'

#: Where in a checkpoint its tensors may be.
WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'net')

# How torch, in one release or another, names what it refuses to unpickle.
_FOREIGN = re.compile(r'(?:nsupported global: GLOBAL|nsupported GLOBAL|nsupported class) (\S+)')

# How mmengine and mmcv say that they know no class of a name.
_UNKNOWN = re.compile(r'([\w.]+) (?:is not in the|in registry under scope)')


def foreign_class(error: Exception) -> str | None:
    """The class for which torch refused to read a file as data only, if it was for one."""
    found = _FOREIGN.search(str(error))
    return found[1] if found else None


def resolve_checkpoint(name: str | os.PathLike) -> Path:
    """Turn a path or ``mmdfkd://<stem>`` (a network that ships with the package) into a file.

    Raises:
        UsageError: No such file; the message lists what ships or names the path looked for.
    """
    name = str(name)
    if name.startswith(ZOO_PREFIX):
        stem = name[len(ZOO_PREFIX) :]
        found = sorted(ZOO.glob(f'{stem}-????????.pth'))
        if not found:
            shipped = ', '.join(f'{ZOO_PREFIX}{f.stem[:-9]}' for f in sorted(ZOO.glob('*.pth')))
            raise UsageError(f'No network {name!r} ships with mmdfkd. It ships: {shipped}.')
        return found[-1]
    path = Path(name).expanduser()
    if path.is_dir():
        raise UsageError(
            f'Checkpoint {name!r} is a folder. Name a file in it, such as student.pth or '
            'epoch_10.pth.'
        )
    if not path.is_file():
        recipe = recipe_of(path)
        remedy = f', or train it first: python tools/train.py {recipe}' if recipe else '.'
        raise UsageError(
            f'Checkpoint {name!r} does not exist (looked for {path.absolute()}). Correct the path '
            f'in the config or on the command line{remedy}'
        )
    return path


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint file as data only; no code in it is ever run.

    Raises:
        UsageError: The file is missing, cut short, not a checkpoint, or needs unpickling of code.
    """
    path = resolve_checkpoint(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (PermissionError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file makes the unpickler fail in many ways
        foreign = foreign_class(error)
        if foreign:
            raise UsageError(
                f'Checkpoint {path} holds a {foreign}, more than tensors and plain values, so '
                'reading it would run code from that file. If you trust it, convert it once: '
                'content = torch.load(PATH, weights_only=False), and then torch.save('
                'content.state_dict(), NEW_PATH) if it is a network, or torch.save(content[KEY], '
                "NEW_PATH) if it is a dict; KEY is that of its tensors, such as 'state_dict' or "
                "'model'."
            ) from None
        if 'TorchScript' in str(error):
            raise UsageError(
                f'Checkpoint {path} is a TorchScript program. Convert it once: '
                'torch.save(torch.jit.load(PATH).state_dict(), NEW_PATH).'
            ) from None
        raise UsageError(
            f'Checkpoint {path} cannot be read ({_reason(error)}): it is damaged or no checkpoint. '
            'Copy or download it again.'
        ) from None
    if not isinstance(checkpoint, dict):
        raise UsageError(f'Checkpoint {path} holds a {type(checkpoint).__name__}, not a dict.')
    return checkpoint


def state_dict_of(checkpoint: dict, path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint: under one of :data:`WRAPPERS`, or the dict itself."""
    state = next((checkpoint[key] for key in WRAPPERS if key in checkpoint), checkpoint)
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UsageError(
            f'Checkpoint {path} has no tensors under {", ".join(map(repr, WRAPPERS))} '
            f'(its keys: {", ".join(map(str, list(checkpoint)[:8]))}). Save it as '
            'torch.save(network.state_dict(), PATH).'
        )
    return dict(state)


def names_of(network: Classifier, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint under a network's names.

    A first part that all names share and the network does not know is left out, such as ``model.``
    of Lightning or ``_orig_mod.`` of a compiled network.
    """
    own, inner = network.state_dict().keys(), state
    while inner:
        found = network.own_names(inner)
        if own & found.keys():
            return found
        if len({key.partition('.')[0] for key in inner}) > 1:
            break
        inner = {rest: inner[key] for key in inner if (rest := key.partition('.')[2])}
    return network.own_names(state)


_REMEDY = 'Give the checkpoint of this architecture, or the config of that one.'


def load_state(network: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load ``state`` into ``network``; every key must match.

    Raises:
        UsageError: No key matches, some are missing or left over, or shapes differ. Shapes of the
            classifier are told in classes.
    """
    own = network.state_dict()
    shared = own.keys() & state.keys()
    if not shared and all(key.startswith('module.') for key in state):  # of several processes
        state = {key.removeprefix('module.'): value for key, value in state.items()}
        shared = own.keys() & state.keys()
    if not shared:
        raise UsageError(
            f'{source} matches no key of the network: it has {_some(state)}, the network wants '
            f'{_some(own)}. {_REMEDY}'
        )
    wrong = {key: (state[key].shape, own[key].shape) for key in shared}
    wrong = {key: shapes for key, shapes in wrong.items() if shapes[0] != shapes[1]}
    for key, (theirs, ours) in wrong.items():
        if f'.{key}'.endswith('.head.fc.weight'):
            foreign = 'source' in getattr(network, 'config', {})
            remedy = 'num_classes' if foreign else 'head.num_classes and head.in_channels'
            raise UsageError(
                f'{source} was made for {theirs[0]} classes on {theirs[1]} features ({key}), the '
                f'config says {ours[0]} classes on {ours[1]}. Set {remedy} of this network to '
                'those of the checkpoint, or choose another checkpoint.'
            )
    for key, (theirs, ours) in wrong.items():
        if key.endswith('.gain.weight'):
            raise UsageError(
                f'{source} holds a GAN for {theirs[0]} classes ({key}), the teacher has {ours[0]}. '
                'Choose the checkpoint of a GAN that this teacher guided.'
            )
    if wrong:
        key, (theirs, ours) = next(iter(wrong.items()))
        raise UsageError(
            f'{source} has other shapes in {len(wrong)} tensors, for instance {key}: '
            f'{tuple(theirs)} in the file, {tuple(ours)} in the network. The architectures differ. '
            f'{_REMEDY}'
        )
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    missing = {key for key in missing if not key.endswith('num_batches_tracked')}  # in old files
    if missing or extra:
        raise UsageError(
            f'{source} fits the network only in part: {len(missing)} keys are missing '
            f'({_some(missing)}), {len(extra)} are left over ({_some(extra)}). {_REMEDY}'
        )
    own.update(state)  # which knows the versions of the layers
    network.load_state_dict(own)


def load_classifier(checkpoint: str | os.PathLike, network: Classifier | None = None) -> Classifier:
    """Load a network from its file.

    Args:
        checkpoint: Path or ``mmdfkd://<stem>``.
        network: The network to fill. ``None`` builds it from the config in the file.

    Returns:
        The network; its ``meta`` is that of the file (empty for a bare state dict).
    """
    content = read_checkpoint(checkpoint)
    meta = content.get('meta') or {}
    if network is None:
        if meta.get('format') != FORMAT:
            raise UsageError(
                f'Checkpoint {checkpoint} does not say which network it belongs to. Describe the '
                "network in the config: dict(type='Classifier', backbone=..., head=..., ...). Of a "
                'run of mmdfkd take student.pth, which says it.'
            )
        refuse_functions(meta['model'], checkpoint)
        try:
            network = MODELS.build({**meta['model'], 'type': 'Classifier'})
        except KeyError as error:
            unknown = _UNKNOWN.search(str(error))
            if unknown is None:
                raise
            raise not_registered(unknown[1], checkpoint) from error
    else:
        same_images(network, meta.get('model') or {}, checkpoint)
    state = names_of(network, state_dict_of(content, checkpoint))
    load_state(network, state, f'Checkpoint {checkpoint}')
    keep_weights(network)
    network.meta = meta
    return network


def keep_weights(network: nn.Module) -> None:
    """Let no ``init_cfg`` be applied any more: the network has its weights."""
    for module in network.modules():
        if isinstance(module, BaseModule):
            module.is_init = True


def same_images(network: Classifier, truth: dict, source: str | os.PathLike) -> None:
    """Check that a config describes the images of a network as its own file does.

    Raises:
        UsageError: Input shape, mean or standard deviation differ.
    """
    for key in ('input_shape', 'mean', 'std'):
        stated, known = network.config.get(key), truth.get(key)
        if stated is not None and known is not None and list(stated) != list(known):
            raise UsageError(
                f'The config says {key}={list(stated)} of the network {network.name}, its file '
                f'{source} says {list(known)}. Take over what the file says: the network was '
                'trained on such images.'
            )


def save_classifier(path: str | os.PathLike, network: Classifier, meta: dict) -> None:
    """Write a network with everything needed to rebuild it, atomically."""
    plain_layout = torch.contiguous_format  # whatever layout the network was trained in
    state = {
        key: value.cpu().clone(memory_format=plain_layout)
        for key, value in network.state_dict().items()
    }
    meta = dict(meta, format=FORMAT, model=network.config)
    with atomic_path(path) as temporary:
        torch.save(dict(meta=meta, state_dict=state), temporary)


def network_fingerprint(network: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over all tensors of a network, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f'{name}{tuple(tensor.shape)}{tensor.dtype}'.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _reason(error: Exception) -> str:
    """What an error says, in one line; torch's advice about unpickling left out."""
    line = str(error).rpartition('WeightsUnpickler error: ')[2].strip().partition('\n')[0]
    return f'{type(error).__name__}: {line[:120]}'


def _some(keys: Iterable[str]) -> str:
    return shorten(sorted(keys), 3) or 'none'
