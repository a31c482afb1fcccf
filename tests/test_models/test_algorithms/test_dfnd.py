# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yapf.yapflib.yapf_api
from mmengine.config import Config
from torch import nn

from mmdfkd.engine import DistillRunner, ReplicatedModel, RoleOptimWrapperConstructor
from mmdfkd.engine.hooks import SelectionHook
from mmdfkd.models.algorithms import DFND
from mmdfkd.models.algorithms.dfnd import IMAGENET, inverse_frequency
from mmdfkd.models.classifiers import load_classifier, save_classifier
from mmdfkd.models.losses import noisy_nll
from mmdfkd.models.modules import AdaptationMatrix
from mmdfkd.models.selectors import ConfidenceSelector, RandomSelector, Selection
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-5)
LENET5 = dict(checkpoint='mmdfkd://lenet5_digits')
HALF = dict(backbone=dict(type='LeNet5', width=0.5), head=dict(in_channels=60, num_classes=10))
CONFIGS = Path(__file__).parents[3] / 'configs/dfnd'


@pytest.fixture
def build(teacher, student):
    return lambda **settings: DFND(teacher, student, **{'teacher_accuracy': 0.9, **settings})


class Says(nn.Module):
    """A network whose logits are its parameters."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, images):
        return 1 * self.logits  # as networks do, not the parameter itself


def one_step(model, student_logits, teacher_logits, weight):
    """Losses, student gradient (by SGD of rate 1) and W after one Adam step, of given logits."""
    model.teacher, model.student = Says(teacher_logits).requires_grad_(False), Says(student_logits)
    model.adaptation.weight.data.copy_(weight)
    optimizers = RoleOptimWrapperConstructor(
        dict(
            student=dict(optimizer=dict(type='SGD', lr=1.0)),
            adaptation=dict(optimizer=dict(type='Adam', lr=1e-3)),
        )
    )(model)
    gradients = []
    optimizers['adaptation'].optimizer.register_step_pre_hook(
        lambda *_: gradients.append(model.adaptation.weight.grad.clone())
    )
    images = torch.zeros(len(student_logits), 1, 16, 16, dtype=torch.uint8)
    logs = model.train().train_step(dict(inputs=images), optimizers)
    return logs, student_logits - model.student.logits.detach(), gradients


def network(classes, widths):
    return dict(
        type='Classifier',
        backbone=dict(type='CifarResNet', depth=8, widths=widths, in_channels=1),
        head=dict(in_channels=widths[-1], num_classes=classes),
    )


def pair_of(classes, **settings):
    config = dict(network(classes, (2, 4, 6)), input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    return DFND(MODELS.build(config), network(classes, (2, 2, 4)), **settings)


# Against the published code -------------------------------------------------------------------


@pytest.mark.parametrize('name', ['zeros', 'rand'])
def test_a_step_of_the_published_code(golden, name):
    arrays = golden('dfnd')
    weight = arrays['noise_param'] if name == 'rand' else torch.zeros(10, 9)
    model = pair_of(10, teacher_accuracy=0.9523)
    logs, gradient, (own,) = one_step(model, arrays['s_logits'], arrays['t_logits'], weight)
    torch.testing.assert_close(logs['loss_kd'], arrays['official_kd_T4'], **CLOSE)
    torch.testing.assert_close(logs['loss_nll'], arrays[f'official_noisy_nll_{name}'], **CLOSE)
    torch.testing.assert_close(logs['loss'], arrays[f'official_total_{name}'], **CLOSE)
    assert logs['diagonal'].item() == pytest.approx(0.9523)
    close = dict(atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, arrays[f'grad_total_{name}_s_logits'], **close)
    torch.testing.assert_close(own, arrays[f'grad_total_{name}_noise_param'], **close)
    after = arrays[f'noise_param_after_adam_{name}']
    torch.testing.assert_close(model.adaptation.weight.detach(), after, **close)


def test_worked_example():
    weight = torch.tensor([[0.0, 0], [1, -1], [0.5, 0]])
    teacher = torch.tensor([[2.0, 0, -1], [0, 1, 0], [1, 1, 3]])
    student = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 2, 1]])
    logs, _, _ = one_step(pair_of(3, teacher_accuracy=0.9), student, teacher, weight)
    assert logs['loss_kd'].item() == pytest.approx(0.497055, abs=1e-5)
    assert logs['loss_nll'].item() == pytest.approx(1.185130, abs=1e-5)
    assert logs['loss'].item() == pytest.approx(1.682186, abs=1e-5)


def test_temperature():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 3)
    model = pair_of(3, teacher_accuracy=0.9, temperature=2.0)
    logs, _, _ = one_step(model, student, teacher, torch.zeros(3, 2))
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    torch.testing.assert_close(logs['loss_kd'], 4 * (p * (p / q).log()).sum(1).mean())


def test_class_weights_of_the_earlier_code(golden):
    arrays = golden('dfnd')
    pool = arrays['pool_t_logits']
    model = pair_of(10, teacher_accuracy=0.9, temperature=2.0, class_balance='inverse_freq')
    selection = ConfidenceSelector(num_select=20)(pool_size=64, teacher_logits=pool)
    model.remember_selection(selection)
    expected = arrays['early_class_weights'].float()
    torch.testing.assert_close(model.class_weights, expected, **CLOSE)
    assert expected.sum().item() == pytest.approx(10)
    student, teacher = arrays['s_logits'], arrays['t_logits']
    logs, _, _ = one_step(model, student, teacher, torch.zeros(10, 9))
    torch.testing.assert_close(logs['loss_kd'], arrays['early_kd_T2_weighted'], **CLOSE)
    log_matrix = AdaptationMatrix(10, 0.9).log()
    weighted = noisy_nll(student, log_matrix, teacher.argmax(1), expected[teacher.argmax(1)])
    torch.testing.assert_close(logs['loss_nll'], weighted, **CLOSE)


def test_inverse_frequency():
    # 1 / (1 + n) = 1, 1/2, 1/4 for n = 0, 1, 3; their sum 7/4 becomes 3
    weights = inverse_frequency(torch.tensor([0, 1, 3]))
    torch.testing.assert_close(weights, torch.tensor([12.0, 6.0, 3.0]) / 7)


@pytest.mark.parametrize('kd_norm', ['batch', 'kept'])
def test_selection_inside_batches(golden, kd_norm):
    """The KD term of the MMRazor port; its noisy term has all images, ours those kept."""
    arrays = golden('dfnd')
    student, teacher, weight = (arrays[n] for n in ('s_logits', 't_logits', 'noise_param'))
    model = pair_of(
        10,
        teacher_accuracy=0.95,
        selector=dict(scope='batch', keep_ratio=0.5),
        kd_norm=kd_norm,
    )
    logs, gradient, (matrix_gradient,) = one_step(model, student, teacher, weight)
    adaptation = AdaptationMatrix(10, 0.95)
    adaptation.weight.data.copy_(weight)
    log_matrix, labels = adaptation.log().detach(), teacher.argmax(1)
    divergence = arrays['mmrazor586_half_rand'] - noisy_nll(student, log_matrix, labels)
    factor = 1 if kd_norm == 'batch' else 2  # six images kept of twelve
    torch.testing.assert_close(logs['loss_kd'], factor * divergence, **CLOSE)
    kept = arrays['mmrazor586_half_kept_index']
    torch.testing.assert_close(
        logs['loss_nll'], noisy_nll(student[kept], log_matrix, labels[kept]), **CLOSE
    )
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == kept.sort().values.tolist()
    noisy_nll(student[kept], adaptation.log(), labels[kept]).backward()
    torch.testing.assert_close(matrix_gradient, adaptation.weight.grad, **CLOSE)


def test_keeping_whole_batches_is_the_port(golden):
    arrays = golden('dfnd')
    model = pair_of(10, teacher_accuracy=0.95, selector=dict(scope='batch', keep_ratio=1.0))
    logs, _, _ = one_step(model, *(arrays[n] for n in ('s_logits', 't_logits', 'noise_param')))
    torch.testing.assert_close(logs['loss'], arrays['mmrazor586_all_rand'], **CLOSE)


def test_schedule_of_the_published_code(golden):
    """33 epochs, learning rate by epoch; nothing lowers that of the matrix."""
    cfg = Config.fromfile(CONFIGS / 'dfnd_resnet34_resnet18_1xb256-33e_cifar10.py')
    (schedule,) = cfg.param_scheduler.student
    rates = golden('dfnd')['sched_lr_by_epoch'].tolist()
    base = cfg.optim_wrapper.student.optimizer.lr
    for epoch, rate in rates:
        passed = sum(milestone < epoch for milestone in schedule.milestones)
        assert base * schedule.gamma**passed == pytest.approx(rate)
    assert cfg.train_cfg.max_epochs == len(rates) == 33
    assert cfg.param_scheduler.adaptation == []
    assert cfg.optim_wrapper.adaptation.optimizer == dict(type='Adam', lr=1e-3)


# Who learns what ------------------------------------------------------------------------------


@pytest.mark.parametrize('diagonal', ['fixed', 'learned'])
def test_student_and_matrix_learn_and_the_teacher_does_not(
    build, make_batch, take_steps, snapshot, changed, diagonal
):
    model = build(diagonal=diagonal)
    before = {n: snapshot(m) for n, m in model.named_children() if n != 'selector'}
    take_steps(model, make_batch(), make_batch())
    assert not changed(model.teacher, before['teacher'])
    assert changed(model.adaptation, before['adaptation']) == set(model.adaptation.state_dict())
    trained = {name for name, _ in model.student.named_parameters()}
    assert trained <= changed(model.student, before['student'])


def test_gradients_are_those_of_the_whole_loss(build, make_batch):
    """Two backward passes, one for each role, give the gradient of L."""
    model, batch = build(diagonal='learned'), make_batch()
    nn.init.normal_(model.adaptation.weight)
    gradients = {}
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    optimizers = RoleOptimWrapperConstructor(dict.fromkeys(model.roles(), sgd))(model)
    trained = dict(model.student.named_parameters(), **dict(model.adaptation.named_parameters()))
    for role in model.roles():
        optimizers[role].optimizer.register_step_pre_hook(
            lambda optimizer, *_: gradients.update(
                (n, p.grad.clone())
                for n, p in trained.items()
                if any(p is q for g in optimizer.param_groups for q in g['params'])
            )
        )
    model.train()
    images = model.data_preprocessor(batch)['inputs']
    teacher, student = model.teacher(images), model.student(images)
    kd = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction='batchmean')
    adapted = student.softmax(1) @ model.adaptation()
    loss = 16 * kd + F.nll_loss(adapted.log(), teacher.argmax(1))
    expected = torch.autograd.grad(loss, list(trained.values()))
    model.train_step(batch, optimizers)
    assert gradients.keys() == trained.keys()
    for name, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_without_the_noisy_term_it_is_kd(build, make_batch, take_steps, snapshot, changed):
    model = build(noisy=dict(loss_weight=0.0))
    before = snapshot(model.adaptation)
    logs = take_steps(model, make_batch())
    assert logs['loss'] == logs['loss_kd'] and 'loss_nll' not in logs
    assert not changed(model.adaptation, before)


def test_weight_of_the_noisy_term(build, make_batch, take_steps):
    batch, logs = make_batch(), []
    for weight in (1.0, 0.3):
        torch.manual_seed(5)
        logs.append(take_steps(build(noisy=dict(loss_weight=weight)), batch))
    torch.testing.assert_close(logs[1]['loss_nll'], 0.3 * logs[0]['loss_nll'])
    torch.testing.assert_close(logs[0]['loss_kd'], logs[1]['loss_kd'])


def test_whoever_measures_a_step_takes_the_selector_away(build, make_batch, take_steps):
    """What it selects from the whole pool is none of a step's business."""
    batch, logs = make_batch(), []
    for is_there in (True, False):
        torch.manual_seed(5)
        model = build()
        model.selector = model.selector if is_there else None
        logs.append(take_steps(model, batch))
    assert logs[0] == logs[1]


