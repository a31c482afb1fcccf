# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The runner, and how its processes come together and part."""

from .distill_runner import DistillRunner
from .launch import leave_processes
from .loaders import set_loader_defaults
from .replicated_model import ReplicatedModel

__all__ = ['DistillRunner', 'ReplicatedModel', 'leave_processes', 'set_loader_defaults']
