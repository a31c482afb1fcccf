# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The batch preprocessor: augment first, normalise last, and one way back to uint8."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

MEAN, STD = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


def make_images(batch=6, channels=3, layout='contiguous'):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, channels, 10, 12), generator=generator)
    return images.to(torch.uint8).contiguous(memory_format=FORMATS[layout])


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('channels', [1, 3])
def test_normalize_equals_torchvision(channels, layout):
    images = make_images(channels=channels, layout=layout)
    mean, std = MEAN[:channels], STD[:channels]
    normalized = BatchPreprocessor(mean, std).normalize(images)
    torch.testing.assert_close(normalized, F.normalize(images.float(), mean, std))
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous(memory_format=FORMATS[layout])


def test_normalize_by_hand():
    images = torch.tensor([[[[0, 255]], [[100, 50]]]], dtype=torch.uint8)
    # Channel 0: (0 - 51) / 102 = -0.5, (255 - 51) / 102 = 2. Channel 1: 100 -> 0, 50 -> -2.
    expected = torch.tensor([[[[-0.5, 2.0]], [[0.0, -2.0]]]])
    torch.testing.assert_close(BatchPreprocessor([51, 100], [102, 25]).normalize(images), expected)


@pytest.mark.parametrize('layout', FORMATS)
def test_normalize_after_an_empty_batch(layout):
    preprocessor, images = BatchPreprocessor(MEAN, STD), make_images(3, layout=layout)
    assert preprocessor.normalize(images[:0]).shape == (0, 3, 10, 12)
    expected = F.normalize(images.float(), MEAN, STD)
    torch.testing.assert_close(preprocessor.normalize(images), expected)


@pytest.mark.parametrize('layout', FORMATS)
def test_denormalize_inverts_normalize_on_every_level(layout):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, -1, -1)
    levels = levels.contiguous(memory_format=FORMATS[layout])
    for std in (STD, [0.5, 1.0, 255.0]):
        preprocessor = BatchPreprocessor(MEAN, std)
        restored = preprocessor.denormalize(preprocessor.normalize(levels))
        assert restored.dtype == torch.uint8 and torch.equal(restored, levels)
        assert restored.is_contiguous(memory_format=FORMATS[layout])


def test_denormalize_rounds_and_clamps():
    preprocessor = BatchPreprocessor(mean=[100.0], std=[50.0])
    # 100 + 50 z: 100.4 -> 100, 100.6 -> 101, -50 -> 0, 350 -> 255.
    z = torch.tensor([0.008, 0.012, -3.0, 5.0]).view(1, 1, 1, 4)
    assert preprocessor.denormalize(z).flatten().tolist() == [100, 101, 0, 255]
    assert z.flatten()[2] == -3.0


@pytest.mark.parametrize('layout', FORMATS)
def test_gradient_passes_to_float_images(layout):
    preprocessor = BatchPreprocessor(MEAN, STD)
    images = make_images(2, layout=layout).float().requires_grad_()
    preprocessor(dict(inputs=images))['inputs'].sum().backward()
    expected = (1 / torch.tensor(STD)).view(-1, 1, 1).expand_as(images)
    torch.testing.assert_close(images.grad, expected)


def test_it_may_become_more_precise():
    preprocessor, images = BatchPreprocessor(MEAN, STD), make_images()
    assert preprocessor.normalize(images).dtype == torch.float32
    found = preprocessor.double().normalize(images)
    mean, std = (values.double() for values in (preprocessor.mean, preprocessor.std))
    torch.testing.assert_close(found, (images.double() - mean) / std, rtol=1e-15, atol=0)


def test_gradcheck_in_double():
    images = make_images(2).double().requires_grad_()
    preprocessor = BatchPreprocessor(MEAN, STD).double()
    assert torch.autograd.gradcheck(preprocessor.normalize, images)


def test_images_with_a_gradient_after_some_in_inference_mode():
    preprocessor = BatchPreprocessor(MEAN, STD)
    with torch.inference_mode():
        preprocessor.normalize(torch.zeros(2, 3, 4, 4))
    images = torch.zeros(2, 3, 4, 4, requires_grad=True)
    preprocessor.normalize(images).sum().backward()
    expected = (1 / torch.tensor(STD)).view(-1, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(images.grad, expected)


def test_augments_uint8_before_normalising_and_only_in_training():
    seen = []

    def spy(images):
        seen.append(images.dtype)
        return 255 - images

    flip = dict(type='BatchRandomFlip', prob=1.0)
    preprocessor = BatchPreprocessor(MEAN, STD, augment=[spy, flip])
    data = dict(inputs=make_images())
    augmented = preprocessor(data, training=True)['inputs']
    expected = F.normalize((255 - data['inputs']).flip(-1).float(), MEAN, STD)
    torch.testing.assert_close(augmented, expected)
    plain = preprocessor(data, training=False)['inputs']
    torch.testing.assert_close(plain, F.normalize(data['inputs'].float(), MEAN, STD))
    assert seen == [torch.uint8]


def test_float_inputs_stay_float_in_augmentations():
    crop = dict(type='BatchRandomResizedCrop', size=10)
    preprocessor = BatchPreprocessor([0.0], [1.0], augment=[crop])
    output = preprocessor(dict(inputs=make_images(channels=1).float()), training=True)['inputs']
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.round())


