# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A function of a test as two processes, of one group or not."""

import multiprocessing
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes


def start_two(function, *args):
    """Run ``function(rank, *args)`` in two processes, forked from one that has all imported."""
    multiprocessing.set_forkserver_preload(['mmdfkd.apis'])
    start_processes(function, args, nprocs=2, start_method='forkserver')


def run_in_two(function, *args):
    """What ``function(rank, *args)`` returns in either process, as tensors and plain values.

    Both talk by gloo.
    """
    with tempfile.TemporaryDirectory() as folder:
        start_two(_one_of_two, folder, function, args)
        return [torch.load(f'{folder}/{rank}.pt', weights_only=True) for rank in (0, 1)]


def _one_of_two(rank, folder, function, args):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/init',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),  # a deadlock shall fail, not hang
    )
    torch.save(function(rank, *args), f'{folder}/{rank}.pt')
    dist.destroy_process_group()
