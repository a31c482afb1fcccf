# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.transforms.v2.functional import resize

from mmdfkd.models.algorithms import KD, KD3
from mmdfkd.models.classifiers import (
    Classifier,
    ForeignClassifier,
    build_teacher,
    load_classifier,
    save_classifier,
)
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[3]
IMAGES = dict(input_shape=(3, 32, 32), mean=[120.0] * 3, std=[60.0] * 3)
SHUFFLE = dict(source='torchvision', model='shufflenet_v2_x0_5', num_classes=7, **IMAGES)


class Toy(nn.Module):
    """A map of 6 channels, its average, a hidden layer if asked for, a classifier."""

    def __init__(self, hidden=False, num_classes=5, wrap=lambda logits: logits):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(6, 4), nn.ReLU()) if hidden else nn.Identity()
        self.classifier = nn.Linear(4 if hidden else 6, num_classes)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.classifier(self.hidden(self.body(x).mean((2, 3)))))


def toy(**kwargs):
    return Toy(**kwargs)


def log_probabilities():
    return Toy(wrap=lambda logits: logits.log_softmax(1))


def with_gap():
    """Its classifier sees something else than what is handed out when it is taken out."""
    return Toy(wrap=lambda x: x.view(len(x), 5))


def maps_only():
    return nn.Conv2d(3, 5, 1)


def pixels_24():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5), nn.ReLU(), nn.Linear(5, 4))


@pytest.fixture
def build():
    def build(function='toy', **settings):
        return ForeignClassifier(f'{__name__}:{function}', **{**IMAGES, **settings}).eval()

    return build


# What it computes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'fc', 'map_name', 'shape'),
    [
        ('shufflenet_v2_x0_5', 'fc', 'conv5', (1024, 2, 2)),
        ('mobilenet_v3_small', 'classifier.3', None, (1024, 1, 1)),  # hidden layer behind the map
        ('mobilenet_v2', 'classifier.1', 'features', (1280, 2, 2)),  # dropout before the classifier
        ('densenet121', 'classifier', 'features', (1024, 2, 2)),  # in-place ReLU on the map
    ],
)
def test_torchvision_logits_and_parts(name, fc, map_name, shape):
    teacher = ForeignClassifier('torchvision', name, num_classes=7, size=64, **IMAGES).eval()
    original = models.get_model(name, num_classes=7).eval()
    state = original.state_dict()
    teacher.load_state_dict(teacher.own_names(state))
    assert (teacher.fc_name, teacher.map_name) == (fc, map_name)
    images = torch.randn(2, 3, 32, 32)
    features = teacher.extract(images)
    expected = original(resize(images, [64, 64], antialias=True))  # torchvision's own resize
    torch.testing.assert_close(features.logits, expected)
    assert torch.equal(teacher(images), features.logits)
    assert features.map.shape[1:] == shape and features.maps == (features.map,)
    torch.testing.assert_close(features.map.mean((2, 3)), features.vector)
    torch.testing.assert_close(teacher.head(features.vector), expected)
    assert teacher.num_classes == 7 and teacher.head_config['in_channels'] == shape[0]


def test_function(build):
    torch.manual_seed(3)
    teacher = build()
    torch.manual_seed(3)
    original = toy().eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), original(images))
    assert teacher.map_name == 'body' and teacher.fc_name == 'classifier'
    assert torch.equal(teacher.extract(images).map, teacher.network.body(images))
    assert teacher.name == f'{__name__}:toy'


def test_without_a_pooled_map_the_vector_is_the_map(build):
    teacher = build(arguments=dict(hidden=True))
    features = teacher.extract(torch.randn(2, 3, 32, 32))
    assert features.map.shape == (2, 4, 1, 1)
    assert torch.equal(features.map.flatten(1), features.vector)


def test_large_images_are_averaged(build):
    teacher, images = build(size=16), torch.randn(2, 3, 32, 32)
    small = resize(images, [16, 16], antialias=True)
    torch.testing.assert_close(teacher(images), teacher.head(teacher.network(small)))


def test_images_of_its_own_size_are_not_resized(build):
    teacher = build(size=32)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images), teacher.head(teacher.network(images)))


