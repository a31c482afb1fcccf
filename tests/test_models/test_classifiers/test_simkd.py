# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.classifiers import (
    ForeignClassifier,
    load_classifier,
    map_shape,
    save_classifier,
    share_classifier,
)
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

BACKBONE = dict(type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=1)


@pytest.fixture
def teacher():
    return MODELS.build(
        dict(
            type='Classifier',
            backbone=dict(type='CifarResNet', depth=8, widths=(2, 4, 6), in_channels=1),
            head=dict(in_channels=6, num_classes=5),
            input_shape=(1, 16, 16),
            mean=[120.0],
            std=[60.0],
        )
    ).eval()


def test_student_is_backbone_adapter_and_the_teachers_head(teacher):
    student = share_classifier(dict(backbone=BACKBONE, name='small'), teacher, {}).eval()
    assert student.head is teacher.head
    neck = student.neck
    assert (neck.in_channels, neck.out_channels, neck.in_size, neck.out_size) == (4, 6, 4, 4)
    images = torch.randn(2, 1, 16, 16)
    adapted = neck(student.backbone(images)[-1])
    expected = teacher.head.fc(adapted.mean((2, 3)))
    torch.testing.assert_close(student(images), expected)
    assert (student.name, student.mean, student.std) == ('small', [120.0], [60.0])


def test_images_that_are_no_squares(teacher):
    teacher = MODELS.build(dict(teacher.config, input_shape=(1, 16, 32))).eval()
    student = share_classifier(dict(backbone=BACKBONE), teacher, {}).eval()
    images = torch.randn(2, 1, 16, 32)
    expected = teacher.head.fc(student.neck(student.backbone(images)[-1]).mean((2, 3)))
    torch.testing.assert_close(student(images), expected)
    other = dict(type='SmallVGG', depth=8, in_channels=1, num_pools=3)
    with pytest.raises(UsageError, match='student is 2x4, that of the teacher 4x8.*square'):
        share_classifier(dict(backbone=other), teacher, {})


def test_own_head_has_the_same_form(teacher):
    student = share_classifier(dict(backbone=BACKBONE), teacher, {}, own=True)
    assert student.head is not teacher.head
    assert student.head.fc.weight.shape == teacher.head.fc.weight.shape
    assert student.head.fc.weight.requires_grad


def test_adapter_settings_arrive(teacher):
    student = share_classifier(dict(backbone=BACKBONE), teacher, dict(form='linear'))
    # 1x1 convolution 4 -> 6 with bias
    assert sum(p.numel() for p in student.neck.parameters()) == 4 * 6 + 6


def test_a_distilled_student_can_teach(tmp_path, teacher):
    first = share_classifier(dict(backbone=BACKBONE), teacher, {})
    save_classifier(tmp_path / 'first.pth', first, {})
    first = load_classifier(tmp_path / 'first.pth')
    assert map_shape(first, (1, 16, 16)) == (6, 4, 4)  # after its adapter
    backbone = dict(BACKBONE, widths=(2, 2, 3))
    second = share_classifier(dict(backbone=backbone), first, {})
    assert (second.neck.in_channels, second.neck.out_channels) == (3, 6)
    assert second.eval()(torch.randn(1, 1, 16, 16)).shape == (1, 5)


@pytest.mark.parametrize('training', [True, False])
def test_map_shape_leaves_no_trace(teacher, training):
    backbone = teacher.backbone.train(training)
    before = {name: t.clone() for name, t in backbone.state_dict().items()}
    assert map_shape(backbone, (1, 24, 24)) == (6, 6, 6)
    assert backbone.training is training
    assert all(torch.equal(t, before[name]) for name, t in backbone.state_dict().items())


@pytest.mark.parametrize(
    ('extra', 'named'),
    [
        (dict(head=dict(num_classes=3)), r'model\.student\.head\.num_classes is 3.* has 5 classes'),
        (dict(mean=[0.0]), r'model\.student\.mean is \[0\.0\].*\[120\.0\]'),
        (dict(std=[1.0]), r'model\.student\.std is \[1\.0\].*\[60\.0\]'),
        (dict(input_shape=(1, 8, 8)), r'model\.student\.input_shape is \[1, 8, 8\].*16, 16\]'),
        (dict(init_cfg=dict(type='Constant')), r'model\.student\.init_cfg has no place'),
    ],
)
def test_what_a_student_cannot_have(teacher, extra, named):
    with pytest.raises(UsageError, match=named):
        share_classifier(dict(backbone=BACKBONE, **extra), teacher, {})


@pytest.mark.parametrize('own', [False, True])
def test_a_classifier_without_a_bias(tmp_path, own):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    settings = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    teacher = ForeignClassifier(
        nn.Sequential(*net, nn.Linear(4, 3, bias=False)), name='biased by nothing', **settings
    )
    student = share_classifier(dict(backbone=BACKBONE), teacher, {}, own)
    assert student.head.fc.bias is None
    save_classifier(tmp_path / 'student.pth', student, {})
    images = torch.randn(2, 1, 16, 16)
    again = load_classifier(tmp_path / 'student.pth')
    assert torch.equal(again.eval()(images), student.eval()(images))


def test_a_classifier_that_nobody_could_rebuild():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    settings = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    teacher = ForeignClassifier(nn.Sequential(*net, layer), **settings)
    with pytest.raises(UsageError, match=r'nobody could rebuild .*remove_parametrizations'):
        share_classifier(dict(backbone=BACKBONE), teacher, {})


def test_a_network_that_is_built_already(teacher):
    with pytest.raises(UsageError, match=r'model\.student is a network that is built.*backbone'):
        share_classifier(teacher, teacher, {})


def test_a_network_of_another_library(teacher):
    student = dict(type='ForeignClassifier', source='torchvision', model='resnet18')
    with pytest.raises(UsageError, match='is a ForeignClassifier.*from a backbone'):
        share_classifier(student, teacher, {})
