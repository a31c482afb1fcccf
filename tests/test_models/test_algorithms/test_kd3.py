# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import KD3
from mmdfkd.models.algorithms.kd3 import statistics_kept
from mmdfkd.models.classifiers import (
    Classifier,
    build_teacher,
    load_classifier,
    save_classifier,
    share_classifier,
)
from mmdfkd.models.modules import ProjectionHead
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-4)


# Against the published code -------------------------------------------------------------------


@MODELS.register_module()
class GoldenToyBackbone(nn.Module):
    """The networks of the golden numbers, see tests/data/README.md."""

    def __init__(self, first, second):
        super().__init__()
        self.conv1 = nn.Conv2d(3, first, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)

    def forward(self, images):
        x = F.relu(self.bn1(self.conv1(images)))
        return (F.relu(self.bn2(self.conv2(x))),)


PARTS = {  # golden prefix -> ours
    'S.fc.': None,  # the student's own classifier: not part of our student
    'T.fc.': 'teacher.head.fc.',
    'T.': 'teacher.backbone.',
    'S.': 'student.backbone.',
    'A.': 'student.neck.',
    'Es.': 'student_head.',
    'Et.': 'teacher_head.',
}


def ours(golden, group):
    """Golden tensors of a group under our names."""
    named = {}
    for key, value in golden.items():
        if not key.startswith(f'{group}.'):
            continue
        key = key.removeprefix(f'{group}.')
        prefix = next(prefix for prefix in PARTS if key.startswith(prefix))
        if PARTS[prefix]:
            named[PARTS[prefix] + key.removeprefix(prefix)] = value
    return named


@pytest.fixture
def golden_model(kd3_golden):
    inputs = dict(input_shape=(3, 8, 8), mean=[0.0] * 3, std=[1.0] * 3)
    teacher = Classifier(
        dict(type='GoldenToyBackbone', first=6, second=8),
        dict(in_channels=8, num_classes=5),
        **inputs,
    )
    model = KD3(
        build_teacher(teacher),
        dict(backbone=dict(type='GoldenToyBackbone', first=4, second=6)),
        contrast=dict(loss_weight=0.001),
    )
    model.student_head, model.teacher_head = ProjectionHead(6, 4), ProjectionHead(8, 4)
    initial = ours(kd3_golden, 'e2e_init')
    for name, tensor in nn.Module.state_dict(model).items():
        if not name.startswith('student.head.'):  # the teacher's
            tensor.copy_(initial.pop(name))
    assert not initial
    return model


def test_two_steps_of_the_published_code(kd3_golden, golden_model):
    model = golden_model.train()
    lr, momentum, decay = kd3_golden['e2e_hyper'][:3].tolist()
    sgd = dict(type='SGD', lr=lr, momentum=momentum, weight_decay=decay)
    optimizers = RoleOptimWrapperConstructor(dict(student=dict(optimizer=sgd)))(model)
    gradients = {}
    optimizers['student'].optimizer.register_step_pre_hook(
        lambda *_: gradients.update(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    )
    for step in ('e2e_step1', 'e2e_step2'):
        drawn = kd3_golden[f'{step}_lmda'].flatten(), kd3_golden[f'{step}_perm'].long()
        model.perturbation.draw = lambda images, drawn=drawn: drawn
        images = kd3_golden[f'{step}_x']
        torch.testing.assert_close(model.perturb(images), kd3_golden[f'{step}_aug'], **CLOSE)
        gradients.clear()
        logs = model.train_step(dict(inputs=images), optimizers)
        for name, array, factor in (
            ('loss_wfa', 'kd', 1),
            ('loss_mdcl_student', 'ps', 0.001),
            ('loss_mdcl_teacher', 'pt', 0.001),
            ('loss', 'loss', 1),
        ):
            expected = factor * kd3_golden[f'{step}_{array}']
            torch.testing.assert_close(logs[name], expected, check_dtype=False, **CLOSE)
        torch.testing.assert_close(logs['weight'], kd3_golden[f'{step}_w'].mean(), **CLOSE)
        expected = ours(kd3_golden, f'{step}_grad')
        assert gradients.keys() == expected.keys()  # none for g_T and the teacher
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], msg=name, **CLOSE)
    state = nn.Module.state_dict(model)
    for name, expected in ours(kd3_golden, 'e2e_final').items():
        torch.testing.assert_close(state[name], expected, msg=name, **CLOSE)
    for name, expected in ours(kd3_golden, 'e2e_init').items():
        if name.startswith('teacher.'):
            assert torch.equal(state[name], expected), name
    assert state['student.backbone.bn1.num_batches_tracked'] == 4  # clean and perturbed, twice
    assert state['student.neck.transfer.1.num_batches_tracked'] == 2  # clean only