def test_labels_are_never_read(build, make_batch, take_steps):
    results = []
    for label in (None, torch.zeros(8).long(), torch.arange(8) % 5):
        torch.manual_seed(2)
        model, batch = build(), make_batch()
        if label is not None:
            batch['label'] = label
        take_steps(model, batch)
        results.append(model.student.head.fc.weight.detach())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_the_matrix_is_no_part_of_the_student(build, make_batch, tmp_path):
    model, batch = build().eval(), make_batch()
    before = model.val_step(batch)[0]['logits']
    nn.init.normal_(model.adaptation.weight, std=9)
    assert torch.equal(model.val_step(batch)[0]['logits'], before)
    assert torch.equal(model(model.test_preprocessor(batch)['inputs']), before)
    save_classifier(tmp_path / 'student.pth', model.student, {})
    exported = load_classifier(tmp_path / 'student.pth').eval()
    assert torch.equal(exported(model.test_preprocessor(batch)['inputs']), before)
    assert not any('adaptation' in name for name in exported.state_dict())
    assert model.state_dict()['adaptation.weight'].shape == (5, 4)  # but part of the run


def test_what_it_leaves_for_figures(build):
    model = build()
    nn.init.normal_(model.adaptation.weight)
    matrix = model.records()['adaptation_matrix']['matrix']
    assert matrix.shape == (5, 5) and np.allclose(matrix.sum(1), 1)


