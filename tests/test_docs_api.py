# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What ``make docs`` makes the pages of ``docs/en/api`` from; it checks their links itself."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from mmengine.registry import Registry

import mmdfkd
from mmdfkd import registry
from mmdfkd.utils import register_all_modules

PAGES = sorted((Path(__file__).parents[1] / 'docs/en/api').glob('*.rst'))
AUTOMODULE = r'^\.\. automodule:: (\S+)'
PACKAGES = [
    module
    for _, name, is_package in pkgutil.walk_packages(mmdfkd.__path__, 'mmdfkd.')
    if is_package and hasattr(module := importlib.import_module(name), '__all__')
]
PUBLIC = [(module, name) for module in PACKAGES for name in module.__all__]


def registered():
    """Classes and functions of ours in all registries, by their types."""
    register_all_modules(init_default_scope=False)
    known = [value for value in vars(registry).values() if isinstance(value, Registry)]
    found = [item for each in known for item in each.module_dict.items()]
    return {kind: value for kind, value in found if value.__module__.startswith('mmdfkd.')}


def test_every_package_is_on_one_page():
    found = [name for page in PAGES for name in re.findall(AUTOMODULE, page.read_text(), re.M)]
    assert len(PACKAGES) > 15
    assert sorted(found) == sorted(['mmdfkd.registry', *(each.__name__ for each in PACKAGES)])


def test_whatever_a_config_can_name_is_public():
    public = [getattr(module, name) for module, name in PUBLIC]
    assert len(registered()) > 100
    assert not [kind for kind, value in registered().items() if value not in public]


@pytest.mark.parametrize('module', PACKAGES, ids=lambda module: module.__name__)
def test_every_public_name_says_what_it_is(module):
    assert module.__doc__, 'begins the part of the page'
    for name in module.__all__:
        first = (getattr(module, name).__doc__ or '').split('\n\n')[0].strip()
        assert re.fullmatch(r'\S.{5,}[.:]', first, re.DOTALL), f'{module.__name__}.{name}: {first}'


def test_every_argument_of_a_registered_class_is_described():
    for kind, value in registered().items():
        init = value.__init__ if isinstance(value, type) else value
        if not getattr(init, '__module__', 'mmdfkd').startswith('mmdfkd'):  # mmengine's runner
            continue
        section = re.search(r'\n    Args:\n((?:        .*\n|\n)+)', value.__doc__ + '\n')
        described = re.findall(r'^ {8}\**(\w+): \S', section[1], re.MULTILINE) if section else []
        assert described == list(inspect.signature(value).parameters), kind
