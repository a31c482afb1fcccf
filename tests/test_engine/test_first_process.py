# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest

from mmdfkd.engine.first_process import on_first_process
from mmdfkd.utils import UsageError


def fail():
    raise UsageError('The disk is full.')


def test_one_process_has_its_answer_and_its_error():
    assert on_first_process(lambda: 5) == 5
    with pytest.raises(UsageError, match='The disk is full'):
        on_first_process(fail)


def _two_ranks(rank):
    acted = []

    def act():
        acted.append(rank)
        return f'of process {rank}'

    answer = on_first_process(act)
    with pytest.raises(UsageError, match='The disk is full'):
        on_first_process(fail if rank == 0 else lambda: None)
    return answer, acted


def test_two_processes_share_them(in_two_processes):
    assert in_two_processes(_two_ranks) == [('of process 0', [0]), ('of process 0', [])]
