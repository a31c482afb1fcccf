# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a step may cost, counted: none of these numbers depends on the machine.

A pass that is added by accident, a graph that nobody needs, a loop over images or a value that is
read in the middle of a step shows here, before anybody has to measure it.
"""

import importlib
import re
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.evaluation import Accuracy, Agreement
from mmdfkd.models.modules.best_iterate import BestIterate
from mmdfkd.models.selectors import Selection
from mmdfkd.registry import MODELS
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[1]
EIGHTH = Fraction(1, 8)

# Passes of a step in batches; through those of 'no graph' no gradient flows.
STEPS = {
    # On the images as they are.
    'KD': {'teacher, no graph': 1, 'student': 1},
    # Both on mixed images only.
    'STKD': {'teacher, no graph': 1, 'student': 1},
    # The expert's maps, and the scratch teacher's and the student's own steps.
    'CTKD': {'teacher, no graph': 1, 'scratch_teacher': 1, 'student': 1},
    # The matrix learns from logits that the student's step has left.
    'DFND': {'teacher, no graph': 1, 'student': 1},
    # Clean and mixed images.
    'KD3': {'teacher, no graph': 2, 'student': 2},
    # One pass of the teacher serves generator and student; four more lessons on fresh images.
    'DAFL': {
        'generator': 1,
        'teacher': 1,
        'generator, no graph': 4,
        'teacher, no graph': 4,
        'student': 5,
    },
    # Lessons on fresh images, then one batch through which both networks move the generator.
    'DFAD': {
        'generator, no graph': 5,
        'teacher, no graph': 5,
        'generator': 1,
        'teacher': 1,
        'student': 5 + 1,
    },
    'DDAD': {
        'generator, no graph': 5,
        'teacher, no graph': 5,
        'generator': 1,
        'teacher': 1,
        'student': 5 + 1,
    },
    'DFQ': {
        'generator': 1,
        'teacher': 1,
        'generator, no graph': 10,
        'teacher, no graph': 10,
        'student': 1 + 10,
    },
    # All lessons are on the same images, which the teacher sees once.
    'ZSKT': {
        'generator': 1,
        'teacher': 1,
        'generator, no graph': 1,
        'teacher, no graph': 1,
        'student': 1 + 10,
    },
    # Five lessons and two steps of the memory. An eighth of a batch is replayed, which takes the
    # memory twice, the teacher once; the memory learns from half a batch and what is replayed.
    'PREDFKD': {
        'generator': 1,
        'generator, no graph': 5,
        'teacher': 1 + 5 * EIGHTH + 2 * (EIGHTH + 5 * EIGHTH),
        'teacher, no graph': 5 * 9 * EIGHTH + 2 * EIGHTH,
        'student': 1 + 5 * 9 * EIGHTH,
        'memory': 5 * EIGHTH + 2 * (EIGHTH + 5 * EIGHTH),
        'memory, no graph': (5 + 2) * EIGHTH,
        'encoder': 2 * 5 * EIGHTH,
    },
    # The GAN's stage. D compares fakes and reals with the teacher; G is judged by both.
    'HiDFD': {
        'generator, no graph': 1,
        'teacher, no graph': 2,
        'discriminator': 2 + 1,
        'generator': 1,
        'teacher': 1,
    },
    # On images of the bank, whatever made them.
    'DeepInversion': {'teacher, no graph': 1, 'student': 1},
    'CMI': {'teacher, no graph': 1, 'student': 1},
    'FastDFKD': {'teacher, no graph': 1, 'student': 1},
}

# Likewise of one iteration of synthesis, and values read in it: numbers that are drawn on the CPU.
ROUNDS = {
    'DeepInversion': ({'teacher': 1, 'student': 1}, 2),  # the two numbers of a shift
    # The teacher sees the whole image and a part of it.
    'CMI': ({'generator': 1, 'teacher': 2, 'student': 1}, 0),
    'FastDFKD': ({'generator': 1, 'teacher': 1, 'student': 1}, 0),
}


@pytest.fixture
def count(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools/analysis_tools'))
    return importlib.import_module('measuring.operations')


def build(method):
    """Model and optimisers of a method's digits recipe."""
    folder = ROOT / 'configs' / MODELS.get(method).__module__.rpartition('.')[2]
    pattern = re.compile(rf'{folder.name}_resnet8_resnet8-half_1xb\d+-\d+e_digits')
    (path,) = (path for path in folder.glob('*.py') if pattern.fullmatch(path.stem))
    cfg = load_config(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).train()
    if hasattr(model, 'set_stage'):
        labels = torch.arange(64) % 10
        model.remember_selection(Selection(torch.arange(64), torch.ones(64), labels))
    roles = {role: cfg.optim_wrapper[role] for role in model.roles()}
    return model, RoleOptimWrapperConstructor(roles)(model)


