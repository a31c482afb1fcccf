# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""When switches pay: ``python tools/analysis_tools/benchmark_switches.py [PAIR ...]``.

A KD³ step and the forward pass of its teacher, with each switch of ``SpeedHook``, with ``--amp``
and with all of these and a fused optimiser (*all*), against the same in eager float32 on batches as
the loader gives them (*strict*). Networks have random weights. All variants run in one process, in
turn; a ratio is the median over rounds. Ratios travel to other machines of the kind, absolute times
do not.
"""

from __future__ import annotations

import argparse
import copy
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring.command import check_least  # beside this file
from measuring.epochs import COMPILED, FAST
from measuring.timing import Clock, compare, machine, median, print_table, ratio
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdfkd.models.algorithms import KD3
from mmdfkd.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.files import write_json
from mmdfkd.utils.reporting import report_errors

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPES = dict(
    lenet5='kd3_lenet5_lenet5-half_1xb128-40e_digits.py',
    wrn='kd3_wrn-40-2_wrn-16-1_1xb1024-240e_cifar10.py',
    resnet34='kd3_resnet34_resnet18_1xb1024-240e_cifar10.py',
)
LAID_OUT = {'default_hooks.speed.channels_last': True}
HALF = {'optim_wrapper.student.type': 'AutocastOptimWrapper'}
#: What differs from the recipe, as ``--cfg-options`` say it.
VARIANTS: dict[str, dict[str, Any]] = {
    'NCHW images': {},
    'strict': {},
    'channels_last': LAID_OUT,
    'folded': {'default_hooks.speed.fold_teacher': True},
    'small_convs': {'default_hooks.speed.small_convs': True},
    'bf16': HALF,
    'all': FAST,
    'compiled': LAID_OUT | COMPILED,
    'compiled, bf16': LAID_OUT | COMPILED | HALF,
}


class Variant:
    """A KD³ with some switches on.

    Args:
        name: Key of :data:`VARIANTS`.
        model: What is copied.
        cfg: Its recipe.
        images: uint8 ``(B, C, H, W)``, laid out as the loader does.
    """

    def __init__(self, name: str, model: KD3, cfg: Config, images: torch.Tensor) -> None:
        cfg = copy.deepcopy(cfg)
        cfg.merge_from_dict(VARIANTS[name])
        constructor = cfg.optim_wrapper.pop('constructor')
        self.images = images.contiguous() if name == 'NCHW images' else images
        self.model = copy.deepcopy(model).train()
        self.optim_wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(type=constructor, optim_wrapper_cfg=cfg.optim_wrapper)
        )(self.model)
        # The hook switches this method too: a pass of the teacher as it happens in a step.
        vars(self.model)['synthesize'] = self._teacher_pass
        hook = HOOKS.build(cfg.default_hooks.speed)
        hook.switch_on(self.model, self.optim_wrapper, logging.getLogger('speed'))

    def step(self) -> None:
        """One training step."""
        self.model.train_step(dict(inputs=self.images), self.optim_wrapper)

    def forward(self) -> None:
        """One pass of the teacher."""
        self.model.synthesize()

    @torch.no_grad()
    def _teacher_pass(self) -> None:
        images = self.model.test_preprocessor(dict(inputs=self.images))['inputs']
        with self.optim_wrapper['student'].optim_context(self.model):
            self.model.teacher.extract(images)


def measure(args: argparse.Namespace, clock: Clock, pair: str) -> list[dict[str, Any]]:
    """Rows of one pair of networks: times of the variants, as ratios to the strict ones."""
    cfg = load_config(CONFIGS / 'kd3' / RECIPES[pair])
    teacher = dict(cfg.model.teacher)
    teacher.pop('checkpoint', None)
    torch.manual_seed(0)
    teacher = MODELS.build(dict(teacher, type='Classifier'))
    model = MODELS.build(dict(cfg.model, teacher=teacher)).to(args.device)
    model.selector = None
    channels, height, width = model.teacher.input_shape
    shape = (args.batch, height, width, channels)
    images = torch.randint(256, shape, dtype=torch.uint8, device=args.device).permute(0, 3, 1, 2)
    names = [name for name in VARIANTS if name == 'strict' or name in args.switches]
    variants = {n: Variant(n, model, cfg, images) for n in names}

    compared = functools.partial(compare, clock, args.rounds)
    forward = compared(
        **{name: repeated(v.forward, args.iterations) for name, v in variants.items()}
    )
    step = compared(**{name: repeated(v.step, args.iterations) for name, v in variants.items()})
    return [
        {
            'pair': pair,
            'switches': name,
            'teacher forward': ratio(forward[name], forward['strict']),
            'step': ratio(step[name], step['strict']),
            'forward ms': 1e3 * median(forward[name]) / args.iterations,
            'step ms': 1e3 * median(step[name]) / args.iterations,
        }
        for name in variants
    ]


def measure_optimizers(args: argparse.Namespace, clock: Clock, pair: str) -> list[dict[str, Any]]:
    """Rows of one pair: a step of an optimiser over the student's backbone, three ways."""
    cfg = load_config(CONFIGS / 'kd3' / RECIPES[pair])
    rows = []
    for kind, settings in (('SGD', dict(momentum=0.9, weight_decay=5e-4)), ('Adam', {})):
        actions = {}
        for way in ('loop', 'foreach', 'fused'):
            torch.manual_seed(0)
            network = MODELS.build(cfg.model.student.backbone).to(args.device)
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            chosen = dict(foreach=False) if way == 'loop' else {way: True}
            optimizer = getattr(torch.optim, kind)(
                network.parameters(), lr=1e-3, **settings, **chosen
            )
            actions[way] = repeated(optimizer.step, args.iterations)
        times = compare(clock, args.rounds, **actions)
        ratios = {way: ratio(times[way], times['loop']) for way in actions}
        loop = 1e3 * median(times['loop']) / args.iterations
        rows.append({'student of': pair, 'optimizer': kind, **ratios, 'loop ms': loop})
    return rows


