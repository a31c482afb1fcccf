# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import errno
import io
import os
import pickle
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mmdfkd.datasets import write_pool
from mmdfkd.datasets.packing import CutArchive, Recipe, Source, UnreadableImage
from mmdfkd.datasets.packing.decode import decode_block
from mmdfkd.datasets.packing.sources import sort_key
from mmdfkd.utils import UsageError

from .conftest import encode, write_folder, write_tar, write_zip


def read(path, **options):
    """Names and bytes of a source, sorted as a pool is."""
    found = {}
    for entry in Source(path, **options):
        content = entry.content
        found[entry.name] = content if isinstance(content, bytes) else Path(content).read_bytes()
    return dict(sorted(found.items(), key=lambda item: sort_key(item[0])))


@pytest.mark.parametrize('kind', ['tar', 'tar.gz', 'tar.bz2', 'tar.xz', 'zip'])
def test_archives_hold_what_the_folder_holds(tmp_path, folder, pictures, kind):
    path = tmp_path / f'archive.{kind}'
    if kind == 'zip':
        write_zip(path, pictures)
    else:
        write_tar(path, pictures, f'w:{kind[4:]}')
    found = read(path)
    assert found == pictures
    assert list(found) == [entry.name for entry in Source(folder)]  # a folder is sorted
    assert {entry.label for entry in Source(path)} == {
        'ant/images',
        'bee/images',
        'bee-eater/images',
    }


def test_a_folder_comes_folder_by_folder(tmp_path):
    names = ['b.png', 'a/1.png', 'a-b/1.png', 'a/10.png', 'a/2.png', 'a.png', 'a/c/1.png']
    write_folder(tmp_path, {name: b'x' for name in names})
    assert [entry.name for entry in Source(tmp_path)] == [
        'a/1.png', 'a/10.png', 'a/2.png', 'a/c/1.png', 'a-b/1.png', 'a.png', 'b.png'
    ]  # fmt: skip


def test_what_is_no_image_is_passed_over_and_counted(tmp_path):
    files = {
        'a.JPG': b'1',
        'without-suffix': b'2',
        'notes.txt': b'',
        'more.txt': b'',
        '.hidden.png': b'',
        '__MACOSX/a.png': b'',
        '._a.png': b'',
    }
    for path in (
        write_folder(tmp_path / 'folder', files),
        write_tar(tmp_path / 'a.tar', files),
        write_zip(tmp_path / 'a.zip', files),
    ):
        source = Source(path)
        for _ in range(2):  # read again, it counts anew
            assert [entry.name for entry in source] == ['a.JPG', 'without-suffix']
            assert source.ignored == {'.txt': 2}


@pytest.mark.parametrize('kind', ['tar', 'zip'])
def test_names_that_lead_through_dots(tmp_path, kind):
    # `tar cf a.tar set/ant/. ../b` writes such names, and so do tarfile and zipfile when asked to.
    files = {
        'set/bee/../ant/./0.png': b'0',
        '././1.png': b'1',
        '../b/2.png': b'2',
        '/c//3.png': b'3',
    }
    hidden = {'../.git/4.png': b'4', './__MACOSX/./5.png': b'5', 'd/../.6.png': b'6'}
    write = write_tar if kind == 'tar' else write_zip
    path = write(tmp_path / f'a.{kind}', files | hidden)
    assert read(path) == {'1.png': b'1', 'b/2.png': b'2', 'c/3.png': b'3', 'set/ant/0.png': b'0'}
    assert {entry.label for entry in Source(path)} == {'', 'b', 'c', 'set/ant'}
    # GNU tar itself, of a folder that was given with a dot.
    write_folder(tmp_path / 'imgs', {'a/0.png': b'0', 'b/1.png': b'1'})
    subprocess.run(['tar', 'cf', 'gnu.tar', 'imgs/a/.', 'imgs/b'], cwd=tmp_path, check=True)
    assert read(tmp_path / 'gnu.tar') == {'imgs/a/0.png': b'0', 'imgs/b/1.png': b'1'}


