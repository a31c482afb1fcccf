# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import ReplicatedModel, RoleOptimWrapperConstructor
from mmdfkd.evaluation import Accuracy
from mmdfkd.models.algorithms import CTKD, Supervised
from mmdfkd.models.algorithms.ctkd import BorrowedLayer, architecture
from mmdfkd.models.classifiers import Features, ForeignClassifier, build_teacher
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

MAPS = dict(out_indices=(0, 1, 2))
NO_EXPERT = dict(attention=dict(loss_weight=0.0))


@pytest.fixture
def pair(teacher, student):
    """The pair with three maps each: 16, 8 and 4 pixels."""
    config = copy.deepcopy(teacher.config)
    config['backbone'].update(MAPS)
    expert = MODELS.build(config)
    expert.load_state_dict(teacher.state_dict())
    return build_teacher(expert), {**student, 'backbone': {**student['backbone'], **MAPS}}


@pytest.fixture
def batches(make_batch):
    return [make_batch(labelled=True) for _ in range(3)]


@pytest.fixture
def train():
    """Train with SGD and momentum; return the logs and gradients of the last step."""

    def run(model, batches):
        sgd = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
        optimizers = RoleOptimWrapperConstructor({role: sgd for role in model.roles()})(model)
        gradients = {}
        names = {id(p): name for name, p in model.named_parameters()}
        for role in model.roles():
            parameters = optimizers[role].optimizer.param_groups[0]['params']
            optimizers[role].optimizer.register_step_pre_hook(
                lambda *_, own=parameters: gradients.update(
                    {names[id(p)]: p.grad.clone() for p in own}
                )
            )
        for batch in batches:
            logs = model.train().train_step(batch, optimizers)
        return logs, gradients

    return run


# Worked example: r and s as given, one pair of maps ----------------------------------------------

R = [[2.0, 1, 0], [0, 0, 3]]
S = [[1.0, 2, 0], [0, 1, 1]]
TEACHER_MAP = [[[[1.0, 2], [3, 4]], [[0, 1], [1, 0]]]]
STUDENT_MAP = [[[[2.0, 0], [0, 2]], [[1, 1], [1, 1]], [[0, 0], [1, 0]]]]


@pytest.fixture
def worked(pair, make_batch, take_steps):
    """One step with these logits and maps; returns the logs and the leaves ``r, s, maps``."""

    def step(r=R, s=S, scratch_map=STUDENT_MAP, student_map=STUDENT_MAP, **arguments):
        model = CTKD(*copy.deepcopy(pair), **arguments)
        leaves = {}
        for network, logits, map_ in (
            ('teacher', R, TEACHER_MAP),
            ('scratch_teacher', r, scratch_map),
            ('student', s, student_map),
        ):
            values, feature = (torch.tensor(v, dtype=torch.float64) for v in (logits, map_))
            feature = feature.expand(2, -1, -1, -1).clone()
            if network != 'teacher':
                values.requires_grad_(), feature.requires_grad_()
            features = Features((feature,), feature, None, values)
            getattr(model, network).extract = lambda images, features=features: features
            leaves[network] = values, feature
        batch = dict(make_batch(2), label=torch.tensor([0, 2]))
        return take_steps(model, batch), leaves

    return step


def approx(value):
    return pytest.approx(value, abs=1e-6)


