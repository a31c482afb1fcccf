# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import errno
import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError, report_errors


def run(action, capsys, resume_hint=None):
    """Run ``action`` as a tool would; return its exit code and what it printed."""
    with pytest.raises(SystemExit) as end, report_errors(resume_hint):
        action()
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'Traceback' not in captured.err
    return end.value.code, captured.err


def throw(error):
    raise error


def test_usage_error(capsys):
    error = UsageError('model.alpha=2. Choose one in [0, 1].')
    assert run(lambda: throw(error), capsys) == (2, f'error: {error}\n')


@pytest.mark.parametrize(('variable', 'rank'), [('RANK', 0), ('RANK', 3), ('SLURM_PROCID', 2)])
def test_the_first_of_several_processes_speaks_first(capsys, monkeypatch, variable, rank):
    """The others wait: their launcher ends them where all have failed."""
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setenv(variable, str(rank))
    waited = []
    monkeypatch.setattr('time.sleep', waited.append)
    with pytest.raises(SystemExit, match='2'), report_errors():
        raise UsageError('Give a number.')
    of_process = f' of process {rank}' if rank else ''
    assert capsys.readouterr().err == f'error{of_process}: Give a number.\n'
    assert bool(waited) is bool(rank)


def test_success_is_silent(capsys):
    with report_errors():
        pass
    assert capsys.readouterr().err == ''


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), report_errors():
        throw(ZeroDivisionError())


@pytest.mark.parametrize('explicit', [True, False])
def test_wrapped_usage_error(capsys, explicit):
    def wrap():
        try:
            raise UsageError('The sentence.')
        except UsageError as error:
            if explicit:
                raise TypeError('class `X` in x.py: ...') from error
            raise TypeError('class `X` in x.py: ...')  # noqa: B904

    assert run(wrap, capsys) == (2, 'error: The sentence.\n')


def test_hidden_usage_error_stays_hidden():
    def answer():
        try:
            raise UsageError('Dealt with.')
        except UsageError:
            raise KeyError('a bug') from None

    with pytest.raises(KeyError), report_errors():
        answer()


def test_usage_error_passes_through_a_registry(capsys):
    @MODELS.register_module(force=True)
    class Refuses:
        def __init__(self):
            raise UsageError('The sentence.')

    assert run(lambda: MODELS.build(dict(type='Refuses')), capsys) == (2, 'error: The sentence.\n')


class BadImages:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UsageError('a.png is no image. Remove it.')


def test_usage_error_of_a_worker_process(capsys):
    # torch re-raises it with the worker's whole traceback as the message.
    loader = DataLoader(BadImages(), num_workers=1)
    assert run(lambda: list(loader), capsys) == (2, 'error: a.png is no image. Remove it.\n')


def test_interrupt(capsys):
    code, text = run(lambda: throw(KeyboardInterrupt()), capsys, lambda: 'kept; run X --resume')
    assert (code, text) == (130, '\ninterrupted: kept; run X --resume\n')


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full')
@pytest.mark.parametrize('direct', [True, False], ids=['by torch', 'through a Python file'])
def test_full_disk(capsys, direct):
    # /dev/full accepts to be opened and answers every write with ENOSPC.
    def save():
        if direct:
            torch.save(torch.zeros(1000), '/dev/full')
        else:
            with open('/dev/full', 'wb') as file:
                torch.save(torch.zeros(1000), file)

    code, text = run(save, capsys)
    assert code == 2
    assert '/dev/full' in text
    assert 'Free some space' in text


@pytest.mark.parametrize('number', [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_system_errors_name_their_file(capsys, number):
    error = OSError(number, os.strerror(number), 'work_dirs/x/epoch_1.pth')
    code, text = run(lambda: throw(error), capsys)
    assert code == 2
    assert text.startswith(f'error: {os.strerror(number)}: work_dirs/x/epoch_1.pth. ')


def test_other_system_errors_are_bugs():
    with pytest.raises(FileNotFoundError), report_errors():
        open('/no/such/file')


def test_out_of_memory(capsys):
    kind = getattr(torch, 'OutOfMemoryError', torch.cuda.OutOfMemoryError)
    error = kind('CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of')
    code, text = run(lambda: throw(error), capsys)
    assert code == 2
    assert text.startswith('error: Out of memory (Tried to allocate 20.00 GiB). Lower the batch')


def test_out_of_memory_on_cpu(capsys):
    code, text = run(lambda: torch.empty(10**15), capsys)
    assert code == 2
    assert 'Out of memory (tried to allocate 4000000000000000 bytes)' in text
