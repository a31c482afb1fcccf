# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.algorithms import KD, KD3, STKD, BaseDistiller, FastDFKD, Supervised
from mmdfkd.models.algorithms.base import add_up
from mmdfkd.models.classifiers import Classifier, load_classifier, save_classifier
from mmdfkd.models.modules import Mixup
from mmdfkd.models.selectors import RandomSelector
from mmdfkd.registry import MODELS, TASK_UTILS
from mmdfkd.utils import UsageError


@pytest.fixture
def model(teacher, student):
    return KD(teacher, student, alpha=1.0)


def test_method_must_say_how_it_trains(student, teacher):
    with pytest.raises(TypeError, match='abstract'):
        BaseDistiller(student, teacher)


def test_terms_of_a_loss_are_added_up():
    terms = {
        name: torch.tensor(value, requires_grad=True)
        for name, value in dict(a=1.0, b=2.0, c=4.5).items()
    }
    loss = add_up(terms)
    loss.backward()
    assert loss.item() == 7.5 and [term.grad.item() for term in terms.values()] == [1.0, 1.0, 1.0]
    assert add_up(dict(a=terms['c'])) is terms['c']


@pytest.mark.parametrize('method', [KD, KD3])
def test_a_selector_of_batches_is_refused_where_nobody_asks_it(teacher, student, method):
    by_batch = dict(type='ConfidenceSelector', scope='batch')
    with pytest.raises(UsageError, match=f"and {method.__name__} asks .*scope='global'"):
        method(teacher=teacher, student=student, selector=by_batch)


def test_a_selector_needs_what_there_is(teacher, student, monkeypatch):
    monkeypatch.setattr(RandomSelector, 'needs', ('techer',))
    with pytest.raises(UsageError, match=r"RandomSelector\.needs has 'techer'.*'teacher'"):
        KD(teacher, student, selector=dict(type='RandomSelector'))


def test_a_part_that_nobody_gives_a_type(model):
    with pytest.raises(UsageError, match=r'model\.balance has no type, and default_types of KD'):
        model.build_part('balance', dict(loss_weight=2.0))


def test_a_selector_is_one(teacher, student):
    chooses_nothing = dict(type='AccuracyOfNothing')
    TASK_UTILS.register_module('AccuracyOfNothing', module=type('AccuracyOfNothing', (), {}))
    try:
        with pytest.raises(UsageError, match='is a AccuracyOfNothing, .*models.selectors.Selector'):
            KD(teacher, student, selector=chooses_nothing)
    finally:
        TASK_UTILS.module_dict.pop('AccuracyOfNothing')


def test_teacher_is_frozen_and_stays_in_eval_mode(model):
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
    for mode in (True, False, True):
        model.train(mode)
        assert model.student.training is mode
        assert not any(module.training for module in model.teacher.modules())


def test_default_types_of_a_method_are_kept_by_one_that_derives_from_it(teacher, student):
    class Derived(STKD):
        default_types = dict(further='ActivationLoss')

    assert isinstance(Derived(teacher, student).mixup, Mixup)


def test_default_types_of_a_method_that_derives_from_another(teacher, student):
    """What a config is checked against is what is built."""

    class Transposes(FastDFKD):
        default_types = dict(generator='TransposedGenerator', optimizer='AdamW')

    model = Transposes(teacher, student, generator=dict(widths=(4, 4)), reset_l0=False)
    assert type(model.generator).__name__ == 'TransposedGenerator'
    assert model.optimizer == dict(type='AdamW', lr=3e-3, betas=(0.5, 0.999))


