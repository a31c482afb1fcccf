# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Folders, tars and zips: the same files from each, and no damage goes unnoticed."""

import io
import os
import tarfile

import pytest

from mmdfkd.datasets.labelled import archive
from mmdfkd.datasets.labelled.archive import reported, stamp, walk
from mmdfkd.utils import UsageError

FILES = {
    'train/katze/1.png': b'one' * 1000,
    'train/кошка/2.jpg': os.urandom(5000),
    'train/猫/3.JPEG': b'',
    'words.txt': b'hello',
}
LEFT_OUT = {'train/.DS_Store': b'x', 'train/._1.png': b'x', 'train/__MACOSX/1.png': b'x'}
FORMATS = ['set', 'set.tar', 'set.tar.gz', 'set.tar.bz2', 'set.tar.xz', 'set.zip']


def read_all(path):
    with reported(path):
        return {file.name: file.read() for file in walk(path)}


@pytest.mark.parametrize('name', FORMATS)
def test_all_formats_give_the_same_files(name, write_files):
    path = write_files(name, FILES | LEFT_OUT)
    assert read_all(path) == FILES


def test_tar_written_from_a_dot_and_with_links(tmp_path):
    # As `tar -c .` writes it, with names below './'; a link out of the archive is not followed.
    (tmp_path / 'secret').write_bytes(b'secret')
    with tarfile.open(tmp_path / 'set.tar', 'w') as tar:
        for name, kind in (('./a/1.png', tarfile.REGTYPE), ('./a/2.png', tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / 'secret')
            member.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b'png'))
    assert read_all(tmp_path / 'set.tar') == {'a/1.png': b'png'}


@pytest.mark.parametrize('name', ['set.tar', 'set.zip'])
def test_names_that_lead_through_dots(name, write_files):
    files = {'../set/cat/1.png': b'1', 'set/./cat/../dog/2.png': b'2', '././/3.png': b'3'}
    path = write_files(name, files | {'../.git/4.png': b'4', './__MACOSX/5.png': b'5'})
    assert read_all(path) == {'set/cat/1.png': b'1', 'set/dog/2.png': b'2', '3.png': b'3'}


def test_linked_folders_are_followed(write_files, tmp_path):
    write_files('far/cat', {'1.png': b'png'})
    (tmp_path / 'near').mkdir()
    (tmp_path / 'near' / 'cat').symlink_to(tmp_path / 'far' / 'cat')
    assert read_all(tmp_path / 'near') == {'cat/1.png': b'png'}


@pytest.mark.parametrize('kind', ['', 'gz'])
def test_hard_links_in_a_tar_are_files(tmp_path, kind):
    path = tmp_path / 'set.tar'
    with tarfile.open(path, f'w:{kind}') as tar:
        for name, data in {'./a/1.png': b'one', './a/2.png': b'two'}.items():
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(data))
            for link in (f'./b/{name[4:]}', f'./c/{name[4:]}'):
                member = tarfile.TarInfo(link)
                member.type, member.linkname = tarfile.LNKTYPE, name
                tar.addfile(member)
    assert read_all(path) == {
        f'{folder}/{k}.png': data for folder in 'abc' for k, data in ((1, b'one'), (2, b'two'))
    }
    with tarfile.open(path, 'w') as tar:
        member = tarfile.TarInfo('a/1.png')
        member.type, member.linkname = tarfile.LNKTYPE, 'gone.png'
        tar.addfile(member)
    with pytest.raises(UsageError, match=r'a/1\.png is a link to gone\.png, which is not there'):
        read_all(path)


def test_links_to_a_folder_above_end(write_files):
    folder = write_files('set', {'a/1.png': b'one', 'b/2.png': b'two'})
    (folder / 'a' / 'up').symlink_to(folder)
    (folder / 'b' / 'here').symlink_to(folder / 'b')
    assert read_all(folder) == {'a/1.png': b'one', 'b/2.png': b'two'}
    assert len(stamp(folder)) == 3


def test_a_link_to_itself_is_named(write_files):
    folder = write_files('set', {'a/1.png': b'one'})
    (folder / 'loop.png').symlink_to('loop.png')
    stamp(folder)
    with pytest.raises(UsageError, match=r'set cannot be read to its end .*loop\.png'):
        read_all(folder)


@pytest.mark.parametrize('name', FORMATS[1:])
@pytest.mark.parametrize('share', [0.02, 0.2, 0.4])
def test_truncated_archive(name, share, write_files):
    path = write_files(name, FILES)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UsageError, match=rf'{name} cannot be read to its end .* copy it again'):
        read_all(path)


def test_tar_cut_exactly_between_two_files(write_files):
    # A header and one block of content: tarfile alone takes this for a whole archive.
    path = write_files('set.tar', {'1.png': b'a', '2.png': b'b'})
    path.write_bytes(path.read_bytes()[:1024])
    with tarfile.open(path) as tar:
        assert tar.getnames() == ['1.png']
    with pytest.raises(UsageError, match='empty header where the next file should begin'):
        read_all(path)


def test_tar_with_a_damaged_header(write_files):
    path = write_files('set.tar', {'1.png': b'a', '2.png': b'b'})
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match='bad checksum'):
        read_all(path)


def test_damaged_content_in_a_zip(write_files):
    path = write_files('set.zip', {'1.png': b'abcdefgh'})
    path.write_bytes(path.read_bytes().replace(b'abcdefgh', b'abcdefgX'))
    with pytest.raises(UsageError, match='Bad CRC-32'):
        read_all(path)


def test_no_archive_at_all(tmp_path):
    path = tmp_path / 'page.tar.gz'
    path.write_text('<html>404</html>')
    with pytest.raises(UsageError, match='page.tar.gz cannot be read'):
        read_all(path)


def test_encrypted_zip(write_files):
    path = write_files('set.zip', {'1.png': b'a'})
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with pytest.raises(UsageError, match='is encrypted; unpack it'):
        read_all(path)


def test_zip_of_a_method_that_is_not_read(write_files):
    path = write_files('set.zip', {'1.png': b'a'})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b'PK\x03\x04', 8), (b'PK\x01\x02', 10)):
        data[data.index(mark) + offset] = 9  # Deflate64, which Windows chooses for large files
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r'set\.zip cannot be read: .*method.* Unpack it,'):
        read_all(path)


def test_damaged_name_in_a_zip(write_files):
    path = write_files('set.zip', {'ä.png': b'a'})
    path.write_bytes(path.read_bytes().replace('ä'.encode(), b'\xff\xfe'))
    with pytest.raises(UsageError, match=r'set\.zip cannot be read to its end \(UnicodeDecode'):
        read_all(path)


def test_file_that_claims_to_be_huge(write_files, monkeypatch):
    monkeypatch.setattr(archive, '_MAX_BYTES', 4000)
    for name in ('set.tar.xz', 'set.zip'):
        path = write_files(name, {'1.png': bytes(4000)})
        assert len(read_all(path)['1.png']) == 4000
        path = write_files(name, {'1.png': bytes(4001)})
        with pytest.raises(UsageError, match='its file 1.png has'):
            read_all(path)


def test_stamp_tells_changes_apart(write_files, tmp_path):
    folder = write_files('set', FILES)
    first = stamp(folder)
    assert first == stamp(folder)
    (folder / 'train' / '猫' / '4.png').write_bytes(b'new')
    added = stamp(folder)
    (folder / 'words.txt').write_bytes(b'hello you')
    assert len({str(x) for x in (first, added, stamp(folder))}) == 3

    path = write_files('set.zip', FILES)
    first = stamp(path)
    os.utime(path, (0, 0))
    assert first != stamp(path)
