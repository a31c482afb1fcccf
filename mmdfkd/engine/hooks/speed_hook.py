# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Switches that make training steps faster and results different by rounding only."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import nn

from mmdfkd.models.classifiers import BatchNormFolding
from mmdfkd.registry import HOOKS
from mmdfkd.utils.errors import UsageError, check_choice

from ..compiled import (
    CUDA_GRAPHS,
    MODES,
    CompiledForward,
    begin_step,
    compiler_error,
    parts_to_compile,
)
from ..small_convs import SmallConvs

# What the switches are on in; all else that runs a network is as without them.
FAST = ('train_step', 'synthesize')


@HOOKS.register_module()
class SpeedHook(Hook):
    """Layout, folding, products and compilation of networks, each off unless asked for.

    ``fold_teacher``, ``small_convs`` and ``compile`` are on inside training steps and rounds of
    synthesis alone. Everything that chooses, measures or keeps runs the networks as they are:
    selection passes, cached teacher logits, evaluation, figures. Weights, their names,
    fingerprints, checkpoints and ``student.pth`` do not depend on any switch, so a run may be
    resumed with others; with the same ones it goes on bit for bit on a CPU.

    Args:
        channels_last: Keep the weights of these networks in channels-last layout: ``True`` for all
            or names such as ``['teacher', 'student', 'generator']``. Maps are in that layout in
            any case, since images come so out of the loader; this saves reordering weights.
        fold_teacher: Fold the teacher's BatchNorm into the convolutions before it, see
            :class:`~mmdfkd.models.classifiers.BatchNormFolding`. Passes whose BatchNorm statistics
            or inner features are read are not folded.
        small_convs: On a CPU, compute LeNet5's first layers, and convolutions whose kernel covers
            the map, as matrix products, see :class:`~mmdfkd.engine.small_convs.SmallConvs`.
        compile: Names of networks to run through ``torch.compile``. Without a working compiler
            they stay as they are, which is said.
        compile_mode: Mode of ``torch.compile``: ``'default'``, ``'reduce-overhead'`` (CUDA graphs),
            ``'max-autotune'``, ``'max-autotune-no-cudagraphs'``.

    Raises:
        UsageError: The algorithm has no network of that name, or no teacher to fold, or gradients
            are to be accumulated over steps of CUDA graphs.
    """

    def __init__(
        self,
        channels_last: bool | str | Sequence[str] = False,
        fold_teacher: bool = False,
        small_convs: bool = False,
        compile: str | Sequence[str] = (),
        compile_mode: str = 'default',
    ) -> None:
        check_choice('default_hooks.speed.compile_mode', compile_mode, MODES)
        check_choice('default_hooks.speed.fold_teacher', fold_teacher, (True, False))
        check_choice('default_hooks.speed.small_convs', small_convs, (True, False))
        self.channels_last = [channels_last] if isinstance(channels_last, str) else channels_last
        self.fold_teacher = fold_teacher
        self.small_convs = small_convs
        self.compile = [compile] if isinstance(compile, str) else list(dict.fromkeys(compile))
        self.compile_mode = compile_mode
        self.switches: list[Callable[[], AbstractContextManager]] = []
        self.folding: BatchNormFolding | None = None

    def before_train(self, runner: Any) -> None:
        """Set the switches; weights have been loaded by now."""
        self.switch_on(runner.model, runner.optim_wrapper, runner.logger)

    def after_train(self, runner: Any) -> None:
        """Leave the model as it was, but for the layout."""
        if self.switches:
            for name in FAST:
                vars(runner.model).pop(name, None)
        self.switches.clear()
        if self.folding is not None:
            self.folding.undo()

    def switch_on(
        self, model: Any, optim_wrapper: Mapping[str, OptimWrapper], logger: logging.Logger
    ) -> None:
        """Set the switches of an algorithm.

        Args:
            model: The algorithm, with the weights that it begins with.
            optim_wrapper: Its optimisers by role.
            logger: Is told what is on.
        """
        self._lay_out(model, logger)
        for wrapper in optim_wrapper.values():
            lay_out_states(wrapper.optimizer)
        if self.fold_teacher:
            self._fold(model, logger)
        if self.small_convs:
            self._multiply(model, logger)
        if self.compile:
            self._check_accumulation(optim_wrapper)
            self._compile(model, logger)
        if self.switches:
            for name in FAST:
                if hasattr(model, name):
                    setattr(model, name, self._fast(getattr(model, name)))

    def _lay_out(self, model: Any, logger: logging.Logger) -> None:
        names = self.channels_last
        if names is True:
            names = [name for name, part in networks_of(model).items() if _has_maps(part)]
        if names:
            for network in pick(model, names, 'channels_last'):
                network.to(memory_format=torch.channels_last)
            logger.info(
                f'Speed: weights of {", ".join(names)} in channels-last layout. Results may change '
                'by rounding, those of selection and evaluation too.'
            )

    def _fold(self, model: Any, logger: logging.Logger) -> None:
        teacher = model.teacher
        if teacher is None:
            raise UsageError(
                f'default_hooks.speed.fold_teacher: {model.method} runs without a teacher. '
                'Leave it out.'
            )
        self.folding = BatchNormFolding(teacher)
        folded, total = len(self.folding.pairs), self.folding.total
        if folded:
            self.switches.append(self.folding.active)
            logger.info(
                f'Speed: {folded} of {total} BatchNorm layers of the teacher {teacher.name} are '
                'folded in training steps, but in passes whose statistics are read. Cached '
                'logits, selection and evaluation use the teacher as it is.'
            )
        else:
            logger.info(
                f'Speed: none of the {total} BatchNorm layers of the teacher {teacher.name} stands '
                'right behind a convolution, so nothing is folded.'
            )

    def _multiply(self, model: Any, logger: logging.Logger) -> None:
        device = next(model.parameters()).device.type
        if device != 'cpu':
            logger.info(f'Speed: small_convs is for CPUs and does nothing on {device}.')
            return
        self.switches.append(SmallConvs(model).active)
        logger.info('Speed: small convolutions are matrix products in training steps.')

    def _compile(self, model: Any, logger: logging.Logger) -> None:
        networks = pick(model, self.compile, 'compile')
        reason = compiler_error(next(model.parameters()).device)
        if reason:
            logger.warning(
                f'Speed: torch.compile does not work here ({reason}). Networks run uncompiled; '
                'install a C++ compiler (for a GPU: Triton) or leave out '
                'default_hooks.speed.compile.'
            )
            return
        for network in networks:
            for part in parts_to_compile(network):
                self.switches.append(CompiledForward(part, self.compile_mode).active)
        logger.info(
            f'Speed: {", ".join(self.compile)} compiled in training steps '
            f'(mode {self.compile_mode!r}). The first steps take minutes.'
        )

    def _check_accumulation(self, optim_wrapper: Mapping[str, OptimWrapper]) -> None:
        for role, wrapper in optim_wrapper.items():
            count = wrapper._accumulative_counts
            if count > 1 and self.compile_mode in CUDA_GRAPHS:
                raise UsageError(
                    f'optim_wrapper.{role}.accumulative_counts={count} adds up gradients of '
                    'several steps, and CUDA graphs (default_hooks.speed.compile_mode='
                    f'{self.compile_mode!r}) overwrite those of the last one. Set compile_mode '
                    "to 'default' or 'max-autotune-no-cudagraphs', or leave accumulative_counts "
                    'out.'
                )

    def _fast(self, method: Callable) -> Callable:
        """The method with the switches on."""

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._on():
                return method(*args, **kwargs)

        return run

    @contextmanager
    def _on(self) -> Iterator[None]:
        begin_step()
        with ExitStack() as stack:
            for switch in self.switches:
                stack.enter_context(switch())
            yield


def lay_out_states(optimizer: torch.optim.Optimizer) -> None:
    """Give states of an optimiser the layout of their weights, which fused steps rely on.

    Those of a checkpoint have the layout that the weights had when it was written.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            fits = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if fits and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def networks_of(model: Any) -> dict[str, nn.Module]:
    """The parts of an algorithm that have weights, by name."""
    model = getattr(model, 'module', model)
    return {name: part for name, part in model.named_children() if list(part.parameters())}


def pick(model: Any, names: Sequence[str], key: str) -> list[nn.Module]:
    """Networks of an algorithm by name.

    Raises:
        UsageError: It has none of that name.
    """
    known = networks_of(model)
    for name in names:
        if name not in known:
            raise UsageError(
                f'default_hooks.speed.{key} names {name!r}, which is no network of {model.method}. '
                f'It has: {", ".join(known)}.'
            )
    return [known[name] for name in names]


def _has_maps(network: nn.Module) -> bool:
    """Whether some weight is that of a two-dimensional convolution."""
    return any(parameter.ndim == 4 for parameter in network.parameters())
