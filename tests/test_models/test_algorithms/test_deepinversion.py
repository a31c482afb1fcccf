# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import DeepInversion
from mmdfkd.models.algorithms.deepinversion import warmup_cosine
from mmdfkd.models.classifiers import Classifier, ForeignClassifier, build_teacher
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

SMALL = dict(batch_size=8, iterations=4)
OFF = dict(loss_weight=0.0)
CLOSE = dict(atol=1e-9, rtol=0)


def optimizers_of(model, lr=0.01, wrapper='OptimWrapper'):
    config = dict(student=dict(type=wrapper, optimizer=dict(type='SGD', lr=lr)))
    return RoleOptimWrapperConstructor(config)(model)


def synthesize(model, seed=0, **options):
    torch.manual_seed(seed)
    return model.synthesize(optimizers_of(model), **options)


@pytest.fixture
def make(teacher, student):
    return lambda **options: DeepInversion(teacher, student, **{**SMALL, **options}).train()


# Against the published code -------------------------------------------------------------------


def replay(model, draws, monkeypatch, targets, views):
    """Synthesise with the random numbers of a golden run."""
    monkeypatch.setattr(model, 'draw_noise', lambda: draws[0].clone())
    monkeypatch.setattr(model, 'draw_targets', lambda: targets)
    monkeypatch.setattr(model, 'draw_view', lambda jitter: next(views))
    return model.synthesize(optimizers_of(model))


def test_three_steps_of_the_published_code(golden, toy_network, monkeypatch, snapshot, changed):
    """The CIFAR script: Adam 0.05, weights 10, 2.5e-5, 10 and 3e-8; its 'best' is the last."""
    arrays = golden('deepinversion')
    draws = [value for key, value in arrays.items() if key.startswith('cifar_step/draws/')]
    teacher = build_teacher(toy_network(4, arrays, 'cifar_step/teacher'))
    student = toy_network(3, arrays, 'cifar_step/student')
    model = DeepInversion(
        teacher, student, batch_size=4, iterations=3, clamp=False, keep='last'
    ).double()
    model.train()
    before = [snapshot(network) for network in (teacher, student)]
    shifts = torch.stack(draws[5:]).view(3, 2).tolist()
    views = iter((tuple(shift), False) for shift in shifts)
    made = replay(model, draws, monkeypatch, torch.stack(draws[1:5]), views)
    torch.testing.assert_close(made.images, arrays['cifar_step/images_after'], **CLOSE)
    assert bool(arrays['cifar_step/best_is_last_iterate'])
    assert not changed(teacher, before[0]) and not changed(student, before[1])
    assert student.training and not teacher.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules())


def test_three_steps_of_the_benchmarks(golden, toy_network, monkeypatch):
    """The code of CMI and FastDFKD, its 'deepinv'."""
    arrays = golden('deepinversion')
    draws = [value for key, value in arrays.items() if key.startswith('fw_step/draws/')]
    teacher = build_teacher(toy_network(4, arrays, 'fw_step/teacher'))
    student = toy_network(3, arrays, 'fw_step/student')
    model = DeepInversion(
        teacher,
        student,
        batch_size=6,
        iterations=3,
        optimizer=dict(lr=0.1, betas=(0.5, 0.99)),
        total_variation=dict(form='l1', loss_weight=1e-3),
        image_norm=dict(loss_weight=1e-5),
        compete=dict(loss_weight=1.0),
        student_bn_weight=10 * 0.001,
        jitter=1,
        flip=True,
        priors_on='pixels',
        keep='last',
    ).double()
    views = iter(((int(draws[n]), int(draws[n + 1])), bool(draws[n + 2] > 0.5)) for n in (2, 5, 8))
    made = replay(model, draws, monkeypatch, draws[1].sort()[0], views)
    statistics = torch.tensor([teacher.mean, teacher.std], dtype=torch.float64)
    mean, std = statistics.view(2, 3, 1, 1)
    pixels = (made.images * std + mean) / 255
    torch.testing.assert_close(pixels, arrays['fw_step/images01_after'], **CLOSE)


def test_learning_rates_of_the_published_code(golden):
    arrays = golden('deepinversion')
    rates = [0.2 * warmup_cosine(step, 100, 2000) for step in arrays['lr/iteration'].tolist()]
    expected = arrays['lr/value_base0.2_warm100_total2000']
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), expected, **CLOSE)


def test_pixel_range_of_the_published_code(golden, teacher):
    arrays = golden('deepinversion')
    imagenet = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    colour = {**teacher.config, **imagenet, 'input_shape': (3, 6, 7)}
    colour['backbone'] = dict(colour['backbone'], in_channels=3)
    model = DeepInversion(
        build_teacher(MODELS.build(colour)), dict(backbone=colour['backbone'], head=colour['head'])
    )
    images = 3 * arrays['prior/x']
    model.clamp_pixels(images)
    torch.testing.assert_close(images, arrays['prior/clip_imagenet'], **CLOSE)


