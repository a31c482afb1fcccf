# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One process and two give the same answer."""

import json
import os
from pathlib import Path

import pytest
import torch
import yapf.yapflib.yapf_api
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from torch import nn

from mmdfkd.engine import DistillRunner, ReplicatedModel, RoleOptimWrapperConstructor
from mmdfkd.engine.runner import replicated_model
from mmdfkd.models.algorithms import KD3
from mmdfkd.models.classifiers import load_classifier

BASE = Path(__file__).parents[3] / 'configs/_base_'
FORMS = ('nt_xent', 'cross_view')


def half_lenet():
    return dict(backbone=dict(type='LeNet5', width=0.5))


def kd3(form):
    """KD³ without BatchNorm and without chance: both depend on how a batch is split."""
    torch.manual_seed(0)
    return KD3(
        dict(checkpoint='mmdfkd://lenet5_digits'),
        half_lenet(),
        adapter=dict(form='linear'),
        contrast=dict(loss_weight=0.5, form=form),
        perturbation=dict(prob=0.0),
    )


def digits(start, stop):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (12, 1, 32, 32), dtype=torch.uint8)
    return dict(inputs=images[start:stop], index=torch.arange(start, stop))


def one_step(model, batch):
    """Logs, gradients and weights of one step of SGD."""
    sgd = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    optimizers = RoleOptimWrapperConstructor(dict(student=sgd))(model)
    gradients = {}
    optimizers['student'].optimizer.register_step_pre_hook(
        lambda *_: gradients.update(
            (n, p.grad.clone()) for n, p in model.named_parameters() if p.grad is not None
        )
    )
    logs = model.train().train_step(batch, optimizers)
    gradients = {name.removeprefix('module.'): value for name, value in gradients.items()}
    return dict(logs=logs, gradients=gradients, weights=model.state_dict())


def run_config(folder, **changes):
    """A real run: KD³ picks pool images by lot, digits are its validation set."""
    text = [
        f'_base_ = [{str(BASE / "datasets/digits_glyph-pool.py")!r},',
        f'    {str(BASE / "default_runtime.py")!r}]',
        "model = dict(type='KD3', teacher=dict(checkpoint='mmdfkd://lenet5_digits'),",
        "    student=dict(backbone=dict(type='LeNet5', width=0.5)),",
        "    selector=dict(mode='random', threshold=0.6))",
        "train_dataloader = dict(batch_size=16, dataset=dict(_delete_=True, type='NoisePool',",
        '    num_images=90))',
        'val_dataloader = dict(batch_size=125)',
        "optim_wrapper = dict(constructor='RoleOptimWrapperConstructor',",
        "    student=dict(optimizer=dict(type='Adam', lr=1e-3)))",
        "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)",
        "log_level = 'ERROR'",
    ]
    path = Path(folder, f'config_of_{os.getpid()}.py')
    path.write_text('\n'.join(text))
    cfg = Config.fromfile(path)
    cfg.default_hooks.pop('figures', None)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 9
    cfg.merge_from_dict({'work_dir': f'{folder}/run', **changes})
    return cfg


def _two_ranks(rank, folder):
    os.environ['MMDFKD_CACHE_DIR'] = f'{folder}/cache{rank}'  # as on two machines
    os.chdir(folder)
    yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)  # faster
    answer = {}
    for form in FORMS:
        model = kd3(form)
        with torch.no_grad():  # the first process decides
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.add_(rank)
        wrapped = ReplicatedModel(model)
        batch = digits(6 * rank, 6 * rank + 6)
        answer[form] = one_step(wrapped, batch)
        answer[form]['teacher'] = dict(model.teacher.state_dict())

    def train(**changes):
        runner = DistillRunner.from_cfg(run_config(folder, launcher='pytorch', **changes))
        chosen = []
        before = runner.call_hook

        def watch(name, **kwargs):
            before(name, **kwargs)
            if name == 'before_train_epoch':
                chosen.append(runner.train_dataloader.batch_sampler.sampler.indices.tolist())

        runner.call_hook = watch
        runner.train()
        state = {name: value.clone() for name, value in runner.model.state_dict().items()}
        return dict(chosen=chosen, weights=state)

    answer['run'] = train()
    torch.manual_seed(99 + rank)
    answer['resumed'] = train(load_from=f'{folder}/run/epoch_1.pth', resume=True)
    return answer


