# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper, ReplicatedModel, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import PREDFKD
from mmdfkd.models.algorithms.pre_dfkd import moment_distance, shares
from mmdfkd.models.classifiers import build_teacher
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

SMALL = dict(
    generator=dict(latent_size=4, widths=(4, 4), spectral_norm=True, init_range=0.08),
    memory=dict(latent_size=4, widths=(4, 4)),
    encoder=dict(widths=(4, 4, 4)),
    student_steps=3,
    memory_steps=2,
    replay_ratio=4,
)


@pytest.fixture
def build(teacher, student):
    """A small model; options replace its own."""
    return lambda **options: PREDFKD(teacher, student, **{**SMALL, **options})


def optimizers_of(model, **settings):
    """Optimisers by role; SGD unless the settings say more."""
    default = dict(type='SGD', lr=0.1)
    config = {role: dict(optimizer=settings.get(role, default)) for role in model.roles()}
    return RoleOptimWrapperConstructor(config)(model)


def batches_seen(network):
    """How often the network's batch norms have updated their statistics."""
    (count,) = {b.item() for n, b in network.named_buffers() if n.endswith('batches_tracked')}
    return count


# Against the published code -------------------------------------------------------------------


@MODELS.register_module()
class GoldenReplayGenerator(nn.Module):
    """The generators of the golden steps, see tests/data/README.md."""

    def __init__(self, latent_size, input_shape, mean, std):
        super().__init__()
        self.latent_size = latent_size
        self.fc = nn.Linear(latent_size, 48)
        self.bn0 = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3, affine=False)

    def forward(self, latent):
        first = self.bn0(self.fc(latent).view(-1, 3, 4, 4))
        return self.bn(self.conv(F.interpolate(first, scale_factor=2)).tanh())