# What a round does ----------------------------------------------------------------------------


def test_images_become_what_was_asked_for(make):
    model = make(batch_size=32, iterations=60, class_weight=10.0, compete=OFF)
    torch.manual_seed(0)
    targets = model.draw_targets()
    noise = model.draw_noise()
    made = synthesize(model)
    assert torch.equal(made.targets, targets) and made.images.shape == noise.shape
    start, _ = model.image_loss(noise, noise, targets, False)
    assert sum(made.logs.values()) < 0.7 * start
    asked = [
        (model.teacher(images).argmax(1) == targets).double().mean()
        for images in (noise, made.images)
    ]
    assert asked[1] > asked[0]
    assert not made.images.requires_grad
    assert made.logs.keys() == {'loss_bn', 'loss_class', 'loss_tv', 'loss_norm'}


def test_competition_makes_them_disagree(make, teacher):
    """Sign: the divergence grows where it has a weight, more than where it has none."""
    found = []
    for weight in (0.0, 10.0):
        model = make(
            batch_size=32,
            iterations=30,
            compete=dict(form='exact', loss_weight=weight),
            bn_statistics=OFF,
            class_weight=0.0,
        )
        torch.manual_seed(1)
        model.init_weights()
        images = synthesize(model).images
        model.eval()
        found.append(model.compete.__class__(form='exact')(model.student(images), teacher(images)))
    assert found[1] > 1.2 * found[0]


def test_nobody_else_is_changed(make, snapshot, changed):
    model = make()
    before = [snapshot(network) for network in (model.teacher, model.student)]
    synthesize(model)
    assert not changed(model.teacher, before[0]) and not changed(model.student, before[1])
    assert model.student.training and not model.teacher.training
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.student.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_round_depends_on_its_random_numbers_alone(make):
    model = make()
    first, again, other = synthesize(model), synthesize(model), synthesize(model, seed=1)
    assert torch.equal(first.images, again.images) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)


def test_no_student_is_asked_without_an_adversary(make, monkeypatch):
    for model, options in (
        (make(), dict(adversary=False)),
        (make(compete=OFF), {}),
        (make(student_bn_weight=0.1), dict(adversary=False)),
    ):
        monkeypatch.setattr(model.student, 'forward', None)
        assert 'loss_compete' not in synthesize(model, **options).logs


def test_each_step_is_reported(make):
    calls = []
    synthesize(make(coarse_share=0.5), on_step=lambda: calls.append(1))
    assert len(calls) == 4


# Every switch ---------------------------------------------------------------------------------


def test_the_best_iterate_is_kept(make, monkeypatch):
    """Losses 3, 1, 2, 1 of four iterates: the second one, with its own loss, not a later pixel."""
    model = make()
    values, seen = iter([3.0, 1.0, 2.0, 1.0]), []

    def image_loss(images, view, targets, adversary):
        seen.append(images.detach().clone())
        loss = images.sum() * 0 + next(values)
        return loss + images.sum() - images.detach().sum(), dict(loss_class=loss)

    monkeypatch.setattr(model, 'image_loss', image_loss)
    made = synthesize(model)
    assert torch.equal(made.images, seen[1]) and made.logs['loss_class'] == 1
    values = iter([3.0, 1.0, 2.0, 1.0])
    model.keep = 'last'
    made = synthesize(model)
    assert not any(torch.equal(made.images, images) for images in seen)
    assert made.logs['loss_class'] == 1


@pytest.mark.parametrize('clamp', [True, False])
def test_pixels_stay_in_their_range(make, clamp):
    model = make(clamp=clamp, optimizer=dict(lr=1.0), keep='last', iterations=6)
    images = synthesize(model).images
    pixels = 60 * images + 120
    inside = bool((pixels > -1e-3).all() and (pixels < 255 + 1e-3).all())
    assert inside == clamp


def test_views(make):
    model = make(jitter=2, flip=True)
    images = torch.randn(2, 1, 16, 16)
    torch.manual_seed(0)
    views = [model.draw_view(2) for _ in range(200)]
    assert {shift for shift, _ in views} == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    assert 60 < sum(mirrored for _, mirrored in views) < 140
    model.draw_view = lambda jitter: ((1, -2), True)
    view = model.view(images)
    # pixel (y, x) of the shifted image comes from (y - 1, x + 2); then columns are mirrored
    assert view[0, 0, 5, 15 - 7] == images[0, 0, 4, 9]
    assert view[0, 0, 0, 15 - 15] == images[0, 0, 15, 1]
    still = make(jitter=0)
    assert torch.equal(still.view(images), images)
    assert not any(still.draw_view(0)[1] for _ in range(50))


