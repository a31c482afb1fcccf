# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What README, documentation and method pages tell people to do, done.

Python blocks that begin with ``# name.py`` become that file, those that print something are run,
all must parse. Every line of a bash block is run as it stands, with ``--quick`` where there is
one, in a folder that has what a reader is said to have; or it is listed in NOT_RUN with the reason.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.registry import MODELS
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
    *sorted((ROOT / 'configs').rglob('*.md')),
]
NOT_RUN = {
    r'make demo\b': 'installs 6 GB; the demo itself is run by test_tools/test_demo.py',
    r'make test\b': 'is what runs this',
    r'python -m venv \.venv': 'make does it, with whatever runs these tests',
    r'\. \.venv/bin/activate': 'likewise',
    r'pip install --editable \.': 'likewise',
    r'python tools/demo\.py': 'run by test_tools/test_demo.py',
    r'(bash|GPUS=4 bash) tools/(dist|slurm)_': 'run by test_tools/test_launchers.py',
    r'python tools/train\.py configs/(?!kd3/kd3_lenet5)\S+$': 'run by test_configs.py',
    r'python tools/test\.py configs/(?!kd3/kd3_lenet5)\S+ \S+$': 'likewise',
    r'python tools/dataset_converters/make_mnistm\.py': 'needs MNIST; run by test_pack_images.py',
    r'python tools/dataset_converters/pack_images\.py data/': (
        'needs SVHN; such a merge is in test_packer.py'
    ),
    r'python tools/analysis_tools/sweep\.py': 'planned and, one of them, run by test_sweep_tool.py',
    r'python tools/analysis_tools/benchmark': (
        'takes minutes; run, small, by test_tools/test_benchmark.py'
    ),
    r'python tools/synthesize\.py': 'takes minutes; run, small, by test_tools/test_synthesize.py',
    r'python tools/visualization/vis_bank\.py': 'likewise',
    r'python tools/model_converters/publish_model\.py work_dirs/lenet5_': (
        'needs a run that these tests leave out; its own test is in test_tools'
    ),
}


def blocks(page):
    """Code blocks of a page: (language, text)."""
    return re.findall(r'^```(\w+)\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)


def commands(text):
    """Commands of a bash block: a line each, a loop as a whole, without comments."""
    text = re.sub(r'\s+#.*$', '', text, flags=re.MULTILINE)
    return re.findall(r'^for [\s\S]*?^done$|^.+$', text, re.MULTILINE)


def reason_not_to_run(command):
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command)), None)


def quick(command):
    """The toy-sized form of a command: trainings go to work_dirs/quick, the rest looks there."""
    lines = command.split('\n')
    return '\n'.join(
        f'{line} --quick' if 'tools/train.py' in line else quick_paths(line) for line in lines
    )


def quick_script(text):
    """The toy-sized form of a script: few images, one epoch, and what quick trainings left."""
    text = re.sub(r'num_images=\d+', 'num_images=1000', text)
    return quick_paths(re.sub(r"('train_cfg\.max_epochs': )\d+", r'\g<1>1', text))


def quick_paths(command):
    return command.replace('work_dirs/', 'work_dirs/quick/')


@pytest.fixture(scope='module')
def reader(tmp_path_factory):
    """A folder with a clone's configs and tools, a few images and a teacher of the reader's own."""
    folder = tmp_path_factory.mktemp('reader')
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    random = np.random.default_rng(0)
    for i in range(40):
        pixels = Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        for place in (f'my_images/{i}.png', f'my_test/{i % 10}/{i}.png'):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            pixels.save(folder / place)
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), folder / 'my_teacher.pth')
    return folder


