# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmdfkd.apis.given import as_dataset, as_student, as_teacher
from mmdfkd.datasets import ImagePool, write_pool
from mmdfkd.models.classifiers import ForeignClassifier, load_classifier
from mmdfkd.utils import UsageError

SHAPE = (1, 16, 16)


class Wrapped(nn.Module):
    """Changes what another network returns."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x):
        return self.change(self.network(x))


# Images ----------------------------------------------------------------------------------------


def test_arrays_tensors_and_folders_are_the_same_images(images, tmp_path):
    write_pool(tmp_path / 'pool', images, 'pool')
    given = [images, torch.from_numpy(images), tmp_path / 'pool', str(tmp_path / 'pool')]
    given.append(ImagePool(tmp_path / 'pool'))
    for dataset in (as_dataset('images', each) for each in given):
        assert dataset.labels is None
        assert np.array_equal(dataset.images, images)


def test_a_view_is_packed_into_rows(images):
    images = images.repeat(3, axis=3)  # one channel can be turned and stays as it is
    turned = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    dataset = as_dataset('images', turned)
    assert dataset.images.flags['C_CONTIGUOUS']  # a batch of a view costs a copy of everything
    assert np.array_equal(dataset.images, images)


def test_labels(images):
    labels = torch.arange(96) % 5
    dataset = as_dataset('evaluation', (torch.from_numpy(images), labels))
    assert dataset[7]['label'] == 2 and np.array_equal(dataset[7]['inputs'][0], images[7, ..., 0])


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (lambda x: x / 255, r'float64 \(96, 16, 16, 1\)'),
        (lambda x: torch.from_numpy(x).float(), r'float32 \(96, 16, 16, 1\)'),
        (lambda x: x[..., 0], r'uint8 \(96, 16, 16\)'),
        (list, 'list'),
    ],
)
def test_images_of_another_kind(images, change, found):
    with pytest.raises(UsageError, match=rf'^images: found {found}, .*\(255 \* x\)'):
        as_dataset('images', change(images))


# Networks --------------------------------------------------------------------------------------


def test_a_teacher_is_copied_and_computes_the_same(teacher):
    x = torch.randn(3, *SHAPE)
    copied = as_teacher(teacher, torch.tensor([120]), (60,), SHAPE)
    assert copied.mean == [120.0] and copied.std == [60.0] and copied.input_shape == SHAPE
    assert copied.name == 'Net' and copied.config['source'].endswith('conftest:Net')
    with torch.no_grad():
        assert torch.equal(copied(x), teacher.eval()(x))
    assert isinstance(teacher.out, nn.Linear)
    copied.head.fc.weight.data.zero_()
    assert teacher.out.weight.abs().sum() > 0


def test_a_classifier_states_its_own():
    ours = load_classifier('mmdfkd://resnet8_digits')
    copied = as_teacher(ours, None, None, None)
    assert copied is not ours and copied.config == ours.config
    with pytest.raises(UsageError, match=r'mean and std: ResNet8 states its own, \[78\.0\]'):
        as_teacher(ours, [78.0], [82.6], None)
    for mean, std in (([78.0], None), (None, [82.6])):
        with pytest.raises(UsageError, match='mean and std: ResNet8 states its own'):
            as_teacher(ours, mean, std, None)


def test_logits_that_leave_no_linear_layer(make_net, tmp_path, capsys):
    """An ensemble, for instance: its logits are a mean. The log of an earlier run hears nothing."""
    MMLogger.get_instance(str(tmp_path), log_file=tmp_path / 'earlier.log')
    one, two = make_net(1), make_net(2)

    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList([one, two])

        def forward(self, x):
            return torch.stack([member(x) for member in self.members]).mean(0)

    x = torch.randn(3, *SHAPE)
    state = torch.get_rng_state()
    copied = as_teacher(Ensemble(), [120.0], [60.0], SHAPE)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn
    expected = (one.eval()(x) + two.eval()(x)) / 2
    assert copied.name == 'Ensemble' and 'taken for a black box' in capsys.readouterr().out
    assert not (tmp_path / 'earlier.log').read_text()
    torch.testing.assert_close(copied(x), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(copied.extract(x).vector, expected, rtol=0, atol=1e-7)


class Answer(NamedTuple):
    logits: torch.Tensor


def test_a_black_box_may_answer_with_an_object(make_net):
    one, two = make_net(1).eval(), make_net(2).eval()

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = one, two

        def forward(self, x):
            return Answer((self.one(x) + self.two(x)) / 2)

    x = torch.randn(3, *SHAPE)
    found = as_teacher(Mean(), [120.0], [60.0], SHAPE)(x)
    torch.testing.assert_close(found, (one(x) + two(x)) / 2, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    'wrap',
    [nn.DataParallel, lambda network: torch.compile(network, backend='eager'), nn.Module.double],
)
def test_what_networks_are_wrapped_in(make_net, wrap):
    x, plain = torch.randn(3, *SHAPE), make_net(1).eval()
    given = wrap(copy.deepcopy(plain))
    teacher = as_teacher(given, [120.0], [60.0], SHAPE).eval()
    student = as_student(given, teacher).eval()
    for found in (teacher, student):
        assert found.fc_name == 'out' and found(x).dtype == torch.float32
        torch.testing.assert_close(found(x), plain(x))


@pytest.mark.parametrize('wrap', [nn.DataParallel, nn.Module.half, nn.Module.double])
def test_what_classifiers_are_wrapped_in(wrap):
    plain = load_classifier('mmdfkd://resnet8_digits')
    teacher = as_teacher(wrap(copy.deepcopy(plain)), None, None, plain.input_shape)
    student = as_student(wrap(copy.deepcopy(plain)), teacher)
    for found in (teacher, student):
        assert isinstance(found, type(plain)) and found.config == plain.config
        assert {weight.dtype for weight in found.parameters()} == {torch.float32}


def test_what_is_not_compiled_needs_no_compiler():
    """Whose import takes a second, and which ``begin_step`` takes for one at work."""
    code = """