def test_targets(make):
    model = make(batch_size=12, targets='balanced')
    assert model.draw_targets().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    random = make(batch_size=500).draw_targets()
    assert (random.diff() >= 0).all() and (random.bincount(minlength=5) > 60).all()


def test_a_coarse_view_is_the_mean_of_four_pixels(make):
    model = make(jitter=0)
    images = torch.arange(16.0).view(1, 1, 4, 4)
    assert model.view(images, 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


def test_the_norm_is_that_of_the_pixels_whatever_is_seen(make):
    model = make()
    images, targets = torch.randn(8, 1, 16, 16), torch.zeros(8).long()
    norms = [
        model.image_loss(images, view, targets, False)[1]['loss_norm']
        for view in (images, F.avg_pool2d(images, 2))
    ]
    assert norms[0] == norms[1] == model.image_norm(images)


def test_disagreement_is_rewarded_with_up_to_its_weight(make):
    model = make()
    images, targets = torch.randn(8, 1, 16, 16), torch.zeros(8).long()
    model.compete.forward = lambda student_logits, teacher_logits: 10 * torch.tensor(0.25)
    assert model.image_loss(images, images, targets, True)[1]['loss_compete'] == 7.5


def test_the_students_statistics_count_without_a_competition_too(make):
    model = make(compete=OFF, student_bn_weight=0.1)
    assert synthesize(model).logs['loss_student_bn'] < 0


def test_half_the_resolution_first(make, monkeypatch):
    """Two of three parts see 8 pixels; each part warms up and cools down by itself."""
    schedule = dict(optimizer=dict(lr=0.1), warmup=2)
    model = make(iterations=6, coarse_share=2 / 3, jitter=5, **schedule)
    sizes, rates, shifts = [], [], []
    monkeypatch.setattr(model.teacher, 'register_forward_pre_hook', None, raising=False)
    original, draw = model.image_loss, model.draw_view

    def image_loss(images, view, *args):
        assert images.shape[2:] == (16, 16)
        sizes.append(view.shape[2])
        return original(images, view, *args)

    def draw_view(jitter):
        shifts.append(jitter)
        return draw(jitter)

    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        'step',
        lambda self: (rates.append(self.param_groups[0]['lr'] / 0.1), step(self))[1],
    )
    monkeypatch.setattr(model, 'image_loss', image_loss)
    monkeypatch.setattr(model, 'draw_view', draw_view)
    synthesize(model)
    assert sizes == [8] * 4 + [16] * 2 and shifts == [2] * 4 + [5] * 2
    assert rates == pytest.approx([0.5, 1, 1, 0.5, 0.5, 1])


def test_the_last_step_sees_the_whole_image(make, monkeypatch):
    model, sizes = make(coarse_share=0.9), []
    original = model.image_loss

    def image_loss(images, view, *args):
        sizes.append(view.shape[2])
        return original(images, view, *args)

    monkeypatch.setattr(model, 'image_loss', image_loss)
    assert synthesize(model).images.isfinite().all()
    assert sizes == [8] * 3 + [16]


def test_a_constant_learning_rate(make, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        'step',
        lambda self: (rates.append(self.param_groups[0]['lr']), step(self))[1],
    )
    synthesize(make(optimizer=dict(lr=0.3)))
    assert rates == [0.3] * 4


@pytest.mark.parametrize(
    'options',
    [
        dict(compete=dict(form='exact')),
        dict(compete=dict(temperature=1.0)),
        dict(bn_statistics=dict(first_weight=10.0)),
        dict(bn_statistics=dict(form='gauss_kl', loss_weight=1.0)),
        dict(total_variation=dict(form='l1')),
        dict(image_norm=dict(form='image')),
        dict(priors_on='pixels'),
        dict(student_bn_weight=0.001),
        dict(student_bn_weight=0.001, compete=OFF),
        dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
    ],
)
def test_switches(make, options):
    plain, switched = make(), make(**options)
    switched.student.load_state_dict(plain.student.state_dict())
    made = synthesize(switched)
    assert made.images.isfinite().all()
    assert not torch.equal(made.images, synthesize(plain).images)


def test_student_loss(make, make_batch):
    """T^2 KL at T = 3 on bank images, and only the student moves."""
    model = make()
    batch = make_batch()
    images = (batch['inputs'].float() - 120) / 60
    student, teacher = model.student(images), model.teacher(images)
    expected = 9 * F.kl_div(
        (student / 3).log_softmax(1), (teacher / 3).softmax(1), reduction='batchmean'
    )
    logs = model.train_step(batch, optimizers_of(model))
    torch.testing.assert_close(logs['loss_student'], expected.detach(), rtol=1e-4, atol=1e-5)


