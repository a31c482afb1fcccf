# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import torch

from mmdfkd.models.modules import gather_batch


def test_one_process_is_the_identity():
    local = torch.randn(2, 3)
    assert gather_batch(local) is local


def _two_ranks(rank):
    # rank 0 holds rows (0, 1) and (2, 3), rank 1 rows (10, 11) and (12, 13); not contiguous
    local = (torch.tensor([[0.0, 2.0], [1.0, 3.0]]) + 10 * rank).t().requires_grad_()
    everything = gather_batch(local)
    # the loss of rank r is (r + 1) * sum_k k * row_k, so row k has the gradient (1 + 2) * k
    (everything * torch.arange(4.0).view(4, 1) * (rank + 1)).sum().backward()
    return everything.detach(), local.grad


def test_two_processes(in_two_processes):
    expected = torch.tensor([[0.0, 1.0], [2.0, 3.0], [10.0, 11.0], [12.0, 13.0]])
    for rank, (everything, gradient) in enumerate(in_two_processes(_two_ranks)):
        assert torch.equal(everything, expected)
        assert gradient.tolist() == [[6.0 * rank] * 2, [6.0 * rank + 3] * 2]