# Who is trained -------------------------------------------------------------------------------


def test_shared_head_is_the_teachers(teacher, student):
    model = KD3(teacher, student)
    assert model.student.head is model.teacher.head
    assert not any(parameter.requires_grad for parameter in model.student.head.parameters())


def test_teacher_is_bit_identical_after_training(
    teacher, student, make_batch, take_steps, snapshot, changed
):
    model = KD3(teacher, student)
    before = snapshot(teacher)
    model.init_weights()
    take_steps(model, *[make_batch() for _ in range(3)])
    assert not changed(model.teacher, before)
    assert not any(module.training for module in model.teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_initialisation_spares_the_shared_head(teacher, student, snapshot, changed):
    config = teacher.config
    config['head']['init_cfg'] = dict(type='Constant', layer='Linear', val=0.0)
    model = KD3(build_teacher(MODELS.build(config)), student)
    before = snapshot(model.teacher)
    model.init_weights()
    assert not changed(model.teacher, before)


def test_teachers_term_does_not_reach_the_student(teacher, student, make_batch, take_steps):
    states, batches = [], [make_batch() for _ in range(3)]
    for term in (True, False):
        torch.manual_seed(7)
        model = KD3(teacher, student, teacher_term=term)
        start = model.teacher_head.linear.weight.clone()
        torch.manual_seed(8)
        logs = take_steps(model, *batches)
        assert ('loss_mdcl_teacher' in logs) == term
        assert torch.equal(start, model.teacher_head.linear.weight) != term
        states.append(model.state_dict())
    different = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert different == {'teacher_head.linear.weight', 'teacher_head.linear.bias'}


# Every switch ---------------------------------------------------------------------------------

SWITCHES = dict(
    default={},
    adapter_linear=dict(adapter=dict(form='linear')),
    adapter_narrow=dict(adapter=dict(factor=6)),
    pooled=dict(feature='pooled'),
    no_weight=dict(alignment=dict(weight='none')),
    weight_of_paper=dict(alignment=dict(weight='one_minus_sigmoid', space='probs')),
    weight_on_probs=dict(alignment=dict(space='probs')),
    cross_view=dict(contrast=dict(form='cross_view', temperature=0.5)),
    no_contrast=dict(contrast=dict(loss_weight=0)),
    no_teacher_term=dict(teacher_term=False),
    autoaugment=dict(perturbation=dict(type='BatchAutoAugment', policy='cifar10')),
    weak_mix=dict(perturbation=dict(alpha=0.5, prob=0.5)),
    clean_only=dict(batch_norm='clean_only'),
    concat=dict(batch_norm='concat'),
    own_one_hot=dict(classifier='own_one_hot'),
    own_soft=dict(classifier='own_soft'),
    random=dict(selector=dict(mode='random')),
    only_teacher=dict(selector=dict(teacher_weight=1.0)),
)


@pytest.mark.parametrize('switch', SWITCHES)
def test_every_switch_trains_the_student_and_not_the_teacher(
    teacher, student, make_batch, take_steps, snapshot, changed, switch
):
    model = KD3(teacher, student, **SWITCHES[switch])
    before, frozen = snapshot(model.student), snapshot(teacher)
    logs = take_steps(model, make_batch())
    assert all(value.isfinite() for value in logs.values())
    parts = {name.split('.')[0] for name in changed(model.student, before)}
    own = switch.startswith('own')
    assert parts == ({'backbone', 'neck', 'head'} if own else {'backbone', 'neck'})
    assert not changed(teacher, frozen)
    terms = [logs[name] for name in logs if name not in ('loss', 'weight')]
    torch.testing.assert_close(logs['loss'], sum(terms))


def test_no_adapter_needs_equal_channels(teacher, student, make_batch, take_steps):
    with pytest.raises(UsageError, match="form='none' needs equal channels, found 4"):
        KD3(teacher, student, adapter=dict(form='none'))
    student['backbone']['widths'] = (2, 2, 6)
    model = KD3(teacher, student, adapter=dict(form='none'))
    assert not list(model.student.neck.parameters())
    assert take_steps(model, make_batch())['loss'].isfinite()


@pytest.mark.parametrize(('stride', 'side'), [(1, 4), (2, 2)])
def test_maps_of_different_size_meet_at_the_smaller(
    teacher, student, make_batch, take_steps, stride, side
):
    student['backbone']['stem_stride'] = stride
    model = KD3(teacher, student)
    assert model.student.extract(torch.randn(2, 1, 16, 16)).map.shape == (2, 6, side, side)
    assert take_steps(model, make_batch())['loss'].isfinite()


@pytest.mark.parametrize('contrast', [0.01, 0])
def test_passes_through_the_networks(teacher, student, make_batch, take_steps, contrast):
    calls = []
    model = KD3(teacher, student, contrast=dict(loss_weight=contrast))
    model.teacher.backbone.register_forward_hook(lambda *_: calls.append('teacher'))
    model.student.backbone.register_forward_hook(lambda *_: calls.append('student'))
    take_steps(model, make_batch())
    passes = 2 if contrast else 1
    assert sorted(calls) == ['student'] * passes + ['teacher'] * passes


def test_contrast_weight_scales_its_terms(teacher, student, make_batch, take_steps):
    logs, batch = [], make_batch()
    for weight in (0.01, 0.001):
        torch.manual_seed(7)
        model = KD3(teacher, student, contrast=dict(loss_weight=weight))
        logs.append(take_steps(model, batch))
    for name in ('loss_mdcl_student', 'loss_mdcl_teacher'):
        torch.testing.assert_close(logs[0][name], 10 * logs[1][name])
    assert torch.equal(logs[0]['loss_wfa'], logs[1]['loss_wfa'])


@pytest.mark.parametrize('form', ['nt_xent', 'cross_view'])
def test_clean_images_are_the_anchors(teacher, student, make_batch, take_steps, form):
    model = KD3(teacher, student, contrast=dict(form=form, loss_weight=1.0))
    model.perturbation.draw = lambda images: (torch.zeros(8), torch.arange(8).roll(1))
    batch = make_batch()
    images = (batch['inputs'] - 120.0) / 60
    mixed = model.train().perturb(images)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        vectors = dict(
            student=twin.student_views(images, mixed)[1:],
            teacher=[teacher.extract(view).vector for view in (images, mixed)],
        )
    logs = take_steps(model, batch)
    for network, views in vectors.items():
        clean, other = map(getattr(twin, f'{network}_head'), views)
        cosines = clean @ other.T / 0.3
        if form == 'cross_view':  # Eqs. (15), (16): a clean image against the others, mixed
            others = cosines.masked_fill(torch.eye(8).bool(), float('-inf'))
            expected = (others.logsumexp(1) - cosines.diagonal()).mean()
        else:
            expected = twin.contrast(clean, other)
        loss = logs[f'loss_mdcl_{network}']
        torch.testing.assert_close(loss, expected.detach(), atol=1e-5, rtol=1e-5)


def test_pooled_feature_is_the_mean_of_the_map(teacher, student):
    model = KD3(teacher, student, feature='pooled', alignment=dict(loss_weight=3.0))
    ones, weight = torch.ones(2, 6, 4, 4), torch.tensor([1.0, 0.5])
    pattern = torch.ones(2, 6, 4, 4)
    pattern[..., ::2] = -1.0  # mean 0 over the map
    # pooled: (1 - 0)^2 = 1, weights 1 and 1/2, mean 0.75, times 3
    assert model.align(ones, pattern, weight).item() == pytest.approx(2.25)
    model.feature = 'map'  # half of the pixels differ by 2: mean 2
    assert model.align(ones, pattern, weight).item() == pytest.approx(4.5)


def test_autoaugment_sees_the_pixels(teacher, student):
    model = KD3(teacher, student, perturbation=dict(type='BatchAutoAugment'))
    pixels = torch.randint(0, 256, (16, 1, 16, 16), dtype=torch.uint8)
    torch.manual_seed(5)
    expected = model.perturbation(pixels)
    torch.manual_seed(5)
    perturbed = model.perturb((pixels - 120.0) / 60)
    torch.testing.assert_close(perturbed, (expected - 120.0) / 60)


@pytest.mark.parametrize('switch', ['default', 'cross_view', 'own_soft', 'concat'])
def test_a_step_never_waits_for_the_device(
    count_reads, teacher, student, make_batch, take_steps, switch
):
    model = KD3(teacher, student, **SWITCHES[switch])
    with count_reads as counter:
        take_steps(model, make_batch())
    assert counter.reads == 0


@pytest.mark.parametrize('switch', ['default', 'pooled', 'cross_view', 'own_soft'])
def test_mixed_precision_is_close_to_full(teacher, student, make_batch, take_steps, switch):
    logs, batch = [], make_batch()
    for half in (False, True):
        torch.manual_seed(7)
        model = KD3(teacher, student, **SWITCHES[switch])
        torch.manual_seed(8)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            logs.append(take_steps(model, batch))
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for name in logs[0]:
        torch.testing.assert_close(logs[1][name], logs[0][name], atol=0.02, rtol=0.05, msg=name)
        assert logs[1][name].dtype == torch.float32


# BatchNorm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(('mode', 'batches'), [('separate', 2), ('clean_only', 1), ('concat', 1)])
def test_batch_norm_modes(teacher, student, make_batch, take_steps, mode, batches):
    model = KD3(teacher, student, batch_norm=mode)
    batch = make_batch()
    take_steps(model, batch, lr=0.0)
    norm = model.student.backbone.bn1
    assert norm.num_batches_tracked == batches
    assert model.student.neck.transfer[1].num_batches_tracked == 1
    assert norm.track_running_stats
    # momentum 0.1 from mean 0: after a clean pass alone, the mean is a tenth of the batch's
    images = (batch['inputs'] - 120.0) / 60
    clean = 0.1 * model.student.backbone.conv1(images).mean((0, 2, 3)).detach()
    assert torch.allclose(norm.running_mean, clean, atol=1e-6) == (mode == 'clean_only')


def test_concat_normalises_both_views_together(teacher, student):
    images, perturbed = torch.randn(4, 1, 16, 16), 3 + torch.randn(4, 1, 16, 16)
    model = KD3(teacher, student, batch_norm='concat').train()
    clean_map, clean, mixed = model.student_views(images, perturbed)
    expected = model.student.backbone(torch.cat([images, perturbed]))[-1]
    torch.testing.assert_close(clean_map, expected[:4])
    torch.testing.assert_close(torch.cat([clean, mixed]), expected.mean((2, 3)))
    model.batch_norm = 'separate'
    assert not torch.allclose(model.student_views(images, perturbed)[0], clean_map, atol=1e-3)


def test_statistics_kept_uses_the_batch_and_keeps_the_rest():
    norm = nn.BatchNorm1d(2)
    batch = 5 + torch.randn(8, 2)
    with pytest.raises(ZeroDivisionError), statistics_kept(norm):
        torch.testing.assert_close(norm(batch).mean(0), torch.zeros(2), atol=1e-5, rtol=0)
        raise ZeroDivisionError
    assert norm.running_mean.tolist() == [0, 0] and norm.num_batches_tracked == 0
    norm(batch)  # restored, also after an error
    assert norm.num_batches_tracked == 1


# A neck of the student's own ------------------------------------------------------------------


@pytest.mark.parametrize(
    ('weight', 'mode'), [(0.01, 'separate'), (0.01, 'clean_only'), (0, 'concat')]
)
def test_own_neck_is_trained_by_contrast_alone_and_stays_at_home(
    teacher, student, make_batch, take_steps, snapshot, changed, weight, mode
):
    student['neck'] = dict(type='ConvNeck', in_channels=4, out_channels=7)
    model = KD3(teacher, student, contrast=dict(loss_weight=weight), batch_norm=mode)
    assert model.student_head.linear.in_features == 7  # h is pooled behind it
    assert model.student.neck.in_channels == 4  # A takes the map before it
    before = snapshot(model.student_neck)
    take_steps(model, make_batch())
    assert bool(changed(model.student_neck, before)) == (weight > 0)
    passes = {'separate': 2, 'clean_only': 1, 'concat': 0}[mode]
    counts = [t for name, t in model.student_neck.state_dict().items() if 'num_batches' in name]
    assert counts and all(count == passes for count in counts)
    deployed = share_classifier(student, teacher, {})
    assert model.student.state_dict().keys() == deployed.state_dict().keys()


# A classifier of the student's own ------------------------------------------------------------


@pytest.mark.parametrize('kind', ['own_one_hot', 'own_soft'])
def test_own_classifier_learns_the_teachers_predictions(teacher, student, kind):
    model = KD3(teacher, student, classifier=kind)
    assert model.student.head is not model.teacher.head
    logits, target = torch.randn(4, 5), torch.randn(4, 5)
    loss = model.own_classifier_loss(logits, target)
    if kind == 'own_one_hot':
        expected = -logits.log_softmax(1)[range(4), target.argmax(1)].mean()
    else:
        ratio = target.log_softmax(1) - logits.log_softmax(1)
        expected = (target.softmax(1) * ratio).sum(1).mean()
    torch.testing.assert_close(loss, expected)


# The deployable student -----------------------------------------------------------------------


@pytest.mark.parametrize('switch', ['default', 'own_soft', 'adapter_linear'])
def test_student_deploys(tmp_path, teacher, student, make_batch, take_steps, switch):
    model = KD3(teacher, student, **SWITCHES[switch])
    take_steps(model, make_batch(), make_batch())
    save_classifier(tmp_path / 'student.pth', model.student, {})
    deployed = load_classifier(tmp_path / 'student.pth').eval()
    assert type(deployed) is Classifier
    images = torch.randn(3, 1, 16, 16)
    assert torch.equal(deployed(images), model.eval()(images))
    assert deployed.mean == teacher.mean and deployed.input_shape == teacher.input_shape
    counted = sum(p.numel() for p in deployed.parameters())
    assert counted == sum(p.numel() for p in model.student.parameters())


# Refusals -------------------------------------------------------------------------------------


def test_batch_of_one(teacher, student, make_batch, take_steps):
    with pytest.raises(UsageError, match=r'one image; KD³ needs at least 2.*batch_size'):
        take_steps(KD3(teacher, student), make_batch(1))


def test_classes_must_agree(teacher, student):
    student['head']['num_classes'] = 7
    with pytest.raises(UsageError, match=r'model\.student\.head\.num_classes is 7.* 5 classes'):
        KD3(teacher, student)


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        (dict(feature='mapp'), r"model\.feature='mapp'.*'map', 'pooled'"),
        (dict(batch_norm='both'), r"model\.batch_norm='both'.*'separate'"),
        (dict(classifier='own'), r"model\.classifier='own'.*'own_one_hot'"),
        (dict(selector=dict(mode='best')), r"model\.selector\.mode='best'"),
        (dict(alignment=dict(weight='one_minus_sigmoid')), 'does not train'),
    ],
)
def test_unknown_choices(teacher, student, wrong, named):
    with pytest.raises(UsageError, match=named):
        KD3(teacher, student, **wrong)


def test_registered(teacher, student):
    model = MODELS.build(dict(type='KD3', teacher=teacher, student=student))
    assert model.method == 'KD3'
    heads = [model.student_head, model.teacher_head]
    assert model.roles() == dict(student=[model.student, model.student_neck, *heads])
