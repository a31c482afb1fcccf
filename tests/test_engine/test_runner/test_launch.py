# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import os
import socket
import stat
from datetime import timedelta
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from mmengine.runner import Runner
from two_processes import start_two

from mmdfkd.engine import DistillRunner
from mmdfkd.engine.runner import distill_runner, leave_processes
from mmdfkd.engine.runner.launch import check_launcher, join_by_gloo
from mmdfkd.utils import UsageError

#: What torchrun, srun and mpirun tell a process: its rank, their number, its place.
TOLD = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)


def meet(rank, launcher, env):
    """What a process does that has been started: find the other one, and see who is there."""
    os.environ.pop('MASTER_ADDR', None)
    told = dict(zip(TOLD[launcher], (str(rank), '2', str(rank)), strict=True))
    os.environ.update(told | env)
    join_by_gloo(launcher, timeout=120)
    both = [torch.zeros(()) for _ in range(2)]
    dist.all_gather(both, torch.tensor(10.0 + dist.get_rank()))
    assert [int(one) for one in both] == [10, 11] and dist.get_rank() == rank
    dist.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def scontrol(tmp_path):
    """A folder with a `scontrol` that tells the machines of a list."""
    script = tmp_path / 'scontrol'
    script.write_text('#!/bin/sh\n[ "$3" = "node[1-2]" ] && printf "localhost\\nfar-away\\n"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(tmp_path)


@pytest.mark.dist
@pytest.mark.parametrize(
    ('launcher', 'others'),
    [
        ('pytorch', dict(MASTER_ADDR='127.0.0.1')),
        ('slurm', dict(SLURM_NODELIST='node[1-2]')),
        ('mpi', dict(OMPI_COMM_WORLD_LOCAL_SIZE='2')),
    ],
)
def test_processes_of_every_launcher_meet_without_a_gpu(launcher, others, scontrol):
    path = os.pathsep.join([scontrol, os.environ['PATH']])
    start_two(meet, launcher, dict(others, MASTER_PORT=free_port(), PATH=path))


@pytest.mark.parametrize('launcher', ['mpi', 'pytorch'])
def test_processes_of_several_machines_are_told_where_to_meet(launcher, monkeypatch):
    monkeypatch.setattr(dist, 'init_process_group', lambda *_, **__: pytest.fail('met nobody'))
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    for name, value in zip(TOLD['pytorch'], ('0', '4', '0'), strict=True):
        monkeypatch.setenv(name, value)  # what the call sets is forgotten afterwards
    for name, value in zip(TOLD['mpi'], ('0', '4', '0'), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_PORT', '29500')
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_SIZE', '2')
    with pytest.raises(UsageError, match=f'--launcher {launcher}: .*several machines.*MASTER_ADDR'):
        join_by_gloo(launcher)


def test_processes_wait_for_each_other_as_long_as_asked(monkeypatch):
    told = []
    monkeypatch.setattr(
        dist, 'init_process_group', lambda backend, timeout: told.append((backend, timeout))
    )
    for name, value in zip(TOLD['pytorch'], ('0', '2', '0'), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', 'first-machine')
    monkeypatch.setenv('MASTER_PORT', 'of a test')  # what the call sets is forgotten afterwards
    del os.environ['MASTER_PORT']
    join_by_gloo('pytorch')
    join_by_gloo('pytorch', timeout=5)
    assert told == [('gloo', None), ('gloo', timedelta(seconds=5))]
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('first-machine', '29500')


def test_a_config_says_how_long_processes_wait(toy_config, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    join = Mock(side_effect=InterruptedError)
    monkeypatch.setattr(distill_runner, 'join_by_gloo', join)
    with pytest.raises(InterruptedError):
        DistillRunner.from_cfg(toy_config(launcher='pytorch', **{'env_cfg.dist_cfg.timeout': 7}))
    join.assert_called_once_with('pytorch', 7)


def test_processes_of_mpi_meet_with_gpus_too(toy_config, monkeypatch):
    """mmengine asks for a MASTER_ADDR, which processes of one machine need not be given."""
    names = dict(RANK='9', WORLD_SIZE='9', LOCAL_RANK='9', MASTER_ADDR='', MASTER_PORT='29501')
    for name, value in names.items():  # what the call sets is forgotten afterwards
        monkeypatch.setenv(name, value)
    del os.environ['MASTER_ADDR']
    for name, value in zip(TOLD['mpi'], ('0', '2', '0'), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_SIZE', '2')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    joined = Mock(side_effect=InterruptedError)
    monkeypatch.setattr(Runner, 'setup_env', joined)
    with pytest.raises(InterruptedError):
        DistillRunner.from_cfg(toy_config(launcher='mpi'))
    assert [os.environ[name] for name in TOLD['pytorch']] == ['0', '2', '0']
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('127.0.0.1', '29501')


@pytest.mark.parametrize('several', [True, False])
def test_processes_part_where_there_are_several(monkeypatch, several):
    part = Mock()
    monkeypatch.setattr(dist, 'is_initialized', lambda: several)
    monkeypatch.setattr(dist, 'destroy_process_group', part)
    leave_processes()
    assert part.called == several


@pytest.mark.parametrize('launcher', TOLD)
def test_a_launcher_that_launched_nothing(toy_config, launcher, monkeypatch):
    monkeypatch.delenv(TOLD[launcher][0], raising=False)
    with pytest.raises(UsageError, match=rf'--launcher {launcher}: .* is not set.*dist_train'):
        DistillRunner.from_cfg(toy_config(launcher=launcher))


@pytest.mark.parametrize('launcher', TOLD)
def test_more_processes_than_gpus(launcher, monkeypatch):
    for name, value in zip(TOLD[launcher], ('6', '8', '2'), strict=True):
        monkeypatch.setenv(name, value)
    for gpus in (0, 3):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda gpus=gpus: gpus)
        check_launcher(launcher)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UsageError, match=r'process 3 of this machine.* 2 of its GPUs.*--gres'):
        check_launcher(launcher)
    monkeypatch.delenv(TOLD[launcher][2])  # whoever is not told is the first one
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    check_launcher(launcher)
