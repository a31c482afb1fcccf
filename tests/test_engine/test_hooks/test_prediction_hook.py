# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmdfkd.datasets import PackedDataset
from mmdfkd.engine import DistillRunner
from mmdfkd.engine.hooks import PredictionHook, prediction_hook


@pytest.fixture
def tested(finished, toy_config, tmp_path):
    """Test the finished run with a PredictionHook."""
    cfg = toy_config('test', load_from=f'{finished.work_dir}/epoch_2.pth')
    cfg.test_dataloader.batch_size = 7
    out, pictures = tmp_path / 'out.json', tmp_path / 'pictures'
    cfg.default_hooks.predictions = dict(
        type='PredictionHook', out=str(out), show_dir=str(pictures), most=12
    )
    runner = DistillRunner.from_cfg(cfg)
    metrics = runner.test()
    return runner, metrics, json.loads(out.read_text()), pictures


def test_predictions_in_the_order_of_the_dataset(tested):
    runner, metrics, content, _ = tested
    dataset = runner.test_dataloader.dataset
    images = (torch.from_numpy(dataset.images).permute(0, 3, 1, 2).float() - 127.5) / 64
    with torch.no_grad():
        confidence, predicted = runner.model.eval()(images).softmax(1).max(1)
    assert content['predictions'] == predicted.tolist()
    assert content['labels'] == dataset.labels.tolist()
    assert content['confidences'] == pytest.approx(confidence.tolist(), abs=1e-5)
    assert content['metrics'] == metrics
    pairs = list(zip(content['predictions'], content['labels'], strict=True))
    hits = sum(prediction == label for prediction, label in pairs)
    assert metrics['accuracy/top1'] == pytest.approx(100 * hits / 40)


def test_images_without_labels_have_predictions(finished, toy_config, tmp_path, tested):
    cfg = toy_config('test', load_from=f'{finished.work_dir}/epoch_2.pth')
    cfg.test_evaluator = [dict(type='Agreement')]
    out, pictures = tmp_path / 'unlabelled.json', tmp_path / 'none'
    cfg.default_hooks.predictions = dict(
        type='PredictionHook', out=str(out), show_dir=str(pictures)
    )
    runner = DistillRunner.from_cfg(cfg)
    runner.test_dataloader.dataset.labels = None
    with patch.object(runner.logger, 'info', wraps=runner.logger.info) as info:
        metrics = runner.test()
    said = [call.args[0] for call in info.call_args_list if 'to draw' in call.args[0]]
    assert said == ['Nothing to draw: the images have no labels.']
    content, labelled = json.loads(out.read_text()), tested[2]
    assert content['labels'] is None and not pictures.exists()
    assert content['predictions'] == labelled['predictions']
    assert content['confidences'] == labelled['confidences']
    assert content['metrics'] == metrics and list(metrics) == ['agreement/teacher']


def test_mistakes_are_drawn(tested):
    *_, pictures = tested
    with Image.open(Path(pictures, 'mistakes.png')) as picture:
        assert picture.width > 10 * 16 and picture.height > 2 * 16


def test_second_test_starts_afresh(tested):
    runner, _, content, _ = tested
    runner.test()
    again = json.loads(Path(runner.cfg.default_hooks.predictions.out).read_text())
    assert again == content


@pytest.fixture
def confusions(monkeypatch):
    """What is drawn of confusions: the file, true classes, predictions and names."""
    drawn = []

    def plot_confusion(path, *arrays):
        drawn.append([path, *(list(array) for array in arrays)])
        return path

    monkeypatch.setattr('mmdfkd.visualization.plot_confusion', plot_confusion)
    return drawn


def test_confusions_are_those_of_the_predictions(finished, toy_config, tmp_path, confusions):
    cfg = toy_config('test', load_from=f'{finished.work_dir}/epoch_2.pth')
    out = tmp_path / 'out.json'
    cfg.default_hooks.predictions = dict(
        type='PredictionHook', out=str(out), show_dir=str(tmp_path / 'pictures')
    )
    DistillRunner.from_cfg(cfg).test()
    content = json.loads(out.read_text())
    ((path, labels, predictions, names),) = confusions
    assert path == tmp_path / 'pictures' / 'confusion.png' and names == list('abcde')
    assert (labels, predictions) == (content['labels'], content['predictions'])


def test_confusions_are_drawn_where_there_is_no_mistake(tmp_path, confusions):
    """Of a network with three classes without names; there is no image of the last."""
    dataset = PackedDataset(np.zeros((2, 4, 4, 1), np.uint8), np.arange(2))
    runner = Mock(rank=0, test_dataloader=Mock(dataset=dataset))
    hook = PredictionHook(show_dir=str(tmp_path))
    batch = dict(index=torch.arange(2), label=torch.arange(2), logits=torch.eye(3)[:2])
    hook.after_test_iter(runner, 0, outputs=[batch])
    hook.after_test_epoch(runner)
    assert confusions == [[tmp_path / 'confusion.png', [0, 1], [0, 1], list('012')]]
    said = [call.args[0] for call in runner.logger.info.call_args_list]
    assert said[0].startswith('Wrote') and said[1].startswith('No mistake to draw')


