# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.engine.hooks import SelectionHook
from mmdfkd.models.selectors import DynamicSelector, RandomSelector
from mmdfkd.utils import UsageError


@pytest.fixture
def watched(train):
    """Train; return the runner and what the selector was asked and the sampler told each epoch."""

    def go(selector_type=DynamicSelector, **changes):
        asked, chosen = [], []

        def watch(runner):
            selector = runner.model.selector
            original = selector_type.__call__

            class Watched(type(selector)):
                def __call__(self, **arguments):
                    asked.append(arguments)
                    return original(self, **arguments)

            selector.__class__ = Watched
            before = runner.call_hook

            def call_hook(name, **kwargs):
                before(name, **kwargs)
                if name == 'before_train_epoch':
                    sampler = runner.train_dataloader.batch_sampler.sampler
                    chosen.append(sampler.indices)

            runner.call_hook = call_hook

        return train(before=watch, **changes), asked, chosen

    return go


def test_selects_from_the_whole_pool_before_every_epoch(watched):
    runner, asked, chosen = watched()
    assert [(a['epoch'], a['max_epochs'], a['pool_size']) for a in asked] == [
        (1, 2, 96),
        (2, 2, 96),
    ]
    model, pool = runner.model.eval(), runner.train_dataloader.dataset
    images = (torch.from_numpy(pool.images).permute(0, 3, 1, 2).float() - 127.5) / 64
    with torch.no_grad():
        expected = model.teacher(images)
    for arguments, indices in zip(asked, chosen, strict=True):
        torch.testing.assert_close(arguments['teacher_logits'], expected, atol=1e-5, rtol=1e-4)
        assert arguments['student_logits'].shape == (96, 5)
        selection = DynamicSelector(threshold=0.8, min_selected=24)(**arguments)
        assert torch.equal(indices, selection.indices)
        assert 24 <= len(indices) < 96
    assert not torch.equal(asked[0]['student_logits'], asked[1]['student_logits'])


def test_interval_keeps_a_selection_for_some_epochs(watched):
    _, asked, chosen = watched(**{'default_hooks.selection.interval': 2, 'train_cfg.max_epochs': 3})
    assert [arguments['epoch'] for arguments in asked] == [1, 3]
    assert torch.equal(chosen[0], chosen[1])


def test_training_view_is_one_for_both_networks_and_new_each_epoch(watched):
    runner, asked, _ = watched(
        **{
            'default_hooks.selection.view': 'train',
            'model.data_preprocessor': dict(
                augment=[dict(type='BatchRandomCrop', size=16, padding=4)]
            ),
        }
    )
    first, second = (arguments['teacher_logits'] for arguments in asked)
    assert not torch.allclose(first, second)
    runner.model.student = runner.model.teacher  # equal logits where both see the same view
    asked.clear()
    SelectionHook(view='train')._select(runner)
    assert torch.equal(asked[0]['student_logits'], asked[0]['teacher_logits'])


def test_random_selector_asks_for_no_predictions(watched, monkeypatch):
    monkeypatch.setattr(
        'mmdfkd.engine.hooks.selection_hook.predict_logits', lambda *_: pytest.fail('predicted')
    )
    runner, asked, chosen = watched(
        RandomSelector,
        **{'model.selector': dict(type='RandomSelector', ratio=0.25, _delete_=True)},
    )
    assert [set(arguments) for arguments in asked] == [{'pool_size', 'epoch', 'max_epochs'}] * 2
    assert [len(indices) for indices in chosen] == [24, 24]
    assert chosen[0].tolist() != chosen[1].tolist()


def test_logs_what_was_selected(finished):
    hub = finished.message_hub
    share = hub.get_scalar('train/selected_share').data[0]
    count = hub.get_scalar('train/selected').data[0]
    assert count.tolist() == pytest.approx((share * 96).tolist()) and 24 <= min(count)
    assert hub.get_scalar('train/student_weight').data[0].tolist() == [1.0, 1.0]  # I/2 = 1
    assert sum(hub.get_info('predicted_per_class')) == 96
    assert sum(hub.get_info('selected_per_class')) == count[-1]
    assert max(hub.get_info('thresholds')) == pytest.approx(0.8)
    assert 0.2 <= hub.get_scalar('train/mean_confidence').current() <= 1
    assert hub.get_scalar('train/logit_distance').current() > 0


def test_needs_a_sampler_that_can_be_told(train):
    with pytest.raises(UsageError, match=r"DefaultSampler.*type='SelectionSampler'"):
        train(**{'train_dataloader.sampler': dict(type='DefaultSampler')})


def test_a_method_without_a_selector_uses_everything(train):
    runner = train(
        **{
            'model': dict(
                type='KD',
                alpha=1.0,
                _delete_=True,
                teacher=dict(checkpoint='mmdfkd://lenet5_digits'),
                student=dict(
                    backbone=dict(type='LeNet5', width=0.5),
                    head=dict(in_channels=60, num_classes=10),
                ),
            ),
            'train_dataloader.dataset.image_size': 32,
            'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True),
            'val_cfg': None,
            'val_dataloader': None,
            'val_evaluator': None,
            'train_cfg.max_epochs': 1,
        }
    )
    assert runner.message_hub.get_info('images_seen') == 96


def test_unknown_view():
    with pytest.raises(UsageError, match=r"selection\.view='random'.*'plain', 'train'"):
        SelectionHook(view='random')
