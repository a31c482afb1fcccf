# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import argparse
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from mmdfkd.datasets import DigitsDataset
from mmdfkd.models.backbones import LeNet5
from mmdfkd.models.classifiers import (
    Classifier,
    ForeignClassifier,
    load_classifier,
    network_fingerprint,
    read_checkpoint,
    resolve_checkpoint,
    save_classifier,
)
from mmdfkd.models.classifiers.checkpoint import ZOO, load_state, state_dict_of
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

SHIPPED = ('lenet5_digits', 'resnet8_digits')
HALF = dict(state_dict=dict(a=torch.ones(1), b='x'))


def network(widths=(2, 2, 4), classes=5):
    return MODELS.build(
        dict(
            type='Classifier',
            backbone=dict(type='CifarResNet', depth=8, widths=widths, in_channels=1),
            head=dict(in_channels=widths[-1], num_classes=classes),
            input_shape=(1, 16, 16),
            mean=[120.0],
            std=[60.0],
        )
    )


@pytest.fixture
def saved(tmp_path):
    """A file and the network in it."""
    model = network()
    save_classifier(tmp_path / 'network.pth', model, dict(accuracy=12.5))
    return tmp_path / 'network.pth', model


def same_tensors(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Round trips ----------------------------------------------------------------------------------


def test_file_rebuilds_the_network(saved):
    path, model = saved
    again = load_classifier(path)
    assert same_tensors(model, again)
    assert again.meta['accuracy'] == 12.5 and again.meta['model'] == model.config
    torch.load(path, weights_only=True)  # plain torch reads it, too


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: dict(state_dict=state),
        lambda state: dict(model=state, epoch=3),
        lambda state: {f'module.{key}': value for key, value in state.items()},
        lambda state: dict(state_dict={f'module.{k}': v for k, v in state.items()}, meta=None),
    ],
    ids=['bare', 'state_dict', 'model', 'module.', 'both'],
)
def test_usual_ways_of_saving_weights(tmp_path, saved, wrap):
    _, model = saved
    torch.save(wrap(model.state_dict()), tmp_path / 'other.pth')
    loaded = load_classifier(tmp_path / 'other.pth', network())
    assert same_tensors(model, loaded) and loaded.meta == {}
    with pytest.raises(UsageError, match='does not say which network.*Describe the network'):
        load_classifier(tmp_path / 'other.pth')


def test_files_have_one_layout(tmp_path, saved):
    """Whatever layout a network was trained in."""
    network = saved[1].to(memory_format=torch.channels_last)
    assert not all(tensor.is_contiguous() for tensor in network.state_dict().values())
    save_classifier(tmp_path / 'last.pth', network, {})
    state = read_checkpoint(tmp_path / 'last.pth')['state_dict']
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_saving_is_atomic(saved, monkeypatch):
    path, model = saved
    content = path.read_bytes()

    def full_disk(content, file):
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError, match='No space'):
        save_classifier(path, model, {})
    assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]


# What does not fit ----------------------------------------------------------------------------


def test_no_key_matches():
    with pytest.raises(UsageError, match=r'FILE matches no key .*it has a, the network wants back'):
        load_state(network(), dict(a=torch.ones(1)), 'FILE')
    with pytest.raises(UsageError, match='it has none'):
        load_state(network(), {}, 'FILE')


def test_only_some_keys_match():
    model = network()
    state = {**model.state_dict(), 'neck.weight': torch.ones(1)}
    del state['head.fc.bias'], state['head.fc.weight']
    expected = r'in part: 2 keys are missing \(head\.fc\.bias, head.*1 are left over \(neck\.weight'
    with pytest.raises(UsageError, match=expected):
        load_state(model, state, 'FILE')


def test_only_some_keys_match_behind_a_prefix(tmp_path):
    state = {f'model.{key}': value for key, value in network().state_dict().items()}
    del state['model.head.fc.bias']
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(UsageError, match=r'in part: 1 keys are missing \(head\.fc\.bias\), 0 are'):
        load_classifier(tmp_path / 'part.pth', network())


def test_a_key_too_many():
    model = network()
    state = {**model.state_dict(), 'neck.weight': torch.ones(1)}
    with pytest.raises(UsageError, match=r'part: 0 keys are missing .* 1 are left over \(neck'):
        load_state(model, state, 'FILE')


