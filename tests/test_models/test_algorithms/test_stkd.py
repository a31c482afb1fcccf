# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.models.algorithms import KD, STKD
from mmdfkd.models.classifiers import build_teacher
from mmdfkd.models.modules import mix
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

# Unit vectors for images, linear networks: everything can be worked out on paper -----------------

PI = torch.tensor([[0, 1, 2], [1, 2, 0]])
STAY = torch.arange(3).expand(2, 3)
VIRTUAL = [[0.25, 0.75, 0], [0, 0.25, 0.75], [0.75, 0, 0.25]]


@MODELS.register_module()
class UnitBackbone(nn.Module):
    """The image is its own map."""

    def forward(self, images):
        return (images,)


def linear(rows):
    network = MODELS.build(
        dict(
            type='Classifier',
            backbone=dict(type='UnitBackbone'),
            head=dict(in_channels=3, num_classes=3),
            input_shape=(3, 1, 1),
            mean=[0.0] * 3,
            std=[1.0] * 3,
        )
    )
    with torch.no_grad():
        network.head.fc.weight.copy_(torch.tensor(rows))
        network.head.fc.bias.zero_()
    return network


@pytest.fixture
def unit_step():
    """One step; returns the logs, the student's logits and their gradient."""

    def step(take_steps, lam=0.25, partners=PI, student=None, **arguments):
        teacher = build_teacher(linear([[2.0, 0, 0], [0, 2, 0], [0, 0, 2]]))
        student = linear(student or [[1.0, 0, 0], [0, 1, 0], [0, 1, 1]])
        model = STKD(teacher, student, **arguments)
        weights = torch.tensor([[lam], [1 - lam]])
        model.mixup.draw = lambda samples: (weights, partners)
        seen = []

        def keep(module, inputs, output):
            output.retain_grad()
            seen.append(output)

        student.head.register_forward_hook(keep)
        batch = dict(inputs=torch.eye(3).view(3, 3, 1, 1), label=torch.arange(3))
        return take_steps(model, batch), seen

    return step


def test_virtual_samples_and_labels():
    weights = torch.tensor([[0.25], [0.75]])
    assert mix(torch.eye(3), weights, PI).tolist() == VIRTUAL


def test_terms_by_hand(unit_step, take_steps):
    logs, (logits,) = unit_step(take_steps, temperature=4.0, kd_weight=1.0)
    expected = [[0.25, 0.75, 0.75], [0, 0.25, 1], [0.75, 0, 0.25]]
    torch.testing.assert_close(logits.detach(), torch.tensor(expected))
    assert logs['loss_ce'].item() == pytest.approx(0.912419, abs=1e-6)
    assert logs['loss_kd'].item() == pytest.approx(0.087962, abs=1e-6)  # 16 * 0.005498
    labels = torch.arange(3)
    two_terms = 0.25 * F.cross_entropy(logits, labels) + 0.75 * F.cross_entropy(logits, PI[1])
    assert logs['loss_ce'].item() == pytest.approx(two_terms.item(), abs=1e-6)


def test_both_weightings(unit_step, take_steps):
    assert unit_step(take_steps)[0]['loss'].item() == pytest.approx(0.921174, abs=1e-6)
    arguments = dict(ce_weight=0.1, kd_weight=0.9, temperature=4.0)
    logs, (logits,) = unit_step(take_steps, **arguments)
    assert logs['loss'].item() == pytest.approx(0.170408, abs=1e-6)
    assert logits.grad[0].tolist() == pytest.approx([-0.012153, -0.082506, 0.094659], abs=1e-6)


