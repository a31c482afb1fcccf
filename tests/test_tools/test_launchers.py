# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The shell scripts hand on what they are given; what they start is not run here."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def launch(tmp_path):
    """Run a script with stand-ins for python and srun that print their arguments, one a line."""
    for name in ('python', 'srun'):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/sh\necho {name}\nprintf "%s\\n" "$@"\n')
        stand_in.chmod(0o755)

    def launch(script, *args, **environment):
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        return subprocess.run(
            ['bash', TOOLS / script, *args],
            env={**os.environ, 'PATH': path, **environment},
            capture_output=True,
            text=True,
        )

    return launch


def test_dist_train(launch):
    words = launch('dist_train.sh', 'a.py', '4', '--seed', '1 2', PORT='1234').stdout.split('\n')
    assert words[:3] == ['python', '-m', 'torch.distributed.run']
    assert '--nproc_per_node=4' in words and '--master_port=1234' in words
    script = words.index(str(TOOLS / 'train.py'))
    assert words[script + 1 : -1] == ['a.py', '--launcher', 'pytorch', '--seed', '1 2']


def test_dist_test(launch):
    words = launch('dist_test.sh', 'a.py', 'b.pth', '2', '--out', 'c.json').stdout.split('\n')
    script = words.index(str(TOOLS / 'test.py'))
    assert '--nproc_per_node=2' in words
    assert words[script + 1 : -1] == ['a.py', 'b.pth', '--launcher', 'pytorch', '--out', 'c.json']


def test_slurm_train(launch):
    result = launch(
        'slurm_train.sh', 'part', 'job', 'a.py', '--resume', GPUS='16', SRUN_ARGS='-x n1'
    )
    words = result.stdout.split('\n')
    assert words[0] == 'srun'
    for word in ('--job-name=job', '--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8', 'n1'):
        assert word in words
    script = words.index(str(TOOLS / 'train.py'))
    assert words[script + 1 : -1] == ['a.py', '--launcher', 'slurm', '--resume']


def test_slurm_test(launch):
    words = launch('slurm_test.sh', 'part', 'job', 'a.py', 'b.pth', GPUS='2').stdout.split('\n')
    assert '--ntasks-per-node=2' in words
    script = words.index(str(TOOLS / 'test.py'))
    assert words[script + 1 : -1] == ['a.py', 'b.pth', '--launcher', 'slurm']


@pytest.mark.parametrize('script', sorted(path.name for path in TOOLS.glob('*.sh')))
def test_too_few_arguments_show_the_usage(launch, script):
    result = launch(script, 'a.py')
    assert result.returncode == 2
    assert result.stdout == ''
    assert f'tools/{script}' in result.stderr and 'CONFIG' in result.stderr
