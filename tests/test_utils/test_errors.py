# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest

from mmdfkd.utils import UsageError
from mmdfkd.utils.errors import check_choice, check_least, shorten


def test_a_choice_is_one_of_those_there_are():
    check_choice('view', 'plain', ('plain', 'train'))
    with pytest.raises(UsageError, match="view='none' is not known; choose one of 'plain', 'tr"):
        check_choice('view', 'none', ('plain', 'train'))


def test_the_least_is_enough():
    check_least('epochs', 1, 1)
    check_least('epochs', None, 1)
    with pytest.raises(UsageError, match='epochs is 0; give 1 or more'):
        check_least('epochs', 0, 1)


@pytest.mark.parametrize(
    ('names', 'text'), [('ab', 'a, b'), ('abc', 'a, b, c'), ('abcde', 'a, b, c and 2 more')]
)
def test_long_lists_are_cut(names, text):
    assert shorten(names, limit=3) == text
