# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Students whose last convolution feeds only the pooled vector: ShuffleNetV2, MobileNetV2."""

import pytest
import torch

from mmdfkd.models.algorithms import KD3
from mmdfkd.models.classifiers import load_classifier, save_classifier


@pytest.fixture
def mobile(student):
    """Config: 4 channels in the last map, 10 behind the neck."""
    student['neck'] = dict(type='ConvNeck', in_channels=4, out_channels=10)
    student['head']['in_channels'] = 10
    return student


def test_adapter_takes_the_map_and_the_head_the_vector_behind_the_neck(teacher, mobile):
    model = KD3(teacher, mobile).eval()
    images, perturbed = torch.randn(3, 1, 16, 16), torch.randn(3, 1, 16, 16)
    clean_map, clean, mixed = model.student_views(images, perturbed)
    assert torch.equal(clean_map, model.student.backbone(images)[-1])
    assert clean_map.shape == (3, 4, 4, 4)
    behind = [model.student_neck(model.student.backbone(x)[-1]) for x in (images, perturbed)]
    assert behind[0].shape == (3, 10, 4, 4)
    assert torch.equal(clean, behind[0].mean((2, 3)))
    assert torch.equal(mixed, behind[1].mean((2, 3)))
    assert model.student_head.linear.in_features == 10
    assert model.student.neck.in_channels == 4


def test_neck_is_trained_by_the_contrast_alone(teacher, mobile, make_batch, take_steps):
    batch = make_batch()

    def gradients(alignment, contrast):
        torch.manual_seed(7)
        model = KD3(
            teacher,
            mobile,
            alignment=dict(loss_weight=alignment),
            contrast=dict(loss_weight=contrast),
        )
        found = {}
        for name, parameter in model.student_neck.named_parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: found.update({name: p.grad.clone()})
            )
        take_steps(model, batch)
        return found

    once, aligned, twice = gradients(1.0, 0.01), gradients(5.0, 0.01), gradients(1.0, 0.02)
    assert once.keys() == {'conv.weight', 'bn.weight', 'bn.bias'}
    for name, gradient in once.items():
        assert gradient.any(), name
        torch.testing.assert_close(aligned[name], gradient)
        torch.testing.assert_close(twice[name], 2 * gradient)
    assert not gradients(1.0, 0)


@pytest.mark.parametrize(('mode', 'batches'), [('separate', 2), ('clean_only', 1), ('concat', 1)])
def test_its_batch_norm_follows_the_chosen_regime(
    teacher, mobile, make_batch, take_steps, mode, batches
):
    model = KD3(teacher, mobile, batch_norm=mode)
    take_steps(model, make_batch())
    assert model.student_neck.bn.num_batches_tracked == batches


def test_deployed_student_is_without(tmp_path, teacher, mobile, make_batch, take_steps):
    model = KD3(teacher, mobile)
    take_steps(model, make_batch())
    assert not any('bn.' in name or '.conv.' in name for name in model.student.neck.state_dict())
    save_classifier(tmp_path / 'student.pth', model.student, {})
    deployed = load_classifier(tmp_path / 'student.pth').eval()
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(deployed(images), model.eval()(images))
    # backbone, adapter (4 -> 3 -> 3 -> 6: 12 + 6, 81 + 6, 18 + 12) and the teacher's classifier
    backbone = sum(p.numel() for p in model.student.backbone.parameters())
    assert sum(p.numel() for p in deployed.parameters()) == backbone + 135 + 6 * 5 + 5


def test_resume_keeps_the_neck(teacher, mobile):
    state = KD3(teacher, mobile).state_dict()
    assert 'student_neck.conv.weight' in state
    other = KD3(teacher, mobile)
    other.load_state_dict(state)
    assert torch.equal(other.student_neck.conv.weight, state['student_neck.conv.weight'])