def test_mixed_probabilities(unit_step, take_steps):
    arguments = dict(kd_weight=1.0, temperature=4.0, target='mixed_probabilities')
    logs, _ = unit_step(take_steps, **arguments)
    assert logs['loss_kd'].item() == pytest.approx(0.101283, abs=1e-6)  # 16 * 0.006330
    model = STKD(
        build_teacher(linear([[2.0, 0, 0], [0, 2, 0], [0, 0, 2]])), linear(VIRTUAL), **arguments
    )
    eye, weights = torch.eye(3).view(3, 3, 1, 1), torch.tensor([[0.25], [0.75]])
    target = model.teacher_target(eye, mix(eye, weights, PI), weights, PI)
    expected = [0.318517, 0.407414, 0.274069]  # the teacher on x~ says .315804, .405500, .278696
    assert (target[0] / 4).softmax(0).tolist() == pytest.approx(expected, abs=1e-6)
    in_double = model.double().teacher_target(eye.double(), eye.double(), weights, PI)
    assert in_double.dtype == torch.float64


@pytest.mark.parametrize('target', ['mixed_image', 'mixed_probabilities'])
@pytest.mark.parametrize('unmixed', [dict(lam=1.0), dict(lam=0.3, partners=STAY)])
def test_unmixed_it_is_plain_kd(unit_step, take_steps, unmixed, target):
    arguments = dict(kd_weight=1.0, temperature=4.0, target=target)
    logs, _ = unit_step(take_steps, **unmixed, **arguments)
    assert logs['loss_ce'].item() == pytest.approx(0.654961, abs=1e-6)
    assert logs['loss_kd'].item() == pytest.approx(0.199514, abs=1e-5)


@pytest.mark.parametrize('lam', [0.0, 0.25, 0.5, 1.0])
def test_a_student_like_its_teacher(unit_step, take_steps, lam):
    same = [[2.0, 0, 0], [0, 2, 0], [0, 0, 2]]
    logs, _ = unit_step(take_steps, lam, student=same)
    assert logs['loss_kd'].item() == pytest.approx(0, abs=1e-7)
    logs, _ = unit_step(take_steps, lam, student=same, target='mixed_probabilities')
    assert (logs['loss_kd'].item() > 1e-5) == (0 < lam < 1)


def test_probabilities_that_underflow(take_steps):
    """At such logits all but one probability are 0 in float32; the target stays finite."""
    certain = [[600.0, 0, 0], [0, 600, 0], [0, 0, 600]]
    student = linear([[1.0, 0, 0], [0, 1, 0], [0, 1, 1]])
    model = STKD(build_teacher(linear(certain)), student, target='mixed_probabilities')
    batch = dict(inputs=torch.eye(3).view(3, 3, 1, 1), label=torch.arange(3))
    assert take_steps(model, batch)['loss'].isfinite()
    assert all(p.isfinite().all() for p in student.parameters())


# On networks with BatchNorm ----------------------------------------------------------------------

SWITCHES = dict(
    default={},
    mixed_probabilities=dict(target='mixed_probabilities'),
    clean_branch=dict(clean_branch=True),
    three=dict(mixup=dict(num_mix=3)),
    per_sample=dict(mixup=dict(per_sample=True, alpha=0.2)),
    no_labels=dict(ce_weight=0.0),
    no_teacher=dict(kd_weight=0.0),
    no_teacher_mixed_probabilities=dict(kd_weight=0.0, target='mixed_probabilities'),
)


@pytest.mark.parametrize('switch', SWITCHES)
def test_every_switch_trains_the_student_and_not_the_teacher(
    teacher, student, make_batch, take_steps, snapshot, changed, switch
):
    model = STKD(teacher, student, **SWITCHES[switch])
    before, frozen = snapshot(model.student), snapshot(teacher)
    logs = take_steps(model, make_batch(labelled=switch != 'no_labels'))
    assert all(value.isfinite() and not value.requires_grad for value in logs.values())
    assert changed(model.student, before) == set(before)
    assert not changed(teacher, frozen)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    terms = [value for name, value in logs.items() if name != 'loss']
    torch.testing.assert_close(logs['loss'], sum(terms))
    assert ('loss_ce' in logs) == (switch != 'no_labels')
    assert ('loss_kd' in logs) == (not switch.startswith('no_teacher'))