def batch_of(model, size):
    if model.latent_shape:
        return dict(latent=torch.randn(size, *model.latent_shape))
    images = torch.randint(0, 256, (size, *model.student.input_shape), dtype=torch.uint8)
    return dict(inputs=images, label=torch.randint(10, (size,)), index=torch.arange(size))


def networks(model):
    """By name; of classifiers the backbone, since some passes do without the head."""
    names = ('teacher', 'student', 'scratch_teacher', 'generator', 'discriminator', 'memory')
    names = (*names, 'encoder')
    found = {name: getattr(model, name, None) for name in names}
    return {name: getattr(net, 'backbone', net) for name, net in found.items() if net is not None}


def test_every_method_is_counted():
    known = {name for name, kind in MODELS.module_dict.items() if hasattr(kind, 'train_step')}
    assert {name for name in known if has_recipe(name)} == set(STEPS)


def has_recipe(name):
    """Whether a registered class is a method with a recipe on digits."""
    kind = MODELS.get(name)
    folder = ROOT / 'configs' / kind.__module__.rpartition('.')[2]
    is_ours = kind.__module__.startswith('mmdfkd.models.algorithms')
    return is_ours and any(folder.glob('*_resnet8_resnet8-half_*_digits.py'))


@pytest.mark.parametrize('method', STEPS)
def test_a_step_does_what_its_formula_needs(count, method):
    model, optimizers = build(method)
    size = 16
    model.train_step(batch_of(model, size), optimizers)  # PRE-DFKD has something to replay now
    with count.count_passes(networks(model)) as images, count.OperationCount() as done:
        model.train_step(batch_of(model, size), optimizers)
    assert {name: Fraction(n, size) for name, n in images.items()} == STEPS[method]
    assert done.reads == 0, {name: done.operations[name] for name in count.READS}


@pytest.mark.parametrize('method', STEPS)
def test_the_number_of_operations_does_not_grow_with_the_batch(count, method):
    model, optimizers = build(method)
    model.train_step(batch_of(model, 16), optimizers)
    numbers = []
    for size in (16, 32):
        with count.OperationCount() as done:
            model.train_step(batch_of(model, size), optimizers)
        numbers.append(done.operations)
    assert numbers[0] == numbers[1]
    assert numbers[0].total() > 100


@pytest.mark.parametrize('method', STEPS)
def test_every_loss_of_a_recipe_is_asked(method):
    """Built and used by another way than its `forward`, it would be dead for who swaps it."""
    model, optimizers = build(method)
    losses = {name: part for name, part in model.named_modules() if is_a_loss(part)}
    asked = set()
    for name, part in losses.items():
        part.register_forward_hook(lambda *ignored, name=name: asked.add(name))
    for _ in range(2):  # PRE-DFKD replays from the second on
        model.train_step(batch_of(model, 16), optimizers)
    if method in ROUNDS:
        model.batch_size, model.iterations = 16, 1
        model.synthesize(optimizers, model.warmup_rounds)
    if hasattr(model, 'set_stage'):
        model.set_stage('student')
        model.train_step(batch_of(model, 16), optimizers)
    assert asked == set(losses)
    assert losses or method == 'DFAD'  # its only loss is the distance of two logits


def is_a_loss(part):
    return type(part).__module__.startswith('mmdfkd.models.losses')


