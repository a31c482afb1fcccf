# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import HiDFD
from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.models.selectors import Selection
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

ADAM = dict(type='Adam', lr=2e-4, betas=(0.0, 0.999))
OPTIMIZERS = dict(
    student=dict(optimizer=dict(type='SGD', lr=0.1)),
    generator=dict(optimizer=ADAM),
    discriminator=dict(optimizer=ADAM),
)
SMALL = dict(  # for images of 16 pixels
    gan_epochs=1,
    num_synthetic=12,
    generator=dict(latent_size=4, width=2, multiples=(1, 1, 1)),
    discriminator=dict(width=2, multiples=(1, 2)),
    smoothing=dict(interval=2),
    average=dict(decay=0.5, start=2),
)


@pytest.fixture
def make_model(teacher, student):
    """A model that knows the classes of 16 pool images, and its optimisers."""

    def make(**options):
        model = HiDFD(teacher, student, **{**SMALL, **options}).train()
        labels = torch.arange(16) % 5
        model.remember_selection(Selection(torch.arange(8), torch.rand(16), labels))
        return model, RoleOptimWrapperConstructor(OPTIMIZERS)(model)

    return make


def as_student(model):
    model.set_stage('student')
    return model.train()


# Against the published code -------------------------------------------------------------------


@MODELS.register_module()
class PooledPixels(nn.Module):
    """The backbone of the golden teacher: means over 8 x 8 pixels, one linear layer, ReLU."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 12, bias=False)

    def forward(self, images):
        return (F.relu(self.layer(F.avg_pool2d(images, 8).flatten(1)))[:, :, None, None],)


@pytest.fixture
def published(golden, fill_biggan):
    """HiDFD with the networks of the published code's golden numbers, in double precision."""

    def make(integration, smoothing):
        arrays = golden('hidfd')
        teacher = Classifier(
            dict(type='PooledPixels'),
            dict(in_channels=12, num_classes=5),
            input_shape=(3, 32, 32),
            mean=[120.0] * 3,
            std=[60.0] * 3,
        )
        teacher.backbone.layer.weight.data = arrays['E_teacher_w1']
        teacher.head.fc.weight.data = arrays['E_teacher_w2']
        teacher.head.fc.bias.data.zero_()
        model = HiDFD(
            build_teacher(teacher),
            dict(backbone=dict(type='PooledPixels')),
            generator=dict(latent_size=8, width=2),
            discriminator=dict(width=2, align_hidden=10),
            feature_integration=integration,
            smoothing=dict(first=50, first_counts=512, **smoothing),
            average=dict(decay=0.9, start=1),
            teacher_input='raw',
        )
        fill_biggan(model.generator, arrays, 'E_G.')
        fill_biggan(model.discriminator, arrays, 'E_D.', is_discriminator=True)
        fill_biggan(model.average.network, arrays, 'E_G.')
        model = model.double().train()
        model.pseudo_labels = arrays['F_yreal'].flatten()
        return model, RoleOptimWrapperConstructor(OPTIMIZERS)(model), arrays

    return make


