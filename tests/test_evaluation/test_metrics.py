# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.

import pytest
import torch
import torch.nn.functional as F

from mmdfkd.evaluation import Accuracy, Agreement
from mmdfkd.registry import METRICS
from mmdfkd.utils import UsageError

# 5 images, 3 classes; ranked classes: (0 1 2), (2 0 1), (1 2 0), (1 0 2), (2 1 0)
LOGITS = torch.tensor(
    [[3.0, 2.0, 1.0], [2.0, 1.0, 3.0], [1.0, 3.0, 2.0], [2.0, 3.0, 1.0], [0.0, 1.0, 2.0]]
)
LABELS = torch.tensor([0, 0, 0, 1, 1])  # ranks 1, 2, 3, 1, 2


def evaluate(metric, *batches):
    for batch in batches:
        metric.process(None, [batch])
    return metric.evaluate(size=5)


def test_top_k_by_hand():
    batch = dict(logits=LOGITS, label=LABELS)
    metrics = evaluate(Accuracy(topk=(1, 2, 3)), batch)
    assert metrics == {
        'accuracy/top1': pytest.approx(40.0),
        'accuracy/top2': pytest.approx(80.0),
        'accuracy/top3': pytest.approx(100.0),
    }
    # more than there are classes is all of them
    assert evaluate(Accuracy(topk=(1, 5)), batch)['accuracy/top5'] == 100.0


def test_other_networks_are_counted_beside_the_student():
    batch = dict(logits=LOGITS, expert_logits=F.one_hot(LABELS, 3).float(), label=LABELS)
    assert evaluate(Accuracy(topk=(1, 2)), batch) == {
        'accuracy/top1': pytest.approx(40.0),
        'accuracy/top2': pytest.approx(80.0),
        'accuracy/expert_top1': 100.0,
        'accuracy/expert_top2': 100.0,
    }


@pytest.mark.parametrize('sizes', [(5,), (2, 3), (4, 1), (1, 1, 1, 1, 1)])
def test_batches_do_not_matter(sizes):
    parts = [
        dict(logits=logits, label=label, teacher_prediction=label)
        for logits, label in zip(LOGITS.split(sizes), LABELS.split(sizes), strict=True)
    ]
    assert evaluate(Accuracy(), *parts) == {'accuracy/top1': pytest.approx(40.0)}
    assert evaluate(Agreement(), *parts) == {'agreement/teacher': pytest.approx(40.0)}


def test_adding_a_constant_changes_nothing():
    batch = dict(logits=LOGITS + 7, label=LABELS)
    assert evaluate(Accuracy(), batch) == {'accuracy/top1': pytest.approx(40.0)}


def test_of_equal_logits_the_first_class_counts():
    batch = dict(logits=torch.zeros(5, 40), label=torch.tensor([0, 0, 1, 20, 39]))
    batch['teacher_prediction'] = batch['label']
    assert evaluate(Accuracy(), batch) == {'accuracy/top1': pytest.approx(40.0)}
    assert evaluate(Agreement(), batch) == {'agreement/teacher': pytest.approx(40.0)}


def test_agreement_needs_no_labels_and_may_have_no_teacher():
    teacher = torch.tensor([0, 2, 1, 1, 0])  # same as the student in the first four
    batch = dict(logits=LOGITS, teacher_prediction=teacher)
    assert evaluate(Agreement(), batch) == {'agreement/teacher': pytest.approx(80.0)}
    assert evaluate(Agreement(), dict(logits=LOGITS, label=LABELS)) == {}


def test_accuracy_asks_for_labels():
    with pytest.raises(UsageError, match="needs labels.*type='Agreement'"):
        evaluate(Accuracy(), dict(logits=LOGITS))


def test_second_evaluation_starts_afresh():
    metric = Accuracy()
    evaluate(metric, dict(logits=LOGITS, label=LABELS))
    assert evaluate(metric, dict(logits=LOGITS[:1], label=LABELS[:1])) == {'accuracy/top1': 100.0}


def test_registered():
    metric = METRICS.build(dict(type='Accuracy', topk=(1, 5), prefix='val'))
    assert metric.topk == (1, 5) and metric.prefix == 'val'
    assert Accuracy(topk=5).topk == (5,)


@pytest.mark.parametrize('metric', [Accuracy, Agreement])
def test_how_counts_are_exchanged(metric):
    assert metric().collect_device == 'gpu'
    assert metric(collect_device='cpu').collect_device == 'cpu'
    with pytest.raises(UsageError, match='collect_device'):
        metric(collect_device='tpu')


def _with_one_image(rank):
    batch = dict(logits=LOGITS[:1], label=LABELS[:1], teacher_prediction=LABELS[:1])
    metrics = {}
    for metric in (Agreement(), Accuracy(), Agreement()):
        if rank == 0:
            metric.process(None, [batch])
        metrics |= metric.evaluate(1)
    return metrics, Agreement().evaluate(0)


def test_a_process_without_an_image(in_two_processes):
    expected = {'accuracy/top1': 100.0, 'agreement/teacher': 100.0}
    assert in_two_processes(_with_one_image) == [(expected, {})] * 2
