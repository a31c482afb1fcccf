# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmdfkd.datasets import NoisePool, PackedDataset
from mmdfkd.engine import prediction
from mmdfkd.engine.prediction import LogitsCache, cache_dir, predict_logits
from mmdfkd.evaluation import Accuracy, Agreement
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.models.selectors import DynamicSelector


class Probe(nn.Module):
    """Logits (mean, first pixel, B) of normalised images; counts what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = 0
        self.modes = set()
        self.register_buffer('scale', torch.ones(1))

    def forward(self, images):
        self.seen += len(images)
        self.modes.add((self.training, torch.is_grad_enabled()))
        flat = images.flatten(1)
        size = torch.full((len(images), 1), float(len(images)))
        return torch.cat([flat.mean(1, keepdim=True) * self.scale, flat[:, :1], size], 1)


def pool(count=23):
    return NoisePool(count, image_size=4)


def preprocessor(**kwargs):
    return BatchPreprocessor([100.0], [50.0], **kwargs)


@pytest.mark.parametrize('training', [True, False])
def test_values_in_the_order_of_the_dataset(training):
    dataset, network = pool(), Probe().train(training)
    logits = predict_logits(network, dataset, preprocessor(), batch_size=10)
    images = (torch.from_numpy(dataset.images).float().flatten(1) - 100) / 50
    torch.testing.assert_close(logits[:, 0], images.mean(1))
    torch.testing.assert_close(logits[:, 1], images[:, 0])
    assert logits[:, 2].tolist() == [10.0] * 20 + [3.0] * 3  # batches, the last one kept
    assert network.modes == {(False, False)} and network.training is training
    assert logits.dtype == torch.float32 and not logits.requires_grad


def test_half_precision_becomes_single():
    network = Probe()
    network.forward = lambda images: images.flatten(1)[:, :2].bfloat16()
    assert predict_logits(network, pool(), preprocessor()).dtype == torch.float32


def test_training_view_on_request():
    def invert(images):
        return 255 - images

    road = preprocessor(augment=[invert])
    plain = predict_logits(Probe(), pool(), road)
    view = predict_logits(Probe(), pool(), road, augment=True, description='with a bar')
    # (255 - x - 100) / 50 = 1.1 - (x - 100) / 50
    torch.testing.assert_close(view[:, 1], 1.1 - plain[:, 1])


def test_a_process_may_have_no_image(monkeypatch):
    monkeypatch.setattr(prediction, 'get_dist_info', lambda: (0, 2))
    of_the_other = torch.ones(1, 3)
    monkeypatch.setattr(prediction, 'all_gather_object', lambda mine: [mine, of_the_other])
    assert torch.equal(predict_logits(Probe(), pool(1), preprocessor()), of_the_other)


# The cache ------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path):
    return LogitsCache(tmp_path / 'logits')


class Steady(Probe):
    """What it says of an image does not depend on the others of its batch."""

    def forward(self, images):
        return super().forward(images)[:, :2]


def test_teacher_predicts_once(cache):
    network, dataset = Steady(), pool()
    first = cache.get(network, dataset, preprocessor())
    assert network.seen == 23
    again = cache.get(network, pool(), preprocessor())  # same bytes, another object
    assert network.seen == 23 + 8 and torch.equal(first, again)  # 8 to see whether it is the same
    assert network.modes == {(False, False)}
    assert len(list(cache.folder.iterdir())) == 1


def test_as_many_images_at_once_as_asked_for(tmp_path):
    logits = LogitsCache(tmp_path, batch_size=10).get(Probe(), pool(), preprocessor())
    assert logits[:, 2].tolist() == [10.0] * 20 + [3.0] * 3


def test_a_teacher_in_train_mode_is_asked_in_eval_mode_and_not_changed(cache):
    """As a checkpoint is loaded: BatchNorm would learn from the images that are asked again."""
    network = Probe()
    network.norm = torch.nn.BatchNorm2d(1)
    network.forward = lambda images: network.norm(images).flatten(1)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = cache.get(network, pool(), preprocessor())
    assert torch.equal(cache.get(network, pool(), preprocessor()), first)
    assert network.training and network.norm.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert len(list(cache.folder.iterdir())) == 1


def test_anything_that_matters_makes_it_predict_again(cache):
    network = Probe()
    cache.get(network, pool(), preprocessor())
    cache.get(network, pool(22), preprocessor())
    cache.get(network, pool(), BatchPreprocessor([100.0], [51.0]))
    cache.get(network, pool(), BatchPreprocessor([101.0], [50.0]))
    network.scale += 1
    cache.get(network, pool(), preprocessor())
    assert network.seen == 23 * 4 + 22


def test_another_forward_pass_with_the_same_tensors_predicts_again(cache):
    class Mirrored(Steady):
        def forward(self, images):
            return super().forward(images).flip(1)

    first = cache.get(Steady(), pool(), preprocessor())
    again = cache.get(Mirrored(), pool(), preprocessor())
    assert torch.equal(again, first.flip(1)) and not torch.equal(again, first)
    assert torch.equal(cache.get(Mirrored(), pool(), preprocessor()), again)


def test_other_classes_with_the_same_tensors_predict_again(cache):
    assert cache.get(Steady(), pool(), preprocessor()).shape == (23, 2)
    assert cache.get(Probe(), pool(), preprocessor()).shape == (23, 3)


def test_fewer_images_than_are_usually_asked_again(cache):
    network = Steady()
    first = cache.get(network, pool(3), preprocessor())
    assert torch.equal(cache.get(network, pool(3), preprocessor()), first)
    assert network.seen == 3 + 3


@pytest.mark.parametrize('scale', [1e-4, 1e4])
def test_predictions_are_compared_by_their_size(cache, scale):
    network = Steady()
    forward = network.forward
    network.forward = lambda images: scale * forward(images)
    first = cache.get(network, pool(), preprocessor())
    network.forward = lambda images: scale * (forward(images) + 1e-3)  # as by rounding
    assert torch.equal(cache.get(network, pool(), preprocessor()), first)
    network.forward = lambda images: scale * forward(images).flip(1)
    assert torch.equal(cache.get(network, pool(), preprocessor()), first.flip(1))


def test_pools_that_begin_alike_have_files_of_their_own(cache):
    images = pool().images.copy()
    images[20] = 255 - images[20]
    first, second = (
        cache.get(Steady(), PackedDataset(i), preprocessor()) for i in (pool().images, images)
    )
    assert torch.equal(first[:20], second[:20]) and not torch.equal(first[20], second[20])


@pytest.mark.parametrize('damage', [b'', b'garbage', 'short', 'half'])
def test_a_damaged_file_is_made_anew(cache, damage):
    network = Probe()
    expected = cache.get(network, pool(), preprocessor())
    (file,) = cache.folder.iterdir()
    if damage == 'short':
        np.save(file, expected[:5].numpy())
    elif damage == 'half':
        file.write_bytes(file.read_bytes()[:-40])
    else:
        file.write_bytes(damage)
    assert torch.equal(cache.get(network, pool(), preprocessor()), expected)
    assert network.seen == 46
    assert np.array_equal(np.load(file), expected.numpy())


def test_a_pickle_in_the_cache_is_not_run(cache):
    network = Probe()
    expected = cache.get(network, pool(), preprocessor())
    (file,) = cache.folder.iterdir()
    np.save(file, np.array([{'an': 'object'}], dtype=object), allow_pickle=True)
    assert torch.equal(cache.get(network, pool(), preprocessor()), expected)


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    cache = LogitsCache(tmp_path / 'file/logits')
    assert cache.get(Probe(), pool(), preprocessor()).shape == (23, 3)


def test_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path))
    assert cache_dir() == tmp_path and LogitsCache().folder == tmp_path / 'logits'
    monkeypatch.delenv('MMDFKD_CACHE_DIR')
    assert cache_dir().parts[-2:] == ('.cache', 'mmdfkd') and cache_dir().is_absolute()


# One process and two --------------------------------------------------------------------------


def _logits(seed, count=301):
    return 3 * torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


class Lookup(nn.Module):
    """Logits by the number that is written into the first two pixels."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        pixels = images.flatten(1)[:, :2].round().long()
        return self.logits[pixels[:, 0] * 256 + pixels[:, 1]]