def test_gradient_reaches_the_images_through_the_resize(build):
    teacher = build_teacher(build(size=48))
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    teacher(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_a_network_that_is_there_already(build):
    network = toy().eval()
    images = torch.randn(2, 3, 32, 32)
    expected = network(images)
    classifier = ForeignClassifier(network, **IMAGES)
    assert torch.equal(classifier(images), expected)
    assert classifier.network is network
    assert classifier.name == 'Toy' and classifier.config['source'] == f'{__name__}:Toy'


def test_looking_for_its_parts_changes_nothing():
    network = toy().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = ForeignClassifier(network, **IMAGES).original().state_dict()
    assert before.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    'arguments', [dict(model='resnet18'), dict(pretrained=True), dict(arguments=dict(depth=99))]
)
def test_what_is_there_is_not_built(arguments):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(UsageError, match='source is a Sequential that is built already'):
        ForeignClassifier(network, input_shape=(1, 4, 4), mean=[0.0], std=[255.0], **arguments)


@pytest.mark.parametrize('hidden', [False, True])
def test_the_original_network_is_given_back(build, hidden):
    classifier = build(arguments=dict(hidden=hidden))
    images = torch.randn(2, 3, 32, 32)
    original = classifier.original()
    assert type(original) is Toy
    assert original.state_dict().keys() == toy(hidden=hidden).state_dict().keys()
    torch.testing.assert_close(original(images), classifier(images))
    original.classifier.weight.data.zero_()
    assert classifier.head.fc.weight.abs().sum() > 0  # a copy


def test_weights_are_not_initialised_anew():
    """Networks of other libraries have an ``init_weights`` of their own, which is for training."""
    network = toy()
    network.init_weights = lambda: pytest.fail('threw the weights away')
    ForeignClassifier(network, **IMAGES).init_weights()


def test_inner_maps(build):
    teacher = build(maps=('body.0', 'body'))
    images = torch.randn(2, 3, 32, 32)
    features = teacher.extract(images)
    assert torch.equal(features.maps[0], teacher.network.body[0](images))
    assert torch.equal(features.maps[1], features.map)


def test_building_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    torch.manual_seed(0)
    toy()
    after = torch.rand(1)
    torch.manual_seed(0)
    ForeignClassifier(f'{__name__}:toy', **IMAGES)
    assert torch.equal(torch.rand(1), after)
    torch.set_rng_state(before)


# As a teacher ----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """A file with the original network's own names, as its library would write it."""
    network = models.get_model('shufflenet_v2_x0_5', num_classes=7)
    torch.save(dict(state_dict=network.state_dict()), tmp_path / 'theirs.pth')
    return tmp_path / 'theirs.pth', network.eval()


def student(classes=7):
    return dict(
        type='Classifier',
        backbone=dict(type='CifarResNet', depth=8, widths=(2, 2, 4)),
        head=dict(in_channels=4, num_classes=classes),
    )


@pytest.mark.parametrize('method', [KD, KD3])
def test_teaches_by_config(tmp_path, checkpoint, method):
    path, original = checkpoint
    teacher = dict(type='ForeignClassifier', checkpoint=str(path), size=64, **SHUFFLE)
    model = method(teacher=teacher, student=student(), **(dict(alpha=1.0) if method is KD else {}))
    batch = dict(
        inputs=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), index=torch.arange(4)
    )
    images = model.data_preprocessor(batch)['inputs']
    torch.testing.assert_close(images, (batch['inputs'] - 120.0) / 60)  # the teacher's statistics
    torch.testing.assert_close(model.teacher(images), original(resize(images, [64, 64])))

    from mmdfkd.engine import RoleOptimWrapperConstructor

    before = {name: t.clone() for name, t in model.teacher.state_dict().items()}
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    optimizers = RoleOptimWrapperConstructor(dict(student=sgd))(model)
    model.train()
    assert model.train_step(batch, optimizers)['loss'].isfinite()
    assert all(torch.equal(t, before[name]) for name, t in model.teacher.state_dict().items())

    save_classifier(tmp_path / 'student.pth', model.student, {})
    deployed = load_classifier(tmp_path / 'student.pth').eval()  # needs no other library
    assert type(deployed) is Classifier
    assert torch.equal(deployed(images), model.eval()(images))


def test_config_is_checked_as_any_other():
    config = ROOT / 'configs/kd3/kd3_resnet20_resnet8_1xb1024-240e_cifar10.py'
    teacher = dict(type='ForeignClassifier', checkpoint='mine.pth', _delete_=True, **SHUFFLE)
    check_config(load_config(config, {'model.teacher': teacher}))
    with pytest.raises(
        UsageError, match=r"model\.teacher\.clases .*ForeignClassifier.*'num_classes'"
    ):
        check_config(load_config(config, {'model.teacher': dict(teacher, clases=7)}))


