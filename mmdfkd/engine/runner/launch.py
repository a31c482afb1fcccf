# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How processes that a launcher has started find each other where there is no GPU, and part.

mmengine gives each its GPU first, so that it fails without.
"""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import torch
import torch.distributed as dist

from mmdfkd.utils import UsageError

#: What each launcher calls a process's rank, their number, and its place on its machine.
VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)


def check_launcher(launcher: str) -> None:
    """Refuse a launcher that has started nothing, or more processes than there are GPUs.

    Raises:
        UsageError: As said.
    """
    if launcher not in VARIABLES:
        return
    rank, _, local_rank = VARIABLES[launcher]
    if rank not in os.environ:
        raise UsageError(
            f'--launcher {launcher}: the environment variable {rank} is not set, so '
            'nothing has started several processes. Use tools/dist_train.sh or '
            'tools/slurm_train.sh (dist_test.sh, slurm_test.sh), or leave --launcher out.'
        )
    place, gpus = int(os.environ.get(local_rank, 0)), torch.cuda.device_count()
    if 0 < gpus <= place:
        raise UsageError(
            f'This is process {place + 1} of this machine, and it sees {gpus} of its GPUs. Start '
            'one process for each GPU, and let each see all of them (with Slurm by '
            '--gres=gpu:N, as tools/slurm_train.sh does, not by --gpus-per-task).'
        )


def set_meeting_place(launcher: str) -> None:
    """Say in the environment who this process is, and where all that a launcher started meet.

    ``MASTER_ADDR`` and ``MASTER_PORT`` (29500) say where. Slurm knows the first, and processes of
    one machine need none.

    Args:
        launcher: A key of :data:`VARIABLES`.

    Raises:
        UsageError: They are of several machines, and nobody says where they meet.
    """
    places = zip(VARIABLES['pytorch'], VARIABLES[launcher], strict=True)
    os.environ.update({name: os.environ[theirs] for name, theirs in places})
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _meeting_place(launcher)


def join_by_gloo(launcher: str, timeout: float | None = None) -> None:
    """Make one group of the processes that a launcher has started.

    Args:
        launcher: A key of :data:`VARIABLES`.
        timeout: Seconds after which they stop to wait for each other; half an hour if None.

    Raises:
        UsageError: See :func:`set_meeting_place`.
    """
    set_meeting_place(launcher)
    limit = None if timeout is None else timedelta(seconds=timeout)
    dist.init_process_group('gloo', timeout=limit)


def leave_processes() -> None:
    """Part from the other processes of a run that is over.

    Left to the interpreter's exit, the threads of gloo now and then abort a process that has done
    its work, and the launcher reports a failure.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _meeting_place(launcher: str) -> str:
    if launcher == 'slurm':
        listed = ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']]
        return subprocess.check_output(listed, text=True).split()[0]
    if os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') == os.environ['WORLD_SIZE']:
        return '127.0.0.1'
    raise UsageError(
        f'--launcher {launcher}: processes of several machines do not know where to meet. Set the '
        'environment variable MASTER_ADDR to the name of the first machine.'
    )