def test_no_more_mistakes_are_drawn_than_asked_for(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        'mmdfkd.visualization.save_image_grid',
        lambda path, images, *others, **options: drawn.append(images[:, 0, 0, 0].tolist()),
    )
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(4, 1).repeat(4, 2)
    runner = Mock(rank=0, test_dataloader=Mock(dataset=PackedDataset(images, np.zeros(6))))
    hook = PredictionHook(show_dir=str(tmp_path), most=3)
    logits = F.one_hot(torch.tensor([1, 0, 1, 1, 0, 1]), 2).float()
    batch = dict(index=torch.arange(6), label=torch.zeros(6, dtype=torch.int64), logits=logits)
    hook.after_test_iter(runner, 0, outputs=[batch])
    hook.after_test_epoch(runner)
    assert drawn == [[0, 2, 3]]


@pytest.mark.parametrize('rank', [0, 1])
def test_only_the_main_process_writes(tmp_path, rank):
    dataset = PackedDataset(np.zeros((2, 16, 16, 1), np.uint8), np.arange(2))
    runner = Mock(rank=rank, test_dataloader=Mock(dataset=dataset))
    hook = PredictionHook(out=str(tmp_path / 'out.json'), show_dir=str(tmp_path))
    batch = dict(index=torch.arange(2), label=torch.arange(2), logits=torch.eye(2).flip(0))
    hook.after_test_iter(runner, 0, outputs=[batch])
    hook.after_test_epoch(runner, {})
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ([] if rank else ['confusion.png', 'mistakes.png', 'out.json'])


def test_predictions_of_all_processes_in_the_order_of_the_dataset(tmp_path, monkeypatch):
    """This one tested the images 0 and 2, another 1 and 3, a third none."""
    other = torch.tensor([[1, 1, 1, 0.75], [3, 1, 0, 0.5]]).double()
    monkeypatch.setattr(prediction_hook, 'all_gather_object', lambda rows: [rows, [other], []])
    hook = PredictionHook(out=str(tmp_path / 'out.json'))
    logits = torch.tensor([[0.0, 3.0], [3.0, 0.0]]).log()  # 0 to 3: of all, nothing remains
    hook.after_test_iter(
        Mock(), 0, outputs=[dict(index=torch.tensor([0, 2]), label=torch.ones(2), logits=logits)]
    )
    hook.after_test_epoch(Mock(rank=0), {})
    content = json.loads((tmp_path / 'out.json').read_text())
    assert content['predictions'] == [1, 1, 0, 0] and content['labels'] == [1, 1, 1, 1]
    assert content['confidences'] == [1.0, 0.75, 1.0, 0.5]


def test_a_class_of_which_there_is_no_image(tmp_path):
    """Of classes without names: the labels end at 1, the teacher of five takes one for 4."""
    dataset = PackedDataset(np.zeros((2, 16, 16, 1), np.uint8), np.arange(2))
    runner = Mock(rank=0, test_dataloader=Mock(dataset=dataset))
    hook = PredictionHook(show_dir=str(tmp_path))
    logits = F.one_hot(torch.tensor([0, 4]), 5).float()
    batch = dict(index=torch.arange(2), label=torch.arange(2), logits=logits)
    hook.after_test_iter(runner, 0, outputs=[batch])
    hook.after_test_epoch(runner)
    assert dataset.metainfo['classes'] is None and (tmp_path / 'mistakes.png').exists()


def test_mistakes_are_drawn_evenly(tmp_path, monkeypatch):
    """A folder of labelled images is sorted by class, so the first mistakes are those of one."""
    drawn = []
    monkeypatch.setattr(
        'mmdfkd.visualization.save_image_grid',
        lambda path, images, columns, captions, **options: drawn.extend(captions),
    )
    labels = torch.arange(3).repeat_interleave(4)
    dataset = PackedDataset(np.zeros((12, 4, 4, 1), np.uint8), labels.numpy())
    runner = Mock(rank=0, test_dataloader=Mock(dataset=dataset))
    hook = PredictionHook(show_dir=str(tmp_path), most=3)
    logits = 100 * F.one_hot((labels + 1) % 3, 3).float()
    hook.after_test_iter(
        runner, 0, outputs=[dict(index=torch.arange(12), label=labels, logits=logits)]
    )
    hook.after_test_epoch(runner)
    assert drawn == ['0, not 1\n1.00', '1, not 2\n1.00', '2, not 0\n1.00']
    assert runner.logger.info.call_args.args[0].endswith('mistakes.png with 3 of 12 mistakes.')