def test_one_of_two_networks_is_not_chosen(tmp_path):
    state = {f'{role}.{k}': t for role in 'ab' for k, t in network().state_dict().items()}
    torch.save(state, tmp_path / 'both.pth')
    with pytest.raises(UsageError, match=r'matches no key of the network: it has a\.backbone'):
        load_classifier(tmp_path / 'both.pth', network())


def test_a_name_that_is_that_of_a_prefix():
    model, state = (nn.Sequential(OrderedDict(module=nn.Linear(2, 3))) for _ in range(2))
    load_state(model, state.state_dict(), 'FILE')
    assert same_tensors(model, state)


def test_what_fits_in_part_or_not_at_all_has_a_remedy():
    for state in (dict(a=torch.ones(1)), network((2, 6, 4)).state_dict(), {}):
        with pytest.raises(UsageError, match='Give the checkpoint of this architecture, or the'):
            load_state(network(), state, 'FILE')
    state = network().state_dict()
    state.popitem()
    with pytest.raises(UsageError, match='in part.*Give the checkpoint of this architecture, or'):
        load_state(network(), state, 'FILE')


def test_other_number_of_classes():
    expected = r'FILE was made for 7 classes on 4 features.*says 5 classes.*head\.num_classes'
    with pytest.raises(UsageError, match=expected):
        load_state(network(), network(classes=7).state_dict(), 'FILE')


def test_other_number_of_classes_in_a_part():
    """The student of an algorithm; a layer that is only called like a head is none."""

    def part(name, classes):
        layer = nn.ModuleDict(dict(head=nn.ModuleDict(dict(fc=nn.Linear(2, classes)))))
        return nn.ModuleDict({name: layer}) if name else layer

    for name in ('student', ''):
        with pytest.raises(UsageError, match='made for 7 classes on 2 features'):
            load_state(part(name, 5), part(name, 7).state_dict(), 'FILE')
    forehead, other = (nn.ModuleDict(dict(forehead=part('', n).head)) for n in (5, 7))
    with pytest.raises(UsageError, match=r'other shapes in 2 tensors.*forehead\.fc'):
        load_state(forehead, other.state_dict(), 'FILE')


def test_other_number_of_classes_of_a_gan():
    gan, other = (
        nn.ModuleDict(dict(norm=nn.ModuleDict(dict(gain=nn.Embedding(n, 3))))) for n in (5, 7)
    )
    with pytest.raises(UsageError, match=r'a GAN for 7 classes \(norm\.gain.* teacher has 5'):
        load_state(gan, other.state_dict(), 'FILE')


def test_as_many_numbers_in_another_shape():
    model = network()
    state = {**model.state_dict(), 'backbone.conv1.weight': torch.ones(1, 2, 3, 3)}
    with pytest.raises(
        UsageError, match=r'conv1\.weight: \(1, 2, 3, 3\) in the file, \(2, 1, 3, 3'
    ):
        load_state(model, state, 'FILE')


def test_other_widths():
    model = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(UsageError, match=r'other shapes in \d+ tensors.*architectures differ'):
        load_state(model, network((2, 6, 4)).state_dict(), 'FILE')
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_file_without_tensors(tmp_path):
    for content in (dict(state_dict=[1]), dict(state_dict=dict(a='x')), HALF, dict(epoch=3)):
        torch.save(content, tmp_path / 'odd.pth')
        with pytest.raises(UsageError, match=r"under 'state_dict', .*state_dict\(\), PATH"):
            state_dict_of(read_checkpoint(tmp_path / 'odd.pth'), 'odd.pth')
    torch.save([1, 2], tmp_path / 'odd.pth')
    with pytest.raises(UsageError, match='holds a list, not a dict'):
        read_checkpoint(tmp_path / 'odd.pth')


@pytest.mark.parametrize('wrapper', ['state_dict', 'model_state_dict', 'model', 'net', None])
@pytest.mark.parametrize(
    'prefix', ['', 'module.', 'model.', 'net.', '_orig_mod.', 'module._orig_mod.']
)
def test_names_that_trainers_give(tmp_path, wrapper, prefix):
    """DistributedDataParallel, Lightning, torch.compile; for our networks and those of others."""
    own = network()
    foreign = ForeignClassifier(Plain(), input_shape=(1, 8, 8), mean=[0.0], std=[255.0])
    for target, source in ((network(), own), (foreign, Plain())):
        state = {f'{prefix}{name}': value for name, value in source.state_dict().items()}
        torch.save({wrapper: state, 'epoch': 3} if wrapper else state, tmp_path / 'file.pth')
        loaded = load_classifier(tmp_path / 'file.pth', target)
        expected = loaded.own_names(source.state_dict())
        assert all(torch.equal(value, expected[k]) for k, value in loaded.state_dict().items())