import sys
import mmengine.model  # which imports it with older releases of PyTorch
from torch import nn
before = 'torch._inductor' in sys.modules
from mmdfkd.apis.given import as_teacher
network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
as_teacher(network, [120.0], [60.0], (1, 2, 2))
sys.exit(('torch._inductor' in sys.modules) != before)
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_student_that_answers_otherwise_in_training(make_net):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_net(1)

        def forward(self, x):
            return (self.net(x), self.net(x)) if self.training else self.net(x)

    teacher = as_teacher(make_net(2), [120.0], [60.0], SHAPE)
    student = as_student(Auxiliary(), teacher)
    with pytest.raises(
        UsageError, match='Auxiliary returns a tuple in train mode, expected logits'
    ):
        student.train()(torch.randn(3, *SHAPE))


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (lambda logits: logits.softmax(1), 'returns probabilities or their logarithms'),
        (lambda logits: logits.log_softmax(1), 'returns probabilities or their logarithms'),
        (lambda logits: logits.argmax(1), r'returns \(4,\) for 4 images'),
        (lambda logits: (logits, logits), 'returns tuple for 4 images'),
        (lambda logits: torch.cat([logits, logits]), r'returns \(8, 5\) for 4 images'),
    ],
)
def test_a_teacher_without_logits(teacher, change, problem):
    with pytest.raises(UsageError, match=rf'^teacher: Wrapped {problem}, expected logits'):
        as_teacher(Wrapped(teacher, change), [120.0], [60.0], SHAPE)


@pytest.mark.parametrize(
    'given', ['my_teacher.pth', dict(weight=torch.ones(2)), torch.jit.script(nn.Linear(2, 2))]
)
def test_a_teacher_that_is_no_network(given):
    with pytest.raises(UsageError, match=rf'^teacher: found {type(given).__name__}.*load_state'):
        as_teacher(given, [120.0], [60.0], SHAPE)


def test_images_the_teacher_cannot_see(teacher):
    with pytest.raises(UsageError, match=r'^teacher: Net cannot see images of 3x16x16 .*Give'):
        as_teacher(teacher, [120.0] * 3, [60.0] * 3, (3, 16, 16))


@pytest.mark.parametrize(
    ('mean', 'std', 'problem'),
    [
        (None, [60.0], 'mean and std: give those'),
        ([0.5], [0.25], r'must be in units of 0 to 255'),
        ([0.5], [1.0], r'must be in units of 0 to 255'),
        ([120.0], [0.0], r'std above 0'),
        ([120.0], [60.0] * 3, r'mean has 1 and std 3 numbers'),
        ([120.0] * 3, [60.0] * 3, r'mean has 3 and std 3 numbers, but the images have 1 channels'),
    ],
)
def test_statistics(teacher, mean, std, problem):
    with pytest.raises(UsageError, match=problem):
        as_teacher(teacher, mean, std, SHAPE)


def test_no_channel_has_a_deviation_of_zero(teacher):
    with pytest.raises(UsageError, match='std above 0'):
        as_teacher(teacher, [120.0] * 3, [60.0, 60.0, 0.0], (3, 16, 16))


def test_a_teacher_of_raw_pixels(teacher):
    assert as_teacher(teacher, [0], [1], SHAPE).std == [1.0]


def test_a_student_sees_what_the_teacher_sees(teacher, make_net):
    given = make_net(3)
    student = as_student(given, as_teacher(teacher, [120.0], [60.0], SHAPE))
    assert isinstance(student, ForeignClassifier) and student.mean == [120.0]
    assert student.head.fc.weight is not given.out.weight
    with pytest.raises(UsageError, match=r'^student: Wrapped has no linear layer'):
        as_student(Wrapped(given, lambda logits: 2 * logits), student)
    with pytest.raises(UsageError, match=r"student: found 'resnet18', expected a torch module or"):
        as_student('resnet18', student)
