# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import logging
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import matplotlib.image
import pytest
import torch

from mmdfkd.engine import DistillRunner
from mmdfkd.engine.histogram import effective_classes
from mmdfkd.engine.hooks import SampleHook
from mmdfkd.engine.hooks.sample_hook import draw_samples, is_due
from mmdfkd.utils import UsageError


@pytest.fixture
def warnings(monkeypatch):
    """What a run's logger warned of."""
    said = []
    original = logging.Logger.warning
    monkeypatch.setattr(
        logging.Logger,
        'warning',
        lambda self, message, *args, **kwargs: (
            said.append(str(message)),
            original(self, message, *args, **kwargs),
        )[1],
    )
    return said


# In a run -------------------------------------------------------------------------------------


def test_what_is_logged_and_drawn(train, generative, tmp_path):
    runner = train(
        **generative,
        **{
            'train_cfg.max_epochs': 4,
            'default_hooks.samples.interval': 3,
            'train_cfg.val_interval': 4,
        },
    )
    hub = runner.message_hub
    classes, _ = hub.get_scalar('train/generated_classes').data
    confidence, _ = hub.get_scalar('train/generated_confidence').data
    counts = hub.get_info('generated_per_class')
    assert len(classes) == len(confidence) == 4
    assert len(counts) == 5 and sum(counts) == 256  # of the networks after the last epoch
    batch_size = runner.train_dataloader.batch_sampler.batch_size
    images, logits = runner.model.train().sample(256, batch_size=batch_size)
    assert counts == logits.argmax(1).bincount(minlength=5).tolist()
    assert classes[-1] == pytest.approx(effective_classes(torch.tensor(counts)))
    assert confidence[-1] == pytest.approx(logits.softmax(1).max(1).values.mean().item(), abs=1e-5)
    drawn = sorted((tmp_path / 'run/figures/samples').iterdir())
    assert [file.name for file in drawn] == ['epoch_0001.png', 'epoch_0003.png', 'epoch_0004.png']


def test_the_picture_holds_the_pixels(train, generative, tmp_path):
    runner = train(**generative, **{'train_cfg.max_epochs': 1, 'default_hooks.samples.shown': 10})
    sheet = matplotlib.image.imread(tmp_path / 'run/figures/samples/epoch_0001.png')[..., :3]
    batch_size = runner.train_dataloader.batch_sampler.batch_size
    images, logits = runner.model.train().sample(256, batch_size=batch_size)
    pixels = runner.model.test_preprocessor.denormalize(images[:10])
    first = pixels[logits[:10].argmax(1).sort(stable=True).indices[0]]
    # 8 columns of 16 pixels, 4 (56 / 16) times enlarged, 4 pixels apart; gaps are white
    assert sheet.shape[1] == 4 + 8 * (4 * 16 + 4) and (sheet[:4] == 1).all()
    tile = torch.from_numpy(255 * sheet[4:68, 4:68]).round()
    expected = first.permute(1, 2, 0).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(tile, expected.expand(64, 64, 3).float())


def test_looking_changes_nothing(train, toy_config, generative):
    """With and without the hook: the same networks after the same iterations, bit for bit."""
    watched = train('watched', **copy.deepcopy(generative)).model.state_dict()
    cfg = toy_config('blind', **generative)
    del cfg.default_hooks['samples']
    runner = DistillRunner.from_cfg(cfg)
    runner.train()
    blind = runner.model.state_dict()
    assert watched.keys() == blind.keys()
    assert all(torch.equal(value, blind[name]) for name, value in watched.items())


def test_a_collapse_is_reported(train, generative, warnings):
    def destroy(runner):
        with torch.no_grad():
            runner.model.teacher.head.fc.weight.zero_()
            runner.model.teacher.head.fc.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0]))

    train(before=destroy, **generative, **{'train_cfg.max_epochs': 1})
    words = [text for text in warnings if 'collapse' in text]
    assert len(words) == 1 and '100% of the generated images are of class c' in words[0]


@pytest.mark.parametrize(('size', 'warns'), [(4, True), (5, False)])
def test_a_batch_smaller_than_the_classes(
    train, generative, warnings, without_validation, size, warns
):
    train(
        **generative,
        **without_validation,
        **{'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': size},
    )
    words = [text for text in warnings if 'cannot hold all' in text]
    assert len(words) == warns
    if warns:
        assert 'A batch of 4 images cannot hold all 5 classes' in words[0]
        assert 'train_dataloader.batch_size to 25' in words[0]


@pytest.mark.parametrize(('processes', 'warns'), [(1, True), (2, False)])
def test_processes_make_a_batch_together(processes, warns):
    runner = Mock(world_size=processes, val_loop=None)
    runner.model.student.num_classes = 5
    runner.train_dataloader.batch_sampler = SimpleNamespace(batch_size=3)
    SampleHook().before_train(runner)
    assert runner.logger.warning.called == warns