def test_discriminators_loss_of_published_code(published):
    """With its feature term made differentiable: all losses, and the gradient of their sum."""
    model, wrappers, arrays = published({}, {})
    gradients = {}
    for name, parameter in model.discriminator.named_parameters():
        parameter.register_hook(lambda value, name=name: gradients.update({name: value}))
    logs = model.move_discriminator(
        arrays['E_xreal'].double(),
        arrays['E_yreal'],
        arrays['E_z'].double(),
        arrays['E_y'],
        wrappers['discriminator'],
    )
    close = dict(rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(logs['loss_d_real'], arrays['E_D_loss_hinge_real'], **close)
    torch.testing.assert_close(logs['loss_d_fake'], arrays['E_D_loss_hinge_fake'], **close)
    torch.testing.assert_close(logs['loss_d_class'], arrays['E_D_loss_adc'], **close)
    features = logs['loss_transfer'] + logs['loss_blend']
    torch.testing.assert_close(features, 0.1 * arrays['E_D_loss_featint_raw'], **close)
    total = sum(logs.values())
    torch.testing.assert_close(total, arrays['E_D_loss_total_lambda0.1'], **close)
    ours = {
        'blocks.0.0.conv1': 'blocks.0.conv1',
        'blocks.3.0.conv2': 'blocks.3.conv2',
        'linear': 'heads.score',
        'adc': 'heads.classes',
        'linear_cls_1': 'heads.align.0',
        'linear_cls_2': 'heads.align.1',
    }
    for theirs, own in ours.items():
        found = gradients[f'{own}.parametrizations.weight.original']
        expected = arrays[f'E_D_gradwithreg.{theirs}.weight'].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=theirs)
    expected = arrays['E_D_gradwithreg.linear_cls_2.bias'].double()
    torch.testing.assert_close(gradients['heads.align.1.bias'], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('group', 'integration', 'smoothing'),
    [
        ('F', dict(detach=True), dict(mode='effective', interval=0)),
        ('F2', dict(detach=False), dict(mode='inverse', interval=1)),
    ],
)
def test_three_iterations_of_published_code(published, group, integration, smoothing, monkeypatch):
    """As published, and with both of its mechanisms set to work."""
    model, wrappers, arrays = published(integration, smoothing)
    draws = iter(zip(arrays['F_z'].double(), arrays['F_y'], strict=True))
    monkeypatch.setattr(model, 'draw', lambda labels: next(draws))
    monkeypatch.setattr(model.gan_preprocessor, 'forward', lambda data, training: data)
    before = copy.deepcopy(model.discriminator.state_dict())
    metrics = dict(
        G=['loss_g'], DR=['loss_d_real'], DF=['loss_d_fake'], GA=['loss_g_class'],
        DA=['loss_d_class'], D_reg=['loss_transfer', 'loss_blend'], G_reg=['loss_smoothing'],
    )  # fmt: skip
    for step in range(3):
        data = dict(inputs=arrays['F_x'][step].double(), index=torch.arange(4) + 4 * step)
        logs = model.train_step(data, wrappers)
        for name, parts in metrics.items():
            found, expected = sum(logs[part] for part in parts), arrays[f'{group}_metric_{name}']
            message = f'{name} of step {step}'
            torch.testing.assert_close(found, expected[step], rtol=2e-3, atol=1e-4, msg=message)
    after = dict(atol=5e-4, rtol=0, check_dtype=False)
    state = model.state_dict()
    for theirs, own in {
        'G_after3.linear.weight': 'generator.linear',
        'G_after3.blocks.2.0.conv2.weight': 'generator.blocks.2.conv2',
        'D_after3.blocks.0.0.conv1.weight': 'discriminator.blocks.0.conv1',
        'D_after3.linear.weight': 'discriminator.heads.score',
        'D_after3.linear_cls_2.weight': 'discriminator.heads.align.1',
    }.items():
        found = state[f'{own}.parametrizations.weight.original']
        torch.testing.assert_close(found, arrays[f'{group}_{theirs}'], **after, msg=theirs)
    moved = [
        not torch.equal(state[f'discriminator.{name}'], value)
        for name, value in before.items()
        if 'align' in name and name.endswith(('original', 'bias'))
    ]
    assert len(moved) == 4
    if group == 'F':
        assert not any(moved) and arrays['F_heads_unchanged'].all()
        name = 'average.network.linear.parametrizations.weight.original'
        torch.testing.assert_close(state[name], arrays['F_Gema_after3.linear.weight'], **after)
        assert torch.equal(model.smoothing.counts, arrays['F_pred_class_after3'].double())
        assert torch.equal(model.smoothing.weight, torch.ones(5))
    else:
        assert all(moved)
        torch.testing.assert_close(model.smoothing.frequency, arrays['F2_count_after3'])
        torch.testing.assert_close(
            model.smoothing.weight, arrays['F2_w_after3'], rtol=1e-5, atol=1e-5, check_dtype=False
        )