@pytest.mark.parametrize(
    ('switch', 'passes'),
    [('default', (1, 1)), ('mixed_probabilities', (1, 1)), ('clean_branch', (2, 2))]
    + [('no_teacher', (0, 1)), ('no_teacher_mixed_probabilities', (0, 1))],
)
def test_passes_through_the_networks(teacher, student, make_batch, take_steps, switch, passes):
    calls = []
    model = STKD(teacher, student, **SWITCHES[switch])
    for network in (model.teacher, model.student):
        network.backbone.register_forward_hook(lambda module, *_: calls.append(module))
    take_steps(model, make_batch(labelled=True))
    found = [sum(call is n.backbone for call in calls) for n in (model.teacher, model.student)]
    assert tuple(found) == passes


def test_teacher_and_student_see_the_same_virtual_samples(teacher, student, make_batch, take_steps):
    seen = []
    model = STKD(teacher, student)
    for network in (model.teacher, model.student):
        network.backbone.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    batch = make_batch(labelled=True)
    take_steps(model, batch)
    assert torch.equal(*seen)
    images = (batch['inputs'] - 120.0) / 60
    assert not torch.equal(seen[0], images)
    model.eval().val_step(batch)
    torch.testing.assert_close(seen[-1], images)  # nothing is mixed in evaluation


def test_clean_branch_is_kd_beside_it(teacher, student, make_batch, take_steps):
    model = STKD(teacher, student, clean_branch=True, kd_weight=0.3, temperature=2.0)
    torch.manual_seed(3)
    twin = KD(teacher, student, temperature=2.0, alpha=0.3, ce_weight=1.0)
    twin.student.load_state_dict(model.student.state_dict())
    batch = make_batch(labelled=True)
    logs, plain = take_steps(model, batch), take_steps(twin, batch)
    torch.testing.assert_close(logs['loss_ce_clean'] + logs['loss_kd_clean'], plain['loss'])


def test_a_fixed_seed_gives_a_fixed_student(teacher, student, make_batch, take_steps):
    batches, heads = [make_batch(labelled=True) for _ in range(3)], []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        model = STKD(teacher, student)
        torch.manual_seed(seed)
        take_steps(model, *batches)
        heads.append(model.student.head.fc.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize('switch', ['default', 'mixed_probabilities', 'clean_branch', 'three'])
def test_a_step_never_waits_for_the_device(
    count_reads, teacher, student, make_batch, take_steps, switch
):
    model = STKD(teacher, student, **SWITCHES[switch])
    with count_reads as counter:
        take_steps(model, make_batch(labelled=True))
    assert counter.reads == 0


@pytest.mark.parametrize('switch', ['default', 'mixed_probabilities', 'per_sample'])
def test_mixed_precision_is_close_to_full(teacher, student, make_batch, take_steps, switch):
    logs, batch = [], make_batch(labelled=True)
    for half in (False, True):
        torch.manual_seed(7)
        model = STKD(teacher, student, **SWITCHES[switch])
        torch.manual_seed(8)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            logs.append(take_steps(model, batch))
    for name in logs[0]:
        torch.testing.assert_close(logs[1][name], logs[0][name], atol=0.02, rtol=0.05, msg=name)
        assert logs[1][name].dtype == torch.float32


def test_learning_rates(learning_rates):
    # by epoch, from 1: 0.1 to 260, 0.01 to 290, 0.001 to 300
    expected = [0.1] * 260 + [0.01] * 30 + [0.001] * 10
    assert learning_rates('slkd_300e') == pytest.approx(expected)


def test_usage_errors(teacher, student, make_batch, take_steps):
    with pytest.raises(UsageError, match=r'STKD mixes labels .*model\.ce_weight=0'):
        take_steps(STKD(teacher, student), make_batch())
    with pytest.raises(UsageError, match="model.target='mixed' is not known"):
        STKD(teacher, student, target='mixed')
    for wrong in (dict(kd_weight=-0.1), dict(kd_weight=0.0, ce_weight=0.0)):
        with pytest.raises(UsageError, match=r'model\.kd_weight=.* one must be positive'):
            STKD(teacher, student, **wrong)


def test_registered(teacher, student):
    model = MODELS.build(dict(type='STKD', teacher=teacher, student=student))
    assert model.method == 'STKD' and model.roles() == dict(student=[model.student])