def test_links_in_a_tar_are_counted(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        for name, kind in (('a.png', tarfile.REGTYPE), ('b.png', tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, '' if kind == tarfile.REGTYPE else 'a.png'
            tar.addfile(member)
    source = Source(tmp_path / 'a.tar')
    assert [entry.name for entry in source] == ['a.png']
    assert source.ignored == {'links in a tar': 1}


def test_include(folder):
    names = list(read(folder, include=['ant/*', '*/7.png']))
    assert len(names) == 8 + 2 and 'bee/images/7.png' in names and 'ant/images/0.png' in names


def test_names_in_any_alphabet(tmp_path):
    files = {'猫/ねこ ½.png': b'1', 'кошка/\n.png': b'2', 'ü/%2F\\.png': b'3'}
    sources = [
        write_folder(tmp_path / 'folder', files),
        write_tar(tmp_path / 'a.tar', files),
        write_zip(tmp_path / 'a.zip', files),
    ]
    assert [read(source) == files for source in sources] == [True, True, True]


@pytest.mark.skipif(os.name != 'posix', reason='names are text elsewhere')
def test_a_name_that_is_no_text(tmp_path):
    (tmp_path / os.fsdecode(b'\xff\xfe.png')).write_bytes(b'1')
    assert [os.fsencode(entry.name) for entry in Source(tmp_path)] == [b'\xff\xfe.png']


def test_archives_in_a_folder_and_in_archives(tmp_path, pictures):
    inner = write_tar(tmp_path / 'inner.tar', pictures).read_bytes()
    write_tar(tmp_path / 'inner.tar.gz', pictures, 'w:gz')
    write_tar(tmp_path / 'outer.tar', {'x.png': b'1', 'n01.tar': inner, 'y.png': b'2'})
    write_zip(tmp_path / 'outer.zip', {'n01.tar': inner})
    found = read(tmp_path)
    assert len(found) == 4 * 24 + 2
    for prefix in ('inner.tar/', 'inner.tar.gz/', 'outer.tar/n01.tar/', 'outer.zip/n01.tar/'):
        assert {name: found[prefix + name] for name in pictures} == pictures
    assert found['outer.tar/y.png'] == b'2'


def test_webdataset_shards(tmp_path):
    shard = {'00.jpg': b'a', '00.cls': b'7', '01.cls': b'3\n', '01.jpg': b'b', '01.json': b'{}'}
    write_tar(tmp_path / 'shard-000.tar', shard)
    write_tar(tmp_path / 'shard-001.tar', {'02.jpg': b'c', '02.cls': b'5', '03.jpg': b'd'})
    entries = [(entry.name, entry.label) for entry in Source(tmp_path)]
    assert entries == [
        ('shard-000.tar/00.jpg', '7'),
        ('shard-000.tar/01.jpg', '3'),
        ('shard-001.tar/02.jpg', '5'),
        ('shard-001.tar/03.jpg', 'shard-001.tar'),
    ]


# --- the official down-sampled ImageNet -------------------------------------------------------


@pytest.fixture(scope='module')
def batch():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(5, -1)  # all of red, then green, then blue
    return images, dict(data=rows, labels=[5, 1, 1000, 2, 2], mean=rows.mean(0))


def npz(content):
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def pickled(content):
    return pickle.dumps(content, protocol=2)


@pytest.mark.parametrize(
    ('name', 'write'),
    [('train_data_batch_1.npz', npz), ('train_data_batch_1', pickled), ('data_batch_1', pickled)],
)
def test_batches(tmp_path, batch, name, write):
    images, content = batch
    data = write(content)
    single = write_folder(tmp_path / 'one', {name: data}) / name
    places = [single, tmp_path / 'one', write_zip(tmp_path / 'a.zip', {name: data})]
    if not name.endswith('.npz'):  # it cannot be read forwards only
        places.append(write_tar(tmp_path / 'a.tar.gz', {name: data}, 'w:gz'))
    for place in places:
        entries = list(Source(place))
        np.testing.assert_array_equal([entry.content for entry in entries], images)
        assert [entry.label for entry in entries] == ['5', '1', '1000', '2', '2']
        assert entries[3].name == f'{name}/0000003'


@pytest.mark.parametrize('key', ['target', 'targets', 'fine_labels'])
@pytest.mark.parametrize(
    ('name', 'write'), [('train_data_batch_1.npz', npz), ('data_batch_1', pickled)]
)
def test_labels_of_a_batch_by_another_name(tmp_path, batch, key, name, write):
    folder = write_folder(tmp_path, {name: write({'data': batch[1]['data'], key: [5, 1, 3, 2, 2]})})
    assert [entry.label for entry in Source(folder)] == ['5', '1', '3', '2', '2']


def test_the_digits_of_svhn(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    content = dict(X=images.transpose(1, 2, 3, 0), y=np.array([[3], [10], [1], [9]], np.uint8))
    folder = tmp_path / 'svhn'
    folder.mkdir()
    for split in ('train', 'test'):
        savemat(folder / f'{split}_32x32.mat', content)
    # A folder of them gives the images to train on; a file whatever it holds.
    for path in (folder, folder / 'train_32x32.mat', folder / 'test_32x32.mat'):
        entries = list(Source(path))
        np.testing.assert_array_equal([entry.content for entry in entries], images)
        assert [entry.label for entry in entries] == ['3', '0', '1', '9']
    assert entries[3].name == 'test_32x32.mat/0000003'
    (folder / 'train_32x32.mat').write_bytes(b'MATLAB')
    with pytest.raises(UsageError, match=r'train_32x32\.mat is no SVHN file'):
        list(Source(folder))


def test_a_pool_is_a_source(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    root = write_pool(tmp_path / 'a', images, 'a', {'labels': np.array([2, 0, 1])})
    source = Source(root)
    entries = list(source)
    np.testing.assert_array_equal([entry.content for entry in entries], images)
    assert [(entry.name, entry.label) for entry in entries] == [
        ('0000000', '2'), ('0000001', '0'), ('0000002', '1')
    ]  # fmt: skip
    other = Source(write_pool(tmp_path / 'b', images + 1, 'b'))
    assert [entry.label for entry in other] == [None] * 3
    assert source.stamp['sha256'] != other.stamp['sha256']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (dict(data=np.zeros((2, 100), np.uint8)), r'data of shape \(2, 100\)'),
        (dict(data=np.zeros((2, 12), np.float32)), 'float32'),
        (dict(data=np.zeros((2, 12), np.uint8), labels=[1]), '2 images and 1 labels'),
        (dict(images=np.zeros(3)), 'images'),
    ],
)
def test_batches_of_another_form(tmp_path, content, message):
    path = tmp_path / 'train_data_batch_1.npz'
    path.write_bytes(npz(content))
    with pytest.raises(UsageError, match=message):
        list(Source(path))


def test_a_truncated_npz(tmp_path, batch):
    path = tmp_path / 'train_data_batch_1.npz'
    path.write_bytes(npz(batch[1])[:-100])
    with pytest.raises(UsageError, match='train_data_batch_1.npz cannot be read to its end'):
        list(Source(path))


def test_an_npz_of_fewer_images_than_it_says(tmp_path):
    rows = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        rows, {'descr': '|u1', 'fortran_order': False, 'shape': (3, 12)}
    )
    with zipfile.ZipFile(tmp_path / 'train_data_batch_1.npz', 'w') as archive:
        archive.writestr('data.npy', rows.getvalue() + bytes(2 * 12))
    with pytest.raises(UsageError, match='cannot be read to its end.*its data end early'):
        list(Source(tmp_path / 'train_data_batch_1.npz'))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_an_npz_that_runs_code(tmp_path):
    labels = np.array([Hostile(tmp_path / 'trace')] * 2, dtype=object)
    path = tmp_path / 'train_data_batch_1.npz'
    path.write_bytes(npz(dict(data=np.zeros((2, 12), np.uint8), labels=labels)))
    with pytest.raises(UsageError, match='cannot be read to its end.*Object arrays'):
        list(Source(path))
    assert not (tmp_path / 'trace').exists()


def test_a_pickle_that_runs_code(tmp_path):
    (tmp_path / 'data_batch_1').write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match='os.system|posix.system'):
        list(Source(tmp_path))


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['tar', 'tar.gz', 'tar.bz2', 'tar.xz'])
@pytest.mark.parametrize('share', [0.5, 0.8])
def test_truncated_archives(tmp_path, kind, share):
    random = np.random.default_rng(0)
    files = {f'{k}.png': random.bytes(1500) for k in range(30)}
    path = write_tar(tmp_path / f'a.{kind}', files, f'w:{kind[4:]}')
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    entries = []
    with pytest.raises(CutArchive, match=f'a.{kind} ends early, is damaged'):
        entries.extend(iter_into(entries, Source(path)))
    names = [entry.name for entry in entries]
    assert names == list(files)[: len(names)] and len(names) < 30
    assert all(entry.content == files[entry.name] for entry in entries)
    if kind != 'tar.bz2':  # whose blocks of 900 kB hold this whole archive
        assert len(names) > 5
    tolerant = Source(path, allow_truncated=True)
    for _ in range(2):
        assert [entry.name for entry in tolerant] == names
    assert len(tolerant.cuts) == 1 and f'a.{kind}' in tolerant.cuts[0]