def test_our_own_file_of_a_foreign_teacher(tmp_path):
    teacher = ForeignClassifier(**SHUFFLE)
    save_classifier(tmp_path / 'teacher.pth', teacher, {})
    again = load_classifier(tmp_path / 'teacher.pth', ForeignClassifier(**SHUFFLE))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again.eval()(images), teacher.eval()(images))


@pytest.mark.parametrize('nested', [False, True])
def test_a_file_cannot_ask_for_a_function(tmp_path, nested):
    """Building from a stranger's file must not import and call what the file names."""
    network = MODELS.build(dict(student(), **IMAGES))
    trap = dict(type='ForeignClassifier', source='os:abort', **IMAGES)
    network.config = dict(student(), backbone=trap) if nested else trap
    save_classifier(tmp_path / 'trap.pth', network, {})
    with pytest.raises(UsageError, match='another library, which its file cannot rebuild'):
        load_classifier(tmp_path / 'trap.pth')


def test_without_weights_it_cannot_teach():
    with pytest.raises(UsageError, match=r'model\.teacher has no checkpoint'):
        build_teacher(dict(type='ForeignClassifier', **SHUFFLE))


def test_function_brings_its_weights():
    teacher = build_teacher(
        dict(type='ForeignClassifier', source=f'{__name__}:toy', pretrained=True, **IMAGES)
    )
    assert not teacher.training and teacher.num_classes == 5


def test_config_and_file_must_agree_on_the_images(tmp_path):
    network = MODELS.build(dict(student(), **IMAGES))
    save_classifier(tmp_path / 'network.pth', network, {})
    other = MODELS.build(dict(student(), **{**IMAGES, 'mean': [0.0] * 3}))
    with pytest.raises(UsageError, match=r'mean=\[0\.0, 0\.0, 0\.0\].*network\.pth says \[120'):
        load_classifier(tmp_path / 'network.pth', other)


# Libraries: stand-ins with the calls of the real ones ------------------------------------------


@pytest.fixture
def fake_timm(monkeypatch):
    calls = []

    def create_model(name, pretrained=False, **kwargs):
        calls.append((name, pretrained, kwargs))
        return Toy(**kwargs)

    timm, data = ModuleType('timm'), ModuleType('timm.data')
    timm.create_model, timm.data = create_model, data
    data.resolve_data_config = lambda args, model: dict(
        input_size=(3, 48, 48), mean=(0.5, 0.4, 0.2), std=(0.2, 0.2, 0.4)
    )
    monkeypatch.setitem(sys.modules, 'timm', timm)
    monkeypatch.setitem(sys.modules, 'timm.data', data)
    return calls


def test_timm(fake_timm):
    teacher = ForeignClassifier('timm', 'toy', pretrained=True, input_shape=(3, 32, 32))
    assert fake_timm == [('toy', True, {})]
    assert teacher.size == 48
    torch.testing.assert_close(teacher.mean, [127.5, 102.0, 51.0])
    torch.testing.assert_close(teacher.std, [51.0, 51.0, 102.0])
    assert ForeignClassifier('timm', 'toy', pretrained=True).input_shape == (3, 48, 48)


def test_what_is_stated_counts_more_than_what_the_library_says(fake_timm):
    stated = dict(size=40, mean=[1.0] * 3, std=[2.0] * 3, name='mine')
    teacher = ForeignClassifier('timm', 'toy', pretrained=True, **stated)
    assert (teacher.size, teacher.mean, teacher.std, teacher.name) == tuple(stated.values())
    assert teacher.input_shape == (3, 40, 40)


def test_torchvision_brings_its_weights(monkeypatch):
    asked, get_model = [], models.get_model

    def without_download(name, weights=None, **arguments):
        asked.append(weights)
        return get_model(name, **arguments)

    monkeypatch.setattr(models, 'get_model', without_download)
    name = 'shufflenet_v2_x0_5'
    teacher = ForeignClassifier('torchvision', name, pretrained=True, input_shape=(3, 32, 32))
    assert asked == [models.ShuffleNet_V2_X0_5_Weights.DEFAULT]
    assert teacher.size == 224 and teacher.num_classes == 1000
    torch.testing.assert_close(teacher.mean, [123.675, 116.28, 103.53])
    torch.testing.assert_close(teacher.std, [58.395, 57.12, 57.375])


