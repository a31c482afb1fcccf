# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.engine.histogram import describe_collapse, effective_classes

NAMES = [f'class {number}' for number in range(10)]


@pytest.mark.parametrize(
    ('counts', 'expected'),
    [
        ([5] * 10, 10.0),
        ([0, 0, 7, 0], 1.0),
        ([8, 8, 0, 0], 2.0),
        ([1, 3], 1.7548),  # entropy ln 4 - 3/4 ln 3 = 0.56234
    ],
)
def test_effective_number_of_classes(counts, expected):
    assert effective_classes(torch.tensor(counts)) == pytest.approx(expected, abs=1e-4)


def test_one_class_with_most_of_the_images():
    words = describe_collapse(torch.tensor([10, 60, *[5] * 6, 0, 0]), NAMES)
    assert words.startswith('Generator collapse: 60% of the generated images are of class class 1')
    assert 'class balance' in words and 'learning rate' in words and 'batch size' in words


def test_most_classes_without_any():
    words = describe_collapse(torch.tensor([25, 25, 25, 25, 0, 0, 0, 0, 0, 0]), NAMES)
    assert '6 of 10 classes are never generated (class 4, class 5' in words


@pytest.mark.parametrize(
    'counts',
    [
        [10] * 10,
        [50, 50, *[25] * 4, 0, 0, 0, 0],
        [9] * 5 + [0] * 5,
        [20] * 4 + [1] * 6,
        [0, 40],
        [5, 5, 0],
    ],
)
def test_nothing_to_report(counts):
    """Even, or uneven within limits; two classes may well be one sided for a while."""
    assert describe_collapse(torch.tensor(counts), NAMES) == ''


def test_another_culprit():
    words = describe_collapse(torch.tensor([9, 1, 1]), NAMES, 'Synthesis', 'Wait longer.')
    assert words.startswith('Synthesis collapse: 82% of') and words.endswith('Wait longer.')
