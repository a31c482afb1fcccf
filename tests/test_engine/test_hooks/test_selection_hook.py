# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from mmdfkd.engine.hooks import SelectionHook, selection_hook
from mmdfkd.models.algorithms import DFND
from mmdfkd.models.classifiers import load_classifier, save_classifier
from mmdfkd.models.selectors import (
    ConfidenceSelector,
    DynamicSelector,
    RandomSelector,
    Selection,
)
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
    with np.load(Path(finished.work_dir, 'selection.npz')) as last:
        mean = last['confidence'].mean()  # of the whole pool
    assert hub.get_scalar('train/mean_confidence').current() == pytest.approx(mean, rel=1e-5)
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


# Selectors that are asked once ----------------------------------------------------------------


@pytest.fixture
def collect(teacher_file):
    """Changes to a config: KD on images of whose class the teacher is most certain."""

    def changes(**selector):
        student = dict(
            backbone=dict(
                type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=1, stem_stride=2
            ),
            head=dict(in_channels=4, num_classes=5),
        )
        return {
            'model': dict(
                type='KD',
                alpha=1.0,
                teacher=dict(checkpoint=str(teacher_file)),
                student=student,
                selector=dict(type='ConfidenceSelector', **selector),
                _delete_=True,
            )
        }

    return changes


@pytest.fixture
def collect_noisily(collect):
    """The same with DFND, all of whose choices depend on the selection."""

    def changes(**selector):
        changed = collect(**selector)
        changed['model'].pop('alpha')
        changed['model'].update(
            type='DFND',
            diagonal='learned',
            teacher_accuracy='mean_confidence',
            class_balance='inverse_freq',
        )
        adam = dict(optimizer=dict(type='Adam', lr=0.01))
        return {**changed, 'optim_wrapper.adaptation': adam, 'param_scheduler.adaptation': []}

    return changes


def test_a_selector_may_be_asked_once_and_of_the_teacher_alone(watched, collect):
    runner, asked, chosen = watched(ConfidenceSelector, **collect(keep_ratio=0.25))
    (arguments,) = asked
    assert set(arguments) == {'pool_size', 'epoch', 'max_epochs', 'teacher_logits'}
    expected = ConfidenceSelector(keep_ratio=0.25)(**arguments).indices
    assert len(expected) == 24
    assert [indices.tolist() for indices in chosen] == [expected.tolist()] * 2
    hub = runner.message_hub
    assert sum(hub.get_info('selected_per_class')) == 24
    assert 'train/student_weight' not in hub.log_scalars  # the student had no say
    assert 'train/logit_distance' not in hub.log_scalars


def test_a_method_is_told_of_a_selection_once(train, collect_noisily, monkeypatch):
    told, remember = [], DFND.remember_selection

    def note(self, selection):
        told.append(len(selection.indices))
        remember(self, selection)

    monkeypatch.setattr(DFND, 'remember_selection', note)
    train(**collect_noisily(num_select=30))
    assert told == [30]


