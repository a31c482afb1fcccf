# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How ``make docs`` makes a site of the pages, with a reference from the docstrings.

Its source directory is the repository, so that links between pages, configs and code lead where
they lead on a code-hosting site, where all pages but those of the reference can be read as well.
"""

import re
import sys

from mmengine.registry import Registry

from mmdfkd import __version__, registry
from mmdfkd.utils import register_all_modules

project = 'mmdfkd'
author = copyright = 'mmdfkd contributors'
version = release = __version__

root_doc = 'docs/en/index'
include_patterns = ['docs/en/**', 'configs/*/README.md']
exclude_patterns = ['.*', 'build', 'data', 'docs/_build', 'mmdfkd', 'tests', 'tools', 'work_dirs']
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
html_theme = 'furo'
html_title = f'mmdfkd {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
myst_heading_anchors = 3
smartquotes_action = 'De'  # quotes stay straight, as in code

autodoc_default_options = {
    'members': True,
    'show-inheritance': True,
    'special-members': '__call__',
}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_attr_annotations = False  # they are in the signature
python_maximum_signature_line_length = 150

nitpicky = True
# What annotations and bases name without a page of its own: other libraries, inner classes.
nitpick_ignore_regex = [
    ('py:.*', r'(abc|collections|logging|mmengine|nn|np|numpy|os|pathlib|torch)\..+'),
    ('py:class', r'Content|Form|Head|Path|PathLike|Space|Tensor'),
    ('py:class', r'(mmdfkd\..+\.)?(Distances|Download|File|Part|RowView|SharedSampler)'),
    ('py:class', r'mmdfkd\..+\.(_Cifar|Generator|ShareMetric)'),
]

register_all_modules()
REGISTRIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}


def add_toctrees(app, page, source):
    """Add what an index links to as trees, one a paragraph with its bold words as the caption."""
    if not page.endswith('/index'):
        return
    for paragraph in source[0].split('\n\n'):
        caption = re.match(r'\*\*(.+?)\.\*\*', paragraph)
        lines = [':hidden:', *([f':caption: {caption[1]}'] if caption else []), '']
        lines += re.findall(r'\]\((.+?)\.\w+\)', paragraph)
        source[0] += '\n'.join(['\n\n```{toctree}', *lines, '```'])


def add_types(app, what, name, value, options, lines):
    """Say by which ``type`` a config finds a class, and list all types below the registries."""
    for place, known in REGISTRIES.items():
        if name == 'mmdfkd.registry':
            types = [f':obj:`{kind} <.{kind}>`' for kind in sorted(known.module_dict)]
            lines += [f'.. py:data:: {place}', '', f'   {", ".join(types) or "None of ours."}', '']
        for kind, registered in known.module_dict.items():
            if registered is value:
                lines[:0] = [f"``type='{kind}'`` in :data:`~mmdfkd.registry.{place}`", '']


def show_once(app, what, name, value, skip, options):
    """Leave to an inner package what it exports too, to a named tuple's docstring its fields."""
    inside = f'{app.env.temp_data["autodoc:module"]}.'
    inner = [module for path, module in sys.modules.items() if path.startswith(inside)]
    again = what == 'module' and any(name in getattr(module, '__all__', ()) for module in inner)
    return True if again or type(value).__name__ == '_tuplegetter' else None


def setup(app):
    """Connect them to Sphinx."""
    app.connect('source-read', add_toctrees)
    app.connect('autodoc-process-docstring', add_types)
    app.connect('autodoc-skip-member', show_once)
