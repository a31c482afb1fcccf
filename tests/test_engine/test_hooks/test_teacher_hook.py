# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmdfkd.datasets import PackedDataset
from mmdfkd.engine.hooks import TeacherHook
from mmdfkd.engine.prediction import LogitsCache
from mmdfkd.evaluation import Accuracy, Agreement
from mmdfkd.models.algorithms import CTKD, KD, STKD, Supervised
from mmdfkd.models.classifiers import load_classifier
from mmdfkd.registry import METRICS
from mmdfkd.utils import UsageError


def test_accuracy_by_hand_and_before_the_first_step(train, tmp_path, teacher_file):
    seen = {}

    def watch(runner):
        step = runner.model.train_step

        def first_step(*args, **kwargs):
            seen.setdefault('accuracy', runner.message_hub.get_info('teacher_accuracy'))
            return step(*args, **kwargs)

        runner.model.train_step = first_step

    runner = train(before=watch, **{'train_cfg.max_epochs': 1})
    teacher, dataset = load_classifier(teacher_file).eval(), runner.val_dataloader.dataset
    images = (torch.from_numpy(dataset.images).permute(0, 3, 1, 2).float() - 127.5) / 64
    with torch.no_grad():
        predicted = teacher(images).argmax(1)
    hits = (predicted == torch.from_numpy(dataset.labels)).sum().item()
    assert seen['accuracy'] == pytest.approx(100 * hits / 40)
    assert torch.equal(runner.model.teacher_predictions, predicted)
    agree = runner.model.eval()(images).argmax(1) == predicted
    summary_says = runner.message_hub.get_scalar('val/agreement/teacher').current()
    assert summary_says == pytest.approx(100 * agree.double().mean().item())


def test_classes_of_the_data_must_be_the_networks(train, monkeypatch):
    from mmdfkd.registry import DATASETS

    dataset = DATASETS.get('LabelledNoise')
    init = dataset.__init__

    def three_classes(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.metainfo['classes'] = ('a', 'b', 'c')

    monkeypatch.setattr(dataset, '__init__', three_classes)
    with pytest.raises(
        UsageError, match=r'labelled noise has 3 classes \(a, b, c\), the networks have 5.*mod'
    ):
        train()


def test_a_test_without_a_teacher():
    dataset = PackedDataset(
        np.zeros((3, 2, 2, 1), np.uint8), range(3), dict(name='letters', classes='abc')
    )
    model = SimpleNamespace(teacher=None, student=SimpleNamespace(num_classes=3))
    loop, said = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)), {}
    hub = SimpleNamespace(update_info=said.__setitem__)
    runner = SimpleNamespace(model=model, test_loop=loop, message_hub=hub)
    TeacherHook().before_test(runner)
    assert said == dict(eval_dataset='letters')
    model.student.num_classes = 4
    with pytest.raises(UsageError, match=r'letters has 3 classes.*\(test_dataloader\.dataset\)'):
        TeacherHook().before_test(runner)


STUDENT = dict(
    backbone=dict(type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=1),
    head=dict(in_channels=4, num_classes=5),
)


def labelled(labels, classes=None):
    images = np.zeros((len(labels), 16, 16, 1), np.uint8)
    return PackedDataset(images, labels, dict(name='letters', classes=classes))


@pytest.mark.parametrize(
    ('labels', 'classes', 'words'),
    [
        ([0, 5], None, r'letters has labels up to 5, the networks have 5 classes.*\(train_datal'),
        ([0, 2], 'abc', r'letters has 3 classes \(a, b, c\), the networks have 5.*\(train_dataloa'),
        ([0, 2], 'abcdef', r'letters has 6 classes \(a, b, .*\), the networks have 5'),
    ],
)
def test_labels_that_are_learnt_must_be_of_the_networks(teacher_file, labels, classes, words):
    teacher, student = dict(checkpoint=str(teacher_file)), STUDENT
    dataset = labelled(labels, classes)
    attention = dict(loss_weight=0.0)
    for model in (
        KD(teacher, student),
        STKD(teacher, student),
        CTKD(teacher, student, attention=attention),
    ):
        with pytest.raises(UsageError, match=words):
            learn_from(model, dataset)
    for model in (KD(teacher, student, alpha=1.0), STKD(teacher, student, ce_weight=0.0)):
        learn_from(model, dataset)  # labels are not read


def learn_from(model, dataset):
    loader, logger = SimpleNamespace(dataset=dataset), SimpleNamespace(info=lambda text: None)
    runner = SimpleNamespace(model=model, train_dataloader=loader, val_loop=None, logger=logger)
    TeacherHook().before_train(runner)


def test_a_slice_of_an_epoch_is_judged_by_its_set(teacher_file):
    """As mmengine makes it for ``num_batch_per_epoch``."""
    model = KD(dict(checkpoint=str(teacher_file)), STUDENT)
    learn_from(model, SimpleNamespace(_dataset=labelled([0, 4])))
    with pytest.raises(UsageError, match='labels up to 5'):
        learn_from(model, SimpleNamespace(_dataset=labelled([0, 5])))