@MODELS.register_module()
class GoldenReplayEncoder(nn.Module):
    """Likewise the encoder."""

    def __init__(self, latent_size, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc_mu = nn.Linear(64, latent_size)
        self.fc_var = nn.Linear(64, latent_size)

    def forward(self, images):
        features = self.bn(self.conv(F.normalize(images, dim=2))).flatten(1)
        return self.fc_mu(features), self.fc_var(features)


def of_group(arrays, group):
    """Golden tensors of one network."""
    return {k.removeprefix(f'{group}/'): v for k, v in arrays.items() if k.startswith(f'{group}/')}


@pytest.fixture
def published(golden, toy_network):
    """The model, arrays and optimisers of the golden steps."""
    arrays = golden('pre_dfkd')
    teacher = build_teacher(toy_network(4, arrays, 'step/teacher'))
    student = toy_network(3, arrays, 'step/0_start/student')
    golden_generator = dict(type='GoldenReplayGenerator', latent_size=5)
    model = PREDFKD(
        teacher,
        student,
        golden_generator,
        golden_generator,
        dict(type='GoldenReplayEncoder'),
        replay_ratio=2,
        replay_grad_into_decoder=True,
    )
    model = model.double().train()
    for name, network in networks(model).items():
        network.load_state_dict(of_group(arrays, f'step/0_start/{name}'))
    adam = dict(type='Adam', lr=0.02 / 40)
    sgd = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizers = optimizers_of(
        model, student=sgd, generator=dict(type='Adam', lr=0.02), memory=adam
    )
    return model, arrays, optimizers


def networks(model):
    """Networks by golden name, the student aside."""
    return dict(novel=model.generator, memory=model.memory, encoder=model.encoder)


CLOSE = dict(atol=1e-9, rtol=0)


def assert_states(model, arrays, step, *names):
    """The networks of these golden names are as after that call."""
    for name in names:
        expected = of_group(arrays, f'step/{step}/{name}')
        network = model.student if name == 'student' else networks(model)[name]
        state = {
            k.removeprefix('backbone.').removeprefix('head.'): v
            for k, v in network.state_dict().items()
        }
        assert state.keys() == expected.keys()
        for key, value in state.items():
            torch.testing.assert_close(value, expected[key], msg=f'{name} {key}', **CLOSE)


def play(model, arrays, optimizers):
    """All calls of the published code in their order; check all but the state after the last."""
    draws = {key.removeprefix('step/'): arrays[key] for key in arrays if '/draws/' in key}
    logs = model.move_generator(draws['1_novel/draws/00_randn'], optimizers['generator'])
    disagreement = 1 - logs['discrepancy']
    torch.testing.assert_close(disagreement, arrays['step/1_novel_disagreement'], **CLOSE)
    total = sum(value for name, value in logs.items() if name.startswith('loss_')) + disagreement
    torch.testing.assert_close(total, arrays['step/1_novel_total'], **CLOSE)
    assert_states(model, arrays, '1_novel', 'novel', 'student')

    latent, replayed = arrays['step/2_distill/z_novel'], draws['2_distill/draws/00_randn']
    loss, views = model.imitate(latent, replayed, optimizers['student'])
    torch.testing.assert_close(loss, arrays['step/2_distill_loss'], **CLOSE)
    torch.testing.assert_close(views['pixel'], arrays['step/2_distill/novel_images'], **CLOSE)
    assert_states(model, arrays, '2_distill', 'novel', 'student')
    assert_states(model, arrays, '0_start', 'memory', 'encoder')

    noise, nothing = draws['3_memory_first/draws/00_randn_like'], torch.empty(0, 5)
    loss = model.remember(views, noise, nothing, nothing, optimizers['memory'])
    torch.testing.assert_close(loss, arrays['step/3_memory_first_loss'], **CLOSE)
    assert_states(model, arrays, '3_memory_first', 'memory', 'encoder')

    latent = draws['4_memory_later/draws/00_randn']
    noise, replay_noise = draws['4_memory_later/draws/01_randn_like'].split(4)
    loss = model.remember(views, noise, latent, replay_noise, optimizers['memory'])
    torch.testing.assert_close(loss, arrays['step/4_memory_later_loss'], **CLOSE)
    assert_states(model, arrays, '4_memory_later', 'encoder')
    assert_states(model, arrays, '2_distill', 'novel', 'student')


def test_every_step_of_published_code(published, snapshot, changed):
    model, arrays, optimizers = published
    before = snapshot(model.teacher)
    play(model, arrays, optimizers)
    assert_states(model, arrays, '4_memory_later', 'memory')
    assert not changed(model.teacher, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gradient_that_the_published_code_does_not_clear(published):
    """Without it the decoder goes elsewhere; loss, statistics and encoder are the same."""
    model, arrays, optimizers = published
    model.replay_grad_into_decoder = False
    play(model, arrays, optimizers)
    expected = of_group(arrays, 'step/4_memory_later/memory')
    parameters = {name for name, _ in model.memory.named_parameters()}
    for name, value in model.memory.state_dict().items():
        assert torch.allclose(value, expected[name], **CLOSE) == (name not in parameters), name


def test_activation_is_that_of_the_pooled_feature(build, monkeypatch):
    """Signs of a map cancel ahead of it."""
    model = build(adversarial_weight=0)
    vector, maps = torch.tensor([[1.0, -3.0]] * 4), 9 * torch.randn(4, 2, 3, 3)
    seen = SimpleNamespace(logits=torch.zeros(4, 5), vector=vector, map=maps)
    monkeypatch.setattr(model.teacher, 'extract', lambda images: seen)
    assert model.generator_loss(torch.zeros(4))[1]['loss_activation'].item() == pytest.approx(-0.2)


def test_weight_of_the_adversary(teacher, student):
    model = PREDFKD(teacher, student, adversarial_weight=0.25).eval()
    loss, logs = model.generator_loss(torch.randn(8, 1, 16, 16))
    disagreement = logs.pop('discrepancy')
    assert 0 < disagreement < 1
    torch.testing.assert_close(loss, sum(logs.values()) + 0.25 * (1 - disagreement))


def test_defaults_are_those_of_the_published_code(teacher, student):
    model = PREDFKD(teacher, student)
    assert (model.student_steps, model.memory_steps, model.memory_ratio) == (10, 4, 2)
    assert model.one_hot.loss_weight == 1 and model.activation.loss_weight == 0.1
    assert model.balance.loss_weight == 5 and model.balance.log_base == 10
    assert model.disagreement.temperature == 3 and model.disagreement.reduction == 'mean'
    assert model.adversarial_weight == 1 and model.student_mode == 'train'
    assert model.reconstruction.views == ('pixel', 'logit')
    assert model.reconstruction.kl_weight == 1e-5
    assert model.tuning == dict(type='Adam', lr=0.02)
    assert model.replay_ratio == 8 and not model.replay_grad_into_decoder


def test_float16_is_not_for_latents_that_are_tuned(published):
    """Their loss is not scaled, and where its gradient is left in M it is beside one that is."""
    model, _, _ = published
    adam = dict(optimizer=dict(type='Adam', lr=1e-3))
    configs = dict(student=adam, generator=adam, memory=dict(adam, type='AmpOptimWrapper'))
    with pytest.raises(UsageError, match=r'memory\.type=AmpOptimWrapper.*tunes latents'):
        RoleOptimWrapperConstructor(configs)(model)


# Who moves, who receives gradient, who remembers ----------------------------------------------

SWITCHES = dict(
    default={},
    eval=dict(student_mode='eval'),
    leak=dict(replay_grad_into_decoder=True),
    exact=dict(disagreement=dict(form='exact', reduction='batchmean')),
    no_adversary=dict(adversarial_weight=0),
    pixels=dict(reconstruction=dict(views=('pixel',))),
    features=dict(reconstruction=dict(views=('feature',), kl_weight=1e-3)),
    natural=dict(balance=dict(log_base=2.718281828, loss_weight=20)),
    few_steps=dict(student_steps=2, memory_steps=1),
    ratios=dict(replay_ratio=2, memory_ratio=1),
    small_memory=dict(memory=dict(latent_size=2, widths=(2, 2))),
    large_memory=dict(memory=dict(latent_size=7, widths=(2, 2)), encoder={}),
    sgd=dict(tuning=dict(type='SGD', lr=0.1)),
)


@pytest.mark.parametrize('switch', SWITCHES)
def test_every_switch_trains_all_and_spares_the_teacher(
    build, make_latents, take_steps, snapshot, changed, switch
):
    model = build(**SWITCHES[switch])
    learners = dict(student=model.student, **networks(model))
    before = {name: snapshot(network) for name, network in learners.items()}
    frozen = snapshot(model.teacher)
    logs = take_steps(model, *[make_latents(model) for _ in range(2)], lr=0.01)
    assert all(value.isfinite() and not value.requires_grad for value in logs.values())
    assert {'loss_student', 'loss_memory'} <= logs.keys()
    assert ('discrepancy' in logs) == (switch != 'no_adversary')
    for name, network in learners.items():
        moved = changed(network, before[name])
        assert all(name in moved for name, _ in network.named_parameters() if 'weight' in name)
    assert not changed(model.teacher, frozen)  # buffers and all, bit for bit
    assert not any(module.training for module in model.teacher.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(p.requires_grad for network in learners.values() for p in network.parameters())
    assert all(module.training for network in learners.values() for module in network.modules())


@pytest.mark.parametrize('switch', ['default', 'eval', 'leak', 'few_steps'])
def test_whose_statistics_move(build, make_latents, take_steps, switch):
    """Per later step of the auto-encoder M sees latents before and after tuning, and of images."""
    model = build(**SWITCHES[switch])
    student_steps, memory_steps = model.student_steps, model.memory_steps
    for iteration in (1, 2):
        take_steps(model, make_latents(model))
        in_generator_step = switch != 'eval'
        assert batches_seen(model.student) == iteration * (student_steps + in_generator_step)
        assert batches_seen(model.generator) == iteration * (student_steps + 1)
        assert batches_seen(model.encoder) == iteration * memory_steps
        assert batches_seen(model.memory) == 3 * iteration * memory_steps - 2


@pytest.mark.parametrize('switch', ['default', 'leak'])
def test_only_those_who_step_hold_gradients(build, make_latents, switch):
    model = build(**SWITCHES[switch]).train()
    optimizers = optimizers_of(model)
    phases = []

    def watch(role):
        def hook(*_):
            holders = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is not None}
            phases.append((role, holders))

        return hook

    for role in model.roles():
        optimizers[role].optimizer.register_step_pre_hook(watch(role))
    model.train_step(make_latents(model), optimizers)
    parts = dict(student={'student'}, generator={'generator'}, memory={'memory', 'encoder'})
    assert all(holders == parts[role] for role, holders in phases)
    both = ['student', 'memory']
    assert [role for role, _ in phases] == ['generator', *both, *both, 'student']


def test_the_generator_turns_the_student_away_not_the_teacher(build, make_latents):
    """Unlike in the other methods: no gradient of the divergence flows through the teacher."""
    model = build().train()
    with torch.no_grad():
        model.student.head.fc.weight.zero_()  # says always the same
    images = model.generator(make_latents(model)['latent'][:, 0, :4])
    with model.gradient_only_through(model.student, 'train'):
        logs = model.generator_loss(images)[1]
        assert logs['discrepancy'] > 0
        (gradient,) = torch.autograd.grad(logs['discrepancy'], images, retain_graph=True)
        assert not gradient.any()
        assert torch.autograd.grad(logs['loss_balance'], images)[0].any()


def test_a_generator_step_raises_the_disagreement(build, make_latents):
    nothing = dict(loss_weight=0)
    model = build(
        one_hot=nothing,
        balance=nothing,
        activation=nothing,
        disagreement=dict(reduction='batchmean'),
    ).train()
    optimizers = optimizers_of(model, generator=dict(type='Adam', lr=0.01))
    with torch.no_grad():
        model.student.head.fc.weight.mul_(30)
    latent = make_latents(model, 32)['latent'][:, 0]
    logs = [model.move_generator(latent, optimizers['generator']) for _ in range(4)]
    values = [log['discrepancy'].item() for log in logs]
    assert values == sorted(values) and values[-1] > values[0]


# Replay ---------------------------------------------------------------------------------------


def test_moments_by_hand():
    # 1 and -1: mean 0, unbiased variance 2; 3 and 5: mean 4, variance 2
    latent = torch.tensor([[1.0, 3.0], [-1.0, 5.0]])
    assert moment_distance(latent).item() == pytest.approx((1 + 1 + 0 + 16) / 2)
    exact = torch.tensor([[1.0], [-1.0], [0.0]])  # 2 / (3 - 1)
    assert moment_distance(exact).item() == pytest.approx(0)


def test_replay_leaves_no_trace_in_eval_mode(build, make_latents, take_steps, snapshot, changed):
    model = build()
    take_steps(model, make_latents(model))
    before, latent = snapshot(model), torch.randn(6, 4)
    original = latent.clone()
    images = model.replay(latent, 'eval')
    assert images.shape == (6, 1, 16, 16) and not images.requires_grad
    assert torch.equal(latent, original) and not changed(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.memory.training
    torch.testing.assert_close(model.replay(latent, 'eval')[:4], model.replay(latent, 'eval')[:4])
    other = model.replay(latent, 'train')
    assert not torch.allclose(other, images)  # statistics of the batch instead of running ones
    assert {name.split('.')[0] for name in changed(model, before)} == {'memory'}


def test_one_step_makes_replayed_images_cover_more_classes(build):
    """The balance of what is replayed, before and after: better in each of eight batches."""
    model = build(memory=dict(latent_size=16, widths=(8, 8)), tuning=dict(lr=0.1)).train()
    with torch.no_grad():
        model.teacher.head.fc.weight.mul_(30)  # sure of what it sees
        model.memory(torch.randn(64, 16))
    for latent in torch.randn(8, 64, 16):
        with torch.no_grad():
            before = model.balance(model.teacher(model.memory.eval()(latent)))
        after = model.balance(model.teacher(model.replay(latent, 'eval')))
        assert after < 1.02 * before < 0  # negative: minus an entropy


def test_a_class_of_probability_zero_is_no_reason_for_nan(build, make_latents, take_steps):
    """0 log 0: in single precision the published code's balance is nan here."""
    model = build()
    with torch.no_grad():
        model.teacher.head.fc.bias[0] = -300
    mean = model.teacher(model.replay(torch.randn(2, 4), 'eval')).softmax(1).mean(0)
    assert (mean == 0).any() and (mean * mean.log10()).sum().isnan()
    logs = take_steps(model, *[make_latents(model) for _ in range(2)], lr=0.01)
    assert all(value.isfinite() for value in logs.values())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_memory_is_no_longer_empty_after_resuming(build, make_latents, take_steps):
    start = build()
    assert not start.has_memory
    take_steps(start, make_latents(start))
    assert start.has_memory
    resumed = build()
    resumed.load_state_dict(start.state_dict())
    assert resumed.has_memory
    batch = make_latents(start)
    for model in (start, resumed):
        take_steps(model, batch)
    for name, tensor in start.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


# Latents --------------------------------------------------------------------------------------


def test_shares():
    batch = torch.arange(7).view(7, 1)
    cut = [part.flatten().tolist() for part in shares([batch, 10 + batch], 3)]
    assert cut == [[0, 1], [2, 3], [4, 5], [10, 11], [12, 13], [14, 15]]


@pytest.mark.parametrize('switch', SWITCHES)
def test_draws_suffice_and_none_is_spare(build, make_latents, switch):
    model = build(**SWITCHES[switch])
    novel, noises, replays = model.deal(make_latents(model, 16)['latent'].unbind(1))
    counts = len(list(novel)), len(list(noises)), len(list(replays))
    student_steps, memory_steps = model.student_steps, model.memory_steps
    needed = 1 + student_steps, memory_steps, student_steps + 2 * memory_steps
    spare = [count - least for count, least in zip(counts, needed, strict=True)]
    assert spare[0] == 0
    assert 0 <= spare[1] < model.memory_ratio and 0 <= spare[2] < model.replay_ratio


def test_each_draw_has_one_use(build, make_latents, monkeypatch):
    model, used = build(), []
    monkeypatch.setattr(model, 'move_generator', lambda latent, _: used.append(latent) or {})
    monkeypatch.setattr(model, 'imitate', lambda *given: used.extend(given[:2]) or (0, {}))
    monkeypatch.setattr(model, 'remember', lambda views, *given: used.extend(given[:3]) or 0)
    model.train_step(make_latents(model, 16), optimizers_of(model))
    rows = torch.cat(used)  # 4 x 16 new images; 3 times 4 of them and 2 x 4 and noise replayed
    assert len(rows) == 4 * 16 + 3 * 4 + 2 * (8 + 4 + 4) == len(rows.unique(dim=0))


def test_latent_shape(build, teacher, student):
    # 1 + 3 new, 2 / 2 noises, (3 + 2 * 2) / 4 -> 2 replayed
    assert build().latent_shape == (7, 4)
    assert build(**SWITCHES['small_memory']).latent_shape == (7, 4)
    assert build(**SWITCHES['large_memory']).latent_shape == (7, 7)
    assert PREDFKD(teacher, student).latent_shape == (16, 256)  # 1 + 10, 2, 18 / 8 -> 3


def test_all_chance_comes_with_the_batch(build, make_latents, take_steps):
    states, start = [], build()
    batches = [make_latents(start) for _ in range(2)]
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model = copy.deepcopy(start)
        take_steps(model, *batches)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_looking_changes_nothing(build, make_latents, take_steps, snapshot, changed):
    """Spectral norms included."""
    model = build()
    take_steps(model, make_latents(model))
    before = snapshot(model)
    state = torch.get_rng_state()
    for look in (model.sample, model.sample_memory):
        images, logits = look(12)
        assert images.shape == (12, 1, 16, 16) and torch.equal(logits, model.teacher(images))
        assert not changed(model, before) and torch.equal(look(12)[0], images)
        assert not torch.equal(look(12, seed=1)[0], images)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


# Sizes, precision, mistakes -------------------------------------------------------------------


@pytest.mark.parametrize(('side', 'channels'), [(28, 1), (32, 3)])
def test_images_are_the_teachers(side, channels, make_latents, take_steps):
    config = dict(
        type='Classifier',
        backbone=dict(type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=channels),
        head=dict(in_channels=4, num_classes=3),
    )
    statistics = dict(mean=[120.0] * channels, std=[60.0] * channels)
    teacher = MODELS.build(dict(config, input_shape=(channels, side, side), **statistics))
    model = PREDFKD(build_teacher(teacher), config, **SMALL)
    assert take_steps(model, make_latents(model))['loss_memory'].isfinite()
    assert model.replay(torch.randn(2, 4), 'eval').shape == (2, channels, side, side)


def test_latents_are_tuned_in_mixed_precision(build):
    """Autocast remembers leaves in bfloat16: what is replayed is of the latents as they became."""
    latent = torch.randn(6, 4)
    images = []
    for lr in (0.0, 1.0):
        torch.manual_seed(0)
        model = build(tuning=dict(lr=lr)).train()
        with torch.autocast('cpu', torch.bfloat16):
            images.append(model.replay(latent, 'train'))
    assert (images[0] - images[1]).abs().mean() > 0.1


@pytest.mark.parametrize(
    ('switch', 'half'),
    [
        ('default', ('student', 'generator', 'memory')),
        ('leak', ('student', 'generator', 'memory')),
        ('default', ('student',)),
        ('default', ('memory',)),
    ],
)
def test_mixed_precision(build, make_latents, switch, half):
    """Of all roles, or of one: what it hands to another is in float32."""
    model = build(**SWITCHES[switch]).train()
    wrappers = {
        role: dict(
            type=AutocastOptimWrapper if role in half else 'OptimWrapper',
            optimizer=dict(type='SGD', lr=0.01),
        )
        for role in model.roles()
    }
    optimizers = RoleOptimWrapperConstructor(wrappers)(model)
    for _ in range(2):
        logs = model.train_step(make_latents(model), optimizers)
    assert all(value.isfinite() for value in logs.values())
    assert logs['loss_memory'].dtype == logs['loss_balance'].dtype == torch.float32
    state = model.state_dict().values()
    assert all(tensor.dtype == torch.float32 for tensor in state if tensor.is_floating_point())


def test_registered(teacher, student):
    model = MODELS.build(dict(type='PREDFKD', teacher=teacher, student=student, **SMALL))
    assert type(model) is PREDFKD and model.method == 'PREDFKD'
    assert model.roles() == dict(
        student=[model.student], generator=[model.generator], memory=[model.memory, model.encoder]
    )
    names = {name.split('.')[0] for name, _ in model.named_parameters()}
    assert names == {'student', 'teacher', 'generator', 'memory', 'encoder'}


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(student_mode='both'), r"model\.student_mode='both'.*'train', 'eval'"),
        (dict(memory_steps=0), r'model\.memory_steps is 0.*1 to model\.student_steps.*3'),
        (dict(memory_steps=3, student_steps=2), r'model\.memory_steps is 3'),
        (dict(replay_ratio=0), r'model\.replay_ratio is 0'),
        (dict(memory_ratio=0), r'model\.memory_ratio is 0'),
        (dict(disagreement=dict(reduction='sum')), "reduction='sum'"),
        (dict(reconstruction=dict(views=())), 'views is empty'),
    ],
)
def test_usage_errors(build, options, words):
    with pytest.raises(UsageError, match=words):
        build(**options)


