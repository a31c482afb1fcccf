# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.distributed as dist

from mmdfkd.models.modules import gather_batch


def test_one_process_is_the_identity():
    local = torch.randn(2, 3)
    assert gather_batch(local) is local


def _two_ranks(rank, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=2)
    # rank 0 holds rows (0, 1) and (2, 3), rank 1 rows (10, 11) and (12, 13); not contiguous
    local = (torch.tensor([[0.0, 2.0], [1.0, 3.0]]) + 10 * rank).t().requires_grad_()
    everything = gather_batch(local)
    # the loss of rank r is (r + 1) * sum_k k * row_k, so row k has the gradient (1 + 2) * k
    (everything * torch.arange(4.0).view(4, 1) * (rank + 1)).sum().backward()
    torch.save((everything.detach(), local.grad), f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.dist
def test_two_processes(in_two_processes, tmp_path):
    in_two_processes(_two_ranks, str(tmp_path))
    expected = torch.tensor([[0.0, 1.0], [2.0, 3.0], [10.0, 11.0], [12.0, 13.0]])
    for rank in range(2):
        everything, gradient = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert torch.equal(everything, expected)
        assert gradient.tolist() == [[6.0 * rank] * 2, [6.0 * rank + 3] * 2]
