# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.

import math

import pytest
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_schedules, style

STEPS = [(0, 0.1), (80, 0.01), (160, 0.001), (200, 0.001)]
BEND = [(n, 0.1 * (1 + math.cos(math.pi * n / 200)) / 2) for n in range(200)]
BEND = [*BEND, (200, BEND[-1][1])]


def corners(axes, number):
    """Of the n-th line; each is followed by the dot at its end."""
    return axes.lines[2 * number].get_xydata()


def texts(labels):
    return [label.get_text() for label in labels]


def test_steps_are_stairs_on_a_logarithmic_axis(tmp_path, drawn):
    plot_schedules(
        tmp_path / 'a.png', {'lr': {'student': STEPS, 'generator': [(0, 0.02), (200, 0.02)]}}
    )
    page, axes = drawn[0].axes
    assert 'Learning rate (logarithmic)' in texts(page.texts)
    expected = [(0, -1), (80, -1), (80, -2), (160, -2), (160, -3), (200, -3)]
    assert corners(axes, 0).tolist() == [pytest.approx(corner) for corner in expected]
    # The values themselves are at the axis, and at the right what they are in the end.
    assert texts(axes.get_yticklabels()) == ['0.001', '0.01', '0.02', '0.1']
    assert texts(axes.texts) == ['0.02', 'generator', '0.001', 'student']
    assert axes.get_xlabel() == 'epochs done'
    with Image.open(tmp_path / 'a.png') as image:
        assert image.size[0] == 2 * style.WIDTH


def test_a_bend_is_on_a_linear_axis_from_zero(tmp_path, drawn):
    plot_schedules(tmp_path / 'a.png', {'lr': {'student': BEND}}, unit='iteration')
    page, axes = drawn[0].axes
    assert 'Learning rate' in texts(page.texts)
    assert axes.get_ylim()[0] < 0 < 0.1 < axes.get_ylim()[1]
    assert len(corners(axes, 0)) == 2 * 200
    assert texts(axes.get_yticklabels())[1:4] == ['0', '0.02', '0.04']
    assert axes.get_xlabel() == 'iterations done'


def test_lines_that_coincide_are_named_together(tmp_path, drawn):
    lines = {'student': STEPS, 'scratch_teacher': list(STEPS), 'other': BEND}
    plot_schedules(tmp_path / 'a.png', {'lr': lines})
    _, axes = drawn[0].axes
    assert len(axes.lines) == 2 * 3  # with a dot and a sample beside the name
    assert 'student,\nscratch_teacher' in texts(axes.texts)


def test_every_parameter_has_a_panel(tmp_path, drawn):
    momentum = [(0, 0.85), (100, 0.95), (200, 0.95)]
    plot_schedules(
        tmp_path / 'a.png', {'lr': {'student': STEPS}, 'momentum': {'student': momentum}}
    )
    page, rates, momenta = drawn[0].axes
    assert 'Momentum' in texts(page.texts)
    assert texts(momenta.get_yticklabels()) == ['0.85', '0.95']  # zero is far
    assert rates.get_position().y0 > momenta.get_position().y1


def test_a_rate_that_stays_and_no_rate_at_all(tmp_path, drawn):
    for value in (0.1, 0.0):
        plot_schedules(tmp_path / 'a.png', {'lr': {'student': [(0, value), (5, value)]}})
        _, axes = drawn[-1].axes
        assert texts(axes.get_yticklabels()) == (['0', '0.1'] if value else ['0'])
    with pytest.raises(UsageError, match='expected one or more'):
        plot_schedules(tmp_path / 'b.png', {'lr': {}})
    assert not (tmp_path / 'b.png').exists()