@pytest.mark.parametrize('method', ROUNDS)
def test_a_round_of_synthesis_does_what_its_formula_needs(count, method):
    model, optimizers = build(method)
    model.batch_size = 16
    passes, reads = ROUNDS[method]
    number, found = model.warmup_rounds, []
    for iterations in (1, 3):
        model.iterations = iterations
        with count.count_passes(networks(model)) as images, count.OperationCount() as done:
            model.synthesize(optimizers, number)
        found.append(({name: n // 16 for name, n in images.items()}, done.reads))
    (first, once), (three, thrice) = found
    assert first == passes
    assert three == {name: 3 * n for name, n in passes.items()}
    assert (thrice - once) == 2 * reads
    assert once == reads + 1  # at its end: whether any image is good


# On another device ---------------------------------------------------------------------------


class Elsewhere(TorchDispatchMode):
    """The meta device in the place of a GPU: it has no values, so reading one fails by itself.

    Attributes:
        mixed: Operations between tensors of the device and of the host, numbers excepted.
        waits: Copies from one to the other that the host waits for.
    """

    def __init__(self):
        super().__init__()
        self.mixed, self.waits = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == '_sample_dirichlet':  # PyTorch has it for devices with values only
            return torch.empty_like(args[0])
        result = func(*args, **kwargs)
        leaves = tree_leaves((args, kwargs, result))
        tensors = [t for t in leaves if isinstance(t, torch.Tensor) and (t.ndim or t.is_meta)]
        if len({t.device for t in tensors}) > 1:
            copies = name in ('_to_copy', 'copy_')
            if not copies:
                self.mixed.append(name)
            elif not (kwargs.get('non_blocking') or args[2:]):
                self.waits.append([tuple(t.shape) for t in tensors])
        return result


@pytest.mark.parametrize('method', STEPS)
def test_a_step_on_another_device_waits_for_nothing(method, monkeypatch):
    """All of it happens there; only the batch comes from the host, or is there already."""
    monkeypatch.setattr(torch, 'autocast', lambda device, **ignored: nullcontext())  # none there
    model, optimizers = build(method)
    model.to('meta')
    if hasattr(model, 'set_stage'):  # told again, as by a run
        model.remember_selection(Selection(torch.arange(64), torch.ones(64), torch.arange(64) % 10))
    sent = batch_of(model, 16)
    resident = tree_map(lambda tensor: tensor.to('meta'), sent)
    with Elsewhere() as watch:
        for batch in (sent, resident):  # PRE-DFKD has something to replay in the second
            logs = model.train_step(dict(batch), optimizers)
    assert watch.mixed == watch.waits == []
    assert all(value.is_meta for value in logs.values())


@pytest.mark.parametrize('method', ROUNDS)
def test_a_round_on_another_device_waits_at_its_ends_only(method, monkeypatch):
    """For what it begins with, and to see that it did not diverge; iterations wait for nothing."""
    checked = []
    monkeypatch.setattr(BestIterate, 'check', lambda self, number: checked.append(number))
    monkeypatch.setattr(torch, 'autocast', lambda device, **ignored: nullcontext())
    model, optimizers = build(method)
    model.to('meta')
    model.batch_size = 16
    number, waits = model.warmup_rounds, []
    for model.iterations in (1, 3):
        with Elsewhere() as watch:
            model.synthesize(optimizers, number)
        assert watch.mixed == []
        waits.append(len(watch.waits))
    assert waits[0] == waits[1] <= 2
    assert checked == [number, number]


def test_batches_of_a_validation_on_another_device_wait_for_nothing():
    """What metrics count stays there until all batches are over."""
    model, _ = build('KD')
    model.to('meta')
    model.remember_teacher(torch.arange(16) % 10)
    metrics = [Accuracy(topk=(1, 5)), Agreement()]
    batch = dict(batch_of(model, 16), index=torch.arange(16), label=torch.arange(16) % 10)
    with Elsewhere() as watch:
        for _ in range(2):
            samples = model.val_step(batch)
            for metric in metrics:
                metric.process(batch, samples)
    assert watch.mixed == watch.waits == []
    counts = [value for metric in metrics for batch in metric.results for value in batch.values()]
    assert len(counts) == 2 * (3 + 2) and all(value.is_meta for value in counts)


def test_what_would_wait_is_seen():
    there = torch.ones(3, device='meta')
    with Elsewhere() as watch:
        there + torch.ones(())
        torch.ones(3).to('meta', non_blocking=True)
        assert watch.mixed == watch.waits == []
        torch.ones(3).to('meta')
        there[torch.tensor([1])]
        with pytest.raises(RuntimeError):
            there.sum().item()
        with pytest.raises(NotImplementedError):
            there.cpu()
    assert watch.mixed == ['index'] and watch.waits == [[(3,), (3,)]]


# The counter itself ---------------------------------------------------------------------------


def test_reads_of_the_device_are_seen(count):
    values = torch.arange(4.0, requires_grad=True)
    with count.OperationCount() as done:
        values.sum().item()
        values[values > 1]
        bool(values.isfinite().all())
    assert done.reads == 3


def test_what_optimisers_do_is_counted_apart(count):
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    with count.OperationCount() as done:
        weight.sum().backward()
        before = done.operations.copy()
        optimizer.step()
        assert done.operations == before
        assert done.of_optimizers.total() > 5
        weight.sum()
    assert done.operations.total() == before.total() + 1


def test_passes_with_and_without_a_graph(count):
    network = torch.nn.Linear(2, 2)
    with count.count_passes({'net': network}) as images:
        network(torch.ones(3, 2))
        with torch.no_grad():
            network(torch.ones(4, 2))
        network.requires_grad_(False)
        network(torch.ones(5, 2))  # nothing to learn, and nobody asks for the gradient
        network(torch.ones(6, 2, requires_grad=True))
    assert images == {'net': 3 + 6, 'net, no graph': 4 + 5}