def test_no_batch_of_a_selection_has_one_image(train, collect):
    once = {'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 2}
    runner = train(**collect(num_select=3), **once)
    assert (runner.iter, runner.message_hub.get_info('images_seen')) == (2, 4)


def test_labels_play_no_part(watched, collect):
    """A labelled dataset as pool: other labels, the same images."""
    answers = []
    for labelled in (True, False):
        pool = dict(type='LabelledNoise', num_images=60, labelled=labelled, _delete_=True)
        changes = {'train_dataloader.dataset': pool, 'train_cfg.max_epochs': 1}
        _, _, chosen = watched(
            ConfidenceSelector, name=f'labelled-{labelled}', **collect(num_select=20), **changes
        )
        answers.append(chosen[0].tolist())
    assert answers[0] == answers[1] and len(answers[0]) == 20


def test_resuming_goes_on_with_the_selection(watched, collect_noisily, tmp_path, monkeypatch):
    def changes():
        return {**collect_noisily(num_select=30), 'train_cfg.max_epochs': 3}

    keep = {'default_hooks.checkpoint.max_keep_ckpts': 9}
    whole, _, chosen = watched(ConfidenceSelector, name='whole', **changes(), **keep)
    monkeypatch.setattr(SelectionHook, '_predict', lambda *_: pytest.fail('predicted'))
    resumed, asked, again = watched(
        ConfidenceSelector,
        name='resumed',
        **changes(),
        load_from=str(tmp_path / 'whole/epoch_2.pth'),
        resume=True,
    )
    assert not asked and torch.equal(again[0], chosen[0])
    model = resumed.model
    assert model.adaptation.accuracy == whole.model.adaptation.accuracy
    assert torch.equal(model.class_weights, whole.model.class_weights)
    assert not torch.equal(model.class_weights, torch.ones(5))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert model.adaptation.diagonal_shift.abs().max() > 0
    with np.load(tmp_path / 'whole/selection.npz') as first:
        with np.load(tmp_path / 'resumed/selection.npz') as second:
            for key in set(first) - {'student_weight'}:
                assert np.array_equal(first[key], second[key]), key


def test_resuming_with_another_pool_is_refused(train, collect, tmp_path):
    train(**collect(), **{'train_cfg.max_epochs': 1})
    with pytest.raises(UsageError, match=r'from 96 pool images, train_dataloader\.dataset has 95'):
        train(
            'resumed',
            **collect(),
            **{'train_dataloader.dataset.num_images': 95},
            load_from=str(tmp_path / 'run/epoch_1.pth'),
            resume=True,
        )


def test_resuming_within_an_interval_needs_no_predictions(watched, tmp_path):
    changes = {
        'model.selector': dict(type='RandomSelector', ratio=0.25, _delete_=True),
        'default_hooks.selection.interval': 2,
    }
    _, _, chosen = watched(RandomSelector, name='whole', **changes)
    options = dict(load_from=str(tmp_path / 'whole/epoch_1.pth'), resume=True)
    _, asked, again = watched(RandomSelector, name='resumed', **changes, **options)
    assert not asked and len(again) == 1 and torch.equal(again[0], chosen[1])


def test_starting_from_a_checkpoint_selects_anew(watched, collect, tmp_path):
    once = {'train_cfg.max_epochs': 1}
    watched(ConfidenceSelector, name='first', **collect(num_select=30), **once)
    _, asked, chosen = watched(
        ConfidenceSelector,
        name='second',
        **collect(num_select=20),
        **{**once, 'train_dataloader.dataset.num_images': 95},
        load_from=str(tmp_path / 'first/epoch_1.pth'),
    )
    assert len(asked) == 1 and len(chosen[0]) == 20


def test_an_index_file_is_written_used_and_held_to_its_facts(
    watched, collect, tmp_path, teacher_file, monkeypatch
):
    path = tmp_path / 'index.npz'
    once = {'train_cfg.max_epochs': 1}
    settings = dict(num_select=20, index_file=str(path))
    _, asked, chosen = watched(ConfidenceSelector, name='first', **collect(**settings), **once)
    assert path.exists() and len(asked) == 1
    monkeypatch.setattr(SelectionHook, '_predict', lambda *_: pytest.fail('predicted'))
    _, asked, again = watched(ConfidenceSelector, name='again', **collect(**settings), **once)
    assert not asked and torch.equal(again[0], chosen[0])

    other = load_classifier(teacher_file)
    with torch.no_grad():
        other.head.fc.bias[0] += 1e-3
    save_classifier(tmp_path / 'other.pth', other, {})
    for changes, named in (
        ({'model.teacher.checkpoint': str(tmp_path / 'other.pth')}, 'made with teacher'),
        ({'train_dataloader.dataset.seed': 5}, 'made with pool'),
        ({'model.selector.num_select': 21}, 'made with num_select 20, this run has num_select 21'),
        ({'model.data_preprocessor': dict(mean=[100.0])}, r'made with mean \[127\.5\]'),
        ({'model.data_preprocessor': dict(std=[50.0])}, r'made with std \[64\.0\]'),
    ):
        with pytest.raises(UsageError, match=rf'index\.npz .*{named}.*Delete the file'):
            watched(ConfidenceSelector, name='other', **collect(**settings), **once, **changes)


def test_an_index_file_of_another_selector(train, collect, tmp_path):
    class SurestSelector(ConfidenceSelector):
        pass

    def exchange(runner):
        runner.model.selector.__class__ = SurestSelector

    once = {'train_cfg.max_epochs': 1}
    settings = dict(num_select=20, index_file=str(tmp_path / 'index.npz'))
    train('first', **collect(**settings), **once)
    with pytest.raises(UsageError, match='made with selector ConfidenceSelector.*SurestSelector'):
        train('second', exchange, **collect(**settings), **once)


@pytest.mark.parametrize('rank', [0, 1])
def test_the_first_process_reads_and_writes_for_all(rank, monkeypatch, tmp_path):
    """Machines need not share the folder: what it read reaches the others."""
    known, written = Selection(torch.arange(3)), []
    answers = iter([known, None])
    monkeypatch.setattr(selection_hook, 'on_first_process', lambda read: next(answers))
    monkeypatch.setattr(selection_hook, 'write_index', lambda path, *_: written.append(path))
    monkeypatch.setattr(SelectionHook, '_facts', lambda *_: {})
    runner = Mock(rank=rank, epoch=0, work_dir=str(tmp_path), val_loop=None)
    runner.model.student.num_classes = 2
    runner.train_dataloader.dataset = range(5)
    runner.model.selector = Mock(
        index_file='there.npz', needs=(), once=True, return_value=Selection(torch.tensor([2]))
    )
    hook = SelectionHook()
    assert hook._select(runner) is known and not written
    hook.selection = hook._select(runner)
    assert hook.selection.indices.tolist() == [2]
    hook.after_train(runner)
    assert written == ['there.npz'] * (rank == 0)
    assert (tmp_path / 'selection.npz').exists() == (rank == 0)


def test_random_views_are_not_kept_in_an_index_file(train, collect, tmp_path):
    changes = {'default_hooks.selection.view': 'train'}
    with pytest.raises(UsageError, match=r"view='train'.*Leave out model\.selector\.index_file"):
        train(**collect(index_file=str(tmp_path / 'index.npz')), **changes)


def test_classes_without_an_image_are_named(train, collect, monkeypatch):
    warnings = []

    def watch(runner):
        monkeypatch.setattr(runner.logger, 'warning', warnings.append)

    train(before=watch, **collect(num_select=2), **{'train_cfg.max_epochs': 1})
    (warning,) = (line for line in warnings if 'No selected image' in line)
    classes = set(warning.split('class ')[1].split(' to the')[0].split(', '))
    assert classes < set('abcde') and 3 <= len(classes) <= 4
    assert f'({len(classes)} of 5 classes)' in warning


def test_an_interval_of_no_epoch_is_refused():
    with pytest.raises(UsageError, match=r'selection\.interval is 0; give 1'):
        SelectionHook(interval=0)


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (lambda logits: Selection(logits[:, 0] > 0), 'torch.bool of shape .*nonzero'),
        (lambda logits: Selection(logits[:, 0]), 'torch.float32 of shape'),
        (lambda logits: Selection(np.arange(5)), 'gave are ndarray'),
        (
            lambda logits: Selection(torch.tensor([0, len(logits)])),
            'images from 0 to 96, the pool has those from 0 to 95',
        ),
        (lambda logits: Selection(torch.tensor([3, -1])), 'selected images from -1 to 3'),
        (lambda logits: Selection(torch.empty(0, dtype=torch.int64)), 'selected no image of 96'),
        (lambda logits: torch.arange(5), r'gave a Tensor. Return Selection\(indices\)'),
    ],
    ids=['mask', 'floats', 'numpy', 'outside', 'negative', 'none', 'bare'],
)
def test_what_a_selector_may_give(train, monkeypatch, given, words):
    monkeypatch.setattr(
        DynamicSelector, '__call__', lambda self, *, teacher_logits, **others: given(teacher_logits)
    )
    with pytest.raises(UsageError, match=f'DynamicSelector.*{words}'):
        train()