def test_the_teacher_is_no_student(teacher):
    with pytest.raises(UsageError, match=r'model\.student is the teacher itself'):
        PREDFKD(teacher, teacher)


@pytest.mark.parametrize(('name', 'ratio'), [('replay_ratio', 8), ('memory_ratio', 5)])
def test_a_batch_too_small_to_replay(build, make_latents, take_steps, name, ratio):
    """One replayed image has no variance: the published code goes nan."""
    model = build(**{name: ratio})
    remedy = (
        rf'batch of 8 latents.*model\.{name}={ratio} make a share of 1.*batch_size to {2 * ratio}'
    )
    with pytest.raises(UsageError, match=remedy):
        take_steps(model, make_latents(model, 8))


# One process and two --------------------------------------------------------------------------


@MODELS.register_module()
class ReplayWithoutNorm(nn.Module):
    """A generator of two layers in which images do not depend on each other."""

    def __init__(self, latent_size, input_shape, mean, std):
        super().__init__()
        self.latent_size = latent_size
        self.input_shape = input_shape
        self.linear = nn.Linear(latent_size, 64)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, latent):
        first = F.interpolate(self.linear(latent).view(-1, 1, 8, 8), self.input_shape[1:])
        return 3 * self.conv(first).tanh()


@MODELS.register_module()
class EncoderWithoutNorm(nn.Module):
    """Likewise, an encoder."""

    def __init__(self, latent_size, input_shape):
        super().__init__()
        self.linear = nn.Linear(16, 2 * latent_size)

    def forward(self, images):
        return self.linear(F.adaptive_avg_pool2d(images, 4).flatten(1)).chunk(2, dim=1)