@pytest.fixture(scope='module')
def run(reader, run_tool):
    """Run a command as a reader would, once.

    A plain call of a tool runs in this process, which saves the imports, unless README has it.
    """
    python = str(Path(sys.executable).parent)
    environment = dict(
        os.environ,
        PATH=f'{python}{os.pathsep}{os.environ["PATH"]}',
        PYTHONPATH=str(ROOT),  # stands for the installation
        OMP_NUM_THREADS='1',
    )
    done = set()
    in_readme = {quick(command) for _, text in blocks(PAGES[0]) for command in commands(text)}

    def run(command):
        if command in done:
            return
        done.add(command)
        tool = re.fullmatch(r'python tools/([^;$|]+)', command)
        if tool and command not in in_readme:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(reader)
                run_tool(*shlex.split(tool[1]))
            return
        command = command.replace('PYTHONPATH=.', f'PYTHONPATH=.:{ROOT}')
        result = subprocess.run(
            ['bash', '-ec', command], cwd=reader, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, (
            f'{command}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}'
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page, reader, run):
    trained = 'tools/train.py configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
    scripts = []
    for language, text in blocks(page):
        if language == 'python':
            ast.parse(text)
            if name := re.match(r'# (\w+\.py)\n', text):
                (reader / name[1]).write_text(text)
            elif 'print(' in text:
                scripts.append(text)
    for language, text in blocks(page):
        for command in commands(text) if language == 'bash' else ():
            if not reason_not_to_run(command):
                if 'work_dirs/kd3_lenet5' in command:
                    run(quick(f'python {trained}'))
                run(quick(command))
    for number, text in enumerate(scripts):
        script = reader / f'example_{page.parent.name}_{page.stem}_{number}.py'
        script.write_text(quick_script(text))
        run(f'python {script.name}')


@pytest.mark.slow
def test_a_test_set_of_the_readers_own(reader, run):
    """What the page about datasets says, put into the config of README."""
    pieces = [text for page in PAGES for language, text in blocks(page) if language == 'python']
    config = next(piece for piece in pieces if piece.startswith('# my_kd3.py'))
    test_set = next(piece for piece in pieces if re.match('val_dataloader.*my_test', piece, re.S))
    (reader / 'tested.py').write_text(config + test_set)
    run('python tools/dataset_converters/pack_images.py my_images --out my_pool')
    run('python tools/train.py tested.py --quick')
    summary = json.loads((reader / 'work_dirs/quick/tested/summary.json').read_text())
    assert summary['dataset'] == 'my_test' and summary['teacher'] == 'resnet18'
    assert summary['agreement'] is not None


def test_the_method_that_makes_images_keeps_its_phases_apart():
    page = ROOT / 'docs/en/advanced_guides/generation.md'
    exec(next(text for _, text in blocks(page) if text.startswith('# my_duel.py')), {})
    cfg = load_config(ROOT / 'configs/dfad/dfad_lenet5_lenet5-half_1xb96-20e_digits.py')
    cfg.model.pop('student_steps', None)
    model = MODELS.build({**cfg.model, 'type': 'Duel'}).train()
    optimisers = RoleOptimWrapperConstructor(
        {role: dict(optimizer=dict(type='SGD', lr=0.01)) for role in model.roles()}
    )(model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    update, seen = optimisers['student'].update_params, []

    def update_student(loss):
        seen.extend(parameter.grad for parameter in model.student.parameters())
        update(loss)

    optimisers['student'].update_params = update_student
    model.train_step(dict(latent=torch.randn(8, *model.latent_shape)), optimisers)
    assert seen and all(gradient is None for gradient in seen)
    moved = {
        name.split('.')[0] for name, v in model.named_parameters() if (v != before[name]).any()
    }
    assert moved == {'student', 'generator'}


def test_every_reason_not_to_run_a_command_is_needed():
    """A reason whose command has left the pages would hide the next one."""
    said = [
        command
        for page in PAGES
        for language, text in blocks(page)
        if language == 'bash'
        for command in commands(text)
    ]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command) for command in said), pattern
    assert sum(not reason_not_to_run(command) for command in said) >= 10


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\((?!https?://)([^)#\s]+)', page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_config_that_is_shown_is_the_config():
    text = next(t for _, t in blocks(ROOT / 'docs/en/user_guides/config.md'))
    config = ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(config.read_text()))


def test_files_and_options_named_in_the_pages_exist():
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r'(?<![\w/.])(?:configs|tools)/[\w./-]+\.(?:py|sh|md)', text):
            assert (ROOT / path).exists(), f'{page.name}: {path}'