def iter_into(found, source):
    """Keeps what comes before the exception."""
    for entry in source:
        found.append(entry)
    return ()


@pytest.mark.parametrize('place', [512 * 8, 512 * 8 + 100])  # between two files, in a header
def test_a_tar_cut_where_tarfile_sees_nothing(tmp_path, place):
    path = write_tar(tmp_path / 'a.tar', {f'{k}.png': bytes([k]) * 400 for k in range(1, 9)})
    path.write_bytes(path.read_bytes()[:place])
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 4  # without a word
    with pytest.raises(CutArchive):
        list(Source(path))


def test_a_tar_with_a_damaged_header(tmp_path):
    path = write_tar(tmp_path / 'a.tar', {f'{k}.png': bytes([k]) * 400 for k in range(1, 9)})
    data = bytearray(path.read_bytes())
    data[512 * 4 + 148 : 512 * 4 + 156] = b'9' * 8  # the third header's checksum
    path.write_bytes(data)
    source = Source(path, allow_truncated=True)
    assert [entry.name for entry in source] == ['1.png', '2.png']
    assert 'damaged' in source.cuts[0]


def test_the_rest_of_the_shards_follows_a_cut_one(tmp_path):
    for k in range(3):
        write_tar(tmp_path / f'{k}.tar', {f'{n}.png': b'x' * 600 for n in range(3)})
    (tmp_path / '1.tar').write_bytes((tmp_path / '1.tar').read_bytes()[: 512 * 4])
    source = Source(tmp_path, allow_truncated=True)
    names = [entry.name for entry in source]
    assert names == ['0.tar/0.png', '0.tar/1.png', '0.tar/2.png', '1.tar/0.png'] + [
        f'2.tar/{n}.png' for n in range(3)
    ]