def repeated(action: Callable[[], Any], times: int) -> Callable[[], None]:
    """An action that is the given one, some times over."""

    def run() -> None:
        for _ in range(times):
            action()

    return run


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='When switches pay')
    parser.add_argument('pairs', nargs='*', metavar='PAIR', help=f'of {", ".join(RECIPES)}')
    parser.add_argument('--batch', type=int, default=64, help='default %(default)s')
    parser.add_argument('--rounds', type=int, default=7, help='of each variant; default 7')
    parser.add_argument('--iterations', type=int, default=1, help='in a round; default 1')
    parser.add_argument(
        '--switches', nargs='+', choices=list(VARIANTS), default=list(VARIANTS), metavar='NAME',
        help=f'variants beside the strict one; default all: {", ".join(VARIANTS)}',
    )  # fmt: skip
    parser.add_argument(
        '--optimizers', action='store_true', help='time the ways to step an optimiser instead'
    )
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU; default 1')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there too')
    args = parser.parse_args()
    check_least(parser, args, 'batch', 'rounds', 'iterations', 'threads')
    return args


def main() -> None:
    """Run."""
    args = parse_args()
    with report_errors():
        unknown = sorted(set(args.pairs) - set(RECIPES))
        if unknown:
            raise UsageError(f'There is no pair {unknown[0]!r}. Choose of {", ".join(RECIPES)}.')
        if args.device == 'cuda' and not torch.cuda.is_available():
            raise UsageError('--device cuda: torch sees no GPU. Use --device cpu.')
        init_default_scope('mmdfkd')
        torch.set_num_threads(args.threads)
        clock = Clock(args.device)
        facts = machine(args, clock)
        for name, fact in facts.items():
            print(f'{name:8} {fact}')
        rows = []
        for pair in args.pairs or RECIPES:
            found = (measure_optimizers if args.optimizers else measure)(args, clock, pair)
            print_table(f'{pair}, batch {args.batch}', found)
            rows += found
        if args.json:
            write_json(args.json, dict(machine=facts, rows=rows))


if __name__ == '__main__':
    main()
