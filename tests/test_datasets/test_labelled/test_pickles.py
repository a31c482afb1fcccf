# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pickles are read as data, never run."""

import os
import pickle

import numpy as np
import pytest

from mmdfkd.datasets.labelled.pickles import load_batch
from mmdfkd.utils import UsageError


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class SetState:
    """Is unpickled by calling ``function(*arguments)`` and handing ``state`` to the result."""

    def __init__(self, function, arguments, state):
        self.content = function, arguments, state

    def __reduce__(self):
        return self.content


@pytest.mark.parametrize('protocol', range(6))
def test_malicious_pickle_is_refused_and_not_run(protocol, tmp_path):
    trap = tmp_path / 'trap'
    data = pickle.dumps({'data': Malicious(trap)}, protocol)
    with pytest.raises(UsageError, match=r'my_batch is a pickle that asks for \w+\.mkdir'):
        load_batch(data, 'my_batch')
    assert not trap.exists()
    pickle.loads(data)  # the trap does work
    assert trap.exists()


@pytest.mark.parametrize(
    'call', [b'cbuiltins\neval\n', b'cnumpy\nload\n', b'cnumpy.core.multiarray\nfromfile\n']
)
def test_not_even_numpy_is_called(call):
    with pytest.raises(UsageError, match='was not run'):
        load_batch(call + b'(S"1"\ntR.', 'my_batch')


@pytest.mark.parametrize('dtype', ['O', 'V8', [('pointer', 'O')], 'O,O', '(1,)O'])
def test_bytes_never_become_pointers(dtype):
    """An array of objects made from raw bytes would crash the process, or worse."""

    class Crafted:
        def __init__(self, function, *arguments):
            self.content = function, arguments

        def __reduce__(self):
            return self.content

    raw = b'12345678'
    kind = Crafted(np.dtype, dtype)
    reconstruct = np.zeros(1).__reduce__()[0]
    for crafted in (
        Crafted(np.ndarray, (1,), kind, raw),
        Crafted(np.zeros(0).__reduce_ex__(5)[0], raw, kind, (1,), 'C'),
        SetState(reconstruct, (np.ndarray, (0,), b'b'), (1, (1,), kind, False, raw)),
        SetState(np.dtype, ('V8',), (3, '|', None, ('a',), {'a': (kind, 0)}, 8, 1, 0)),
    ):
        with pytest.raises(UsageError, match='my_batch is no readable pickle'):
            load_batch(pickle.dumps({'data': crafted}, 4), 'my_batch')


@pytest.mark.parametrize('protocol', range(6))
def test_arrays_and_plain_values_are_read(protocol):
    arrays = {
        'data': np.arange(6, dtype=np.uint8).reshape(2, 3),
        'columns': np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        'mean': np.arange(3.0),
        'big-endian': np.arange(3, dtype='>i4'),
    }
    content = {**arrays, b'labels': [1, 2], 'note': 'a', 'none': None}
    batch = load_batch(pickle.dumps(content, protocol), 'my_batch')
    for name, array in arrays.items():
        np.testing.assert_array_equal(batch.pop(name), array)
    assert batch == {'labels': [1, 2], 'note': 'a', 'none': None}


def test_pickle_of_python_2():
    # What Python 2.7 with numpy 1.7 wrote for {'data': zeros((1, 2), uint8) + 7, 'labels': [3]}.
    data = (
        b'\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n'
        b'q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01'
        b'\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\x07tb'
        b'U\x06labelsq\x08]q\x09K\x03au.'
    )
    batch = load_batch(data, 'my_batch')
    assert batch['data'].tolist() == [[7, 7]] and batch['labels'] == [3]


def test_damaged_pickles():
    whole = pickle.dumps({'data': np.zeros(100)})
    for data in (b'', b'nonsense', whole[:-20]):
        with pytest.raises(UsageError, match='my_batch is no readable pickle'):
            load_batch(data, 'my_batch')
    with pytest.raises(UsageError, match='my_batch holds a list, expected a dictionary'):
        load_batch(pickle.dumps([1]), 'my_batch')