def test_terms_by_hand(worked):
    logs, leaves = worked(**NO_EXPERT)
    assert logs['loss_scratch_ce'].item() == approx(0.251264)
    assert logs['loss_ce'].item() == approx(1.134800)
    # 0.03 * 7 / 2; a mean over the classes too would give 0.035
    assert logs['loss_hint'].item() == approx(0.105)
    assert logs['loss'].item() == approx(1.491065)
    s, r = (leaves[name][0].grad for name in ('student', 'scratch_teacher'))
    expected = [[-0.407636, 0.362620, 0.045015], [0.077681, 0.241159, -0.348841]]
    torch.testing.assert_close(s, torch.tensor(expected).double(), atol=1e-6, rtol=0)
    # cross-entropy alone: the hint never reaches the scratch teacher
    expected = [[-0.167380, 0.122364, 0.045015], [0.022639, 0.022639, -0.045279]]
    torch.testing.assert_close(r, torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_attention_by_hand(worked):
    logs, leaves = worked()
    assert logs['loss_attention'].item() == pytest.approx(120.554, abs=1e-3)
    assert logs['loss'].item() == pytest.approx(122.045341, abs=1e-3)
    assert leaves['student'][1].grad.abs().sum() > 0
    assert leaves['scratch_teacher'][1].grad is None


@pytest.mark.parametrize('on', ['student', 'scratch', 'both'])
def test_who_looks_where_the_expert_looks(worked, on):
    logs, leaves = worked(attention_on=on)
    looks = dict(student=on != 'scratch', scratch_teacher=on != 'student')
    for network, name in (('student', 'attention'), ('scratch_teacher', 'scratch_attention')):
        assert (f'loss_{name}' in logs) == looks[network]
        assert (leaves[network][1].grad is not None) == looks[network]
    # a map like the expert's gives 0, whatever the other network's is
    multiple = (3 * torch.tensor(TEACHER_MAP)).tolist()
    logs, _ = worked(attention_on=on, student_map=multiple)
    found = {n: v.item() for n, v in logs.items() if n.endswith('attention')}
    zeros = {n for n, value in found.items() if value == pytest.approx(0, abs=1e-9)}
    assert zeros == ({'loss_attention'} if looks['student'] else set())


def test_equal_logits_give_no_hint(worked):
    logs, leaves = worked(s=R, **NO_EXPERT)
    assert logs['loss_hint'].item() == 0
    torch.testing.assert_close(leaves['student'][0].grad, leaves['scratch_teacher'][0].grad)


def test_soft_logits_of_the_expert(worked):
    # T^2 KL at T = 4 is 0.611671 for these logits
    logs, _ = worked(divergence=dict(temperature=4.0, loss_weight=0.6), **NO_EXPERT)
    assert logs['loss_kd'].item() == approx(0.6 * 0.611671)
    assert logs['loss'].item() == approx(1.491065 + 0.6 * 0.611671)


# Who learns from whom ----------------------------------------------------------------------------


def test_expert_stays_and_both_learn(pair, batches, train, snapshot, changed):
    model = CTKD(*pair)
    before = {name: snapshot(getattr(model, name)) for name in ('student', 'scratch_teacher')}
    frozen = snapshot(model.teacher)
    train(model, batches)
    assert not changed(model.teacher, frozen)
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    assert not any(module.training for module in model.teacher.modules())
    for name, tensors in before.items():
        assert changed(getattr(model, name), tensors) == set(tensors), name  # buffers too
    norm = model.scratch_teacher.backbone.bn1
    assert norm.num_batches_tracked == len(batches)  # one forward pass of R per step


def test_scratch_teacher_learns_as_if_alone(pair, batches, train):
    """With both terms it is what plain training makes of it, bit by bit; so is S without them."""
    model = CTKD(*pair)
    plain = {}
    for name in ('student', 'scratch_teacher'):
        plain[name] = Supervised(copy.deepcopy(getattr(model, name)))
        train(plain[name], batches)
    alone = copy.deepcopy(model)
    alone.hint.loss_weight = alone.attention.loss_weight = 0.0
    alone.looks = dict.fromkeys(alone.looks, False)
    _, gradients = train(model, batches)
    _, expected = train(alone, batches)
    for name, value in gradients.items():
        if name.startswith('scratch_teacher.'):
            assert torch.equal(value, expected[name]), name
    for network in (model.scratch_teacher, alone.scratch_teacher):
        for name, value in plain['scratch_teacher'].student.state_dict().items():
            assert torch.equal(value, network.state_dict()[name]), name
    for name, value in plain['student'].student.state_dict().items():
        assert torch.equal(value, alone.student.state_dict()[name]), name
    head = 'head.fc.weight'
    assert not torch.equal(model.student.state_dict()[head], alone.student.state_dict()[head])


@pytest.mark.parametrize('share_stem', [False, True])
@pytest.mark.parametrize('attention_on', ['student', 'both'])
def test_two_optimisers_are_one_joint(pair, student, batches, train, share_stem, attention_on):
    """One SGD over R and S and one backward of the sum, written out, gives the same."""
    arguments = dict(attention_on=attention_on, share_stem=share_stem)
    model = CTKD(*pair, **arguments).train()
    joint = copy.deepcopy(model)
    train(model, batches)
    nets = joint.student, joint.scratch_teacher
    parameters = [p for net in nets for p in net.parameters()]
    sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for batch in batches:
        images, labels = (batch['inputs'].float() - 120.0) / 60, batch['label']
        with torch.no_grad():
            expert = joint.teacher.extract(images)
        s, r = (net.extract(images) for net in nets)
        loss = F.cross_entropy(s.logits, labels) + F.cross_entropy(r.logits, labels)
        loss = loss + 0.03 * (s.logits - r.logits.detach()).square().sum() / len(images)
        for net in (s, r) if attention_on == 'both' else (s,):
            for own, other in zip(net.maps, expert.maps, strict=True):
                maps = [F.normalize(m.pow(2).mean(1).flatten(1)) for m in (own, other)]
                loss = loss + 1000 * F.mse_loss(*maps)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    state = model.state_dict()
    for name, value in joint.state_dict().items():
        torch.testing.assert_close(state[name], value, msg=name, atol=1e-5, rtol=1e-4)


def test_shared_stem_is_one_layer_with_both_gradients(pair, student, batches, train):
    model = CTKD(*pair, share_stem=True, hint_weight=0.0, **NO_EXPERT)
    borrowed = model.scratch_teacher.backbone.conv1
    assert isinstance(borrowed, BorrowedLayer)
    assert borrowed.lent[0] is model.student.backbone.conv1
    assert 'scratch_teacher.backbone.conv1.weight' not in model.state_dict()
    trained = [p for modules in model.roles().values() for m in modules for p in m.parameters()]
    assert len(trained) == len(set(trained))  # nothing is stepped twice
    twin = copy.deepcopy(model).train()
    assert twin.scratch_teacher.backbone.conv1.lent[0] is twin.student.backbone.conv1
    images, labels = (batches[0]['inputs'] - 120.0) / 60, batches[0]['label']
    stem = twin.student.backbone.conv1.weight
    parts = [
        torch.autograd.grad(F.cross_entropy(network(images), labels), stem)[0]
        for network in (twin.student, twin.scratch_teacher)
    ]
    _, gradients = train(model, batches[:1])
    assert all(part.abs().sum() > 0 for part in parts)
    torch.testing.assert_close(gradients['student.backbone.conv1.weight'], sum(parts))


def test_stems_must_be_alike(pair, student):
    teacher, config = pair
    config = {**config, 'backbone': {**config['backbone'], 'stem_channels': 3}}
    with pytest.raises(
        UsageError, match=r'share_stem: the first convolutions differ: Conv2d\(1, 3'
    ):
        CTKD(teacher, config, share_stem=True)


# The scratch teacher -----------------------------------------------------------------------------


def test_scratch_teacher_is_the_expert_untrained(pair):
    model = CTKD(*pair)
    assert model.scratch_teacher.config == model.teacher.config
    assert model.scratch_teacher is not model.teacher
    for own, other in zip(
        model.scratch_teacher.backbone.stages.parameters(),
        model.teacher.backbone.stages.parameters(),
        strict=True,
    ):
        assert own.requires_grad and (own.ndim == 1 or not torch.equal(own, other))


def test_scratch_teacher_of_ones_own(pair, student, batches, train):
    teacher, config = pair
    model = CTKD(teacher, config, scratch_teacher={**config, 'name': 'twin'})
    assert model.scratch_teacher.name == 'twin'
    assert model.scratch_teacher.mean == teacher.mean
    logs, _ = train(model, batches)
    assert logs['loss'].isfinite()
    with pytest.raises(UsageError, match=r'model\.scratch_teacher\.mean is \[0\.0\].*Leave it out'):
        CTKD(teacher, config, scratch_teacher={**config, 'mean': [0.0]})
    head = dict(in_channels=4, num_classes=7)
    with pytest.raises(UsageError, match=r'scratch_teacher has 7 classes, model\.teacher 5'):
        CTKD(teacher, config, scratch_teacher={**config, 'head': head})


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def test_architectures_come_without_weights():
    pretrained = dict(type='Pretrained', checkpoint='weights.pth')
    backbone = dict(type='CifarResNet', widths=(2, 2, 4))
    network = MODELS.build(
        dict(
            type='Classifier',
            backbone=dict(backbone, init_cfg=pretrained),
            head=dict(in_channels=4, num_classes=5),
        )
    )
    assert architecture(network)['backbone'] == dict(backbone, widths=[2, 2, 4])
    assert network.config['backbone']['init_cfg'] == pretrained  # the teacher's own stays
    inputs = dict(input_shape=(3, 8, 8), mean=[0.0] * 3, std=[1.0] * 3, pretrained=True)
    source = f'{__name__}:small_network'
    foreign = ForeignClassifier(source, **inputs)
    with pytest.raises(UsageError, match='which a function makes.*model.scratch_teacher'):
        architecture(foreign)
    foreign.config['source'] = 'timm'
    assert architecture(foreign)['pretrained'] is False


def test_both_are_evaluated_and_one_is_exported(pair, make_batch):
    model = CTKD(*pair).eval()
    batch = make_batch(6, labelled=True)
    images = (batch['inputs'] - 120.0) / 60
    (answer,) = model.val_step(batch)
    torch.testing.assert_close(answer['logits'], model.student(images))
    torch.testing.assert_close(answer['scratch_teacher_logits'], model.scratch_teacher(images))
    metric = Accuracy()
    metric.process(None, [answer])
    assert set(metric.evaluate(6)) == {'accuracy/top1', 'accuracy/scratch_teacher_top1'}
    assert 'scratch_teacher_logits' not in model.test_step(batch)[0]  # a student.pth has none
    assert not any('scratch' in name for name in model.student.state_dict())
    names = {name.split('.')[0] for name in model.state_dict()}
    assert names == {'student', 'scratch_teacher'}


def test_resumed_training_continues_bit_by_bit(pair, batches):
    sgd = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))

    def build():
        model = CTKD(*pair, share_stem=True).train()
        return model, RoleOptimWrapperConstructor(dict(student=sgd, scratch_teacher=sgd))(model)

    model, optimizers = build()
    for batch in batches[:2]:
        model.train_step(batch, optimizers)
    saved = copy.deepcopy((model.state_dict(), optimizers.state_dict()))
    resumed, other = build()
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    model.train_step(batches[2], optimizers)
    resumed.train_step(batches[2], other)
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


