# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.classifiers import build_student, build_teacher, save_classifier
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

INPUTS = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])


def config(width=4, **others):
    return dict(
        backbone=dict(type='CifarResNet', depth=8, widths=(2, 2, width), in_channels=1),
        head=dict(in_channels=width, num_classes=5),
        **others,
    )


def network(**others):
    return MODELS.build(config(type='Classifier', **INPUTS, **others))


@pytest.fixture
def teacher():
    return build_teacher(network())


# Teachers -------------------------------------------------------------------------------------


def test_a_teacher_is_frozen_and_passes_gradient_on(teacher):
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    teacher(images).square().sum().backward()
    assert images.grad.any() and all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize('described', [False, True])
def test_a_teacher_from_its_file(tmp_path, teacher, described):
    save_classifier(tmp_path / 'teacher.pth', teacher, {})
    said = config() if described else {}
    found = build_teacher(dict(said, checkpoint=tmp_path / 'teacher.pth'))
    images = torch.randn(3, 1, 16, 16)
    assert torch.equal(found(images), teacher(images))
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_a_teacher_without_checkpoint_is_refused():
    with pytest.raises(UsageError, match=r'model\.teacher has no checkpoint.*checkpoint='):
        build_teacher(config())
    with pytest.raises(UsageError, match=r'model\.teacher is None.*Name a teacher'):
        build_teacher(None)


def test_the_checkpoint_of_another_network_is_refused(tmp_path, teacher):
    save_classifier(tmp_path / 'teacher.pth', teacher, {})
    other = dict(backbone=dict(type='LeNet5'), checkpoint=tmp_path / 'teacher.pth')
    other.update(head=dict(in_channels=120, num_classes=5, hidden_channels=[84]))
    with pytest.raises(UsageError, match='other shapes|in part|matches no key|was made for'):
        build_teacher(other)


def test_a_teacher_is_not_initialised_any_more():
    """Also where somebody asks it to, such as a student that shares a layer."""
    teacher = build_teacher(network(init_cfg=dict(type='Constant', layer='Linear', val=0.0)))
    before = teacher.head.fc.weight.clone()
    teacher.init_weights()
    assert before.all() and torch.equal(teacher.head.fc.weight, before)


# Students -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('key', 'value'), [('mean', [0.0]), ('std', [1.0]), ('input_shape', (1, 32, 32))]
)
def test_a_student_sees_the_teachers_images(teacher, key, value):
    expected = rf'model\.student\.{key} is .*Leave it out'
    with pytest.raises(UsageError, match=expected):
        build_student(config(**{key: value}), teacher, 'KD')
    built = MODELS.build(config(type='Classifier', **{**INPUTS, key: value}))
    with pytest.raises(UsageError, match=expected):
        build_student(built, teacher, 'KD')
    for same in ({}, {key: INPUTS[key]}):
        student = build_student(config(**same), teacher, 'KD')
        assert list(getattr(student, key)) == list(getattr(teacher, key))


def test_a_student_that_is_built_is_taken_as_it_is(teacher):
    student = network()
    assert build_student(student, teacher, 'KD') is build_student(student, None, 'KD') is student


def test_a_student_has_its_parts(teacher):
    backbone, head = (config()[part] for part in ('backbone', 'head'))
    for said in (dict(head=head), dict(type='mmdfkd.Classifier', head=head)):
        with pytest.raises(UsageError, match=r'model\.student: the config has no backbone'):
            build_student(said, teacher, 'KD')
    with pytest.raises(UsageError, match=r'model\.twin: CTKD needs the head'):
        build_student(dict(backbone=backbone), teacher, 'CTKD', key='model.twin')


def test_a_student_that_cannot_see_the_images(teacher):
    wrong = config()
    wrong['backbone']['in_channels'] = 3
    with pytest.raises(UsageError, match=r'model\.student cannot see images of 1x16x16'):
        build_student(wrong, teacher, 'KD')