# The teacher's accuracy -----------------------------------------------------------------------


def test_accuracy_comes_from_the_teachers_file(teacher, student):
    teacher.meta = dict(accuracy=98.25)
    assert DFND(teacher, student).adaptation.accuracy.item() == pytest.approx(0.9825)
    model = DFND(teacher, student, teacher_accuracy=0.7)
    assert model.adaptation.accuracy.item() == pytest.approx(0.7)
    model = DFND(LENET5, HALF)
    assert model.adaptation.accuracy.item() == pytest.approx(0.992)


@pytest.mark.parametrize(
    ('confidence', 'expected'),
    [([0.9, 0.1, 0.7], 0.8), ([1.0, 0.1, 1.0], 0.99), ([0.3, 0.99, 0.2], 0.5)],
)
def test_accuracy_is_estimated_from_selected_images(build, confidence, expected):
    model = build(teacher_accuracy='mean_confidence')
    selection = Selection(
        torch.tensor([0, 2]),
        torch.tensor(confidence),
        torch.tensor([0, 1, 2]),
        counts=torch.tensor([1, 1, 1, 0, 0]),
    )
    model.remember_selection(selection)
    assert model.adaptation.accuracy.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    'settings', [dict(teacher_accuracy='mean_confidence'), dict(class_balance='inverse_freq')]
)
def test_what_a_selection_tells_is_asked_for(build, make_batch, take_steps, settings):
    key = f'model.{next(iter(settings))}={next(iter(settings.values()))}'
    with pytest.raises(UsageError, match=rf'{key} .* there was none. Keep default_hooks\.sel'):
        take_steps(build(**settings), make_batch())
    with pytest.raises(UsageError, match=rf"{key} .*scope='batch'.*scope='global'"):
        build(**settings, selector=dict(scope='batch'))
    model = build(**settings, selector=dict(type='RandomSelector'))
    with pytest.raises(UsageError, match=rf'{key} .*RandomSelector makes none'):
        model.remember_selection(RandomSelector()(pool_size=4))


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(teacher_accuracy=0.0), r'model\.teacher_accuracy is 0\.0'),
        (dict(teacher_accuracy=1.01), r'model\.teacher_accuracy is 1\.01.*\(0, 1\]'),
        (dict(teacher_accuracy=95), r'model\.teacher_accuracy is 95.*such as 0\.95'),
        (dict(teacher_accuracy='test'), r"teacher_accuracy='test'.*'mean_confidence'"),
        (dict(teacher_accuracy=None), r'tiny teacher does not record .*model\.teacher_accuracy'),
        (dict(diagonal='free'), r"model\.diagonal='free'"),
        (dict(class_balance='equal'), r"model\.class_balance='equal'"),
        (dict(kd_norm='sum'), r"model\.kd_norm='sum'"),
        (dict(pool_normalization='own'), r"model\.pool_normalization='own'"),
        (dict(pool_normalization='imagenet'), r"'imagenet'.*expects 1.*data_preprocessor\.mean"),
        (dict(temperature=0), r'model\.temperature is 0'),
    ],
)
def test_wrong_settings_are_named(build, settings, named):
    with pytest.raises(UsageError, match=named):
        build(**settings)