@pytest.fixture
def sampled():
    """A runner whose generator made three images after its first epoch of two, and the hook."""
    runner = Mock(rank=0, epoch=0, max_epochs=2, work_dir='run')
    model = runner.model
    del model.sample_memory
    model.student.num_classes = 2
    logits = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]).log()
    model.sample.return_value = (torch.arange(3.0).view(3, 1, 1, 1), logits)
    model.test_preprocessor.denormalize = lambda images: images
    hook = SampleHook()
    hook.names, hook.batch_size = ['cat', 'dog'], 3
    return runner, hook


def test_a_grid_is_sorted_by_class_and_captioned(sampled, monkeypatch):
    drawn = []

    def save(path, images, labels, **options):
        drawn.append((path, images.flatten().tolist(), labels))

    monkeypatch.setattr('mmdfkd.visualization.save_image_grid', save)
    runner, hook = sampled
    hook.after_train_epoch(runner)
    path = Path('run/figures/samples/epoch_0001.png')
    assert drawn == [(path, [1, 0, 2], ['cat 0.60', 'dog 0.80', 'dog 0.90'])]
    scalars = runner.visualizer.add_scalars.call_args
    assert scalars.kwargs['step'] == scalars.args[0]['epoch'] == 1


def test_a_grid_that_cannot_be_drawn_is_a_warning(sampled, monkeypatch):
    refuse = Mock(side_effect=UsageError('images of 9 channels'))
    monkeypatch.setattr('mmdfkd.visualization.save_image_grid', refuse)
    runner, hook = sampled
    hook.after_train_epoch(runner)
    (warning,) = runner.logger.warning.call_args.args
    assert warning == 'epoch_0001.png was not drawn: images of 9 channels'


def test_a_generator_that_is_not_trained_is_left_alone(sampled):
    runner, hook = sampled
    runner.model.generator.training = False
    hook.after_train_epoch(runner)
    runner.model.sample.assert_not_called()


def test_classes_that_are_not_seen_are_counted_too(sampled):
    runner, hook = sampled
    runner.model.sample.return_value[1][:] = torch.tensor([0.0, -9.0])
    hook.interval = 0
    hook.after_train_epoch(runner)
    runner.message_hub.update_info.assert_called_once_with('generated_per_class', [3, 0])


@pytest.mark.parametrize(('side', 'times'), [(16, 4), (32, 2), (224, 1)])
def test_small_images_are_enlarged(monkeypatch, side, times):
    save, first = Mock(), torch.zeros(1, dtype=torch.int64)
    monkeypatch.setattr('mmdfkd.visualization.save_image_grid', save)
    pixels = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    draw_samples(Mock(work_dir='run'), Path('a.png'), pixels, first, torch.ones(1), ['cat'])
    assert save.call_args.kwargs['upscale'] == times


def test_other_processes_replay_and_say_nothing(sampled):
    runner, hook = sampled
    runner.rank, hook.shown = 1, 5
    runner.model.sample_memory = Mock()
    hook.after_train_epoch(runner)
    runner.model.sample_memory.assert_called_once_with(5)
    for part in (runner.logger, runner.visualizer, runner.message_hub):
        assert not part.method_calls


@pytest.mark.parametrize(('count', 'counted'), [(70, 70), (20, 50)])
def test_as_many_images_are_counted_as_asked_for(train, generative, count, counted):
    once = {'train_cfg.max_epochs': 1, 'default_hooks.samples.count': count}
    runner = train(**generative, **once)
    assert sum(runner.message_hub.get_info('generated_per_class')) == counted


def test_no_pictures(train, generative, tmp_path):
    runner = train(**generative, **{'default_hooks.samples.interval': 0})
    assert not (tmp_path / 'run/figures/samples').exists()
    assert sum(runner.message_hub.get_info('generated_per_class')) == 256


def test_a_method_without_a_generator_is_left_alone(finished):
    assert 'train/generated_classes' not in finished.message_hub.log_scalars
    assert 'generated_per_class' not in finished.message_hub.runtime_info


@pytest.mark.parametrize(
    ('interval', 'last', 'expected'),
    [(None, 40, [1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]), (2, 5, [1, 2, 4, 5]), (0, 3, [])],
)
def test_when_a_grid_is_drawn(interval, last, expected):
    assert [number for number in range(1, last + 1) if is_due(interval, number, last)] == expected


@pytest.mark.parametrize(('name', 'caption'), [('7', '7 0.55'), ('automobile', 'automobile\n0.55')])
def test_a_long_name_leaves_room_for_the_confidence(tmp_path, monkeypatch, name, caption):
    grid = Mock()
    monkeypatch.setattr('mmdfkd.visualization.save_image_grid', grid)
    runner = SimpleNamespace(work_dir=tmp_path)
    image, label, score = torch.zeros(1, 3, 32, 32), torch.tensor([0]), torch.tensor([0.55])
    draw_samples(runner, Path('bank', 'a.png'), image, label, score, [name])
    assert grid.call_args.kwargs['labels'] == [caption]
