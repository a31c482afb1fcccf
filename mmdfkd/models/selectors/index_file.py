# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A selection on disk, good for one teacher, one pool and one way to select."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import write_npz

from .selection import Selection

FORMAT = 'mmdfkd-selection/1'
KEY = 'model.selector.index_file'


def read_index(path: Path, facts: dict[str, Any]) -> Selection | None:
    """Read a selection that was made under the same circumstances.

    Args:
        path: Written by :func:`write_index`.
        facts: The circumstances, plain values: the teacher's fingerprint, the pool's content hash,
            the normalisation, the number of classes, the selector's own settings.

    Returns:
        The selection; ``None`` where there is no file.

    Raises:
        UsageError: The file is damaged, is something else, or was made under others.
    """
    if not path.exists():
        return None
    try:
        with np.load(path) as content:
            known = json.loads(str(content['facts']))
            arrays = {name: content[name] for name in Selection._fields}
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise UsageError(
            f'{path} ({KEY}) is damaged or holds no selection ({error}). Delete it to select anew, '
            'or name another file.'
        ) from error
    facts = plain_facts(facts)
    for name in [name for name in {**facts, **known} if known.get(name) != facts.get(name)]:
        raise UsageError(
            f'The selection in {path} ({KEY}) was made with {name} {known.get(name)}, this run has '
            f'{name} {facts.get(name)}. Delete the file to select anew, or name another one.'
        )
    weight = float(arrays.pop('student_weight'))
    return Selection(
        **{name: torch.from_numpy(array) for name, array in arrays.items()}, student_weight=weight
    )


def write_index(path: Path, selection: Selection, facts: dict[str, Any]) -> None:
    """Write a selection and the circumstances it was made under, atomically.

    Raises:
        UsageError: The file cannot be written.
    """
    try:
        text = json.dumps(plain_facts(facts))
        write_npz(path, facts=np.array(text), **selection._asdict())
    except OSError as error:
        raise UsageError(
            f'The selection cannot be written to {path} ({KEY}): {error.strerror or error}. Choose '
            'a folder that can be written and has room, or leave the key out.'
        ) from error


def plain_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as they come back from a file."""
    return json.loads(json.dumps(dict(format=FORMAT, **facts)))
