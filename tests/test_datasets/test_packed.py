# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The packed dataset: batches equal what plain indexing gives, and never alias the set."""

import copy
import hashlib

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmdfkd.datasets import PackedDataset, whole_batch_collate
from mmdfkd.registry import FUNCTIONS
from mmdfkd.utils import UsageError


@pytest.fixture
def images() -> np.ndarray:
    """20 colour images whose bytes are all told apart by their position."""
    return np.random.RandomState(0).randint(0, 256, (20, 4, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    'indices',
    [[3, 4, 5, 6], [7], [6, 5, 4], [1, 2, 4], [2, 2, 2], [0, 2, 1, 3], list(range(20))],
    ids=['run', 'one', 'descending', 'gap', 'repeated', 'shuffled', 'all'],
)
@pytest.mark.parametrize('as_type', [list, np.array, torch.tensor])
def test_batch_equals_plain_indexing(images, indices, as_type):
    labels = np.arange(20) % 7
    batch = PackedDataset(images, labels).__getitems__(as_type(indices))
    rows = np.array(indices, dtype=int)
    np.testing.assert_array_equal(batch['inputs'], images[rows].transpose(0, 3, 1, 2))
    assert batch['inputs'].dtype == torch.uint8
    assert batch['inputs'].is_contiguous(memory_format=torch.channels_last)
    assert batch['index'].tolist() == indices
    assert batch['label'].tolist() == labels[rows].tolist()
    assert batch['index'].dtype == batch['label'].dtype == torch.int64


@pytest.mark.parametrize('indices', [[2, 3, 4], [4, 2]], ids=['run', 'gather'])
def test_writing_to_a_batch_leaves_the_set_alone(images, indices):
    before, wanted = images.copy(), np.array(indices)
    batch = PackedDataset(images, np.ones(20)).__getitems__(wanted)
    for tensor in batch.values():
        tensor.zero_()
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(wanted, indices)


@pytest.mark.parametrize(
    ('labels', 'words'),
    [(['cat'] * 20, '<U3 and no whole numbers'), (np.full(20, 0.6), 'float64 and no whole')],
)
def test_labels_are_numbers_of_classes(images, labels, words):
    with pytest.raises(UsageError, match=f'The labels .* {words}.*counted from 0; names belong'):
        PackedDataset(images, labels)


def test_labels_in_a_column_of_objects(images):
    labels = PackedDataset(images, np.array([3] * 20, dtype=object)).labels
    assert labels.dtype == np.int64 and labels.tolist() == [3] * 20


def test_images_are_one_array(images):
    with pytest.raises(UsageError, match=r'are a list. Give one array .*np\.stack\(images\)'):
        PackedDataset(list(images))


def test_unlabelled_set_yields_no_label(images):
    dataset = PackedDataset(images)
    assert set(dataset.__getitems__([0, 1])) == {'inputs', 'index'}
    assert set(dataset[0]) == {'inputs', 'index'}


def test_single_sample_and_iteration_end(images):
    dataset = PackedDataset(images, range(20))
    sample = dataset[-1]
    np.testing.assert_array_equal(sample['inputs'], images[19].transpose(2, 0, 1))
    assert (int(sample['index']), int(sample['label'])) == (19, 19)
    assert sum(1 for _ in dataset) == len(dataset) == 20
    with pytest.raises(IndexError):
        dataset[20]


@pytest.mark.parametrize('indices', [[18, 19, 20], [20], [0, 99]])
def test_indices_out_of_range_raise(images, indices):
    with pytest.raises(IndexError):
        PackedDataset(images).__getitems__(indices)


def test_a_deep_copy_shares_the_images(images):
    dataset = PackedDataset(images, np.arange(len(images)))
    copied = copy.deepcopy(dict(dataset=dataset))['dataset']
    assert copied is not dataset
    assert np.shares_memory(copied.images, images)
    assert torch.equal(copied[3]['inputs'], dataset[3]['inputs'])


def test_content_hash_is_sha256_of_bytes_and_shape(images):
    inner = hashlib.sha256(images.tobytes()).hexdigest()
    expected = hashlib.sha256(f'{inner}:20x4x5x3'.encode()).hexdigest()[:16]
    assert PackedDataset(images, range(20)).content_hash == expected
    # Memory layout does not matter, shape and every single byte do.
    assert PackedDataset(np.asfortranarray(images)).content_hash == expected
    assert PackedDataset(images.reshape(20, 5, 4, 3)).content_hash != expected
    images[19, 3, 4, 2] ^= 1
    assert PackedDataset(images).content_hash != expected


@pytest.mark.parametrize(
    ('broken', 'found'),
    [
        (np.zeros((2, 4, 4, 1), np.float32), 'float32'),
        (np.zeros((2, 4, 4), np.uint8), r'\(2, 4, 4\)'),
        (np.zeros((0, 4, 4, 1), np.uint8), r'\(0, 4, 4, 1\)'),
    ],
)
def test_wrong_images_are_refused(broken, found):
    with pytest.raises(UsageError, match=f"'mine' are .*{found}.*Convert"):
        PackedDataset(broken, metainfo={'name': 'mine'})


@pytest.mark.parametrize('labels', [[0] * 19, [0] * 19 + [2], [0] * 19 + [-1]])
def test_wrong_labels_are_refused(images, labels):
    with pytest.raises(UsageError, match="labels of 'two'"):
        PackedDataset(images, labels, {'name': 'two', 'classes': ['a', 'b']})
    with pytest.raises(UsageError, match='but one label from 0 on for each of the 20 images'):
        PackedDataset(images, [0] * 19)


@pytest.mark.parametrize('workers', [0, 1])
def test_mmengine_builds_the_loader_from_names(images, workers):
    with DefaultScope.overwrite_default_scope('mmdfkd'):
        loader = Runner.build_dataloader(
            {
                'dataset': {'type': 'PackedDataset', 'images': images, 'labels': range(20)},
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'collate_fn': {'type': 'whole_batch_collate'},
                'batch_size': 8,
                'num_workers': workers,
            }
        )
    batches = list(loader)
    assert [len(batch['index']) for batch in batches] == [8, 8, 4]
    assert torch.cat([batch['label'] for batch in batches]).tolist() == list(range(20))
    seen = torch.cat([batch['inputs'] for batch in batches])
    np.testing.assert_array_equal(seen, images.transpose(0, 3, 1, 2))


def test_collate_stacks_single_samples(images):
    dataset = PackedDataset(images, range(20))
    stacked = whole_batch_collate([dataset[3], dataset[9], dataset[1]])
    whole = dataset.__getitems__([3, 9, 1])
    assert FUNCTIONS.get('whole_batch_collate') is whole_batch_collate
    assert whole_batch_collate(whole) is whole
    assert set(stacked) == set(whole)
    assert all(torch.equal(stacked[key], whole[key]) for key in whole)
