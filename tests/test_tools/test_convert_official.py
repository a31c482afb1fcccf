# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Published teachers: networks written and named as in those repositories must compute the same."""

import importlib.util
import pickle
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.models.classifiers import load_classifier
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'convert_official.py'
spec = importlib.util.spec_from_file_location('convert_official', TOOL)
convert_official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert_official)


# Their networks: layer1.0.shortcut.0, block1.layer.0.convShortcut, block0.0, features.0 -----------


class TheirBlock(nn.Module):
    def __init__(self, width, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or width != out:
            conv = nn.Conv2d(width, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class TheirResNet(nn.Module):
    """KD3's and DAFL's CIFAR ResNets; the last layer is called fc, linear or classifier."""

    def __init__(self, blocks=(2, 2, 2, 2), classes=10, last='linear'):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for stage, count in enumerate(blocks):
            out, layers = 64 * 2**stage, []
            for block in range(count):
                layers.append(TheirBlock(width, out, 2 if stage and not block else 1))
                width = out
            setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))
        self.last = last
        setattr(self, last, nn.Linear(512, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return getattr(self, self.last)(x.mean((2, 3)))


class TheirWideBlock(nn.Module):
    def __init__(self, width, out, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        equal = width == out
        self.convShortcut = None if equal else nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class TheirWideResNet(nn.Module):
    def __init__(self, blocks=2, factor=1, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        width = 16
        for group in range(3):
            out, layers = 16 * factor * 2**group, []
            for block in range(blocks):
                layers.append(TheirWideBlock(width, out, 2 if group and not block else 1))
                width = out
            holder = nn.Module()
            holder.layer = nn.Sequential(*layers)
            setattr(self, f'block{group + 1}', holder)
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = self.conv1(x)
        for holder in (self.block1, self.block2, self.block3):
            x = holder.layer(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class TheirVGG(nn.Module):
    """``features.N`` with pools inside; ``blocks=True``: ``block0.N`` ... and pools outside."""

    def __init__(self, convolutions=(2, 2, 2, 2, 2), classes=10, blocks=False):
        super().__init__()
        width, parts = 3, []
        for out, count in zip((64, 128, 256, 512, 512), convolutions, strict=True):
            layers = []
            for _ in range(count):
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                width = out
            parts.append(layers)
        self.blocks = blocks
        if blocks:
            for index, layers in enumerate(parts):
                setattr(self, f'block{index}', nn.Sequential(*layers))
        else:
            for layers in parts[:3]:
                layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*(layer for layers in parts for layer in layers))
        self.classifier = nn.Linear(512, classes)

    def forward(self, x):
        if not self.blocks:
            return self.classifier(self.features(x).mean((2, 3)))
        for index in range(5):
            x = getattr(self, f'block{index}')(x)
            x = F.max_pool2d(x, 2) if index < 3 else x
        return self.classifier(x.mean((2, 3)))


def awaken(network):
    """Give BatchNorm statistics and weights that would show a misplaced layer."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def ours(name):
    config = load_config(ROOT / 'configs' / 'teachers' / f'{name}.py')
    return MODELS.build(config.model.student)


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Run the tool on a content; return what it wrote, as a network."""

    def run(content, config='teachers/wrn-16-1_cifar10.py', *options):
        torch.save(content, tmp_path / 'theirs.pth')
        target = tmp_path / 'ours.pth'
        argv = [
            'convert_official.py',
            tmp_path / 'theirs.pth',
            '--config',
            ROOT / 'configs' / config,
        ]
        monkeypatch.setattr(sys, 'argv', [*map(str, argv), '--out', str(target), *options])
        convert_official.main()
        return load_classifier(target).eval()

    return run


@pytest.mark.parametrize(
    ('name', 'theirs'),
    [
        ('resnet18_cifar10', lambda: TheirResNet(last='linear')),
        ('resnet34_cifar100', lambda: TheirResNet((3, 4, 6, 3), 100, last='fc')),
        ('wrn-16-1_cifar10', TheirWideResNet),
        ('wrn-16-2_cifar100', lambda: TheirWideResNet(2, 2, 100)),
        ('wrn-40-2_cifar10', lambda: TheirWideResNet(6, 2)),
        ('vgg13_cifar10', TheirVGG),
        ('vgg16_cifar10', lambda: TheirVGG((2, 2, 3, 3, 3), blocks=True)),
    ],
)
def test_same_logits_under_our_names(name, theirs):
    theirs, network = awaken(theirs()), ours(name).eval()
    state = convert_official.match(theirs.state_dict(), network.state_dict(), 'theirs.pth')
    network.load_state_dict(state)
    images = torch.randn(2, 3, 16, 16)
    expected = theirs(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


# Their files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'pack',
    [
        lambda net: dict(epoch=240, model=net.state_dict(), best_acc=torch.tensor(93.1)),  # KD3
        lambda net: dict(arch='wrn16_1', state_dict=net.state_dict(), best_acc1=93.1),
        lambda net: {f'module.{key}': t for key, t in net.state_dict().items()},
    ],
)
def test_forms_of_checkpoints(convert, pack):
    theirs = awaken(TheirWideResNet())
    network = convert(pack(theirs))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(images), theirs(images), rtol=1e-4, atol=1e-5)
    assert network.meta['converted_from'] == 'theirs.pth'
    config = load_config(ROOT / 'configs/_base_/networks/cifar10.py').networks.wrn_16_1
    assert (network.mean, network.std) == (config.mean, config.std)


@pytest.mark.parametrize(
    'pack',
    [
        lambda net: net,
        lambda net: dict(model=net, epoch=3),
        lambda net: dict(arch='wrn16_1', state_dict=net),
    ],
)
def test_pickled_network_needs_trust(convert, capsys, pack):
    theirs = awaken(TheirWideResNet())
    with pytest.raises(SystemExit):
        convert(pack(theirs))
    assert 'would run code from that file' in capsys.readouterr().err
    network = convert(pack(theirs), 'teachers/wrn-16-1_cifar10.py', '--trust')
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(images), theirs(images), rtol=1e-4, atol=1e-5)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_does_not_run(tmp_path):
    (tmp_path / 'trap.pth').write_bytes(pickle.dumps(dict(model=Trap(tmp_path / 'ran'))))
    with pytest.raises(UsageError, match=r'trap\.pth.*--trust'):
        convert_official.read_official(tmp_path / 'trap.pth')
    assert not (tmp_path / 'ran').exists()


def test_network_whose_class_is_nowhere(tmp_path, monkeypatch):
    network = TheirWideResNet()
    monkeypatch.setattr(TheirWideResNet, '__module__', 'their_repository')
    module = type(sys)('their_repository')
    module.TheirWideResNet = TheirWideResNet
    monkeypatch.setitem(sys.modules, 'their_repository', module)
    torch.save(network, tmp_path / 'theirs.pth')
    monkeypatch.delitem(sys.modules, 'their_repository')
    with pytest.raises(UsageError, match=r"No module named 'their_repository'.*PYTHONPATH"):
        convert_official.read_official(tmp_path / 'theirs.pth', trust=True)


def test_files_of_old_versions_count_no_batches():
    state = awaken(TheirWideResNet()).state_dict()
    state = {key: t for key, t in state.items() if not key.endswith('num_batches_tracked')}
    network = ours('wrn-16-1_cifar10')
    network.load_state_dict(convert_official.match(state, network.state_dict(), 'old.pth'))
    assert network.backbone.bn.num_batches_tracked == 0


def test_default_place_is_where_the_config_looks(tmp_path, monkeypatch, capsys):
    torch.save(dict(model=TheirWideResNet(6, 2).state_dict()), tmp_path / 'theirs.pth')
    config = ROOT / 'configs/kd3/kd3_wrn-40-2_wrn-16-1_1xb1024-240e_cifar10.py'
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['x', 'theirs.pth', '--config', str(config)])
    convert_official.main()
    assert Path('work_dirs/wrn-40-2_cifar10/student.pth').is_file()
    with pytest.raises(SystemExit):  # nothing is overwritten
        convert_official.main()
    assert 'student.pth exists' in capsys.readouterr().err


def test_default_place_of_a_teachers_own_config_is_where_its_training_goes(tmp_path, monkeypatch):
    torch.save(dict(model=TheirWideResNet().state_dict()), tmp_path / 'theirs.pth')
    monkeypatch.chdir(tmp_path)
    config = ROOT / 'configs/teachers/wrn-16-1_cifar10.py'
    monkeypatch.setattr(sys, 'argv', ['x', 'theirs.pth', '--config', str(config)])
    convert_official.main()
    assert load_classifier(Path('work_dirs/wrn-16-1_cifar10/student.pth')).num_classes == 10


# Refusals --------------------------------------------------------------------------------------


def other_stem():
    network = TheirWideResNet()
    network.conv1 = nn.Conv2d(3, 16, 5, 1, 2, bias=False)
    return network


@pytest.mark.parametrize(
    ('theirs', 'message'),
    [
        (lambda: TheirWideResNet(6), r'39 x convolution.*15 x convolution'),
        (other_stem, r'Layer 1 of theirs\.pth is conv1.*16x3x5x5.*conv1.*16x3x3x3'),
        (lambda: TheirWideResNet(classes=100), r'fc \(linear layer: weight 100x64.*10x64'),
        (lambda: nn.Sequential(), 'holds no layer'),
    ],
)
def test_other_networks(theirs, message):
    network = ours('wrn-16-1_cifar10')
    with pytest.raises(UsageError, match=message):
        convert_official.match(theirs().state_dict(), network.state_dict(), 'theirs.pth')


def test_layers_in_another_order():
    state = list(TheirWideResNet().state_dict().items())
    state = dict(state[-2:] + state[:-2])  # the classifier first
    network = ours('wrn-16-1_cifar10')
    with pytest.raises(UsageError, match=r'Layer 1 of theirs\.pth is fc'):
        convert_official.match(state, network.state_dict(), 'theirs.pth')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'garbage', 'damaged or no checkpoint'),
        (b'<html>404: Not Found</html>', 'damaged or no checkpoint'),
        (b'', 'damaged or no checkpoint'),
        ([1, 2], 'holds a list'),
        (dict(epoch=3), 'no tensors under'),
    ],
)
def test_no_checkpoint(tmp_path, content, message):
    path = tmp_path / 'theirs.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    for trust in (False, True):
        with pytest.raises(UsageError, match=message):
            convert_official.read_official(path, trust)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    (tmp_path / 'theirs.pth').touch()
    monkeypatch.setattr(torch, 'load', forbidden)
    with pytest.raises(PermissionError, match='Permission denied'):
        convert_official.read_official(tmp_path / 'theirs.pth')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
def test_half_a_download(tmp_path, share):
    path = tmp_path / 'theirs.pth'
    torch.save(nn.Linear(100, 100).state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for trust in (False, True):
        with pytest.raises(UsageError, match='damaged or no checkpoint'):
            convert_official.read_official(path, trust)


def test_a_teacher_that_ships_is_no_place_to_write_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
    monkeypatch.setattr(sys, 'argv', ['convert_official.py', 'x.pth', '--config', str(config)])
    with pytest.raises(SystemExit):
        convert_official.main()
    assert 'mmdfkd://lenet5_digits, which ships with mmdfkd' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
