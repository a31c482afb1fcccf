# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Downloads: only when asked, whole or not at all. The 'server' is a folder on this disk."""

import hashlib
import pickle
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import pytest
from torchvision.datasets import utils

from mmdfkd.datasets import CIFAR10, CINIC10
from mmdfkd.datasets.labelled import base
from mmdfkd.datasets.labelled.download import Download, fetch, require_md5
from mmdfkd.utils import UsageError

CONTENT = b'images'
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Replaces the one function of torchvision that opens a connection; records its addresses."""
    asked = []

    def retrieve(url, path):
        asked.append(url)
        if 'broken' in url:
            raise urllib.error.URLError('no route to host')
        with open(path, 'wb') as file:
            file.write(CONTENT)

    monkeypatch.setattr(utils, '_urlretrieve', retrieve)
    monkeypatch.setattr(utils, '_get_redirect_url', lambda url, **options: url)
    return asked


def test_file_arrives_whole_and_once(server, tmp_path):
    file = Download('https://host/set.zip', 'set.zip', MD5)
    for _ in range(2):
        fetch(file, tmp_path / 'new')
    assert (tmp_path / 'new' / 'set.zip').read_bytes() == CONTENT
    assert len(server) == 1
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['set.zip']


def test_what_a_killed_download_left_is_not_taken_for_the_file(server, tmp_path):
    (tmp_path / '.set.zip.part').write_bytes(CONTENT[:3])
    fetch(Download('https://host/set.zip', 'set.zip'), tmp_path)  # of no known checksum
    assert (tmp_path / 'set.zip').read_bytes() == CONTENT and len(server) == 1


def test_of_several_readers_one_downloads(server, tmp_path, monkeypatch):
    retrieve = utils._urlretrieve

    def slowly(url, path):
        time.sleep(0.1)
        retrieve(url, path)

    monkeypatch.setattr(utils, '_urlretrieve', slowly)
    file = Download('https://host/set.zip', 'set.zip', MD5)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(fetch, [file] * 3, [tmp_path] * 3))
    assert len(server) == 1 and (tmp_path / 'set.zip').read_bytes() == CONTENT


@pytest.mark.parametrize(
    'file, reason',
    [
        (Download('https://broken/set.zip', 'set.zip', MD5), 'no route to host'),
        (Download('https://host/set.zip', 'set.zip', '0' * 32), 'corrupted'),
    ],
)
def test_failed_download_leaves_no_file_of_that_name(file, reason, server, tmp_path):
    with pytest.raises(UsageError, match=f'Downloading {file.url} .* failed: .*{reason}.*by hand'):
        fetch(file, tmp_path)
    assert not (tmp_path / 'set.zip').exists()


def test_only_when_asked_and_only_what_is_missing(server, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match='or pass download=True'):
        CINIC10(tmp_path)
    assert not server

    def fake(file, folder):
        server.append(file.url)

    monkeypatch.setattr(base, 'fetch', fake)
    with pytest.raises(UsageError, match='holds none of these'):
        CINIC10(tmp_path, download=True)
    assert server == ['https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz']

    batches = tmp_path / 'cifar-10-batches-py'
    batches.mkdir()
    (batches / 'data_batch_1').write_bytes(pickle.dumps({b'data': [], b'labels': []}))
    with pytest.raises(UsageError, match='cifar-10-batches-py'):
        CIFAR10(tmp_path, download=True)
    assert len(server) == 1


def test_download_where_a_folder_of_the_set_holds_none_of_it(tmp_path, monkeypatch):
    (tmp_path / 'CINIC-10').mkdir()
    fetched = []

    def fake(file, folder):
        fetched.append(file.filename)
        (folder / file.filename).write_bytes(b'the archive')

    monkeypatch.setattr(base, 'fetch', fake)
    with pytest.raises(UsageError, match='CINIC-10 holds 0 images'):
        CINIC10(tmp_path)
    with pytest.raises(UsageError, match=r'CINIC-10\.tar\.gz has md5'):
        CINIC10(tmp_path, download=True)
    assert fetched == ['CINIC-10.tar.gz']


def test_require_md5(tmp_path):
    path = tmp_path / 'set.zip'
    path.write_bytes(CONTENT)
    require_md5(path, MD5)
    require_md5(CONTENT, MD5, 'set.zip')
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UsageError, match=f'set.zip has md5 .* publisher gives {MD5}'):
        require_md5(path, MD5)