def test_a_set_may_keep_what_it_was_made_of(teacher_file):
    dataset = labelled([0, 4])
    dataset._dataset = [1, 2]
    learn_from(KD(dict(checkpoint=str(teacher_file)), STUDENT), dataset)


@METRICS.register_module(force=True)
class OfItsOwnLabels(Accuracy):
    """A metric of a user's own that knows what is right."""

    def process(self, data_batch, data_samples):
        for batch in data_samples:
            super().process(None, [dict(batch, label=batch['index'] % 5)])


def test_an_accuracy_may_need_no_labels_of_the_set(train):
    changes = {
        'val_dataloader.dataset.labelled': False,
        'val_evaluator': [dict(type='OfItsOwnLabels')],
    }
    runner = train(**changes)
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() % (100 / 40) == 0


def test_a_validation_of_a_few_batches(train):
    runner = train(**{'train_cfg.max_epochs': 1, 'val_dataloader.num_batch_per_epoch': 1})
    assert len(runner.val_dataloader.dataset) == 32
    assert runner.message_hub.get_info('teacher_accuracy') % (100 / 32) == 0


def test_labels_of_teachers_too():
    images = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    with pytest.raises(UsageError, match='labels up to 5'):
        learn_from(Supervised(dict(STUDENT, **images)), labelled([5]))
    with pytest.raises(UsageError, match=r'train_dataloader\.dataset is a range, which is none of'):
        learn_from(Supervised(dict(STUDENT, **images)), range(3))


def test_accuracies_without_labels_are_refused_before_the_first_step(train):
    def watch(runner):
        runner.model.train_step = lambda *_: pytest.fail('a step was taken')

    unlabelled = {'val_dataloader.dataset.labelled': False}
    with pytest.raises(UsageError, match=r"val_evaluator=\[dict\(type='Agreement'\)\]"):
        train(before=watch, **unlabelled)


def test_accuracies_of_a_test_without_labels_are_refused_too():
    dataset = PackedDataset(np.zeros((3, 2, 2, 1), np.uint8), None, dict(name='letters'))
    loop = SimpleNamespace(
        dataloader=SimpleNamespace(dataset=dataset),
        evaluator=SimpleNamespace(metrics=[Agreement(), Accuracy()]),
    )
    model = SimpleNamespace(student=SimpleNamespace(num_classes=5))
    with pytest.raises(UsageError, match='images of test_dataloader have none. Use test_evaluator'):
        TeacherHook().before_test(SimpleNamespace(model=model, test_loop=loop))


def test_a_set_may_have_no_names_of_classes(train):
    def forget_names(runner):
        del runner.val_dataloader.dataset.metainfo['classes']

    runner = train(before=forget_names, **{'train_cfg.max_epochs': 1})
    assert 0 <= runner.message_hub.get_info('teacher_accuracy') <= 100


def test_as_many_images_at_once_as_asked_for():
    assert TeacherHook(batch_size=7).cache.batch_size == 7


@pytest.mark.parametrize(('hits', 'doubted'), [(0, True), (8, True), (9, False)])
def test_a_teacher_that_guesses_is_doubted(train, monkeypatch, hits, doubted):
    """Of 40 images of 5 classes; in the others this teacher sees the next class."""
    warnings, get = [], LogitsCache.get

    def answer(self, teacher, dataset, preprocessor):
        if dataset.labels is None:  # the pool
            return get(self, teacher, dataset, preprocessor)
        seen = torch.as_tensor(dataset.labels) + (torch.arange(40) >= hits)
        return torch.nn.functional.one_hot(seen % 5, 5).float()

    def confuse(runner):
        monkeypatch.setattr(runner.logger, 'warning', warnings.append)
        monkeypatch.setattr(LogitsCache, 'get', answer)

    train(before=confuse, **{'train_cfg.max_epochs': 1})
    said = any('no better than guessing on labelled noise' in text for text in warnings)
    assert said == doubted


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_a_teacher_that_is_no_number(train, value):
    def break_it(runner):
        with torch.no_grad():
            runner.model.teacher.head.fc.bias[0] = float(value)

    with pytest.raises(UsageError, match=r'predicts NaN or infinity.*model\.teacher\.checkpoint'):
        train(before=break_it)


def test_no_teacher(train):
    with pytest.raises(UsageError, match=r'model\.teacher is None'):
        train(**{'model.teacher': None})


def checkpoint_of(fingerprint):
    return dict(meta={} if fingerprint is None else dict(teacher_fingerprint=fingerprint))


def test_checkpoints_are_signed_and_checked():
    runner = SimpleNamespace(model=SimpleNamespace(teacher_fingerprint=lambda: 'abc'))
    hook, checkpoint = TeacherHook(), dict(meta={})
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint == dict(meta=dict(teacher_fingerprint='abc'))
    hook.after_load_checkpoint(runner, checkpoint)
    hook.after_load_checkpoint(runner, dict(meta={}))  # a student file
    hook.after_load_checkpoint(runner, {})
    with pytest.raises(UsageError, match=r'fingerprint xyz, the config loads abc'):
        hook.after_load_checkpoint(runner, dict(meta=dict(teacher_fingerprint='xyz')))
