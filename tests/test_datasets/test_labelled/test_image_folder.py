# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Any folders by class: classes in any alphabet, one order of labels for all splits."""

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from mmdfkd.datasets import LabelledFolder
from mmdfkd.datasets.labelled import image_folder
from mmdfkd.utils import UsageError


@pytest.fixture
def make_files(noise, encode):
    """One image for each path; its pixels all have the place in the list as value."""

    def make(*names):
        return {name: encode(np.full((4, 4, 3), k, np.uint8)) for k, name in enumerate(names)}

    return make


def found(dataset):
    """(value of the image, class name) of all samples."""
    classes = dataset.metainfo['classes']
    values = dataset.images[:, 0, 0, 0].tolist()
    return {(value, classes[label]) for value, label in zip(values, dataset.labels, strict=True)}


@pytest.mark.parametrize('place', ['photos', 'photos.tar', 'photos.zip'])
def test_classes_in_any_alphabet(place, make_files, write_files):
    files = make_files('кошка/1.png', 'Ärger/ü x.png', '猫/1.png', 'bird/a/b/1.png', 'notes.png')
    dataset = LabelledFolder(write_files(place, files))
    assert dataset.metainfo['classes'] == ('bird', 'Ärger', 'кошка', '猫')
    assert found(dataset) == {(0, 'кошка'), (1, 'Ärger'), (2, '猫'), (3, 'bird')}
    assert dataset.metainfo['name'] == 'photos'


def test_order_is_that_of_torchvision(make_files, write_files):
    root = write_files('set', make_files('b/1.png', 'B/2.png', 'a10/1.png', 'a9/1.png'))
    theirs = ImageFolder(str(root))
    ours = LabelledFolder(root)
    assert list(ours.metainfo['classes']) == theirs.classes
    assert ours.labels.tolist() == theirs.targets


def test_folders_named_by_numbers_keep_their_numbers(make_files, write_files):
    # As text, 10 comes before 2.
    root = write_files('set', make_files(*(f'{k}/1.png' for k in range(12))))
    dataset = LabelledFolder(root)
    assert dataset.metainfo['classes'] == tuple(map(str, range(12)))
    assert dict(zip(dataset.images[:, 0, 0, 0], dataset.labels, strict=True)) == {
        k: k for k in range(12)
    }


def test_numbers_written_in_two_ways_have_one_order(make_files, write_files):
    root = write_files('set', make_files('01/1.png', '1/1.png', '001/1.png', '0/1.png'))
    assert LabelledFolder(root).metainfo['classes'] == ('0', '001', '01', '1')


@pytest.mark.parametrize('place', ['set', 'set.zip'])
def test_files_left_out_are_logged(place, make_files, write_files, monkeypatch):
    lines = []
    monkeypatch.setattr(image_folder, 'print_log', lambda text, *options: lines.append(text))
    names = ('train/cat/1.png', 'train/cat/2.HEIC', 'train/dog/1.png', 'train/dog/2.heic')
    names += ('train/dog/3', 'train/top.png', 'val/cat/1.heic', 'val/cat/1.png', 'val/dog/1.png')
    path = write_files(place, make_files(*names, 'readme.md'))
    assert len(LabelledFolder(path, 'train')) == 2
    what = '2 .heic, 1 without a suffix, 1 outside a class folder'
    assert lines == [f'{path}: 4 files left out: {what}']
    lines.clear()
    path = write_files(f'flat-{place}', make_files('cat/1.png', '1.png', 'dog/1.png'))
    assert len(LabelledFolder(path)) == 2
    assert lines == [f'{path}: 1 files left out: 1 outside a class folder']
    lines.clear()
    assert len(LabelledFolder(write_files(f'all-{place}', make_files('cat/1.png')))) == 1
    assert lines == []


