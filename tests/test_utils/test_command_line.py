# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import argparse

import pytest

from mmdfkd.utils.command_line import KeyValues


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues)
    return parser


def test_pairs_are_taken_as_mmengine_does(parser):
    args = parser.parse_args(['--cfg-options', 'a.b=1', 'c=[2,x]', 'd=e=f'])
    assert args.cfg_options == {'a.b': 1, 'c': [2, 'x'], 'd': 'e=f'}


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('my pools/a b', 'my pools/a b'),
        ("['a b', c]", ['a b', 'c']),
        ('[1, 2]', [1, 2]),
        ('(1,)', (1,)),
        ('[(1, 2), [a], None]', [(1, 2), ['a'], None]),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('1,2,', [1, 2]),
        ('[]', []),
        ('(2', '(2'),
        ('', ''),
    ],
)
def test_values(parser, text, value):
    args = parser.parse_args(['--cfg-options', f'key={text}'])
    assert args.cfg_options == {'key': value}


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ("dict(type='A',depth=2)", 'has commas within brackets only'),
        ("[dict(type='A',depth=2)]", 'of a dict give every key by itself'),
        ('[1,2', 'has brackets that do not match'),
        ('1],[2', 'has brackets that do not match'),
    ],
)
def test_values_that_are_none(parser, capsys, value, words):
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', f'key={value}'])
    said = ' '.join(capsys.readouterr().err.split())
    assert 'argument --cfg-options: ' in said and words in said and 'KEY.NAME=VALUE' in said


def test_what_is_no_pair_is_named(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', 'b'])
    assert "--cfg-options: 'b' is no KEY=VALUE" in capsys.readouterr().err
