# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One optimiser per role."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapperDict
from torch import nn

from mmdfkd.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmdfkd.utils import UsageError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RoleOptimWrapperConstructor:
    """Build an ``OptimWrapperDict`` from ``optim_wrapper = dict(student=dict(...), ...)``.

    The algorithm's ``roles()`` says which modules each role trains. Every role takes what
    mmengine's single-optimiser config takes: ``optimizer``, ``clip_grad``,
    ``accumulative_counts``, ``paramwise_cfg``, ``type='AmpOptimWrapper'``; ``type`` defaults to
    ``RoleOptimWrapper``.

    Args:
        optim_wrapper_cfg: Role names to their configs.
        paramwise_cfg: Must be ``None``; it belongs inside a role.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg:
            raise UsageError(
                'optim_wrapper.paramwise_cfg has no role. Move it into one, for instance '
                'optim_wrapper.student.paramwise_cfg.'
            )
        self.configs = optim_wrapper_cfg

    def __call__(self, model: Any) -> OptimWrapperDict:
        """Build the optimisers of all roles of ``model``.

        Raises:
            UsageError: Roles of config and algorithm differ.
        """
        roles = model.roles()
        kinds = (list, tuple, nn.ModuleList)
        lists = [isinstance(part, kinds) for part in getattr(roles, 'values', list)()]
        if not lists or not all(lists):
            raise UsageError(
                f'{model.method}.roles() says which modules each role trains. Return a dict of '
                'lists, such as dict(student=[self.student]).'
            )
        if set(self.configs) != set(roles):
            raise UsageError(
                f'optim_wrapper has the roles {sorted(self.configs)}, {model.method} trains '
                f'{sorted(roles)}. Give each of these one entry with an optimizer.'
            )
        wrappers = {}
        for role, config in self.configs.items():
            if config is None:
                raise UsageError(f'optim_wrapper.{role} is None. Give it an optimizer.')
            if 'AmpOptimWrapper' in str(config.get('type')) and model.unscaled:
                raise UsageError(
                    f'optim_wrapper.{role}.type=AmpOptimWrapper scales losses, and {model.method} '
                    f"{model.unscaled} outside of it. Use 'AutocastOptimWrapper', or leave it out."
                )
        for role, modules in roles.items():
            config = {'type': 'mmdfkd.RoleOptimWrapper', **self.configs[role]}
            paramwise = config.pop('paramwise_cfg', None)
            build = DefaultOptimWrapperConstructor(config, paramwise)
            try:
                wrappers[role] = build(nn.ModuleList(modules))
            except ValueError as error:  # of PyTorch, about a number
                raise UsageError(f'optim_wrapper.{role}.optimizer: {error}.') from error
            except AssertionError as error:  # of mmengine, about the wrapper
                hint = " 'AutocastOptimWrapper' (--amp) also runs on a CPU." * ('Amp' in str(error))
                raise UsageError(f'optim_wrapper.{role}: {error}.{hint}') from error
        return OptimWrapperDict(**wrappers)