class Fixed(nn.Module):
    """A generator of one image."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, latent, wanted):
        return self.image


@pytest.mark.parametrize('range_', ['half_shift', 'per_image'])
def test_pixels_of_published_code(golden, make_model, range_):
    arrays = golden('hidfd')
    model, _ = make_model(synthetic_range=range_)
    image = arrays['I_img'][:1]  # one channel, as the teacher takes
    model.average = Fixed(image[None])
    made = model.make(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))
    pixels = model.test_preprocessor.denormalize(made)[0, 0]
    low, high = (image.min(), image.max()) if range_ == 'per_image' else (-1.0, 1.0)
    expected = 255 * (image[0] - low) / (high - low)
    assert (pixels - expected).abs().max() <= 0.5001
    if range_ == 'half_shift':  # three channels are stretched together in the other one
        assert (pixels - arrays['I_png_halfshift'][:, :, 0].float()).abs().max() <= 1


# Stage 1 --------------------------------------------------------------------------------------


def test_who_moves(make_model, make_batch, snapshot, changed):
    model, wrappers = make_model()
    parts = dict(
        teacher=model.teacher, student=model.student,
        generator=model.generator, discriminator=model.discriminator,
    )  # fmt: skip
    before = {name: snapshot(part) for name, part in parts.items()}
    logs = model.train_step(make_batch(), wrappers)
    moved = {name for name, part in parts.items() if changed(part, before[name])}
    assert moved == {'generator', 'discriminator'}
    assert all(value.ndim == 0 and not value.requires_grad for value in logs.values())
    assert all(p.grad is None for p in model.student.parameters())
    assert all(p.requires_grad for p in model.discriminator.parameters())
    assert all(p.grad is None for p in model.teacher.parameters())


def test_discriminator_is_moved_by_its_own_losses_only(make_model, make_batch):
    """The generator's step leaves nothing in D: one more D step is the same without it."""
    states = []
    for skip in (False, True):
        torch.manual_seed(3)
        model, wrappers = make_model()
        labels = torch.arange(8) % 5
        draws = [model.draw(labels) for _ in range(3)]
        real = torch.rand(8, 1, 16, 16)
        model.move_discriminator(real, labels, *draws[0], wrappers['discriminator'])
        if not skip:
            model.move_generator(*draws[1], wrappers['generator'])
        found = {n: p.grad for n, p in model.discriminator.named_parameters()}
        assert all(value is None or not value.any() for value in found.values())
        states.append([p.detach().clone() for p in model.discriminator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_each_stage_augments_the_collected_images_in_its_own_way(make_model, make_batch):
    """Here one of them mirrors, the other does not; scores are of plain images."""
    mirrored, batch = [dict(type='BatchRandomFlip', prob=1.0)], make_batch()
    model, wrappers = make_model(gan_augment=mirrored)
    images = batch['inputs'] / 127.5 - 1
    seen = []
    model.discriminator.register_forward_hook(lambda module, inputs, says: seen.append(inputs[0]))
    model.train_step(dict(batch), wrappers)
    torch.testing.assert_close(seen[0][8:], images.flip(3))
    model.score(dict(batch))
    torch.testing.assert_close(seen[-1], images)

    for options in (dict(gan_augment=mirrored), dict(data_preprocessor=dict(augment=mirrored))):
        model, wrappers = make_model(**options)
        as_student(model).student.backbone.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0])
        )
        model.train_step(dict(batch), wrappers)
        images = (batch['inputs'] - 120.0) / 60
        expected = images.flip(3) if 'data_preprocessor' in options else images
        torch.testing.assert_close(seen[-1], expected)