# Ablations, errors -------------------------------------------------------------------------------

SOFT = dict(divergence=dict(temperature=4.0, loss_weight=0.1))
SWITCHES = dict(  # arguments, terms beside the two cross-entropies
    default=({}, {'hint', 'attention'}),
    hint_only=(NO_EXPERT, {'hint'}),
    attention_only=(dict(hint_weight=0.0), {'attention'}),
    plain=(dict(hint_weight=0.0, **NO_EXPERT), set()),
    published_code=(dict(attention_on='scratch', share_stem=True), {'hint', 'scratch_attention'}),
    both=(dict(attention_on='both'), {'hint', 'attention', 'scratch_attention'}),
    sum_form=(dict(attention=dict(form='sum', loss_weight=1.0)), {'hint', 'attention'}),
    soft_logits=({**SOFT, **NO_EXPERT}, {'hint', 'kd'}),
)


@pytest.mark.parametrize('switch', SWITCHES)
def test_switches(pair, batches, train, switch):
    calls = []
    arguments, terms = SWITCHES[switch]
    model = CTKD(*pair, **arguments)
    model.teacher.backbone.register_forward_hook(lambda *_: calls.append(1))
    logs, _ = train(model, batches[:1])
    assert all(value.isfinite() and not value.requires_grad for value in logs.values())
    assert set(logs) == {'loss'} | {f'loss_{name}' for name in {'ce', 'scratch_ce'} | terms}
    torch.testing.assert_close(logs['loss'], sum(v for n, v in logs.items() if n != 'loss'))
    assert len(calls) == bool(terms - {'hint'})  # E is asked only where it counts