def two_iterations(leak, rank=0, processes=1):
    """Logs and weights; nothing sees how the batch is split but what is gathered."""
    torch.manual_seed(0)
    student = dict(
        backbone=dict(type='LeNet5', width=0.5), head=dict(in_channels=60, num_classes=10)
    )
    plain = dict(type='ReplayWithoutNorm', latent_size=6)
    model = PREDFKD(
        dict(checkpoint='mmdfkd://lenet5_digits'),
        student,
        plain,
        plain,
        dict(type='EncoderWithoutNorm'),
        student_steps=2,
        memory_steps=2,
        replay_ratio=4,
        replay_grad_into_decoder=leak,
    ).train()
    latents = torch.randn(2, 16, *model.latent_shape)[:, rank::processes]
    wrapped = ReplicatedModel(model) if processes > 1 else model
    optimizers = optimizers_of(wrapped, **{r: dict(type='SGD', lr=0.01) for r in model.roles()})
    for latent in latents:
        logs = wrapped.train_step(dict(latent=latent), optimizers)
    return dict(logs=logs, weights=model.state_dict())


def _two_ranks(rank):
    return [two_iterations(leak, rank, 2) for leak in (False, True)]


def test_two_processes_do_what_one_does(in_two_processes):
    ranks = in_two_processes(_two_ranks)
    for leak in (False, True):
        answers, expected = [rank[leak] for rank in ranks], two_iterations(leak)
        for name, value in expected['logs'].items():
            mean = sum(answer['logs'][name] for answer in answers) / 2
            torch.testing.assert_close(mean, value, msg=name, atol=1e-5, rtol=1e-4)
        for name, value in expected['weights'].items():
            assert torch.equal(*(answer['weights'][name] for answer in answers)), name
            close = answers[0]['weights'][name]
            torch.testing.assert_close(close, value, msg=name, atol=1e-5, rtol=1e-4)