@pytest.mark.parametrize('split', [None, 'test'])
def test_a_class_folder_without_images(split, make_files, write_files):
    top = f'{split}/' if split else ''
    files = make_files(f'{top}ant/1.png', f'{top}bee/1.heic', f'{top}cat/1.png', f'{top}.git/x')
    root = write_files('set', files)
    with pytest.raises(UsageError, match=r'folders bee hold no image .*labels would shift\. Fill'):
        LabelledFolder(root, split)
    dataset = LabelledFolder(root, split, classes=['ant', 'bee', 'cat'])
    assert dataset.labels.tolist() == [0, 2]


def test_given_classes(make_files, write_files):
    root = write_files('set', make_files('dog/1.png', 'cat/1.png'))
    dataset = LabelledFolder(root, classes=['dog', 'horse', 'cat'])
    assert found(dataset) == {(0, 'dog'), (1, 'cat')}
    assert sorted(dataset.labels) == [0, 2]
    assert LabelledFolder(root).metainfo['classes'] == ('cat', 'dog')  # another cache
    with pytest.raises(UsageError, match="cat/1.png is of class 'cat'.*Its classes are dog"):
        LabelledFolder(root, classes=['dog'])


@pytest.mark.parametrize(
    'place, top', [('photos', ''), ('photos.tar.gz', ''), ('photos.tar.gz', 'some/where/')]
)
def test_splits(place, top, make_files, write_files):
    names = ('train/cat/1.png', 'train/dog/1.png', 'valid/cat/x/1.png', 'valid/dog/1.png')
    path = write_files(place, make_files(*(top + name for name in names)))
    assert found(LabelledFolder(path, 'train')) == {(0, 'cat'), (1, 'dog')}
    assert found(LabelledFolder(path, 'val')) == {(2, 'cat'), (3, 'dog')}
    with pytest.raises(UsageError, match='folders train, valid, which are splits.*split='):
        LabelledFolder(path)


def test_one_folder_around_an_archive_is_no_class(make_files, write_files):
    path = write_files('photos.zip', make_files('my photos/cat/1.png', 'my photos/dog/1.png'))
    assert found(LabelledFolder(path)) == {(0, 'cat'), (1, 'dog')}
    path = write_files('cats.zip', make_files('cat/1.png', 'cat/2.png'))
    assert found(LabelledFolder(path)) == {(0, 'cat'), (1, 'cat')}


def test_classes_whose_names_lead_through_dots(make_files, write_files):
    files = make_files('../set/cat/1.png', 'set/dog/1.png', 'set/./dog/2.png')
    assert found(LabelledFolder(write_files('set.zip', files))) == {
        (0, 'cat'), (1, 'dog'), (2, 'dog')
    }  # fmt: skip


@pytest.mark.parametrize('classes', [None, ['dog', 'cat']])
def test_images_beside_the_folders_of_classes(classes, make_files, write_files, monkeypatch):
    lines = []
    monkeypatch.setattr(image_folder, 'print_log', lambda text, *options: lines.append(text))
    names = ['preview.png', 'cat/0.png', 'cat/1.png', 'dog/0.png', 'dog/1.png']
    folder = write_files('set', make_files(*names))
    tops = ('', 'set/', 'some/set/')
    paths = [folder] + [
        write_files(f'{k}.tar.gz', make_files(*(top + name for name in names)))
        for k, top in enumerate(tops)
    ]
    for path in paths:
        dataset = LabelledFolder(path, classes=classes)
        assert found(dataset) == {(1, 'cat'), (2, 'cat'), (3, 'dog'), (4, 'dog')}
        assert dataset.metainfo['classes'] == tuple(classes or ['cat', 'dog'])
    left_out = '1 files left out: 1 outside a class folder'
    assert lines == [f'{path}: {left_out}' for path in paths]
    # One more above them.
    names = ['some/0.png', 'some/set/1.png', 'some/set/dog/2.png', 'some/set/cat/3.png']
    dataset = LabelledFolder(write_files('deep.zip', make_files(*names)), classes=classes)
    assert found(dataset) == {(2, 'dog'), (3, 'cat')}
    assert lines[-1].endswith('2 files left out: 2 outside a class folder')