def test_both_networks_see_augmented_images(make, make_batch):
    """Mirrored ones, as the data preprocessor was told."""
    model = make(data_preprocessor=dict(augment=[dict(type='BatchRandomFlip', prob=1.0)]))
    seen, batch = [], make_batch()
    for network in (model.teacher, model.student):
        network.register_forward_pre_hook(lambda network, given: seen.append(given[0]))
    model.train_step(batch, optimizers_of(model))
    expected = ((batch['inputs'].float() - 120) / 60).flip(3)
    assert len(seen) == 2
    for images in seen:
        torch.testing.assert_close(images, expected)


def test_rounds_before_an_epoch(make):
    """Three to warm up, two ahead of each of four epochs, none behind the last."""
    model = make(rounds=2, warmup_rounds=3)
    assert [model.rounds_before(epoch, 4) for epoch in range(5)] == [5, 7, 9, 11, 11]


def test_class_loss_is_computed_in_single(make):
    model, logits, targets = make(class_weight=2.0), torch.randn(8, 5).half(), torch.arange(8) % 5
    loss = model.class_loss(logits, targets)
    torch.testing.assert_close(loss, 2 * F.cross_entropy(logits.float(), targets))


def test_mixed_precision(make):
    model = make()
    made = model.synthesize(optimizers_of(model, wrapper=AutocastOptimWrapper))
    assert made.images.dtype == torch.float32 and made.images.isfinite().all()
    assert all(value.dtype == torch.float32 for value in made.logs.values())


# Several processes ----------------------------------------------------------------------------


def _rank(rank, model):
    return synthesize(model).images


def test_two_processes_make_the_images_of_one(make, in_two_processes):
    model = make()
    expected = synthesize(model).images
    for images in in_two_processes(_rank, model):
        torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(keep='first'), r"model\.keep='first'.*'best', 'last'"),
        (dict(targets='some'), r"model\.targets='some'.*'random', 'balanced'"),
        (dict(priors_on='map'), r"model\.priors_on='map'"),
        (dict(jitter=-1), r'model\.jitter is -1'),
        (dict(warmup=-1), r'model\.warmup is -1'),
        (dict(coarse_share=1.0), r'model\.coarse_share is 1\.0.*\[0, 1\)'),
        (dict(iterations=0), r'model\.iterations is 0'),
        (dict(batch_size=1), r'model\.batch_size is 1'),
        (dict(rounds=0), r'model\.rounds is 0'),
        (dict(warmup_rounds=-1), r'model\.warmup_rounds is -1'),
        (dict(compete=dict(form='both')), "form='both'"),
    ],
)
def test_usage_errors(make, options, words):
    with pytest.raises(UsageError, match=words):
        make(**options)


def test_the_teacher_as_its_own_adversary(teacher):
    with pytest.raises(UsageError, match=r'model\.student is the teacher itself'):
        DeepInversion(teacher, teacher)


def test_a_teacher_without_batch_norm(student):
    lenet = Classifier(
        dict(type='LeNet5', width=0.5),
        dict(in_channels=60, num_classes=5),
        input_shape=(1, 32, 32),
        mean=[78.0],
        std=[82.6],
        name='plain LeNet',
    )
    teacher = build_teacher(lenet)
    with pytest.raises(UsageError, match=r'plain LeNet has no BatchNorm.*weight of the BN loss'):
        DeepInversion(teacher, student)
    model = DeepInversion(teacher, student, bn_statistics=OFF, **SMALL)
    assert 'loss_bn' not in synthesize(model).logs


def test_a_student_without_batch_norm(teacher):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 5))
    images = {name: getattr(teacher, name) for name in ('input_shape', 'mean', 'std')}
    student = ForeignClassifier(linear, **images)
    words = r'The student .* \(model\.student\).* Set model\.student_bn_weight to 0\.$'
    with pytest.raises(UsageError, match=words):
        DeepInversion(teacher, student, student_bn_weight=0.1)
    DeepInversion(teacher, student)


def test_losses_that_are_no_numbers(make):
    with pytest.raises(UsageError, match=r'round 1 of synthesis was never a finite number'):
        synthesize(make(bn_statistics=dict(loss_weight=float('nan'))))


def test_defaults_are_those_of_the_paper(make):
    model = MODELS.build(dict(type='DeepInversion', teacher=make().teacher, student=make().student))
    assert (model.batch_size, model.iterations, model.jitter) == (256, 2000, 2)
    assert model.optimizer == dict(type='Adam', lr=0.05)
    assert model.bn_statistics.loss_weight == model.compete.loss_weight == 10
    assert model.total_variation.loss_weight == 2.5e-5 and model.total_variation.form == 'l2'
    assert model.image_norm.loss_weight == 3e-8 and model.image_norm.form == 'batch'
    assert model.divergence.temperature == model.compete.temperature == 3
