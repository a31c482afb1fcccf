# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Make a bank of images out of a teacher: ``python tools/synthesize.py CONFIG --num N``.

No student is trained. The folder is an image pool from the first round on, for any method that
learns from one: ``train_dataloader.dataset=dict(type='ImagePool', root=...)``. Killed or finished,
the same command goes on where it stopped; a larger ``--num`` adds rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdfkd.utils import UsageError
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Make a bank of images out of a teacher')
    parser.add_argument('config', help='config of a method that inverts its teacher')
    parser.add_argument(
        '--num', type=int, required=True, help='images; rounded up to whole rounds of synthesis'
    )
    parser.add_argument('--out', help='folder; default work_dirs/banks/<config stem>')
    parser.add_argument('--seed', type=int, help='random seed; default that of the config')
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: bfloat16 on CPU and GPU'
    )
    add_cfg_options(parser, 'override config keys, e.g. model.iterations=500')
    return parser.parse_args()


def main() -> None:
    """Synthesise."""
    args = parse_args()
    out = Path(args.out or f'work_dirs/banks/{Path(args.config).stem}')

    def resume_hint() -> str:
        return f'the rounds in {out} are kept. The same command goes on with them.'

    with report_errors(resume_hint):
        if args.num < 1:
            raise UsageError(f'--num is {args.num}; give the number of images to make, 1 or more.')
        if out.exists() and not out.is_dir():
            raise UsageError(f'--out {out} is a file. Give the folder of the bank.')
        cfg = load_config(args.config, args.cfg_options)
        if args.seed is not None:
            cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
        check_config(cfg)
        if args.amp:
            from mmdfkd.engine.optimizers.autocast import use_amp

            use_amp(cfg)
        fill(cfg, out, args.num)


def fill(cfg: Config, out: Path, num: int) -> None:
    """Make rounds until the bank holds ``num`` images.

    Raises:
        UsageError: The method makes no images, or the folder holds something else than this bank.
    """
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope
    from mmengine.runner import set_random_seed

    from mmdfkd.datasets import ImageBank
    from mmdfkd.datasets.image_bank import IDENTITY
    from mmdfkd.engine.synthesis import bank_facts, describe_round, synthesize_round
    from mmdfkd.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
    from mmdfkd.utils.device import choose_device, set_up_device
    from mmdfkd.utils.progress import advancing

    init_default_scope(cfg.get('default_scope', 'mmdfkd'))
    set_up_device(cfg.get('env_cfg') or {})
    logger = MMLogger.get_instance('synthesize', log_level='WARNING')  # silent on initial weights
    # A bank that is gone on with cannot have a seed that is drawn at random.
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    set_random_seed(seed)
    config = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        config.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(config)
    if not hasattr(model, 'synthesize') or model.learns_from != 'generated':
        raise UsageError(
            f'{model.method} fills no bank of images out of its teacher alone. Give the config of '
            'a method that does, for instance one of configs/deepinversion.'
        )
    model.init_weights()
    model.to(choose_device()).train()
    wrappers = dict(cfg.optim_wrapper)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(wrappers.pop('constructor'))
    optim_wrapper = constructor(wrappers)(model)
    for handler in logger.handlers:
        handler.setLevel('INFO')
    speed = (cfg.get('default_hooks') or {}).get('speed')
    if speed:
        HOOKS.build(speed).switch_on(model, optim_wrapper, logger)

    bank = ImageBank(out, model.teacher.input_shape)
    # Optimisers of what is carried from round to round, whatever they are wrapped in.
    lasting = {
        role: {key: value for key, value in config.items() if key != 'type'}
        for role, config in wrappers.items()
        if role != 'student'
    }
    settings = dict(cfg.model, optim_wrapper=lasting) if lasting else cfg.model
    facts = bank_facts(model, seed, settings, class_names(cfg, model.teacher.num_classes))
    bank.open(facts, f'{model.method} bank', (*IDENTITY, 'method', 'seed', 'settings'))
    state = State(out, model, optim_wrapper)
    state.load(bank.rounds)
    total = -(-num // model.batch_size)
    if bank.rounds >= total:
        print(f'{out} holds {len(bank):,} images already; a larger --num adds to them.')
    with advancing('Rounds of synthesis', total) as advance:
        for _ in range(bank.rounds):
            advance()
        for number in range(bank.rounds, total):
            made = synthesize_round(model, optim_wrapper, seed, number, adversary=False)
            state.save(number + 1)  # ahead of the images: a bank never has more rounds than it
            bank.append(made.images, made.targets)
            state.remove_others(number + 1)
            print(describe_round(made, number, model.iterations, len(bank), facts['num_classes']))
            advance()
    print(f"{out}: {len(bank):,} images, for dataset=dict(type='ImagePool', root='{out}').")


class State:
    """What outlives a round, in the folder of the bank: one file for each number of rounds.

    A method without such things, as DeepInversion, has no files.
    """

    def __init__(self, folder: Path, model: Any, optim_wrapper: Any) -> None:
        self.folder, self.model, self.optim_wrapper = folder, model, optim_wrapper

    def save(self, rounds: int) -> None:
        """Write what was left by ``rounds`` rounds."""
        import torch

        from mmdfkd.utils.files import atomic_path

        state = self.model.state_dict().items()
        tensors = {key: value for key, value in state if not key.startswith('student.')}
        if not tensors:
            return
        roles = self.optim_wrapper.state_dict()
        roles.pop('student')
        with atomic_path(self._path(rounds)) as temporary:
            torch.save(dict(model=tensors, optimizers=roles), temporary)

    def load(self, rounds: int) -> None:
        """Take up what was left by ``rounds`` rounds."""
        from mmdfkd.models.classifiers import read_checkpoint

        own = self.model.state_dict()
        if rounds and any(not key.startswith('student.') for key in own):
            if not self._path(rounds).is_file():
                raise UsageError(
                    f'The bank {self.folder} has {rounds} rounds, and {self._path(rounds).name}, '
                    'without which nobody can go on with them, is gone. It may be used as it is; '
                    'to make more images choose another --out.'
                )
            state = read_checkpoint(str(self._path(rounds)))
            self.model.load_state_dict({**own, **state['model']})
            for role, values in state['optimizers'].items():
                self.optim_wrapper[role].load_state_dict(values)
        self.remove_others(rounds)

    def remove_others(self, rounds: int) -> None:
        """Remove what earlier rounds, or a round that never came into the bank, left."""
        for pattern in ('state_*.pth', '.state_*.pth'):  # the latter of a writer that was killed
            for path in self.folder.glob(pattern):
                if path != self._path(rounds):
                    path.unlink()

    def _path(self, rounds: int) -> Path:
        return self.folder / f'state_{rounds}.pth'


def class_names(cfg: Config, count: int) -> list[str]:
    """Names of the classes if the config's validation set is on this machine, or numbers."""
    from mmdfkd.registry import DATASETS

    names = None
    try:
        names = DATASETS.build(cfg.val_dataloader.dataset).metainfo.get('classes')
    except (UsageError, AttributeError):
        pass
    return [str(name) for name in (names or range(count))]


if __name__ == '__main__':
    main()