def test_normalisation_of_the_pool():
    cfg = Config.fromfile(CONFIGS / 'dfnd_resnet34_resnet18_1xb256-33e_cifar10.py').model
    teacher = MODELS.build({k: v for k, v in cfg.teacher.items() if k != 'checkpoint'})
    settings = dict(pool_normalization='imagenet', teacher_accuracy=0.9)
    model = DFND(teacher, cfg.student, **settings)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(IMAGENET['mean'])
    assert model.data_preprocessor.std.flatten().tolist() == pytest.approx(IMAGENET['std'])
    assert model.test_preprocessor.mean.flatten().tolist() == pytest.approx(teacher.mean)
    model = DFND(teacher, cfg.student, **settings, data_preprocessor=dict(mean=[1.0, 2.0, 3.0]))
    assert model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]


# One process and two --------------------------------------------------------------------------

SETTINGS = dict(
    plain=dict(),
    weighted=dict(class_balance='inverse_freq', diagonal='learned'),
    batches=dict(selector=dict(scope='batch', keep_ratio=0.25)),
    port=dict(selector=dict(scope='batch', keep_ratio=0.25), kd_norm='batch'),
)


def lenets(name):
    """Without BatchNorm, which depends on how a batch is split."""
    torch.manual_seed(0)
    model = DFND(LENET5, HALF, **SETTINGS[name])
    if name == 'weighted':
        model.awaiting = ''
        model.class_weights.copy_(torch.rand(10) + 0.1)
    nn.init.normal_(model.adaptation.weight)
    return model


