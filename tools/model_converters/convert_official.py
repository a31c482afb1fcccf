# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Turn a published teacher into ours: ``convert_official.py FILE --config CONFIG``.

Reads the checkpoints of KD3 (a dict with the key ``model``), CMI and Fast-Datafree
(``state_dict``), DAFL and DFND (a pickled network, which needs ``--trust``), and bare state dicts.
The layers of the file are laid one by one beside those of the config's network, in their order;
names do not matter, kinds and shapes of all must agree.

Such files do not hold the statistics of the images: the config must state those that the teacher
was trained with, in units of 0 to 255. The repositories have, for CIFAR-10 and CIFAR-100:

    KD3            mean 129.31 124.11 112.40   std 68.21 65.41 70.41
    DAFL, DFND     mean 125.31 122.96 113.86   std 51.59 50.85 51.26
    CMI            the latter for CIFAR-10, the former for CIFAR-100
"""

from __future__ import annotations

import argparse
import pickle
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdfkd.models.classifiers import resolve_checkpoint, save_classifier
from mmdfkd.models.classifiers.checkpoint import (
    ZOO_PREFIX,
    foreign_class,
    load_state,
    state_dict_of,
)
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.reporting import report_errors

COUNTER = 'num_batches_tracked'  # old files have none


class Layer(NamedTuple):
    """Tensors of a checkpoint that belong together.

    Attributes:
        name: Their common prefix.
        kind: What their shapes say they are.
        tensors: By the rest of their names.
    """

    name: str
    kind: str
    tensors: dict[str, Tensor]

    def __str__(self) -> str:
        shapes = [
            f'{key} {"x".join(map(str, tensor.shape))}'
            for key, tensor in self.tensors.items()
            if key in ('weight', 'bias')
        ]
        return f'{self.name} ({self.kind}: {", ".join(shapes)})'


def layers_of(state: dict[str, Tensor]) -> list[Layer]:
    """Group a state dict into layers, in its order."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, leaf = key.rpartition('.')
        groups.setdefault(name, {})[leaf] = tensor
    return [Layer(name, _kind(tensors), tensors) for name, tensors in groups.items()]


def _kind(tensors: dict[str, Tensor]) -> str:
    if 'running_mean' in tensors:
        return 'batch norm'
    dimensions = tensors['weight'].ndim if 'weight' in tensors else 0
    return {4: 'convolution', 2: 'linear layer'}.get(dimensions, 'unknown layer')


def match(theirs: dict[str, Tensor], ours: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give their tensors our names, layer by layer in their order.

    Args:
        theirs: State dict of the file.
        ours: State dict of the network, for names and shapes.
        source: Name of the file, for messages.

    Returns:
        Their tensors under our names.

    Raises:
        UsageError: Number, kind or shapes of the layers differ.
    """
    found, wanted = layers_of(theirs), layers_of(ours)
    if len(found) != len(wanted):
        raise UsageError(
            f'{source} holds {_count(found)}; the network of the config has {_count(wanted)}. '
            'Choose the config of that architecture and image size.'
        )
    renamed = {}
    for place, (layer, slot) in enumerate(zip(found, wanted, strict=True), 1):
        shapes = {key: t.shape for key, t in layer.tensors.items() if key != COUNTER}
        expected = {key: t.shape for key, t in slot.tensors.items() if key != COUNTER}
        if shapes != expected:
            raise UsageError(
                f'Layer {place} of {source} is {layer}, that of the config is {slot}. Choose the '
                'config of that architecture, image size and number of classes.'
            )
        for key, tensor in slot.tensors.items():
            renamed[f'{slot.name}.{key}'] = layer.tensors.get(key, torch.zeros_like(tensor))
    return renamed


def _count(layers: list[Layer]) -> str:
    kinds = Counter(layer.kind for layer in layers)
    return ', '.join(f'{count} x {kind}' for kind, count in kinds.items()) or 'no layer'


def read_official(path: Path, trust: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a published checkpoint.

    Args:
        path: The file.
        trust: Whether code in the file may run, which unpickling a whole network needs.

    Raises:
        UsageError: The file is missing or damaged, would run code, needs classes that cannot be
            imported, or holds no tensors.
    """
    path = resolve_checkpoint(path)
    try:
        content: Any = torch.load(path, map_location='cpu', weights_only=not trust)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(
            f'{path} holds a network whose class cannot be imported ({error}). Put the folder of '
            'the repository it comes from on PYTHONPATH.'
        ) from error
    except PermissionError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        newer = path.read_bytes()[:1] == b'\x80'  # a pickle; torch reads those of protocol 2
        if not trust and (foreign_class(error) or newer):
            raise UsageError(
                f'{path} is no plain checkpoint: reading it would run code from that file. If you '
                'trust who made it, repeat the command with --trust.'
            ) from error
        raise UsageError(
            f'{path} cannot be read ({str(error)[:100]}): it is damaged or no checkpoint. '
            'Copy or download it again.'
        ) from error
    for key in ('state_dict', 'model'):  # either may be a whole network as well
        if isinstance(content, dict) and isinstance(content.get(key), nn.Module):
            content = content[key]
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, dict):
        raise UsageError(f'{path} holds a {type(content).__name__}, expected a network or a dict.')
    return state_dict_of(content, path)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', type=Path, metavar='FILE', help='the published file')
    parser.add_argument(
        '--config',
        required=True,
        metavar='CONFIG',
        help='config with the network and its statistics: its model.teacher, else model.student',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help="file to write; default where the config's teacher is looked for",
    )
    parser.add_argument(
        '--trust', action='store_true', help='let the file run code: only if you trust its makers'
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Convert."""
    args = parse_args()
    with report_errors():
        cfg = load_config(args.config)
        init_default_scope(cfg.get('default_scope', 'mmdfkd'))
        config = dict(cfg.model.get('teacher') or cfg.model.student)
        target = config.pop('checkpoint', None)
        if not args.out and str(target).startswith(ZOO_PREFIX):
            raise UsageError(
                f'The teacher of {args.config} is {target}, which ships with mmdfkd. Say with '
                '--out where to write.'
            )
        target = args.out or Path(target or f'work_dirs/{Path(args.config).stem}/student.pth')
        if target.exists():
            raise UsageError(f'{target} exists. Remove it, or choose another place with --out.')
        network = MODELS.build({'type': 'Classifier', **config})
        source = f'Checkpoint {args.checkpoint}'
        state = match(read_official(args.checkpoint, args.trust), network.state_dict(), source)
        load_state(network, state, source)
        save_classifier(target, network, dict(converted_from=args.checkpoint.name))
        print(
            f'{target}: {network.name}, {network.num_classes} classes, mean {network.mean}, std '
            f'{network.std}. Every run prints its accuracy before the first step: a low one means '
            'other statistics or another order of the classes.'
        )


if __name__ == '__main__':
    main()