def test_weight_of_the_class_losses(make_model, make_batch):
    batch, logs = make_batch(), []
    for weight in (1.0, 0.25):
        torch.manual_seed(3)
        model, wrappers = make_model(class_weight=weight)
        for wrapper in wrappers.values():
            wrapper.optimizer.param_groups[0]['lr'] = 0.0  # so that G meets the same D
        logs.append(model.train_step(batch, wrappers))
    for name in ('loss_d_class', 'loss_g_class'):
        torch.testing.assert_close(logs[1][name], 0.25 * logs[0][name])
    torch.testing.assert_close(logs[1]['loss_g'], logs[0]['loss_g'])


def test_draws_have_the_precision_of_the_networks(make_model):
    model, _ = make_model()
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        latent, wanted = model.to(dtype).draw(torch.arange(6))
        assert latent.dtype == dtype and wanted.dtype == torch.int64
        torch.manual_seed(0)
        assert torch.equal(latent, torch.randn(latent.shape).to(dtype))


def test_aligning_learns_only_where_it_is_attached(make_model, make_batch):
    """Detached, the head does not move; attached, the distance to the teacher falls."""
    for detach in (True, False):
        torch.manual_seed(0)
        model, wrappers = make_model(feature_integration=dict(detach=detach, blend_weight=0.0))
        wrappers['discriminator'].optimizer.param_groups[0]['lr'] = 1e-2
        head = [p.detach().clone() for p in model.discriminator.heads.align.parameters()]
        losses = [model.train_step(make_batch(), wrappers)['loss_transfer'] for _ in range(40)]
        after = list(model.discriminator.heads.align.parameters())
        still = [torch.equal(a, b) for a, b in zip(head, after, strict=True)]
        if detach:
            assert all(still)
        else:
            assert not any(still)
            assert torch.stack(losses[-5:]).mean() < 0.7 * torch.stack(losses[:5]).mean()


def test_one_teacher_pass_for_each_step(make_model, make_batch):
    """D's step compares features of twice the batch, G's looks at its images; no others."""
    expected = {
        (0.1, 0.1): [16, 8],
        (0.0, 0.1): [8],  # without feature integration
        (0.1, 0.0): [16],  # without smoothing
        (0.0, 0.0): [],
    }
    for (integration, smoothing), passes in expected.items():
        model, wrappers = make_model(
            feature_integration=dict(transfer_weight=integration, blend_weight=integration),
            smoothing=dict(loss_weight=smoothing),
        )
        seen = []
        hook = model.teacher.backbone.register_forward_hook(
            lambda module, inputs, maps, seen=seen: seen.append(len(inputs[0]))
        )
        model.train_step(make_batch(), wrappers)
        hook.remove()
        assert seen == passes


def test_weights_follow_what_the_teacher_sees(make_model, make_batch):
    model, wrappers = make_model()
    for _ in range(4):
        model.train_step(make_batch(), wrappers)
    assert model.smoothing.earliest.sum() == model.smoothing.latest.sum() == 16
    seen = model.smoothing.earliest + model.smoothing.latest > 0
    if not seen.all():
        assert model.smoothing.weight[~seen].min() > model.smoothing.weight[seen].max()


def test_fakes_of_the_same_classes_as_reals(make_model, make_batch, monkeypatch):
    model, wrappers = make_model(pair_labels=True)
    wanted = []
    model.generator.register_forward_hook(lambda module, inputs, made: wanted.append(inputs[1]))
    model.train_step(make_batch(), wrappers)
    assert torch.equal(wanted[0], torch.arange(8) % 5)  # D's step
    assert not torch.equal(wanted[1], torch.arange(8) % 5)  # G's, drawn at random


def test_teacher_sees_what_it_was_trained_on(make_model):
    """Black and white, -1 and 1, are 0 and 255 pixels; raw they stay."""
    model, _ = make_model()
    pair = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    found = model.to_teacher(pair)[:, 0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([(0 - 120) / 60, (255 - 120) / 60]))
    raw, _ = make_model(teacher_input='raw')
    assert raw.to_teacher(pair) is pair


