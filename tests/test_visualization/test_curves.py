# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.

import numpy as np
import pytest
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_history, plot_sweep, style

# As mmengine writes them: training records count iterations in 'step', validation ones epochs.
RECORDS = [
    {'loss': 2.0, 'weight': 0.9, 'epoch': 1, 'iter': 10, 'step': 10},
    {'loss': 1.0, 'weight': 0.8, 'epoch': 1, 'iter': 20, 'step': 20},
    {'selected_share': 0.5, 'student_weight': 0.01, 'step': 1},
    {'accuracy/top1': 60.0, 'step': 1},
    {'loss': 0.5, 'weight': 0.7, 'epoch': 2, 'iter': 40, 'step': 40},
    {'selected_share': 0.6, 'student_weight': 1.0, 'step': 2},
    {'accuracy/top1': 90.0, 'step': 2},
]


def _pixels(path):
    return np.asarray(Image.open(path).convert('RGB'))


def _rows_of(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.flatnonzero((pixels == rgb).all(axis=-1).sum(axis=1))


def test_history_shows_a_panel_for_what_was_logged(tmp_path):
    whole = _pixels(plot_history(tmp_path / 'whole.png', RECORDS, teacher_accuracy=95.0))
    accuracy = [record for record in RECORDS if 'accuracy/top1' in record]
    alone = _pixels(plot_history(tmp_path / 'alone.png', accuracy))
    assert whole.shape[1] == alone.shape[1] == 2 * 960
    assert whole.shape[0] > alone.shape[0] + 300
    for colour in (style.BLUE, style.GREEN, style.PURPLE, style.ORANGE):
        assert len(_rows_of(whole, colour)) > 0
    assert len(_rows_of(alone, style.BLUE)) > 0 and len(_rows_of(alone, style.GREEN)) == 0


def test_panels_hold_what_their_headings_say(tmp_path, drawn):
    plot_history(tmp_path / 'a.png', RECORDS, teacher_accuracy=95.0)
    page, accuracy, share, weights = drawn[0].axes
    curves = [
        [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata()) == 2]
        for axes in (accuracy, share, weights)
    ]
    assert curves[0][0] == [[1, 60], [2, 90]] and curves[0][1] == [[0, 95], [1, 95]]
    assert curves[1][0] == [[1, 50], [2, 60]] and share.get_ylim() == (0, 100)  # in percent
    assert curves[2][:2] == [[[1, 0.01], [2, 1]], [[1, 0.8], [2, 0.7]]]
    assert weights.get_ylim() == (0, 1)
    tags = [[text.get_text() for text in axes.texts] for axes in (accuracy, share, weights)]
    assert tags[:2] == [['95.0', 'teacher', '90.0', 'student'], ['60.0', 'selected']]
    assert tags[2][::2] == ['1.00', '0.70'] and 'a(t)' in tags[2][1] and 'alignment' in tags[2][3]


def test_epochs_of_an_axis_are_those_of_the_run(tmp_path, drawn):
    late = [{'accuracy/top1': 50.0 + epoch, 'step': epoch} for epoch in (30, 20, 40)]
    plot_history(tmp_path / 'a.png', late)
    axes = drawn[0].axes[1]
    assert axes.get_xlim() == pytest.approx((20 - 0.3, 40 + 0.3))
    assert axes.lines[0].get_xydata().tolist() == [[20, 70], [30, 80], [40, 90]]


def test_a_run_over_iterations_or_rounds_says_so(tmp_path, drawn):
    records = [{'accuracy/top1': 50.0 + step, 'iter': step, 'step': step} for step in (20, 40)]
    plot_history(tmp_path / 'a.png', records)
    curves = {'a': [(1, 30.0), *((number, 90.0) for number in range(2, 9))]}
    plot_sweep(tmp_path / 'b.png', curves, unit='round')
    history, sweep = (figure.axes[1] for figure in drawn)
    assert history.lines[0].get_xdata().tolist() == [20, 40]
    assert (history.get_xlabel(), sweep.get_xlabel()) == ('iteration', 'round')
    said = [' '.join(text.get_text() for text in figure.axes[0].texts) for figure in drawn]
    assert 'iteration by iteration' in said[0] and 'last iteration' in said[0]
    assert 'last round' in said[1] and 'First rounds that lie below' in said[1]
    assert not any('epoch' in text for text in said)


def test_history_without_a_known_key_lists_those_found(tmp_path):
    with pytest.raises(UsageError, match=r"found the keys \['loss', 'step'\]"):
        plot_history(tmp_path / 'history.png', [{'loss': 1.0, 'step': 1}])
    named = plot_history(tmp_path / 'history.png', [{'loss': 1.0, 'step': 1}], accuracy='loss')
    assert named.exists()


def test_same_records_same_pixels(tmp_path):
    first, again = (
        _pixels(plot_history(tmp_path / f'{name}.png', RECORDS)) for name in ('first', 'again')
    )
    assert np.array_equal(first, again)