def test_the_callers_batch_is_left_alone():
    preprocessor = BatchPreprocessor(MEAN, STD, augment=[dict(type='BatchRandomFlip')])
    images, index = make_images(), torch.arange(6)
    data = dict(inputs=images, index=index, label=index + 1, name='pool')
    before = images.clone()
    output = preprocessor(data, training=True)
    assert data['inputs'] is images and torch.equal(images, before)
    assert output is not data and set(output) == set(data)
    assert torch.equal(output['label'], data['label']) and output['name'] == 'pool'


def test_every_tensor_goes_to_the_device():
    preprocessor = BatchPreprocessor(MEAN, STD).to('meta')
    output = preprocessor(dict(inputs=make_images(), index=torch.arange(6)))
    assert output['inputs'].device.type == output['index'].device.type == 'meta'


@pytest.mark.parametrize('non_blocking', [True, False])
def test_how_batches_are_copied(non_blocking, monkeypatch):
    said, to = [], torch.Tensor.to

    def watch(self, *args, **options):
        said.append(options.get('non_blocking'))
        return to(self, *args, **options)

    preprocessor = BatchPreprocessor(MEAN, STD, non_blocking=non_blocking)
    data = dict(inputs=make_images(), index=torch.arange(6))
    monkeypatch.setattr(torch.Tensor, 'to', watch)
    preprocessor.cast_data(data)
    assert said == [non_blocking] * 2


def test_checkpoints_do_not_carry_the_statistics():
    preprocessor = BatchPreprocessor(MEAN, STD)
    assert preprocessor.state_dict() == {}
    assert {name for name, _ in preprocessor.named_buffers()} == {'mean', 'std'}


def test_same_seed_same_batch():
    augment = [
        dict(type='BatchAutoAugment', policy='cifar10'),
        dict(type='BatchRandomCrop', size=(10, 12), padding=2),
        dict(type='BatchRandomFlip'),
    ]
    config = dict(type='BatchPreprocessor', mean=MEAN, std=STD, augment=augment)
    preprocessor, data = MODELS.build(config), dict(inputs=make_images())
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outputs.append(preprocessor(data, training=True)['inputs'])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


# Errors


def test_wrong_channels_name_both_shapes():
    preprocessor = BatchPreprocessor(MEAN[:1], STD[:1], input_shape=(1, 10, 12))
    with pytest.raises(UsageError, match='has 3x10x12 images.*expects 1x10x12.*grey=True'):
        preprocessor(dict(inputs=make_images()))


def test_grey_images_of_a_colour_teacher():
    preprocessor = BatchPreprocessor(MEAN, STD, input_shape=(3, 10, 12))
    with pytest.raises(
        UsageError, match='has 1x10x12 images.*expects 3x10x12.*leave out grey=True'
    ):
        preprocessor(dict(inputs=make_images()[:, :1]))


def test_wrong_channels_without_an_input_shape():
    with pytest.raises(UsageError, match='has 3x10x12 images.*expects 1xHxW'):
        BatchPreprocessor(MEAN[:1], STD[:1])(dict(inputs=make_images()))


def test_wrong_size_is_checked_after_augmentation():
    resize = dict(type='BatchRandomResizedCrop', size=8)
    preprocessor = BatchPreprocessor(MEAN, STD, augment=[resize], input_shape=[3, 8, 8])
    assert preprocessor(dict(inputs=make_images()), True)['inputs'].shape == (6, 3, 8, 8)
    remedies = 'image_size=8.*--size 8.*BatchRandomResized'
    with pytest.raises(UsageError, match=f'has 3x10x12 images.*expects 3x8x8.*{remedies}'):
        preprocessor(dict(inputs=make_images()))
    wrong = [dict(resize, size=6)]
    preprocessor = BatchPreprocessor(MEAN, STD, augment=wrong, input_shape=[3, 8, 8])
    with pytest.raises(UsageError, match=r'give BatchRandomResizedCrop in augment size=\(8, 8\)'):
        preprocessor(dict(inputs=make_images()), True)


@pytest.mark.parametrize(
    ('data', 'found'),
    [
        (dict(index=torch.arange(2)), r"\['index'\]"),
        (dict(inputs=[make_images()[0]]), r"\['inputs'\]"),
        ([make_images()], 'list'),
    ],
)
def test_no_batch_of_images(data, found):
    with pytest.raises(UsageError, match=f'yields {found}.*whole_batch_collate'):
        BatchPreprocessor(MEAN, STD)(data)


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(mean=MEAN, std=[1.0]), 'one number per channel'),
        (dict(mean=[0.49], std=[0.25]), 'by 255'),
        (dict(mean=MEAN, std=[63.0, 0.0, 66.7]), 'positive'),
        (dict(mean=MEAN, std=STD, input_shape=(1, 32, 32)), r'\(1, 32, 32\).* 3 channel'),
        (dict(mean=MEAN, std=STD, input_shape=(32, 32)), r'\(32, 32\)'),
        (dict(mean=MEAN, std=STD, augment=dict(type='BatchRandomFlip')), 'augment is a dict'),
    ],
)
def test_meaningless_arguments(arguments, named):
    with pytest.raises(UsageError, match=named):
        BatchPreprocessor(**arguments)
