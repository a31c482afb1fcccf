# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the classes of a run are called."""

from __future__ import annotations

from typing import Any


def class_names(runner: Any) -> list[str]:
    """Names of the classes: those of the validation set, or else their numbers."""
    known = runner.val_dataloader.dataset.metainfo if runner.val_loop is not None else {}
    return [str(name) for name in known.get('classes') or range(runner.model.student.num_classes)]
