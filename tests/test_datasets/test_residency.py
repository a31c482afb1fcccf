# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmdfkd.datasets import ImagePool, PackedDataset, residency, write_pool
from mmdfkd.datasets.residency import make_resident
from mmdfkd.engine import DistillRunner
from mmdfkd.utils import UsageError


@pytest.fixture
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (10_000, 4, 5, 3), dtype=np.uint8)
    return PackedDataset(images, np.arange(10_000) % 7)


@pytest.fixture
def accelerator(monkeypatch):
    """The meta device in the place of a GPU with as much free memory as is asked for."""

    def of(free):
        monkeypatch.setattr(residency, 'free_memory', lambda device: free)
        return torch.device('meta')

    return of


def test_memory_in_reserve_is_free(monkeypatch):
    """Of 100 bytes others have 40; of the 50 that PyTorch took, tensors have 30."""
    there = SimpleNamespace(
        mem_get_info=lambda device: (10, 100),
        memory_reserved=lambda device: 50,
        memory_allocated=lambda device: 30,
    )
    monkeypatch.setattr(torch, 'cuda', there)
    assert residency.free_memory(torch.device('cuda')) == 10 + 20
    assert residency.free_memory(torch.device('cpu')) is None


def test_batches_gathered_on_the_device_are_the_same(dataset):
    indices = [[3, 9_999, 3], range(40, 60), [], np.array([5])]
    expected = [dataset.__getitems__(wanted) for wanted in indices]
    dataset.to_device('cpu')
    dataset.images = np.zeros_like(dataset.images)  # no longer looked at
    for wanted, batch in zip(indices, expected, strict=True):
        found = dataset.__getitems__(wanted)
        assert found.keys() == batch.keys()
        for key, value in batch.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=0)
        if len(wanted):
            assert found['inputs'].stride() == batch['inputs'].stride()
        found['inputs'].zero_()  # a copy
    torch.testing.assert_close(dataset[3]['inputs'], expected[0]['inputs'][0])


def test_auto_takes_at_most_half_of_what_is_free(dataset, accelerator):
    size = dataset.images.nbytes
    assert not make_resident(dataset, accelerator(2 * size - 1))
    assert dataset.device_images is None
    assert make_resident(dataset, accelerator(2 * size))
    batch = dataset.__getitems__([4, 2])
    assert batch['inputs'].device.type == 'meta' and batch['inputs'].shape == (2, 3, 4, 5)
    assert batch['index'].tolist() == [4, 2] and batch['label'].tolist() == [4, 2]


def test_auto_stays_mapped_where_nothing_is_known(dataset, accelerator):
    assert not make_resident(dataset, accelerator(None))
    assert not make_resident(dataset, 'cpu')


def test_the_choice_can_be_made(dataset, accelerator):
    dataset.resident = False
    assert not make_resident(dataset, accelerator(10**12))
    dataset.resident = True
    assert make_resident(dataset, accelerator(dataset.images.nbytes))
    assert make_resident(dataset, 'cpu')
    assert dataset.__getitems__([1])['inputs'].device.type == 'cpu'


def test_what_does_not_fit_or_means_nothing(dataset, accelerator):
    dataset.resident = True
    with pytest.raises(UsageError, match="resident=True does not fit.*'auto' or False"):
        make_resident(dataset, accelerator(dataset.images.nbytes - 1))
    dataset.resident = 'yes'
    with pytest.raises(UsageError, match="'yes'"):
        make_resident(dataset, 'cpu')


def test_the_choice_is_logged(dataset, accelerator, monkeypatch):
    said = []
    monkeypatch.setattr(residency, 'print_log', lambda text, logger: said.append(text))
    make_resident(dataset, accelerator(2**30))
    make_resident(dataset, accelerator(2**10))
    assert said == [
        'packed lives on meta (0.00 GiB, 1.00 GiB are free on meta).',
        'packed stays memory-mapped (0.00 GiB, 0.00 GiB are free on meta).',
    ]


def test_a_part_of_a_pool(tmp_path, dataset):
    write_pool(tmp_path / 'pool', dataset.images, 'pool')
    pool = ImagePool(tmp_path / 'pool', ratio=0.5, resident=True)
    expected = pool.__getitems__([7, 0])['inputs']
    assert make_resident(pool, 'cpu') and len(pool.device_images) == 5000
    torch.testing.assert_close(pool.__getitems__([7, 0])['inputs'], expected)


def test_the_loader_of_a_run_obeys(tmp_path, dataset):
    write_pool(tmp_path / 'pool', dataset.images, 'pool')
    loader = dict(batch_size=4, num_workers=1, persistent_workers=True, pin_memory=True)
    loader.update(sampler=dict(type='DefaultSampler', shuffle=False))
    for resident, workers in ((True, 0), (False, 1)):
        config = dict(type='mmdfkd.ImagePool', root=str(tmp_path / 'pool'), resident=resident)
        built = DistillRunner.build_dataloader({**loader, 'dataset': config}, seed=0)
        assert (built.num_workers, built.pin_memory) == (workers, not resident)
        assert (built.dataset.device_images is not None) == resident
        if resident:
            batch = next(iter(built))
            expected = dataset.__getitems__(range(4))['inputs']
            torch.testing.assert_close(batch['inputs'], expected)


def test_either_part_of_a_hybrid_set_lives_on_the_device(tmp_path, dataset):
    for name in ('pool', 'bank'):
        write_pool(tmp_path / name, dataset.images, name)
    pools = [
        dict(type='mmdfkd.ImagePool', root=str(tmp_path / name), resident=True)
        for name in ('pool', 'bank')
    ]
    config = dict(type='mmdfkd.HybridDataset', collected=pools[0], synthetic=pools[1])
    loader = dict(batch_size=4, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False))
    built = DistillRunner.build_dataloader({**loader, 'dataset': config}, seed=0)
    assert built.num_workers == 0
    assert all(part.device_images is not None for part in built.dataset.parts)