def test_damaged_and_encrypted_members_of_a_zip(tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('good.png', b'good')
        archive.writestr('bad.png', b'damaged here')
        archive.writestr('secret.png', b'secret')
    data = bytearray(path.read_bytes().replace(b'damaged here', b'damaged hers'))
    for mark, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        data[data.rindex(mark) + offset] |= 1  # "encrypted", in both of its headers
    path.write_bytes(data)
    bad, good, secret = list(Source(path))
    assert good.content == b'good'
    assert isinstance(bad.content, UnreadableImage) and 'CRC' in str(bad.content)
    assert isinstance(secret.content, UnreadableImage) and 'encrypted' in str(secret.content)


def spoil(path, name, offset, value):
    """Changes a byte of the headers of a zip's member: 6 is its flags, 8 its method."""
    data = bytearray(path.read_bytes())
    for mark, length, shift in ((b'PK\x03\x04', 30, 0), (b'PK\x01\x02', 46, 2)):
        found = re.search(mark + b'.{%d}' % (length - 4) + name.encode(), data, re.DOTALL)
        data[found.start() + offset + shift] = value
    path.write_bytes(data)


ENCRYPTED, DEFLATE64 = (6, 1), (8, 9)


@pytest.mark.parametrize(
    ('name', 'damage', 'reason'),
    [
        ('b.tar', DEFLATE64, 'NotImplementedError'),
        ('data_batch_1', DEFLATE64, 'NotImplementedError'),
        ('data_batch_1', ENCRYPTED, 'RuntimeError: .* is encrypted'),
    ],
)
def test_archives_in_a_zip_that_cannot_be_opened(tmp_path, name, damage, reason):
    path = write_zip(tmp_path / 'a.zip', {'a.png': b'1', name: b'unread', 'z.png': b'2'})
    spoil(path, name, *damage)
    with pytest.raises(CutArchive, match=f'a.zip: {name} ends early, is damaged.*{reason}'):
        list(Source(path))
    source = Source(path, allow_truncated=True)
    assert [entry.name for entry in source] == ['a.png', 'z.png'] and len(source.cuts) == 1


@pytest.mark.parametrize(('damage', 'reason'), [(DEFLATE64, 'NotImpl'), (ENCRYPTED, 'Runtime')])
def test_an_npz_that_cannot_be_opened(tmp_path, batch, damage, reason):
    path = tmp_path / 'train_data_batch_1.npz'
    path.write_bytes(npz(batch[1]))
    spoil(path, 'data.npy', *damage)
    with pytest.raises(UsageError, match=rf'batch_1\.npz cannot be read to its end \({reason}'):
        list(Source(path))


def test_names_in_a_zip_that_are_no_text(tmp_path):
    path = write_zip(tmp_path / 'a.zip', {'ä.png': b'1', 'b.png': b'2'})
    whole, name = path.read_bytes(), 'ä'.encode()
    path.write_bytes(whole.replace(name, b'\xff\xfe', 1))  # in the image's own header
    other, bad = sorted(Source(path), key=lambda entry: entry.name)
    assert other.content == b'2' and 'utf-8' in str(bad.content)
    path.write_bytes(whole.replace(name, b'\xff\xfe'))
    with pytest.raises(CutArchive, match=r'a\.zip ends early, is damaged.*utf-8'):
        list(Source(path))


ZIP = write_zip(io.BytesIO(), {'a.png': b'x'}).getvalue()


@pytest.mark.parametrize(
    'data',
    [b'', b'no archive at all', b'PK\x03\x04 half a zip', b'PK' + ZIP[40:]],
    ids=['empty', 'text', 'half', 'tail'],  # the bytes hold the time, and processes must agree
)
def test_no_archive_at_all(tmp_path, data):
    (tmp_path / 'a.zip').write_bytes(data)
    with pytest.raises(UsageError, match='a.zip ends early, is damaged'):
        list(Source(tmp_path / 'a.zip'))


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match='There is no folder or archive .*gone'):
        Source(tmp_path / 'gone')