@pytest.fixture(scope='module')
def ranks(in_two_processes, tmp_path_factory):
    """What both ranks answered, and where their run lies."""
    folder = tmp_path_factory.mktemp('ranks')
    return in_two_processes(_two_ranks, str(folder)), folder


@pytest.mark.parametrize('form', FORMS)
def test_a_step_of_two_processes_is_the_step_of_one(ranks, form):
    answers = [answer[form] for answer in ranks[0]]
    expected = one_step(kd3(form), digits(0, 12))
    close = dict(atol=1e-6, rtol=1e-5)
    for name, value in expected['logs'].items():
        mean = sum(answer['logs'][name] for answer in answers) / 2
        torch.testing.assert_close(mean, value, **close)
    for answer in answers:
        for part in ('gradients', 'weights'):
            assert answer[part].keys() == expected[part].keys()
            for name, value in expected[part].items():
                torch.testing.assert_close(answer[part][name], value, msg=name, **close)
    assert expected['gradients']['student.backbone.layers.0.weight'].abs().max() > 1e-4


def test_ranks_stay_identical(ranks):
    first, second = ranks[0]
    for part in (*FORMS, 'run'):
        for name, value in first[part]['weights'].items():
            assert torch.equal(value, second[part]['weights'][name]), name
    teacher = load_classifier('mmdfkd://lenet5_digits').state_dict()
    for name, value in teacher.items():
        assert torch.equal(second['nt_xent']['teacher'][name], value)


def test_ranks_choose_the_same_images_and_anew(ranks):
    first, second = (answer['run']['chosen'] for answer in ranks[0])
    assert first == second and len(first) == 2
    assert first[0] != first[1]


def test_two_processes_resume_where_they_were(ranks):
    for answer in ranks[0]:
        assert answer['resumed']['chosen'] == answer['run']['chosen'][1:]
        for name, value in answer['run']['weights'].items():
            assert torch.equal(value, answer['resumed']['weights'][name]), name


def test_one_process_evaluates_what_two_trained(ranks, tmp_path):
    run = ranks[1] / 'run'
    summary = json.loads((run / 'summary.json').read_text())
    assert summary['processes'] == 2 and summary['finished']
    for name in ('epoch_2.pth', 'student.pth'):
        runner = DistillRunner.from_cfg(
            run_config(tmp_path, work_dir=str(tmp_path / 'test'), load_from=str(run / name))
        )
        metrics = runner.test()
        assert metrics['accuracy/top1'] == summary['student_accuracy_last']
        assert metrics['agreement/teacher'] == summary['agreement']


def test_gradients_keep_their_types(monkeypatch):
    """Of another process they are twice as large: the mean is 3/2."""
    monkeypatch.setattr(replicated_model, 'get_world_size', lambda: 2)
    monkeypatch.setattr(replicated_model, 'all_reduce', lambda flat: flat.mul_(1 + 2))
    model, third = nn.Module(), 1 / 3  # no number of single precision
    model.coarse = nn.Parameter(torch.zeros(2))
    model.exact = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    model.unused = nn.Parameter(torch.zeros(1))
    wrapped = ReplicatedModel(model)
    (4 * wrapped.coarse.sum() + third * wrapped.exact.sum()).backward()
    assert model.coarse.grad.tolist() == [6.0, 6.0]
    assert torch.equal(model.exact.grad, torch.full((2, 3), 1.5 * third, dtype=torch.float64))
    assert model.unused.grad is None


def test_wrapper_is_transparent():
    model = kd3('nt_xent')
    wrapped = ReplicatedModel(model)
    assert is_model_wrapper(wrapped)
    assert wrapped.student is model.student and wrapped.method == 'KD3'
    assert wrapped.state_dict().keys() == model.state_dict().keys()
    wrapped.load_state_dict(wrapped.state_dict())
    names = list(model.state_dict())
    assert list(wrapped.state_dict(prefix='of.')) == [f'of.{name}' for name in names]
    assert wrapped.load_state_dict({}, strict=False).missing_keys == names
    wrapped.train()
    assert model.student.training and not model.teacher.training
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(wrapped(images), model(images))
    assert torch.equal(wrapped(inputs=images), model(images))
    with pytest.raises(AttributeError, match='nonsense'):
        _ = wrapped.nonsense
    with pytest.raises(AttributeError, match='module'):  # of a copy that is being made
        _ = ReplicatedModel.__new__(ReplicatedModel).student