def numbered(count=301):
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(count), 256)
    return PackedDataset(images)


def _answers(start=0, step=1, folder=None):
    """Predictions of both networks on 301 images, the selection, metrics of every step-th."""
    plain = BatchPreprocessor([0.0], [1.0])
    dataset = numbered()
    teacher, student = (
        predict_logits(Lookup(_logits(seed)), dataset, plain, batch_size=40) for seed in (1, 2)
    )
    cached = LogitsCache(folder).get(Lookup(_logits(1)), dataset, plain) if folder else teacher
    selection = DynamicSelector(threshold=0.9)(
        teacher_logits=teacher, student_logits=student, epoch=15, max_epochs=40
    )
    labels = torch.arange(301) % 5
    metrics = {}
    for metric in (Accuracy(topk=(1, 2)), Agreement()):
        for part in torch.arange(301)[start::step].split(64):
            batch = dict(
                logits=student[part],
                label=labels[part],
                teacher_prediction=teacher[part].argmax(1),
            )
            metric.process(None, [batch])
        metrics.update(metric.evaluate(301))
    return dict(
        teacher=teacher, student=student, cached=cached, metrics=metrics, **selection._asdict()
    )


def _two_ranks(rank, folder):
    os.chdir(folder)
    answers = []
    for _ in range(3):
        # each machine has its own cache; rank 1's vanishes in between, then is that of a GPU
        answers.append(_answers(rank, 2, f'{folder}/cache{rank}'))
        if rank == 1:
            (file,) = Path(folder, 'cache1').iterdir()
            if len(answers) == 1:
                file.unlink()
            else:
                np.save(file, np.load(file) + np.float32(1e-3))
    return answers


def test_two_processes_answer_like_one(in_two_processes, tmp_path):
    expected = _answers()
    assert torch.equal(expected['teacher'], _logits(1))
    assert torch.equal(expected['student'], _logits(2))
    assert 0 < len(expected['indices']) < 301
    for answers in in_two_processes(_two_ranks, str(tmp_path)):
        for answer in answers:
            for name in ('teacher', 'student', 'cached', 'indices', 'thresholds', 'counts'):
                wanted = expected['teacher' if name == 'cached' else name]
                assert torch.equal(answer[name], wanted), name
            assert answer['metrics'] == pytest.approx(expected['metrics'])