class Plain(nn.Sequential):
    """Somebody's network; its own names begin with ``model``."""

    def __init__(self):
        body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(OrderedDict(model=nn.Sequential(body, nn.Linear(3, 4))))


@pytest.mark.parametrize(
    ('key', 'value'), [('input_shape', (1, 8, 8)), ('mean', [0.0]), ('std', [1.0])]
)
def test_other_images_than_those_of_the_file(saved, key, value):
    path, model = saved
    other = MODELS.build({**model.config, key: value})
    with pytest.raises(UsageError, match=rf'The config says {key}=\[.*its file .* says \[.*Take'):
        load_classifier(path, other)
    silent = MODELS.build({**model.config, key: None})
    assert same_tensors(load_classifier(path, silent), model)


def test_counters_that_old_files_lack():
    model = network()
    state = {k: v + 1 for k, v in model.state_dict().items() if not k.endswith('tracked')}
    load_state(model, state, 'FILE')
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_classes_of_another_library():
    plain = ForeignClassifier(Plain(), input_shape=(1, 8, 8), mean=[0.0], std=[255.0])
    state = {**plain.state_dict(), 'head.fc.weight': torch.ones(7, 3)}
    plain.config['source'] = 'torchvision'
    with pytest.raises(UsageError, match=r'made for 7 classes.*Set num_classes of this network'):
        load_state(plain, state, 'FILE')


# Damaged and hostile files --------------------------------------------------------------------


@pytest.mark.parametrize('zipped', [True, False])
def test_truncated_file(tmp_path, zipped):
    path = tmp_path / 'network.pth'
    torch.save(dict(state_dict=network().state_dict()), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for length in (0, 1, 10, len(content) // 3, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r'network\.pth cannot be read.*Copy or download'):
            read_checkpoint(path)


@pytest.mark.parametrize('content', [b'<html>404</html>', b'\x80\x02garbage', b'\x00' * 500])
def test_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / 'page.pth').write_bytes(content)
    with pytest.raises(UsageError, match='damaged or no checkpoint'):
        read_checkpoint(tmp_path / 'page.pth')


def test_what_holds_a_network_in_another_form(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / 'whole.pth')
    with pytest.raises(UsageError, match=r'content\.state_dict\(\), NEW_PATH\) if it is a network'):
        read_checkpoint(tmp_path / 'whole.pth')
    content = dict(model=nn.Linear(2, 2).state_dict(), args=argparse.Namespace())
    torch.save(content, tmp_path / 'args.pth')
    with pytest.raises(UsageError, match=r"holds a argparse.*content\[KEY\].* is a dict.*'model'"):
        read_checkpoint(tmp_path / 'args.pth')
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / 'script.pt')
    with pytest.raises(UsageError, match=r'TorchScript.*torch\.jit\.load\(PATH\)\.state_dict'):
        read_checkpoint(tmp_path / 'script.pt')
    with pytest.raises(UsageError, match='is a folder. Name a file in it'):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('error', [PermissionError, MemoryError])
