# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Tiny-ImageNet from its zip, whose validation labels are in a list."""

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from mmdfkd.datasets import TinyImageNet
from mmdfkd.utils import UsageError

WNIDS = ['n02124075', 'n01443537', 'n07749582']  # published in no order
ORDER = sorted(WNIDS)


@pytest.fixture
def official(noise, encode, monkeypatch):
    """Images and files: two to train and one to validate of each of three classes."""
    monkeypatch.setattr(TinyImageNet, 'counts', {'train': 6, 'val': 3, 'test': 3})
    train, val = noise(6, 64), noise(3, 64)
    val[0] = val[0, :, :, :1]  # a grey file, of which the real set has many
    files = {}
    for k, image in enumerate(train):
        wnid = ORDER[k // 2]
        files[f'train/{wnid}/images/{wnid}_{k % 2}.JPEG'] = encode(image)
    files |= {f'train/{wnid}/{wnid}_boxes.txt': b'0\t0\t63\t63' for wnid in WNIDS}
    for k, image in enumerate(val):
        files[f'val/images/val_{k}.JPEG'] = encode(image[..., :1] if k == 0 else image)
    files['test/images/test_0.JPEG'] = b'without a label, never read'
    rows = [f'val_{k}.JPEG\t{WNIDS[k]}\t0\t32\t44\t62' for k in range(3)]
    files['val/val_annotations.txt'] = '\n'.join(rows).encode()
    files['wnids.txt'] = '\n'.join(WNIDS).encode()
    files['words.txt'] = (
        b'n00000001\tentity\n'
        b'n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn07749582\tlemon\n'
    )
    return train, val, {f'tiny-imagenet-200/{name}': data for name, data in files.items()}


@pytest.mark.parametrize('place', ['set', 'tiny.zip', 'tiny.tar.xz'])
def test_splits(place, official, write_files):
    train_images, val_images, files = official
    path = write_files(place, files)
    train = TinyImageNet(path)
    np.testing.assert_array_equal(train.images, train_images)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for split in ('val', 'test'):
        val = TinyImageNet(path, split)
        np.testing.assert_array_equal(val.images, val_images)
        assert val.labels.tolist() == [ORDER.index(wnid) for wnid in WNIDS] == [1, 0, 2]
    assert val.metainfo['classes'] == ('goldfish', 'Egyptian cat', 'lemon')


def test_label_order_is_that_of_image_folder(official, write_files):
    # The repositories that publish teachers read the training folders so.
    _, _, files = official
    root = write_files('set', files) / 'tiny-imagenet-200'
    theirs = ImageFolder(str(root / 'train'), is_valid_file=lambda name: name.endswith('JPEG'))
    assert theirs.targets == TinyImageNet(root).labels.tolist()


@pytest.mark.parametrize('place', ['set', 'tiny.tar'])
def test_validation_images_moved_into_folders(place, official, write_files):
    _, val_images, files = official
    moved = {'words.txt': files['tiny-imagenet-200/words.txt']}
    for k, wnid in enumerate(WNIDS):
        moved[f'val/{wnid}/val_{k}.JPEG'] = files[f'tiny-imagenet-200/val/images/val_{k}.JPEG']
    val = TinyImageNet(write_files(place, moved), 'val')
    np.testing.assert_array_equal(val.images, val_images[[1, 0, 2]])  # by folder
    assert val.labels.tolist() == [0, 1, 2]
    assert val.metainfo['classes'][2] == 'lemon'


def test_image_that_no_list_names(official, write_files):
    _, _, files = official
    files['tiny-imagenet-200/val/val_annotations.txt'] = b'val_0.JPEG\tn01443537'
    with pytest.raises(UsageError, match=r'val/images/val_1.JPEG has no class'):
        TinyImageNet(write_files('set', files), 'val')


def test_half_a_copy(official, write_files):
    _, _, files = official
    del files['tiny-imagenet-200/train/n07749582/images/n07749582_1.JPEG']
    with pytest.raises(UsageError, match='holds 5 images of tiny-imagenet train, expected 6'):
        TinyImageNet(write_files('set', files))


@pytest.mark.realdata
@pytest.mark.slow
def test_real_validation_set(real):
    val = TinyImageNet(real('tiny-imagenet-200.tar.xz'), 'val')
    assert val.images.shape == (10000, 64, 64, 3)
    assert np.bincount(val.labels).tolist() == [50] * 200
    assert val.metainfo['classes'][0] == 'goldfish'
    # Lemons are yellow, and yellow is red and green without blue.
    red, green, blue = val.images.mean(axis=(1, 2)).T
    yellow = red + green - 2 * blue
    assert yellow[val.labels == val.metainfo['classes'].index('lemon')].mean() > 100
    assert yellow.mean() < 50