@pytest.mark.parametrize('weight', [0.0, 0.1])
def test_judging_the_teachers_features(make_model, make_batch, snapshot, changed, weight):
    """With and without the losses that look at these features too."""
    model, wrappers = make_model(
        discriminator=dict(type='TeacherDiscriminator', width=2),
        feature_integration=dict(transfer_weight=weight, blend_weight=weight),
        smoothing=dict(loss_weight=0.0),
    )
    before = [snapshot(part) for part in (model.teacher, model.generator, model.discriminator)]
    model.train_step(make_batch(), wrappers)
    assert not changed(model.teacher, before[0])
    assert changed(model.generator, before[1]) and changed(model.discriminator, before[2])
    assert not model.teacher.training
    assert model.score(make_batch()).isfinite() and model.score_generated(4).isfinite()


def test_scores_are_of_the_generator_itself(make_model, make_batch):
    """Whose images the discriminator learns from; of its average the student does."""
    model, wrappers = make_model(synthetic_from='average')
    model.train_step(make_batch(), wrappers)
    for parameter in model.average.parameters():
        parameter.zero_()
    found = model.score_generated(6)
    images = model.eval().generator(*model.same_draws(6, seed=0))
    torch.testing.assert_close(found, model.discriminator(images).score.mean())


@pytest.mark.parametrize('source', ['average', 'generator'])
def test_looking_changes_nothing(make_model, make_batch, source):
    model, wrappers = make_model(synthetic_from=source)
    model.train_step(make_batch(), wrappers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, logits = model.sample(6)
    few, same_logits = model.sample(6, batch_size=4, shown=2)  # classes take turns over the parts
    torch.testing.assert_close(few, first[:2])
    torch.testing.assert_close(same_logits, logits)
    model.score(make_batch())
    model.score_generated(6)
    assert torch.equal(model.sample(6)[0], first)
    assert model.generator.training and model.discriminator.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_half_precision(make_model, make_batch):
    model, _ = make_model()
    config = {role: dict(part, type=AutocastOptimWrapper) for role, part in OPTIMIZERS.items()}
    wrappers = RoleOptimWrapperConstructor(config)(model)
    logs = model.train_step(make_batch(), wrappers)
    logs |= as_student(model).train_step(make_batch(), wrappers)
    assert all(value.isfinite() for value in logs.values())
    with torch.autocast('cpu', torch.bfloat16):  # features are compared in float32
        assert model.teacher_features(torch.rand(2, 1, 16, 16)).dtype == torch.float32


def test_state_goes_on(make_model, make_batch):
    """Two iterations at once, or with everything saved and loaded between them."""
    batches = [make_batch(), make_batch()]
    finals = []
    for stops in (False, True):
        torch.manual_seed(1)
        model, wrappers = make_model()
        torch.manual_seed(2)
        model.train_step(batches[0], wrappers)
        if stops:
            saved = copy.deepcopy((model.state_dict(), wrappers.state_dict()))
            fresh, other = make_model()
            fresh.load_state_dict(saved[0])
            other.load_state_dict(saved[1])
            model, wrappers = fresh, other
        torch.manual_seed(3)
        model.train_step(batches[1], wrappers)
        assert model.iteration == 2 and model.smoothing.latest.sum() == 16
        finals.append(model.state_dict())
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


# Images ---------------------------------------------------------------------------------------


def test_images_of_all_classes_equally_often(make_model, make_batch):
    model, wrappers = make_model(num_synthetic=10)
    model.batch_size = 4
    assert model.rounds_before(0, 2) == 0 and model.rounds_before(1, 2) == 3
    assert make_model(num_synthetic=0)[0].rounds_before(1, 2) == 0  # none, if so wished
    model.train_step(make_batch(), wrappers)
    steps = []
    rounds = [
        as_student(model).synthesize(wrappers, number, on_step=lambda: steps.append(1))
        for number in range(3)
    ]
    assert len(steps) == 3 * model.iterations
    assert [len(made.images) for made in rounds] == [4, 4, 2]
    assert torch.cat([made.targets for made in rounds]).bincount().tolist() == [2, 2, 2, 2, 2]


def test_images_come_from_the_average_or_the_generator(make_model, make_batch):
    model, wrappers = make_model(average=dict(decay=0.9, start=0))
    for _ in range(3):
        model.train_step(make_batch(), wrappers)
    latent, wanted = model.same_draws(3, seed=0)
    found = {}
    for source in ('average', 'generator'):
        model.synthetic_from = source
        found[source] = model.make(latent, wanted)
    assert not torch.allclose(found['average'], found['generator'])
    expected = model.to_teacher(model.average.network(latent, wanted))
    torch.testing.assert_close(found['average'], expected)


@pytest.mark.parametrize('teacher_input', ['renormalised', 'raw'])
def test_each_image_is_stretched_as_a_whole_from_black_to_white(make_model, teacher_input):
    """Three channels of one pixel: black, half way and white, normalised whatever the GAN sees."""
    model, _ = make_model(synthetic_range='per_image', teacher_input=teacher_input)
    made = torch.tensor([[-0.5, 0.0, 0.5], [0.2, 0.3, 0.4]]).view(2, 3, 1, 1)
    model.average.forward = lambda latent, wanted: made
    expected = torch.tensor([(value - 120) / 60 for value in (0, 127.5, 255)]).expand(2, 3)
    torch.testing.assert_close(model.make(torch.zeros(2, 4), torch.arange(2)).flatten(1), expected)


def test_an_image_of_one_colour_cannot_be_stretched(make_model):
    model, _ = make_model(synthetic_range='per_image')
    model.average.forward = lambda latent, wanted: torch.zeros(2, 1, 16, 16)
    images = model.make(torch.zeros(2, 4), torch.arange(2))
    torch.testing.assert_close(images, torch.full_like(images, (0 - 120) / 60))  # black


def test_untrained_generator(make_model):
    model, wrappers = make_model()
    with pytest.raises(UsageError, match='never trained'):
        model.synthesize(wrappers)


# Stage 2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(('target', 'stride'), [('map', 1), ('pooled', 1), ('map', 2)])
def test_students_loss(student, make_model, make_batch, target, stride):
    """The mean squared difference of P(F_s) and F_t, pooled to its size, and nothing else."""
    student['backbone']['stem_stride'] = stride
    model, wrappers = make_model(target=target)
    batch = make_batch()
    as_student(model)
    images = model.data_preprocessor(dict(batch))['inputs']
    with torch.no_grad():
        ours = copy.deepcopy(model.student).extract(images).map
        theirs = F.avg_pool2d(model.teacher.extract(images).map, stride)
    if target == 'pooled':
        ours, theirs = ours.mean((2, 3)), theirs.mean((2, 3))
    logs = model.train_step(batch, wrappers)
    torch.testing.assert_close(logs['loss_student'], F.mse_loss(ours, theirs))


def test_without_epochs_of_a_gan_the_first_step_is_the_students(make_model, make_batch):
    model, wrappers = make_model(gan_epochs=0)
    assert set(model.train_step(make_batch(), wrappers)) == {'loss_student'}


def test_the_projector_is_the_one_that_was_asked_for(make_model):
    model, _ = make_model(adapter=dict(form='linear'))
    shapes = [tuple(parameter.shape) for parameter in model.student.neck.parameters()]
    assert shapes == [(6, 4, 1, 1), (6,)]  # a 1x1 convolution from the student's to the teacher's


def test_alignment_of_published_code(golden):
    arrays = golden('hidfd')
    adapter = MODELS.build(
        dict(type='SimKDAdapter', in_channels=6, out_channels=8, in_size=8, out_size=4)
    ).train()
    state = {key.removeprefix('J_proj.'): value for key, value in arrays.items() if 'J_proj' in key}
    adapter.load_state_dict(state, strict=False)
    student_map = arrays['J_down_fs'].clone().requires_grad_()
    loss = F.mse_loss(adapter(student_map), adapter.match_teacher(arrays['J_down_ft']))
    torch.testing.assert_close(loss.detach(), arrays['J_down_mse'], rtol=1e-5, atol=1e-6)
    loss.backward()
    torch.testing.assert_close(student_map.grad, arrays['J_down_grad_fs'], rtol=1e-4, atol=1e-7)


def test_student_stage_moves_the_student_only(make_model, make_batch, snapshot, changed):
    model, wrappers = make_model()
    as_student(model)
    parts = [model.teacher, model.generator, model.discriminator, model.average]
    before = [snapshot(part) for part in parts]
    classifier = snapshot(model.student.head)
    backbone = snapshot(model.student.backbone)
    model.train_step(make_batch(), wrappers)
    assert not any(changed(part, state) for part, state in zip(parts, before, strict=True))
    assert not changed(model.student.head, classifier)
    assert changed(model.student.backbone, backbone)
    assert model.student.head is model.teacher.head
    assert not model.generator.training and not model.discriminator.training


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(target='logits'), 'model.target'),
        (dict(teacher_input='half'), 'model.teacher_input'),
        (dict(synthetic_from='teacher'), 'model.synthetic_from'),
        (dict(synthetic_range='full'), 'model.synthetic_range'),
        (dict(gan_epochs=-1), 'model.gan_epochs is -1'),
        (dict(num_synthetic=-1), 'model.num_synthetic is -1'),
    ],
)
def test_mistakes(make_model, options, words):
    with pytest.raises(UsageError, match=words):
        make_model(**options)