def test_gradient_flows_through_the_teacher_to_images(model):
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    model.train()
    model.teacher(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_teacher_from_its_file_alone(tmp_path, teacher, student):
    save_classifier(tmp_path / 'teacher.pth', teacher, dict(accuracy=50.0))
    config = dict(checkpoint=tmp_path / 'teacher.pth')
    model = KD(config, student, alpha=1.0)
    assert config == dict(checkpoint=tmp_path / 'teacher.pth')  # good for another one
    assert model.teacher.config == teacher.config
    assert model.teacher.meta['accuracy'] == 50.0
    assert model.teacher_fingerprint() == KD(teacher, student).teacher_fingerprint()
    images = torch.randn(3, 1, 16, 16)
    assert torch.equal(model.teacher(images), teacher(images))


def test_classes_must_agree(teacher, student):
    student['head']['num_classes'] = 7
    with pytest.raises(UsageError, match=r'has 5 classes, model\.student has 7.*num_classes to 5'):
        KD(teacher, student)


def test_a_student_for_other_channels(teacher, student):
    student['backbone'] = dict(student['backbone'], in_channels=3)
    expected = r'model\.student cannot see images of 1x16x16: .*in_channels=1,'
    for refusing in (KD, KD3):
        with pytest.raises(UsageError, match=expected):
            refusing(teacher, dict(student))


@MODELS.register_module()
class TensorBackbone(nn.Conv2d):
    """Returns a tensor, not a tuple of maps."""


def test_a_backbone_returns_maps(teacher, student):
    student['backbone'] = dict(type='TensorBackbone', in_channels=1, out_channels=4, kernel_size=3)
    for refusing in (KD, KD3):
        with pytest.raises(UsageError, match=r'backbone: TensorBackbone returns a tensor\. Return'):
            refusing(teacher, dict(student))


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_a_network_that_passes_gradient_on_is_as_before_afterwards(model, mode):
    model.train()
    frozen = model.student.head.fc.bias.requires_grad_(False)
    with model.gradient_only_through(model.student, mode):
        assert not any(p.requires_grad for p in model.student.parameters())
        assert model.student.training is (mode == 'train')
    assert [p for p in model.student.parameters() if not p.requires_grad] == [frozen]
    assert model.student.training
    with pytest.raises(ZeroDivisionError):
        with model.gradient_only_through(model.student, mode):
            raise ZeroDivisionError
    assert [p for p in model.student.parameters() if not p.requires_grad] == [frozen]
    assert model.student.training


def test_one_normalisation_the_teachers(model, make_batch):
    # (255 - 120) / 60 = 2.25
    batch = dict(make_batch(2), inputs=torch.full((2, 1, 16, 16), 255, dtype=torch.uint8))
    for preprocessor in (model.data_preprocessor, model.test_preprocessor):
        assert preprocessor(batch)['inputs'].unique().tolist() == [2.25]


def test_training_road_may_differ_evaluation_may_not(teacher, student, make_batch):
    model = KD(teacher, student, data_preprocessor=dict(mean=[0.0], std=[255.0])).eval()
    batch = make_batch(4)
    assert model.data_preprocessor(batch)['inputs'].max() <= 1
    expected = model.student((batch['inputs'] - 120.0) / 60)
    assert torch.equal(model.val_step(batch)[0]['logits'], expected)


def test_evaluation_returns_whole_batches(model, make_batch):
    batch = make_batch(4, labelled=True)
    batch['index'] = torch.tensor([3, 0, 2, 1])
    model.eval()
    (answer,) = model.val_step(dict(batch))
    assert answer['logits'].shape == (4, 5) and not answer['logits'].requires_grad
    assert torch.equal(answer['label'], batch['label'])
    assert 'teacher_prediction' not in answer and 'inputs' not in answer
    model.remember_teacher(torch.tensor([10, 11, 12, 13]))
    (answer,) = model.val_step(dict(batch))
    assert answer['teacher_prediction'].tolist() == [13, 10, 12, 11]
    normalised = model.test_preprocessor(batch)['inputs']
    assert torch.equal(model(normalised), answer['logits'])


def test_state_leaves_the_teacher_out(model):
    state = model.state_dict()
    assert state and not [name for name in state if name.startswith('teacher.')]
    # also where a wrapper asks
    assert set(nn.ModuleDict({'algorithm': model}).state_dict()) == {
        f'algorithm.{name}' for name in state
    }


def test_state_goes_back_strictly(teacher, student, snapshot, changed):
    model, other = KD(teacher, student), KD(teacher, student)
    frozen = snapshot(teacher)
    assert changed(other, model.state_dict())
    other.load_state_dict(model.state_dict())
    assert not changed(other, model.state_dict())
    state = model.state_dict()
    del state['student.head.fc.bias']
    with pytest.raises(RuntimeError, match='student.head.fc.bias'):
        other.load_state_dict(state)
    assert not changed(teacher, frozen)


def test_initialisation_spares_the_teacher(teacher, student, snapshot, changed):
    zeros = dict(type='Constant', layer='Linear', val=0.0, bias=0.0)
    model = KD(teacher, {**student, 'init_cfg': zeros})
    frozen = snapshot(teacher)
    model.init_weights()
    assert model.student.head.fc.weight.abs().sum() == 0
    assert not changed(teacher, frozen)


@pytest.mark.parametrize('method', [KD, KD3])
def test_a_student_is_initialised_as_its_config_says(teacher, student, method):
    """Also where a method builds it around the teacher's classifier."""
    student['backbone']['init_cfg'] = dict(type='Constant', layer='Conv2d', val=0.5)
    model = method(teacher=teacher, student=student)
    model.init_weights()
    assert (model.student.backbone.conv1.weight == 0.5).all()


def test_a_student_from_its_file_is_not_initialised_any_more(tmp_path, teacher, student):
    student['backbone']['init_cfg'] = dict(type='Constant', layer='Conv2d', val=0.5)
    inputs = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    save_classifier(tmp_path / 'student.pth', MODELS.build({**student, **inputs}), {})
    model = KD(teacher, load_classifier(tmp_path / 'student.pth'))
    model.init_weights()
    assert (model.student.backbone.conv1.weight != 0.5).all()


def test_selector_is_built(teacher, student):
    model = KD(teacher, student, selector=dict(type='RandomSelector', ratio=0.5))
    assert isinstance(model.selector, RandomSelector) and model.selector.ratio == 0.5
    assert KD(teacher, student).selector is None


def test_without_a_teacher(teacher, student):
    inputs = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    model = Supervised({**student, **inputs})
    assert model.train().teacher is None and model.teacher_fingerprint() == ''
    model.load_state_dict(model.state_dict())
    with pytest.raises(UsageError, match="does not state its 'mean'.*Add mean="):
        Supervised({**student, 'input_shape': (1, 16, 16), 'std': [60.0]})


def test_shipped_pair_distils_from_one_line(student):
    model = KD(
        dict(checkpoint='mmdfkd://lenet5_digits'),
        {**student, 'head': dict(in_channels=4, num_classes=10)},
    )
    assert isinstance(model.teacher, Classifier) and model.student.input_shape == (1, 32, 32)
    shipped = load_classifier('mmdfkd://lenet5_digits')
    assert model.student.mean == shipped.mean
