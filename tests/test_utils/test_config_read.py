# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import sys

import pytest

from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config


@pytest.fixture
def files(tmp_path):
    (tmp_path / 'base.py').write_text('a = dict(b=dict(c=1), d=[1, dict(e=2)])\nmodel = dict()\n')
    (tmp_path / 'child.py').write_text("_base_ = './base.py'\na = dict(b=dict(f=3))\n")
    return tmp_path


def fails(path, options=None):
    with pytest.raises(UsageError) as error:
        load_config(path, options)
    return str(error.value)


def test_load(files):
    cfg = load_config(files / 'child.py', {'a.b.c': 5, 'a.d.1.e': 6, 'model.new': 7})
    assert cfg.a.b == dict(c=5, f=3)
    assert cfg.a.d == [1, dict(e=6)]
    assert cfg.model.new == 7


def test_missing_file(files):
    assert fails(files / 'childs.py') == (
        f'There is no config file {files}/childs.py. Did you mean {files}/child.py?'
    )
    assert 'Check the path' in fails(files / 'nothing' / 'like_it.py')


def test_no_config(files):
    (files / 'epoch_1.pth').touch()
    assert 'epoch_1.pth is no config' in fails(files / 'epoch_1.pth')


def test_missing_base(files):
    (files / 'base.py').rename(files / 'bases.py')
    assert fails(files / 'child.py') == (
        f'There is no config file {files}/base.py, which {files}/child.py names in _base_. '
        f'Did you mean {files}/bases.py?'
    )


def test_syntax_error_in_a_base(files):
    (files / 'base.py').write_text('a = 1\nb = dict(c=1\n')
    assert fails(files / 'child.py').startswith(f"{files}/base.py, line 2: '(' was never closed")


@pytest.mark.parametrize('name', ['child.py', 'base.py'])
def test_a_module_is_imported_above_the_bases(files, name):
    code = (files / name).read_text()
    (files / name).write_text(f'import torch\n{code}')
    message = fails(files / 'child.py')
    assert message.startswith(f'{files}/{name} imports a module above _base_')
    assert 'Write _base_ first, _base_ = [] where it has none.' in message
    base = '_base_ = []\n' if name == 'base.py' else ''
    (files / name).write_text(f'{base}{code}import torch\n')
    assert load_config(files / 'child.py').a.b == dict(c=1, f=3)


def test_error_in_a_statement(files):
    (files / 'base.py').write_text('a = 1\n\nb = c\n')
    message = fails(files / 'child.py')
    assert message.startswith(f"{files}/base.py, line 3: name 'c' is not defined (NameError)")


@pytest.mark.parametrize(
    ('code', 'said'),
    [
        ('x = 1\ny = z\n', "line 2: name 'z' is not defined (NameError). Correct that file."),
        ('x = (\n', "line 1: '(' was never closed (SyntaxError)"),
        ('import nowhere_at_all\n', "line 1: No module named 'nowhere_at_all'"),
    ],
)
def test_error_in_a_module_of_the_users(files, monkeypatch, code, said):
    (files / 'module_of_the_users.py').write_text(code)
    (files / 'child.py').write_text("custom_imports = dict(imports=['module_of_the_users'])\n")
    monkeypatch.syspath_prepend(files)
    message = fails(files / 'child.py')
    assert message.startswith(f'custom_imports: {files}/module_of_the_users.py, {said}')


def test_module_that_is_not_found(files):
    (files / 'child.py').write_text("custom_imports = dict(imports=['nowhere_at_all'])\n")
    message = fails(files / 'child.py')
    assert message.startswith("custom_imports: No module named 'nowhere_at_all'. Correct the name")
    assert 'PYTHONPATH=.' in message


def test_modules_that_an_option_names_are_imported(files, monkeypatch):
    (files / 'named_by_an_option.py').write_text('')
    (files / 'child.py').write_text("custom_imports = dict(imports=['math'])\n")
    monkeypatch.syspath_prepend(files)
    monkeypatch.delitem(sys.modules, 'named_by_an_option', raising=False)
    load_config(files / 'child.py', {'custom_imports.imports': ['named_by_an_option']})
    assert 'named_by_an_option' in sys.modules
    with pytest.raises(UsageError, match="custom_imports: No module named 'nowhere_at_all'"):
        load_config(files / 'child.py', {'custom_imports.imports': ['nowhere_at_all']})


def test_imports_that_are_no_dict(files):
    """A module, for instance, which check_config says is none, or None where a config has some."""
    for value in ('mymodule', None):
        assert load_config(files / 'child.py', {'custom_imports': value}).custom_imports == value


def test_error_in_merging(files):
    (files / 'child.py').write_text("_base_ = './base.py'\na = dict(d=dict(e=1))\n")
    message = fails(files / 'child.py')
    assert message.startswith(f'{files}/child.py: ')
    assert 'cannot inherit' in message


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('modle.x', "--cfg-options modle.x: there is no 'modle' here. Did you mean 'model'?"),
        ('qqqqqq', "there is no 'qqqqqq' here. Check the spelling."),
        ('a.b.c.d', 'a.b.c is 1 and has no'),
        ('a.d.5', 'a.d is a list of 2. Give an index up to 1'),
        ('a.d.x', 'a.d is a list of 2'),
    ],
)
def test_bad_options(files, option, message):
    assert message in fails(files / 'child.py', {option: 1})


def test_option_close_to_an_existing_key(files):
    (files / 'base.py').write_text('a = dict(b=1, long_name=2)\n')
    assert "Did you mean 'long_name'?" in fails(files / 'base.py', {'a.long_nam': 1})
    assert load_config(files / 'base.py', {'a.unlike': 1}).a.unlike == 1


def test_new_runner_key_is_fine(files):
    cfg = load_config(files / 'child.py', {'randomness.seed': 3, 'load_from': 'x.pth'})
    assert (cfg.randomness.seed, cfg.load_from) == (3, 'x.pth')
