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


def test_what_is_no_pair_is_named(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', 'b'])
    assert "--cfg-options: 'b' is no KEY=VALUE" in capsys.readouterr().err