@pytest.mark.parametrize(
    ('selector', 'of_a_million', 'cap'),
    [
        (None, 5000, 'even'),
        (dict(num_select=240), 240, 'even'),
        (dict(index_file='list.npz'), 5000, 'even'),
        (dict(keep_ratio=0.01), 10_000, 'even'),
        (dict(class_cap=None), 5000, None),
    ],
)
def test_collection_keeps_its_defaults_beside_what_is_said(
    teacher, student, selector, of_a_million, cap
):
    selector = HiDFD(teacher, student, **SMALL, selector=selector).selector
    assert selector.count(1_000_000) == of_a_million and selector.class_cap == cap


def test_selector_that_does_not_look(make_model):
    model, _ = make_model(selector=dict(type='RandomSelector', ratio=0.5))
    with pytest.raises(UsageError, match='RandomSelector does not say which classes'):
        model.remember_selection(Selection(torch.arange(3)))


def test_held_out_images_are_the_best_of_the_rest(make_model):
    model, _ = make_model()
    confidence = torch.tensor([0.9, 0.1, 0.5, 0.8])
    model.remember_selection(Selection(torch.tensor([0]), confidence, torch.zeros(4).long()))
    assert model.held_out.tolist() == [3, 2, 1]
    assert np.isclose(confidence[model.held_out[0]], 0.8)


def test_defaults_are_published(teacher, student):
    sizes = {name: SMALL[name] for name in ('generator', 'discriminator')}
    model = HiDFD(teacher, student, **sizes)
    assert (model.gan_epochs, model.num_synthetic, model.class_weight) == (400, 50_000, 1.0)
    assert (model.selector.num_select, model.selector.class_cap) == (5000, 'even')
    integration, smoothing = model.feature_integration, model.smoothing
    assert integration.transfer_weight == integration.blend_weight == 0.1
    assert (smoothing.loss_weight, smoothing.interval, smoothing.mode) == (0.1, 200, 'inverse')
    assert smoothing.decay == 0.5 and (smoothing.frequency == 50).all()
    assert (model.average.decay, model.average.start) == (0.9999, 1000)
    assert (model.teacher_input, model.synthetic_from) == ('renormalised', 'average')
    assert (model.synthetic_range, model.pair_labels, model.target) == ('half_shift', False, 'map')