def test_a_tar_that_ends_with_a_zip(tmp_path):
    path = write_tar(tmp_path / 'a.tar', {'1.png': b'1', 'b.zip': ZIP})
    path.write_bytes(path.read_bytes()[: 512 * 5] + bytes(1024))  # its directory is near the end
    assert zipfile.is_zipfile(path)
    source = Source(path)
    assert [entry.name for entry in source] == ['1.png'] and source.ignored == {'.zip': 1}


@pytest.mark.skipif(os.name != 'posix', reason='needs a pipe')
def test_pipes_are_passed_over(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    assert list(Source(tmp_path)) == []


def test_zstd_is_named(tmp_path):
    (tmp_path / 'a.tar').write_bytes(b'\x28\xb5\x2f\xfd' + bytes(20))
    with pytest.raises(UsageError, match='zstd, which is not read'):
        list(Source(tmp_path / 'a.tar'))


@pytest.mark.skipif(os.name != 'posix', reason='needs links')
def test_links_are_followed_but_not_in_circles(tmp_path):
    write_folder(tmp_path / 'set', {'a/1.png': b'1'})
    (tmp_path / 'set' / 'b').symlink_to(tmp_path / 'set' / 'a')
    (tmp_path / 'set' / 'a' / 'up').symlink_to(tmp_path / 'set')
    (tmp_path / 'set' / 'gone.png').symlink_to(tmp_path / 'nowhere')
    assert [entry.name for entry in Source(tmp_path / 'set')] == [
        'a/1.png', 'b/1.png', 'gone.png'
    ]  # fmt: skip


@pytest.mark.skipif(os.name != 'posix', reason='needs links')
def test_a_link_to_itself_is_an_unreadable_image(tmp_path):
    write_folder(tmp_path / 'set', {'a/1.png': b'1'})
    for name in ('loop', 'loop.png', 'loop.txt'):
        (tmp_path / 'set' / name).symlink_to(name)
    source = Source(tmp_path / 'set')
    entries = list(source)
    assert [entry.name for entry in entries] == ['a/1.png', 'loop', 'loop.png']
    assert source.ignored == {'.txt': 1}
    _, reasons = decode_block([entry.content for entry in entries[1:]], Recipe(8))
    assert reasons == dict.fromkeys((0, 1), os.strerror(errno.ELOOP))


def test_the_stamp_changes_with_the_source(tmp_path, folder, pictures):
    before = Source(folder).stamp
    assert Source(folder).stamp == before
    (folder / 'new.png').write_bytes(b'')
    grown = Source(folder).stamp
    (folder / 'new.png').rename(folder / 'other.png')
    renamed = Source(folder).stamp
    assert before != grown != renamed and grown['files'] == renamed['files']


def test_progress_reaches_its_end(tmp_path, pictures):
    data = {name: encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
            for name in pictures}  # fmt: skip
    for path in (write_folder(tmp_path / 'f', data), write_zip(tmp_path / 'a.zip', data)):
        source = Source(path)
        shares = [source.share for _ in source]
        assert shares == sorted(shares) and 0 <= shares[0] < 0.2 and 0.9 < shares[-1] <= 1
