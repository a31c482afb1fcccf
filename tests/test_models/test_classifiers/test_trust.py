# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import subprocess
import sys

import pytest
import torch
from mmengine.model import KaimingInit
from torch import nn

from mmdfkd.models.classifiers import (
    Classifier,
    ForeignClassifier,
    load_classifier,
    network_fingerprint,
    read_checkpoint,
    save_classifier,
)
from mmdfkd.registry import MODELS, WEIGHT_INITIALIZERS
from mmdfkd.utils import UsageError

# Its layers are words that no registry knows.
HORNET = dict(
    base_dim=8, depths=[1] * 4, orders=[2] * 4, dw_cfg=[dict(type='DW', kernel_size=7)] * 4
)


@pytest.fixture
def saved(tmp_path):
    """The file of a network."""
    path = tmp_path / 'network.pth'
    save_classifier(path, load_classifier('mmdfkd://lenet5_digits'), {})
    return path


def comes_back(path, network):
    """Whether the file rebuilds a network."""
    save_classifier(path, network, {})
    return network_fingerprint(load_classifier(path)) == network_fingerprint(network)


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('subprocess.Popen', "with 'subprocess.Popen', which is no module"),
        ('torch.Tensor', "with 'torch.Tensor', which is no module"),
        ('.system', r'not registered: \.system'),
        ('breaking.net.Net', r'not registered: breaking\.net\.Net'),
    ],
)
def test_what_is_no_module_is_not_built(tmp_path, saved, monkeypatch, kind, words):
    (tmp_path / 'breaking').mkdir()
    (tmp_path / 'breaking/net.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    path, trace = saved, tmp_path / 'trace'
    content = read_checkpoint(path)
    content['meta']['model']['neck'] = dict(type=kind, args=['touch', str(trace)])
    torch.save(content, path)
    with pytest.raises(UsageError, match=words):
        load_classifier(path)
    assert not trace.exists()


@pytest.mark.parametrize('place', ['backbone', 'neck', 'list', 'tuple'])
def test_code_in_the_description_is_refused_and_not_run(tmp_path, saved, place):
    path, trace = saved, tmp_path / 'trace'
    content = read_checkpoint(path)
    call = dict(type='os.system', command=f'touch {trace}')
    if place in ('list', 'tuple'):
        inside = [call] if place == 'list' else (call,)
        content['meta']['model']['backbone'] = dict(type='mmpretrain.ResNet', norm_cfg=inside)
    else:
        content['meta']['model'][place] = call
    torch.save(content, path)
    with pytest.raises(UsageError, match=r"with 'os\.system', which is no module"):
        load_classifier(path)
    assert not trace.exists()


@MODELS.register_module(force=True)
class Heir(ForeignClassifier):
    """It calls what it is told, too."""


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('mmdfkd.models.classifiers.ForeignClassifier', 'of another library, which its file'),
        ('mmdfkd.models.classifiers.foreign.ForeignClassifier', 'of another library, which its'),
        ('ForeignClassifier', 'of another library, which its file'),
        ('Heir', 'of another library, which its file'),
        ('antigravity', 'of a class that is not registered: antigravity'),
    ],
)
def test_no_spelling_makes_a_file_call_something(tmp_path, saved, kind, words):
    path, trace = saved, tmp_path / 'trace'
    content = read_checkpoint(path)
    call = dict(type=kind, source='os:system', arguments=dict(command=f'touch {trace}'))
    content['meta']['model']['backbone'] = call
    torch.save(content, path)
    with pytest.raises(UsageError, match=words):
        load_classifier(path)
    assert not trace.exists() and 'antigravity' not in sys.modules


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='LeNet5', _scope_='mmpretrain'),
        dict(type='mmpretrain.LeNet5'),
        dict(type='mmpretrain.ConvNeXt', arch='atto', norm_cfg=dict(type='LN2d', eps=1e-6)),
        dict(type='mmpretrain.HorNet', arch=HORNET),
    ],
)
def test_what_other_libraries_register_is_theirs_to_name(tmp_path, backbone):
    made = Classifier(backbone, dict(in_channels=4, num_classes=3), name='theirs')
    assert comes_back(tmp_path / 'network.pth', made)


@pytest.mark.slow
def test_a_library_that_a_file_names_is_imported(tmp_path):
    """In a process that has imported nothing else."""
    backbone = dict(type='ConvNeXt', _scope_='mmpretrain', arch='atto')
    made = Classifier(backbone, dict(in_channels=320, num_classes=3), name='theirs')
    save_classifier(tmp_path / 'network.pth', made, {})
    code = 'import sys; from mmdfkd.models.classifiers import load_classifier; '
    code += 'print(type(load_classifier(sys.argv[1]).backbone).__module__)'
    command = [sys.executable, '-c', code, str(tmp_path / 'network.pth')]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == 'mmpretrain.models.backbones.convnext'


@WEIGHT_INITIALIZERS.register_module()
class InitOfTests(KaimingInit):
    pass


@pytest.mark.parametrize(
    'kind',
    ['InitOfTests', 'mmdfkd.InitOfTests', 'mmengine.Kaiming', 'Kaiming', KaimingInit],
)
def test_initialisers_may_be_spelt_in_any_way(tmp_path, kind):
    config = dict(in_channels=120, num_classes=3, init_cfg=dict(type=kind, layer='Linear'))
    made = Classifier(dict(type='LeNet5'), config)
    assert comes_back(tmp_path / 'network.pth', made)


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='mynets.Net'),
        dict(type='Net'),
        dict(type='mmpretrain.ConvNeXt', arch='atto', norm_cfg=dict(type='Net')),
    ],
)
def test_a_class_that_is_not_imported(tmp_path, saved, backbone):
    content = read_checkpoint(saved)
    content['meta']['model']['backbone'] = backbone
    torch.save(content, saved)
    with pytest.raises(UsageError, match=r'not registered: (mynets\.)?Net\. Import the module'):
        load_classifier(saved)


def test_registered_names_of_other_libraries_are_fine(tmp_path):
    config = dict(
        backbone=dict(type='mmpretrain.LeNet5'),
        head=dict(in_channels=120, num_classes=3, init_cfg=dict(type='Normal', layer='Linear')),
    )
    model = MODELS.build(dict(type='Classifier', **config))
    assert comes_back(tmp_path / 'lenet.pth', model)


def test_a_class_that_nobody_imported(tmp_path):
    network = load_classifier('mmdfkd://lenet5_digits')
    network.config = {**network.config, 'backbone': dict(type='TheirNet')}
    save_classifier(tmp_path / 'student.pth', network, {})
    with pytest.raises(UsageError, match=r'student\.pth was made of.*TheirNet.*Import the module'):
        load_classifier(tmp_path / 'student.pth')


@MODELS.register_module(force=True)
class Careless(nn.Module):
    """Its mistake is not that nobody imported it."""

    def __init__(self):
        super().__init__()
        {}['width']


def test_a_class_that_fails(tmp_path):
    network = load_classifier('mmdfkd://lenet5_digits')
    network.config = {**network.config, 'backbone': dict(type='Careless')}
    save_classifier(tmp_path / 'student.pth', network, {})
    with pytest.raises(KeyError, match='width'):
        load_classifier(tmp_path / 'student.pth')