def test_timm_without_pretraining_knows_nothing_about_images(fake_timm):
    teacher = ForeignClassifier('timm', 'toy', num_classes=4, input_shape=(3, 32, 32))
    assert fake_timm == [('toy', False, dict(num_classes=4))]
    assert teacher.size is None and teacher.num_classes == 4
    with pytest.raises(UsageError, match="toy does not state its 'mean'"):
        _ = teacher.mean


@pytest.fixture
def fake_transformers(monkeypatch):
    def network(folder, num_labels=3):
        return Toy(num_classes=num_labels, wrap=lambda logits: SimpleNamespace(logits=logits))

    library = ModuleType('transformers')
    library.AutoModelForImageClassification = SimpleNamespace(
        from_pretrained=network, from_config=lambda config: network(**config)
    )
    library.AutoConfig = SimpleNamespace(from_pretrained=lambda f, **k: dict(folder=f, **k))
    library.AutoImageProcessor = SimpleNamespace(
        from_pretrained=lambda folder: SimpleNamespace(
            image_mean=[0.5] * 3, image_std=[0.2] * 3, size=dict(shortest_edge=40)
        )
    )
    monkeypatch.setitem(sys.modules, 'transformers', library)


def test_transformers(fake_transformers):
    teacher = ForeignClassifier('transformers', 'a/b', pretrained=True, input_shape=(3, 32, 32))
    assert (teacher.size, teacher.num_classes, teacher.map_name) == (40, 3, 'body')
    torch.testing.assert_close(teacher.mean, [127.5] * 3)
    images = torch.randn(2, 3, 32, 32)
    resized = F.interpolate(images, (40, 40), mode='bilinear', antialias=True)
    expected = teacher.head(teacher.network.body(resized).mean((2, 3)))
    torch.testing.assert_close(teacher.eval()(images), expected)
    fresh = ForeignClassifier('transformers', 'a/b', num_classes=6, **IMAGES)
    assert fresh.num_classes == 6


@pytest.mark.parametrize('library', ['timm', 'transformers'])
def test_library_that_is_not_installed(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)  # import raises ImportError
    with pytest.raises(UsageError, match=f'pip install {library}'):
        ForeignClassifier(library, 'resnet18', **IMAGES)


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(source='tim', model='x'), "source='tim' is no source.*timm, torchvision"),
        (dict(source='torchvision'), 'add model='),
        (dict(source='torchvision', model='resnet19'), "'resnet19' of torchvision cannot be built"),
        (dict(source='nowhere.at:all'), r"'nowhere\.at:all' cannot be imported"),
        (dict(source=f'{__name__}:nothing'), 'cannot be imported'),
        (dict(source=f'{__name__}:toy', arguments=dict(width=2)), 'cannot be built: TypeError'),
        (dict(source=f'{__name__}:toy', fc='body'), "fc='body' is a Sequential.*classifier"),
        (dict(source=f'{__name__}:toy', fc='head'), "fc='head' is no layer"),
        (dict(source=f'{__name__}:toy', maps=('neck',)), "'neck' of .* does not exist"),
        (dict(source=f'{__name__}:toy', maps=('classifier',)), 'yields no map'),
        (dict(source=f'{__name__}:log_probabilities'), r'no linear layer.*fc=.*classifier'),
        (dict(source=f'{__name__}:with_gap'), 'is not a vector followed by the linear layer'),
        (dict(source=f'{__name__}:maps_only'), r'shape \(2, 5, 32, 32\)'),
        (dict(source=f'{__name__}:pixels_24'), 'cannot see images of 3x32x32.*size to what'),
    ],
)
def test_usage_errors(settings, message):
    with pytest.raises(UsageError, match=message):
        ForeignClassifier(**settings, **IMAGES)


def test_hidden_linear_layer_is_not_the_classifier(build):
    with pytest.raises(UsageError, match=r'hidden\.0.*Name the right one'):
        build(arguments=dict(hidden=True), fc='hidden.0')


def test_number_of_classes_must_be_kept(build):
    with pytest.raises(UsageError, match="asked for 9 classes and its layer 'classifier' has 5"):
        build('stubborn', num_classes=9)


def stubborn(num_classes):
    return Toy()


def test_size_makes_the_images_fit(build):
    assert build('pixels_24', size=24)(torch.randn(1, 3, 32, 32)).shape == (1, 4)
