# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from mmdfkd.datasets import BatchRandomFlip, PackedDataset
from mmdfkd.engine import DistillRunner
from mmdfkd.engine.hooks import TTAHook
from mmdfkd.engine.hooks.tta_hook import averaged, mean_of_views
from mmdfkd.engine.runner.replicated_model import ReplicatedModel
from mmdfkd.models.classifiers import load_classifier
from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

FLIP = {'data_preprocessor': dict(augment=[dict(type='BatchRandomFlip')])}


def test_mean_by_hand():
    """Odds of 1:3 and 3:1 are even ones; 1:3 and 1:1 are (1/4 + 1/2)/2 = 3/8."""
    first = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).log()
    second = torch.tensor([[3.0, 1.0], [5.0, 5.0]]).log()
    expected = torch.tensor([[0.5, 0.5], [0.375, 0.625]])
    torch.testing.assert_close(mean_of_views(first, second).exp(), expected)


def test_mean_of_any_logits():
    first, second = 50 * torch.randn(2, 9, 5)
    mean = mean_of_views(first, second)
    torch.testing.assert_close(mean.softmax(1), (first.softmax(1) + second.softmax(1)) / 2)
    torch.testing.assert_close(mean.exp().sum(1), torch.ones(9))
    torch.testing.assert_close(mean_of_views(first + 7, second - 3), mean)
    assert torch.equal(mean_of_views(second, first), mean)
    torch.testing.assert_close(mean_of_views(first, first), first.log_softmax(1))
    far = torch.tensor([[0.0, -1e4]])
    assert mean_of_views(far, far.flip(1)).exp().tolist() == [[0.5, 0.5]]


def test_an_image_and_its_mirror_image_are_told_the_same():
    """Every network of a step is averaged, labels and positions stay, and so does the batch."""

    def step(data):
        pixels = data['inputs'].flatten(1).float()
        found = dict(logits=pixels[:, :3], scratch_teacher_logits=pixels[:, 1:4])
        return [found | dict(index=data['index'])]

    images, index = torch.randint(0, 9, (4, 1, 2, 3), dtype=torch.uint8), torch.arange(4)
    (plain,) = averaged(step)(dict(inputs=images, index=index))
    (mirrored,) = averaged(step)(dict(inputs=images.flip(-1), index=index))
    assert plain.keys() == {'logits', 'scratch_teacher_logits', 'index'}
    assert all(torch.equal(plain[name], mirrored[name]) for name in plain)
    assert not torch.equal(step(dict(inputs=images, index=index))[0]['logits'], plain['logits'])
    rows = images[:, 0, 0].float()
    both = mean_of_views(rows, rows.flip(1))
    assert torch.equal(plain['logits'], both) and torch.equal(plain['index'], index)


def run_test(cfg, wrapped=False):
    """The runner after a test, what it measured and what the model said."""
    runner = DistillRunner.from_cfg(cfg)
    if wrapped:
        runner.model = ReplicatedModel(runner.model)
    said = []
    plain = runner.model.test_step

    class Watch(Hook):
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            said.append(outputs[0])

    runner.register_hook(Watch())
    metrics = runner.test()
    assert runner.model.test_step == plain  # given back
    return runner, metrics, {name: torch.cat([one[name] for one in said]) for name in said[0]}


@pytest.mark.parametrize('checkpoint', ['student.pth', 'epoch_2.pth'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_against_the_networks(finished, toy_config, teacher_file, checkpoint, wrapped):
    """The student and the teacher see both images, whatever file the student is in."""
    cfg = toy_config('test', load_from=f'{finished.work_dir}/{checkpoint}', **FLIP)
    cfg.default_hooks.tta = dict(type='TTAHook')
    runner, metrics, said = run_test(cfg, wrapped)
    dataset = runner.test_dataloader.dataset
    images = (torch.from_numpy(dataset.images).permute(0, 3, 1, 2).float() - 127.5) / 64
    student, teacher = finished.model.student.eval(), load_classifier(teacher_file).eval()
    with torch.no_grad():
        mean, expert = (
            (network(images).softmax(1) + network(images.flip(3)).softmax(1)) / 2
            for network in (student, teacher)
        )
    torch.testing.assert_close(said['logits'].exp(), mean)
    assert torch.equal(said['teacher_prediction'], expert.argmax(1))
    hits = mean.argmax(1) == torch.from_numpy(dataset.labels)
    assert metrics['accuracy/top1'] == pytest.approx(100 * hits.double().mean().item())
    same = mean.argmax(1) == expert.argmax(1)
    assert metrics['agreement/teacher'] == pytest.approx(100 * same.double().mean().item())


@DATASETS.register_module(force=True)
class Lopsided(PackedDataset):
    """21 labelled images of noise that fades to the right; known in other processes, too."""

    def __init__(self):
        images = np.random.default_rng(5).integers(0, 256, (21, 16, 16, 1))
        fading = images * np.linspace(1, 0, 16)[:, None]
        super().__init__(fading.astype(np.uint8), np.arange(21) % 5)


def _test(rank, cfg):
    return DistillRunner.from_cfg(cfg).test()


def test_two_processes_measure_what_one_does(finished, toy_config, in_two_processes):
    found = []
    for launcher in ('none', 'pytorch'):
        cfg = toy_config(launcher, load_from=f'{finished.work_dir}/student.pth', **FLIP)
        cfg.default_hooks.tta, cfg.launcher = dict(type='TTAHook'), launcher
        cfg.test_dataloader.dataset = dict(type='Lopsided')
        found.append(cfg)
    alone = _test(0, found[0])
    first, second = in_two_processes(_test, found[1])
    assert first == second == pytest.approx(alone)


def test_without_a_teacher_and_without_labels(finished, toy_config):
    cfg = toy_config('test', load_from=f'{finished.work_dir}/student.pth', **FLIP)
    cfg.default_hooks.tta, cfg.test_evaluator = dict(type='TTAHook'), [dict(type='Agreement')]
    runner = DistillRunner.from_cfg(cfg)
    runner.test_dataloader.dataset.labels = None
    assert list(runner.test()) == ['agreement/teacher']
    hook, model = TTAHook(), Mock(teacher_predictions=None, spec=['teacher_predictions'])
    model.test_step = lambda data: [data]
    hook.before_test(SimpleNamespace(model=model, test_loop=Mock()))
    assert model.test_step(dict(inputs=torch.zeros(1, 1, 1, 1)))[0].keys() == {'inputs'}


@pytest.mark.parametrize(
    ('augment', 'mirrored', 'refused'),
    [
        ([], None, True),
        ([BatchRandomFlip(0.0)], None, True),
        ([torch.neg, BatchRandomFlip()], None, False),
        ([], True, False),
        ([BatchRandomFlip()], False, True),
    ],
)
def test_what_the_recipe_does_not_mirror_is_not_mirrored(augment, mirrored, refused):
    runner = SimpleNamespace(model=Mock(data_preprocessor=Mock(augment=augment)))
    if refused:
        with pytest.raises(UsageError, match=r'^--tta averages .* a mirrored 3 is no 3\. Leave'):
            TTAHook(mirrored).before_run(runner)
    else:
        TTAHook(mirrored).before_run(runner)