def test_selections_before_epochs_need_epochs(train):
    loop = dict(type='IterBasedTrainLoop', max_iters=4)
    with pytest.raises(UsageError, match='DynamicSelector selects before each epoch, and train_cf'):
        train(train_cfg=dict(_delete_=True, **loop), param_scheduler=None)


def test_a_selection_for_the_whole_run_needs_none(train, collect):
    loop = dict(type='IterBasedTrainLoop', max_iters=4)
    changes = dict(train_cfg=dict(_delete_=True, **loop), param_scheduler=None)
    runner = train(**collect(num_select=20), **changes)
    assert len(runner.train_dataloader.batch_sampler.sampler.indices) == 20


def test_images_per_forward_pass(train, tmp_path, monkeypatch):
    """Of the validation set to judge the teacher, then of the pool to select from it."""
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))  # where no logits are yet
    sizes = dict(teacher=[], student=[])

    def note(name):
        def hook(module, inputs):
            if not (torch.is_grad_enabled() or len(inputs[0]) == 1):  # else it is no prediction
                sizes[name].append(len(inputs[0]))

        return hook

    def watch(runner):
        for name in sizes:
            getattr(runner.model, name).register_forward_pre_hook(note(name))

    options = {'default_hooks.teacher.batch_size': 15, 'default_hooks.selection.batch_size': 40}
    train(before=watch, **options, **{'train_cfg': dict(max_epochs=1, val_begin=2)})
    assert sizes == dict(teacher=[15, 15, 10, 40, 40, 16], student=[40, 40, 16])


def test_a_pool_that_cannot_be_predicted(train, monkeypatch):
    plain = torch.utils.data.TensorDataset(torch.zeros(96, 3, 16, 16, dtype=torch.uint8))
    monkeypatch.setattr(selection_hook, 'pool_of', lambda runner: plain)
    with pytest.raises(UsageError, match='DynamicSelector selects from a PackedDataset'):
        train()