@pytest.mark.parametrize('classes', [None, ['cat', 'dog']])
def test_a_single_class_may_have_folders_of_its_own(classes, make_files, write_files):
    names = ['set/cat/1.png', 'set/cat/close/2.png', 'set/cat/close/3.png']
    dataset = LabelledFolder(write_files('single.zip', make_files(*names)), classes=classes)
    assert found(dataset) == {(0, 'cat'), (1, 'cat'), (2, 'cat')}


def test_a_folder_at_the_top_may_be_called_like_a_class(make_files, write_files):
    files = make_files('cat/cat/0.png', 'cat/dog/1.png')
    dataset = LabelledFolder(write_files('set.zip', files), classes=['cat', 'dog'])
    assert found(dataset) == {(0, 'cat'), (1, 'dog')}


def test_class_missing_in_a_split(make_files, write_files):
    # Numbered alone, the dogs of the validation set would be label 0.
    names = ('train/cat/1.png', 'train/dog/1.png', 'val/dog/1.png')
    root = write_files('set', make_files(*names))
    with pytest.raises(
        UsageError, match="classes cat of other splits have no image in split 'val'"
    ):
        LabelledFolder(root, 'val')
    assert LabelledFolder(root, 'train').labels.tolist() == [0, 1]
    assert LabelledFolder(root, 'val', classes=['cat', 'dog']).labels.tolist() == [1]


def test_unknown_and_absent_split(make_files, write_files):
    root = write_files('set', make_files('train/cat/1.png'))
    with pytest.raises(UsageError, match="split='dev' is not known; choose one of 'train', 'val'"):
        LabelledFolder(root, 'dev')
    with pytest.raises(UsageError, match='holds no folder test or testing.* test/<class>/'):
        LabelledFolder(root, 'test')
    path = write_files('set.zip', make_files('train/cat/1.png'))
    with pytest.raises(UsageError, match='holds no image in test/<class>/.*folder of its name'):
        LabelledFolder(path, 'test')


def test_no_class_folders(make_files, write_files):
    with pytest.raises(UsageError, match='holds no image in <class>/.*folder of its name'):
        LabelledFolder(write_files('set', make_files('1.png', '2.png')))
    with pytest.raises(UsageError, match='nowhere.* does not exist.*one folder per class'):
        LabelledFolder('nowhere')


def test_classes_that_are_given_wrongly(make_files, write_files):
    root = write_files('set', make_files('ant/1.png', 'bee/1.png'))
    with pytest.raises(UsageError, match="classes='ant,bee' is text; give a list"):
        LabelledFolder(root, classes='ant,bee')
    with pytest.raises(UsageError, match=r"class 'bee'.* are ant, wasp; correct its classes"):
        LabelledFolder(root, classes=['ant', 'wasp'])


def test_images_of_many_sizes_need_a_size(noise, encode, write_files):
    files = {'cat/1.png': encode(noise(1, 8)[0]), 'cat/2.png': encode(noise(1, 9)[0])}
    root = write_files('set', files)
    with pytest.raises(UsageError, match='cat/2.png is 9 x 9 pixels.* are 8 x 8. Give image_size'):
        LabelledFolder(root)
    assert LabelledFolder(root, image_size=8).images.shape == (2, 8, 8, 3)
    assert LabelledFolder(root, image_size=8, grey=True).images.shape == (2, 8, 8, 1)


@pytest.mark.parametrize('place', ['set', 'set.tar'])
def test_damaged_image_is_named_and_nothing_is_kept(place, make_files, write_files, cache):
    files = make_files('cat/1.png', 'cat/2.png', 'dog/1.png')
    path = write_files(place, files | {'cat/2.png': b''})
    with pytest.raises(UsageError, match='cat/2.png'):
        LabelledFolder(path)
    assert list(cache.iterdir()) == []
    assert len(LabelledFolder(write_files(place, files))) == 3