@pytest.mark.parametrize('switch', ['both', 'soft_logits', 'published_code'])
def test_mixed_precision_is_close_to_full(pair, batches, train, switch):
    arguments, logs = SWITCHES[switch][0], []
    for half in (False, True):
        torch.manual_seed(7)
        model = CTKD(*pair, **arguments)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            logs.append(train(model, batches[:1])[0])
    for name in logs[0]:
        torch.testing.assert_close(logs[1][name], logs[0][name], atol=0.02, rtol=0.05, msg=name)
        assert logs[1][name].dtype == torch.float32


def test_a_step_never_waits_for_the_device(count_reads, pair, batches, train):
    model = CTKD(*pair, attention_on='both', share_stem=True, **SOFT)
    with count_reads as counter:
        train(model, batches[:1])
    assert counter.reads == 0


def test_usage_errors(teacher, student, pair, make_batch, take_steps):
    with pytest.raises(UsageError, match='CTKD needs labels'):
        take_steps(CTKD(*pair), make_batch())
    with pytest.raises(UsageError, match="model.attention_on='expert' is not known"):
        CTKD(*pair, attention_on='expert')
    with pytest.raises(UsageError, match=r'model\.hint_weight is -1'):
        CTKD(*pair, hint_weight=-1)
    with pytest.raises(UsageError, match='student returns 1 and the teacher 3 feature maps'):
        CTKD(pair[0], student)
    match = r'scratch_teacher returns 1 .* 3 feature maps.*model\.scratch_teacher\.backbone'
    with pytest.raises(UsageError, match=match):
        CTKD(*pair, scratch_teacher=student, attention_on='both')
    for kind in ('HintLoss', 'KLDivergence'):  # regressors that nobody trains; no maps
        with pytest.raises(UsageError, match=rf'model\.attention\.type={kind}.*AttentionTransferL'):
            CTKD(*pair, attention=dict(type=kind))
    CTKD(pair[0], student, **NO_EXPERT)
    CTKD(pair[0], student, attention_on='scratch')  # like the expert, whatever the student has


