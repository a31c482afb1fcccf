# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import inspect
import re
from pathlib import Path

import pytest
import yaml

import mmdfkd
from mmdfkd.apis import list_methods
from mmdfkd.apis.methods import find_method, find_recipe
from mmdfkd.models.algorithms import BaseDistiller, FastDFKD
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
FOLDERS = sorted(
    path for path in CONFIGS.iterdir() if path.is_dir() and path.name not in ('_base_', 'teachers')
)
# What the training sets of the digits recipes hold.
KINDS = dict(
    DigitsDataset='original',
    GlyphPool='collected',
    LatentDataset='generated',
    ImageBank='generated',
    HybridDataset='both',
)


def ours():
    """Without those that other tests register."""
    return [m for m in list_methods() if MODELS.get(m.name).__module__.startswith('mmdfkd.')]


@pytest.fixture(scope='module')
def recipes():
    """Of each folder of configs, the digits recipe of the small residual pair."""
    return {
        folder: load_config(next(folder.glob('*_resnet8_resnet8-half_1xb*[0-9]e_digits.py')))
        for folder in FOLDERS
    }


def test_every_folder_of_configs_is_a_method_and_the_other_way_round(recipes):
    names = [method.name for method in ours()]
    assert names == sorted({cfg.model.type for cfg in recipes.values()})
    assert len(names) == len(FOLDERS)


@pytest.mark.parametrize('method', ours(), ids=lambda method: method.name)
def test_table_of_symbols_keeps_to_its_columns(method):
    lines = inspect.getdoc(MODELS.get(method.name)).splitlines()
    first, _, last = (i for i, line in enumerate(lines) if line.startswith('==='))
    gaps = [gap.span() for gap in re.finditer(' +', lines[first])]
    for line in lines[first:last]:
        assert not any(line[start:end].strip() for start, end in gaps), line


def test_every_method_is_in_the_registry():
    for method in ours():
        assert issubclass(MODELS.get(method.name), BaseDistiller)
        assert MODELS.get(method.name) is find_method(method.name)


def test_titles_and_links_are_those_of_the_model_zoo(recipes):
    methods = {method.name: method for method in ours()}
    for folder, cfg in recipes.items():
        paper = yaml.safe_load((folder / 'metafile.yml').read_text())['Collections'][0]['Paper']
        method = methods[cfg.model.type]
        assert method.title.casefold() == paper['Title'].casefold()
        assert method.link == paper['URL']


def test_images_are_those_of_the_recipes(recipes):
    methods = {method.name: method for method in ours()}
    for cfg in recipes.values():
        kind = KINDS[cfg.train_dataloader.dataset.type]
        assert methods[cfg.model.type].images == kind


@pytest.mark.parametrize(
    ('name', 'meant'),
    [('kd3', 'KD3'), ('PRE-DFKD', 'PREDFKD'), ('deep_inversion', 'DeepInversion')],
)
def test_the_nearest_name_is_told(name, meant):
    with pytest.raises(UsageError, match=f"method='{name}' is not known. Did you mean '{meant}'"):
        find_method(name)


def test_unlike_any_name():
    with pytest.raises(UsageError, match=r"method='xyz' is not known. Choose one of CMI, .*ZSKT\."):
        find_method('xyz')


def test_default_recipes():
    """One for each method, with settings of its own and no ablation's."""
    for method in ours():
        grey, colour = (find_recipe(find_method(method.name), None, c) for c in (1, 3))
        assert grey.stem.endswith('e_digits') and colour.stem.endswith('e_cifar10')
        for path in (grey, colour):
            assert load_config(path).model.type == method.name


def test_recipes_by_name_and_by_path(tmp_path):
    name = 'kd3_resnet8_resnet8-half_1xb128-40e-no-mix_digits'
    assert find_recipe(FastDFKD, name, 1) == CONFIGS / 'kd3/ablation' / f'{name}.py'
    assert find_recipe(FastDFKD, tmp_path / 'mine.py', 1) == tmp_path / 'mine.py'


def test_recipes_of_an_installed_package(tmp_path, monkeypatch):
    """A wheel has the configs inside, see setup.py."""
    packed = tmp_path / 'mmdfkd/.mim/configs/dafl/dafl_mine.py'
    packed.parent.mkdir(parents=True)
    packed.touch()
    monkeypatch.setattr(mmdfkd, '__file__', str(tmp_path / 'mmdfkd/__init__.py'))
    assert find_recipe(FastDFKD, 'dafl_mine', 3) == packed


def test_no_recipe():
    with pytest.raises(UsageError, match=r'no default recipe of FastDFKD for images of 4 channels'):
        find_recipe(FastDFKD, None, 4)
    with pytest.raises(UsageError, match=r"is no config of mmdfkd. Did you mean 'dafl_resnet34_"):
        find_recipe(FastDFKD, 'dafl_resnet34_resnet18_cifar10', 3)


def test_a_method_is_called_what_the_registry_calls_it():
    class Mine(FastDFKD):
        __doc__ = FastDFKD.__doc__

    MODELS.register_module(module=Mine, name='MyFastDFKD')
    try:
        assert 'MyFastDFKD' in [method.name for method in list_methods()]
        assert find_method('MyFastDFKD') is Mine
    finally:
        del MODELS.module_dict['MyFastDFKD']


def test_a_class_that_does_not_say_what_it_learns_from():
    class Mine(BaseDistiller):
        pass

    MODELS.register_module(module=Mine, name='MyDeepInversion')
    try:
        with pytest.raises(
            UsageError, match=r"method='MyDeepInversion' states no learns_from.*'bo"
        ):
            find_method('MyDeepInversion')
    finally:
        del MODELS.module_dict['MyDeepInversion']
    with pytest.raises(UsageError, match=r"method='Supervised' is not known"):  # no method
        find_method('Supervised')