def test_sweep_draws_the_better_run_higher(tmp_path):
    curves = {'worse': [(e, 80.0) for e in range(9)], 'better': [(e, 90.0) for e in range(9)]}
    pixels = _pixels(plot_sweep(tmp_path / 'sweep.png', curves, teacher_accuracy=95.0))
    assert pixels.shape[1] == 2 * 960
    worse, better = (_rows_of(pixels, colour).mean() for colour in style.CYCLE[:2])
    assert better < worse  # rows are counted from the top


def test_sweep_grows_with_the_number_of_runs(tmp_path):
    curves = {f'run {run}': [(1, 50.0 + run), (2, 60.0)] for run in range(30)}
    tall = _pixels(plot_sweep(tmp_path / 'tall.png', curves))
    low = _pixels(plot_sweep(tmp_path / 'low.png', {'one': [(1, np.nan)]}))
    assert tall.shape[0] > low.shape[0] > 900


CLIMB = [(epoch, 90.0 - 60 / epoch) for epoch in range(1, 41)]  # 30 at first, 88.5 in the end


def _texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]


@pytest.mark.parametrize(
    'points', [[(1, 12.0), (2, 20.0), (3, 28.0)], [(1, 5.0), (2, 28.0), (3, np.nan)], [(1, 28.0)]]
)
def test_a_run_that_has_not_got_far_is_in_the_picture(tmp_path, drawn, points):
    plot_sweep(tmp_path / 'a.png', {'full': CLIMB, 'short': points}, 95.0)
    page, axes = drawn[0].axes
    low, high = axes.get_ylim()
    assert low < 28 < 95 < high
    tag = next(text for text in axes.texts if text.get_text() == 'short')
    # Its top edge is about half a line of text above the last value that is a number.
    assert tag.get_position()[1] == pytest.approx((28 - low) / (high - low), abs=0.03)


def test_a_cut_is_said(tmp_path, drawn):
    plot_sweep(tmp_path / 'cut.png', {'climb': CLIMB}, 95.0)
    assert 83.5 < drawn[0].axes[1].get_ylim()[0] < 84.5  # 84.5 in epoch 11, less a margin
    plot_sweep(tmp_path / 'whole.png', {'flat': [(1, 91.0), (2, 90.0), (3, 90.5)]}, 95.0)
    said = ['First epochs that lie below the axis are cut off.' in _texts(f) for f in drawn]
    assert said == [True, False]


@pytest.mark.parametrize(('epochs', 'is_whole'), [(2, True), (4, True), (5, False)])
def test_short_runs_are_drawn_whole(tmp_path, drawn, epochs, is_whole):
    plot_sweep(tmp_path / 'short.png', {'a': CLIMB[:epochs], 'b': CLIMB[:2]}, 95.0)
    low, _ = drawn[0].axes[1].get_ylim()
    assert bool(low < 30) is is_whole


def test_a_run_without_a_number_keeps_its_place_among_the_tags(tmp_path, drawn):
    curves = {'low': [(1, 60.0)], 'broken': [(1, np.nan)], 'high': [(1, 90.0)]}
    plot_sweep(tmp_path / 'nan.png', curves, 95.0)
    tags = [text.get_text() for text in drawn[0].axes[1].texts][1::2]
    assert tags == ['teacher', 'high', 'low', 'broken']


def test_every_curve_can_be_told_from_the_others_by_its_tag(tmp_path, drawn):
    curves = {f'run {run}': [(1, 50.0 + run), (2, 60.0 + run)] for run in range(24)}
    plot_sweep(tmp_path / 'many.png', curves, 95.0)

    def looks(lines):
        return [(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines]

    axes = drawn[0].axes[1]
    samples = [line for line in axes.lines if line.get_transform() == axes.transAxes]
    long = [line for line in axes.lines if line not in samples and len(line.get_xdata()) == 2]
    assert len(set(looks(samples))) == 25 and set(looks(samples)) == set(looks(long))


@pytest.mark.parametrize('teacher', [20.0, 60.0, 99.0])
def test_the_teachers_line_is_in_the_picture(tmp_path, drawn, teacher):
    plot_sweep(tmp_path / 'a.png', {'run': [(1, 90.0), (2, 91.0), (3, 92.0)]}, teacher)
    low, high = drawn[0].axes[1].get_ylim()
    assert low < min(teacher, 91) and max(teacher, 92) < high  # 90 is the climb


@pytest.mark.parametrize(
    ('label', 'value', 'text'),
    [
        ('student.lr', 4.8943e-05, '4.894e-05'),
        ('loss', 0.21743, '0.2174'),
        ('accuracy/top5', 97.26, '97.3'),
        ('agreement/teacher', 97.26, '97.3'),
        ('Accuracy on digits in percent', 97.26, '97.3'),
    ],
)
def test_numbers_have_the_digits_of_what_they_are(tmp_path, drawn, label, value, text):
    plot_sweep(tmp_path / 'a.png', {'run': [(1, 2 * value), (2, value)]}, y_label=label)
    assert text in _texts(drawn[0])


@pytest.mark.parametrize('curves', [{}, {'a': []}, {'a': [(1, 2, 3)]}])
def test_sweep_without_points_is_refused(tmp_path, curves):
    with pytest.raises(UsageError, match=r'\(epoch, value\)|0 runs'):
        plot_sweep(tmp_path / 'sweep.png', curves)