@pytest.mark.parametrize('role', ['student', 'scratch_teacher'])
def test_learning_rates_of_the_published_code(learning_rates, role):
    # by epoch, from 1: 0.1 to 59, 0.02 to 119, 0.004 to 159, 0.0008 to 200
    expected = [0.1] * 59 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 41
    assert learning_rates('ctkd_200e', role) == pytest.approx(expected)


# One process and two -----------------------------------------------------------------------------


def lenets():
    """CTKD without BatchNorm, whose statistics depend on how a batch is split."""
    torch.manual_seed(0)
    teacher = dict(
        type='Classifier',
        backbone=dict(type='LeNet5', width=0.5, out_indices=(0, 1, 2)),
        head=dict(in_channels=60, num_classes=10),
        input_shape=(1, 32, 32),
        mean=[120.0],
        std=[60.0],
    )
    return CTKD(build_teacher(MODELS.build(teacher)), teacher, attention_on='both', share_stem=True)


def two_steps(model, start, stop):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    batch = dict(inputs=images[start:stop], label=torch.arange(8)[start:stop])
    sgd = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
    optimizers = RoleOptimWrapperConstructor(dict(student=sgd, scratch_teacher=sgd))(model)
    for _ in range(2):
        model.train().train_step(batch, optimizers)
    return model.state_dict()


def _rank(rank):
    return two_steps(ReplicatedModel(lenets()), 4 * rank, 4 * rank + 4)


def test_two_processes_are_one(in_two_processes):
    expected = two_steps(lenets(), 0, 8)
    untrained = lenets().state_dict()
    for state in in_two_processes(_rank):
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, msg=name, atol=1e-6, rtol=1e-4)
            assert not torch.equal(value, untrained[name]), name