def test_what_is_no_fault_of_the_file(saved, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(error):
        read_checkpoint(saved[0])


def test_tensors_go_where_they_are_wanted(saved):
    for device in ('meta', 'cpu'):
        state = read_checkpoint(saved[0], device)['state_dict']
        assert {tensor.device.type for tensor in state.values()} == {device}


class Hostile:
    def __init__(self, path):
        self.command = f'touch {path}'

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    trace = tmp_path / 'trace'
    torch.save(dict(state_dict=Hostile(trace)), tmp_path / 'hostile.pth')
    (tmp_path / 'plain.pth').write_bytes(pickle.dumps(Hostile(trace), protocol=2))
    for name in ('hostile.pth', 'plain.pth'):
        with pytest.raises(UsageError, match=r'holds a (posix|nt)\.system.*would run code'):
            read_checkpoint(tmp_path / name)
    assert not trace.exists()


def test_names_of_several_processes():
    plain, other = network(), network()
    load_state(other, {f'module.{name}': t for name, t in plain.state_dict().items()}, 'The file')
    assert same_tensors(plain, other)


def test_a_class_and_numbers_of_numpy_in_a_config_are_written_as_data(tmp_path):
    network = Classifier(
        dict(type=LeNet5),
        dict(in_channels=120, num_classes=10, hidden_channels=[84]),
        input_shape=np.array([1, 32, 32]),
        mean=torch.tensor([33.0]),
        std=[np.float64(78.0)],
    )
    save_classifier(tmp_path / 'network.pth', network, {})
    again = load_classifier(tmp_path / 'network.pth')
    assert same_tensors(again, network) and again.input_shape == (1, 32, 32)
    assert (again.mean, again.std) == ([33.0], [78.0])


class Versioned(nn.Linear):
    """A layer that asks which version of it wrote its weights, as MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *others):
        assert metadata.get('version') == 2
        super()._load_from_state_dict(state, prefix, metadata, *others)


def test_versions_of_layers_are_known():
    network, state = Versioned(2, 3), Versioned(2, 3).state_dict()
    load_state(network, dict(state), 'The file')
    assert torch.equal(network.weight, state['weight'])


# Names ----------------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"'nothing\.pth' does not exist \(looked for /.*Correct"):
        resolve_checkpoint('nothing.pth')


def test_a_file_at_home(tmp_path, saved, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert resolve_checkpoint('~/network.pth') == tmp_path / 'network.pth'


def test_a_network_that_has_still_to_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / 'configs/kd/small.py'
    recipe.parent.mkdir(parents=True)
    recipe.touch()
    words = r'Correct the path .*, or train it first: python tools/train\.py configs/kd/small\.py$'
    with pytest.raises(UsageError, match=words):
        resolve_checkpoint('work_dirs/small/student.pth')


@pytest.mark.parametrize('stem', ['lenet6_digits', 'lenet5'])
def test_unknown_name_lists_what_ships(stem):
    with pytest.raises(UsageError) as error:
        resolve_checkpoint(f'mmdfkd://{stem}')
    listed = str(error.value).partition('It ships: ')[2]
    assert listed == ', '.join(f'mmdfkd://{name}' for name in SHIPPED) + '.'


# What ships -----------------------------------------------------------------------------------


def test_shipped_networks_are_small_and_named_by_their_content():
    files = [resolve_checkpoint(f'mmdfkd://{stem}') for stem in SHIPPED]
    assert set(files) <= set(ZOO.glob('*.pth'))
    assert sum(file.stat().st_size for file in ZOO.glob('*.pth')) < 1_000_000


@pytest.mark.parametrize(
    ('stem', 'parameters'), [('lenet5_digits', 61_706), ('resnet8_digits', 77_754)]
)
def test_shipped_teachers_reach_their_accuracy(stem, parameters):
    teacher = load_classifier(f'mmdfkd://{stem}').eval()
    assert sum(p.numel() for p in teacher.parameters()) == parameters
    test = DigitsDataset('test')
    batch = test.__getitems__(range(len(test)))
    images = BatchPreprocessor(teacher.mean, teacher.std)(batch)['inputs']
    with torch.no_grad():
        hits = teacher(images).argmax(1) == batch['label']
    accuracy = 100 * hits.double().mean().item()
    assert accuracy >= 98
    assert accuracy == pytest.approx(teacher.meta['accuracy'], abs=0.01)


# Fingerprint ----------------------------------------------------------------------------------


def test_fingerprint_names_the_tensors():
    model = network()
    print_ = network_fingerprint(model)
    assert len(print_) == 16 and int(print_, 16) >= 0
    again = network()
    assert network_fingerprint(again) != print_
    again.load_state_dict(model.state_dict())
    assert network_fingerprint(again) == print_
    assert network_fingerprint(again.to(memory_format=torch.channels_last)) == print_
    assert network_fingerprint(again.train().requires_grad_(False)) == print_
    again.backbone.bn1.num_batches_tracked += 1  # buffers count
    assert network_fingerprint(again) != print_


def test_names_shapes_types_and_values_make_a_fingerprint():
    def name_of(**tensors):
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return network_fingerprint(module)

    zeros = torch.zeros(2, 3)
    prints = [
        name_of(a=zeros),
        name_of(b=zeros),
        name_of(a=zeros.T),
        name_of(a=zeros.int()),
        name_of(a=zeros + 1),
        name_of(a=zeros, b=zeros),
    ]
    assert len(set(prints)) == len(prints)
    one = torch.ones(1)
    assert name_of(a=zeros, b=one) == name_of(b=one, a=zeros) != name_of(a=one, b=zeros)