def digits(start, stop):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8)
    return dict(inputs=images[start:stop], index=torch.arange(start, stop))


def step(model, batch):
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    optimizers = RoleOptimWrapperConstructor(dict(student=sgd, adaptation=sgd))(model)
    logs = model.train().train_step(batch, optimizers)
    return dict(logs=logs, weights={k: v.clone() for k, v in model.state_dict().items()})


def train_on_noise(folder, name, **changes):
    """A real run of one epoch on 90 images; what it selected, and the last weights."""
    base = CONFIGS.parent / '_base_'
    text = [
        f'_base_ = [{str(base / "models/lenet5_lenet5-half_digits.py")!r},',
        f'    {str(base / "datasets/digits_glyph-pool.py")!r},',
        f'    {str(base / "default_runtime.py")!r}]',
        "model = dict(type='DFND', teacher_accuracy='mean_confidence',",
        f'    selector=dict(num_select=40, index_file={f"{folder}/index.npz"!r}))',
        "train_dataloader = dict(batch_size=16, dataset=dict(_delete_=True, type='NoisePool',",
        '    num_images=90))',
        "optim_wrapper = dict(constructor='RoleOptimWrapperConstructor',",
        "    student=dict(optimizer=dict(type='SGD', lr=0.01)),",
        "    adaptation=dict(optimizer=dict(type='Adam', lr=1e-3)))",
        "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)",
        'val_cfg = val_dataloader = val_evaluator = None',
        "log_level = 'ERROR'",
    ]
    path = Path(folder, f'{name}_{os.getpid()}.py')
    path.write_text('\n'.join(text))
    cfg = Config.fromfile(path)
    cfg.default_hooks.pop('figures')
    cfg.merge_from_dict({'work_dir': f'{folder}/{name}', **changes})
    runner = DistillRunner.from_cfg(cfg)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, SelectionHook))
    return dict(
        indices=hook.selection.indices,
        scores=hook.selection.scores,
        accuracy=runner.model.adaptation.accuracy,
        matrix=runner.model.adaptation.weight.detach().clone(),
    )


def _two_ranks(rank, folder):
    os.environ['MMDFKD_CACHE_DIR'] = f'{folder}/cache{rank}'  # as on two machines
    yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)  # faster
    batch = digits(8 * rank, 8 * rank + 8)
    answer = {name: step(ReplicatedModel(lenets(name)), batch) for name in SETTINGS}
    answer['run'] = train_on_noise(folder, 'two', launcher='pytorch')
    return answer


@pytest.fixture(scope='module')
def ranks(in_two_processes, tmp_path_factory):
    """What both ranks answered, and where their run lies."""
    folder = tmp_path_factory.mktemp('ranks')
    return in_two_processes(_two_ranks, str(folder)), folder


def test_a_step_of_two_processes_is_the_step_of_one(ranks):
    close = dict(atol=1e-6, rtol=1e-5)
    for name in SETTINGS:
        answers = [answer[name] for answer in ranks[0]]
        expected = step(lenets(name), digits(0, 16))
        for key, value in expected['logs'].items():
            mean = sum(answer['logs'][key] for answer in answers) / 2
            torch.testing.assert_close(mean, value, msg=f'{name} {key}', **close)
        for key, value in expected['weights'].items():
            for answer in answers:
                torch.testing.assert_close(answer['weights'][key], value, **close)
        start = lenets(name).adaptation.weight
        assert (expected['weights']['adaptation.weight'] - start).abs().max() > 1e-5


def test_two_processes_select_what_one_does(ranks, tmp_path, monkeypatch):
    first, second = (answer['run'] for answer in ranks[0])
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))
    alone = train_on_noise(tmp_path, 'one')
    assert torch.equal(alone['indices'], first['indices']) and len(first['indices']) == 40
    torch.testing.assert_close(alone['scores'], first['scores'])
    torch.testing.assert_close(alone['accuracy'], first['accuracy'])
    monkeypatch.setattr(SelectionHook, '_predict', lambda *_: pytest.fail('predicted'))
    again = train_on_noise(ranks[1], 'again')  # with the index file that two processes wrote
    assert torch.equal(again['indices'], first['indices'])
    assert torch.equal(again['accuracy'], first['accuracy'])
