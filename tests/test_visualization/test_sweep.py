# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_settings, plot_values, style
from mmdfkd.visualization.sweep import _places, prefers_log, summarise

LINE = [(0.1, [90.0, 92.0]), (0.2, [94.0, 94.0])]


def _pixels(path):
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def _where(pixels, colour):
    """Rows and columns of the pixels of exactly this colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((pixels == rgb).all(axis=-1))


def test_deviation_is_that_of_a_sample():
    # Mean 93; squares 4, 1, 9 of the deviations, divided by n - 1 = 2: 7.
    assert summarise([91.0, 92.0, 96.0])[1:] == (93.0, pytest.approx(7**0.5))
    assert summarise([91.0])[1:] == (91.0, None)


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([0.001, 0.01, 0.1, 1], True),  # Figure 4 of KD³: lambda,
        ([0.1, 0.3, 0.5, 0.7], False),  # tau,
        ([0.9, 0.925, 0.95, 0.975], False),  # V_th;
        ([0.05, 0.25, 0.5, 0.75, 1], False),  # its Table 4
        ([0, 0.001, 0.01, 0.1], True),
        ([1, 2, 4, 8, 16, 32], True),
        ([1, 34, 67, 100], False),
        ([0.01, 1], True),
        ([1, 2], False),
        ([-1, 1, 10, 100], False),
        ([0, 1], False),
    ],
)
def test_decades_get_a_logarithmic_axis(values, expected):
    assert prefers_log(values) is expected


def test_a_zero_lies_one_step_left_of_the_decades():
    places = _places([0, 0.001, 0.01, 0.1], is_log=True)
    assert [places[v] for v in (0, 0.001, 0.01, 0.1)] == pytest.approx([-4, -3, -2, -1])


def test_values_ascend_to_the_right_and_better_means_are_higher(tmp_path):
    pixels = _pixels(plot_values(tmp_path / 'a.png', {'': {'run': LINE}}, 'key'))
    assert pixels.shape[1] == 2 * 960
    rows, columns = _where(pixels, style.BLUE)
    left, right = rows[columns < columns.mean()], rows[columns > columns.mean()]
    assert left.mean() > right.mean() + 100  # rows are counted from the top


def test_the_band_is_as_wide_as_the_deviation(tmp_path):
    def thickness(spread):
        points = [(x, [90.0 - spread, 90.0, 90.0 + spread]) for x in (1.0, 2.0, 3.0)]
        # The teacher and a far line fix the axis, whatever the spread.
        panels = {'': {'a': points, 'b': [(1.0, [70.0]), (3.0, [70.0])]}}
        pixels = _pixels(plot_values(tmp_path / 'band.png', panels, 'x', teacher_accuracy=99.0))
        column = pixels[:, 640]  # between two values
        band = 255 - (255 - np.array([0x00, 0x72, 0xB2])) * 0.18
        return (abs(column - band).max(axis=1) <= 2).sum()

    # The line itself, of some 4 pixels, hides a part of both.
    assert thickness(4.0) / thickness(2.0) == pytest.approx(2, rel=0.05)


def test_panels_share_their_axes(tmp_path):
    same = [(1.0, [90.0]), (2.0, [92.0])]
    panels = {'one': {'run': same}, 'two': {'run': same}}
    pixels = _pixels(plot_values(tmp_path / 'two.png', panels, 'x'))
    rows, columns = _where(pixels, style.BLUE)
    halves = [rows[columns < 970], rows[columns >= 970]]
    assert halves[0].min() == halves[1].min() and halves[0].max() == halves[1].max()


def test_many_panels_make_a_taller_picture_and_lines_a_legend(tmp_path):
    def height(panels, lines):
        content = {f'p{p}': {f'l{k}': LINE for k in range(lines)} for p in range(panels)}
        return len(_pixels(plot_values(tmp_path / 'h.png', content, 'x')))

    assert height(7, 1) > height(6, 1) == height(5, 1) > height(3, 1)
    assert height(1, 3) == height(1, 2) + 2 * 22


def test_settings_are_rows_with_the_better_one_to_the_right(tmp_path):
    rows = {'worse': [80.0, 82.0], 'better': [90.0]}
    pixels = _pixels(plot_settings(tmp_path / 'rows.png', rows, teacher_accuracy=95.0))
    assert pixels.shape[1] == 2 * 960
    y, x = _where(pixels, style.BLUE)
    middle = (y.min() + y.max()) / 2
    assert x[y < middle].mean() < x[y > middle].mean()
    assert len(_pixels(plot_settings(tmp_path / 'c.png', {**rows, 'c': [1.0]}))) == len(pixels) + 60


def test_long_settings_can_be_told_apart(tmp_path, drawn):
    long = 'kd3_resnet8_resnet8-half_1xb128-40e-no-mdcl_digits'
    rows = {f'{long}, loss_weight=0.1, norm={norm}': [90.0] for norm in ('linear', 'conv')}
    plot_settings(tmp_path / 'rows.png', rows)
    page, axes = drawn[0].axes
    lines = {text.get_text(): text.get_window_extent() for text in page.texts}
    assert 'loss_weight=0.1, norm=linear' in lines and 'loss_weight=0.1, norm=conv' in lines
    assert f'{long},' in lines
    names = [box for text, box in lines.items() if 'kd3' in text or '=' in text]
    assert len(names) == 3 and all(box.x1 < axes.bbox.x0 for box in names)


def test_headings_of_panels_keep_their_values(tmp_path, drawn):
    heading = 'a_very_long_part.of_a_very_long_key.normalisation = {}'
    panels = {heading.format(norm): {'run': LINE} for norm in ('linear', 'conv', 'none')}
    plot_values(tmp_path / 'a.png', panels, 'x')
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert [t.split(' = ')[1] for t in texts if ' = ' in t] == ['linear', 'conv', 'none']


def test_headings_of_several_long_keys_can_be_told_apart(tmp_path, drawn):
    """The value that differs is that of the first key."""
    rest = 'student_classifier = shared, gather_features = True'
    panels = {f'normalisation = {k}, {rest}': {'run': LINE} for k in ('linear', 'conv', 'none')}
    plot_values(tmp_path / 'a.png', panels, 'x')
    page, *grid = drawn[0].axes
    texts = {text.get_text().rstrip(','): text.get_window_extent() for text in page.texts}
    for axes, name in zip(grid, ('linear', 'conv', 'none'), strict=True):
        box = texts[f'normalisation = {name}']
        assert box.y0 > axes.bbox.y1 and box.x0 == pytest.approx(axes.bbox.x0, abs=2)
    assert max(box.y1 for box in texts.values()) == texts['What the value does to the accuracy'].y1


@pytest.mark.parametrize('accuracies', [(90.0, 97.0), (97.0, 90.0)])
def test_the_teachers_name_stands_clear_of_dots_and_means(tmp_path, drawn, accuracies):
    points = [(x, [mean]) for x, mean in zip((1.0, 2.0), accuracies, strict=True)]
    plot_values(tmp_path / 'a.png', {'': {'run': points}}, 'x', teacher_accuracy=97.0)
    axes = drawn[0].axes[1]
    (name,) = (text for text in axes.texts if 'teacher' in text.get_text())
    box = name.get_window_extent()
    dots = axes.transData.transform(list(zip((1.0, 2.0), accuracies, strict=True)))
    line = axes.transData.transform((1, 97.0))[1]
    others = [text.get_window_extent() for text in axes.texts if text is not name]
    assert all(x < box.x0 - 4 or x > box.x1 + 4 for x, y in dots if abs(y - line) < 1)
    assert not any(box.overlaps(other) for other in others)
    assert line < box.y0 < line + 10 and box.y1 <= axes.bbox.y1


def test_means_of_close_values_stand_clear_of_each_other(tmp_path, drawn):
    points = [(value, [50.0]) for value in (0.9, 0.95, 0.99, 0.995, 0.997, 0.999)]
    plot_values(tmp_path / 'a.png', {'': {'run': points}}, 'threshold')
    boxes = [text.get_window_extent() for text in drawn[0].axes[1].texts]
    assert len(boxes) > 2
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_the_ninth_line_differs_from_the_first_in_picture_and_legend(tmp_path, drawn):
    lines = {f'line {k}': [(1.0, [50.0 + k]), (2.0, [60.0 + k])] for k in range(9)}
    plot_values(tmp_path / 'a.png', {'': lines}, 'x')
    for axes in drawn[0].axes:
        looks = [
            (line.get_color(), line.is_dashed())
            for line in axes.lines
            if len(line.get_xdata()) == 2 and line.get_marker() == 'None'
        ]
        assert len(looks) == len(set(looks)) == 9


SEEDS = [91.0, 92.0, 96.0]  # mean 93, sample standard deviation sqrt(7)


def test_points_bands_and_ticks_are_those_of_the_seeds(tmp_path, drawn):
    points = [(0, SEEDS), (0.001, [80.0, 82.0]), (0.1, [70.0])]
    plot_values(tmp_path / 'a.png', {'': {'run': points}}, 'key', teacher_accuracy=97.5)
    axes = drawn[0].axes[1]
    places, means = [-5, -3, -1], [93, 81, 70]
    teacher, dashed, line, dots = axes.lines
    assert teacher.get_ydata() == [97.5, 97.5]
    assert np.allclose(dashed.get_xydata(), [(-5, 93), (-3, 81)]) and dashed.is_dashed()
    assert np.allclose(line.get_xydata(), [(-3, 81), (-1, 70)]) and not line.is_dashed()
    assert np.allclose(dots.get_xydata(), np.transpose([places, means]))
    band, *seeds = axes.collections
    ends = {(round(x), round(y, 4)) for x, y in band.get_paths()[0].vertices}
    assert ends == {
        *((-5, round(93 + sign * 7**0.5, 4)) for sign in (-1, 1)),
        *((-3, round(81 + sign * 2**0.5, 4)) for sign in (-1, 1)),
        (-1, 70),
    }
    assert [dots.get_offsets()[:, 1].tolist() for dots in seeds] == [SEEDS, [80, 82]]
    assert axes.get_xticks() == pytest.approx(places)
    assert [label.get_text() for label in axes.get_xticklabels()] == ['0', '0.001', '0.1']
    assert axes.get_xlabel() == 'key (logarithmic)'
    texts = {text.get_text(): text.xy for text in axes.texts}
    assert texts.pop('teacher 97.5')[1] == 97.5
    assert texts == {'93.0': (-5, 96), '81.0': (-3, pytest.approx(81 + 2**0.5)), '70.0': (-1, 70)}
    low, high = axes.get_ylim()
    assert low < 70 and 97.5 < high


@pytest.mark.parametrize(
    ('values', 'dashed'),
    [
        ([(0, 1, 2)], 0),  # on a linear axis zero has its place
        ([(0, 0.001, 0.1)], 1),
        ([(0, 0.001, 0.1), (0.001, 0.1)], 1),
    ],
)
def test_only_the_way_from_zero_to_the_decades_is_dashed(tmp_path, drawn, values, dashed):
    lines = {f'line {k}': [(x, [90.0]) for x in xs] for k, xs in enumerate(values)}
    plot_values(tmp_path / 'a.png', {'': lines}, 'x')
    axes = drawn[0].axes[1]
    stretches = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert sum(line.is_dashed() for line in stretches) == dashed


def test_the_one_seed_that_went_astray_is_within_the_picture(tmp_path, drawn):
    # Mean 91, sample standard deviation sqrt(90 / 9): the last seed is far outside of the band.
    seeds = [90.0] * 9 + [100.0]
    plot_values(tmp_path / 'a.png', {'': {'run': [(1.0, seeds), (2.0, [91.0])]}}, 'x')
    plot_settings(tmp_path / 'b.png', {'a': seeds})
    for low, high in (drawn[0].axes[1].get_ylim(), drawn[1].axes[1].get_xlim()):
        assert low < 91 - 10**0.5 and high > 100


def test_panels_say_once_what_they_share(tmp_path, drawn):
    """Two by two: accuracies at the left, the key below, the teacher's name in the first."""
    panels = {name: {'run': LINE} for name in 'abcd'}
    plot_values(tmp_path / 'a.png', panels, 'key', teacher_accuracy=97.5, note='three seeds')
    page, *grid = drawn[0].axes
    assert 'three seeds' in [text.get_text() for text in page.texts]
    assert [axes.get_xlabel() for axes in grid] == ['', '', 'key', 'key']
    ticks = [axes.yaxis.get_major_ticks()[0].label1.get_visible() for axes in grid]
    assert ticks == [True, False, True, False]
    names = [sum('teacher' in text.get_text() for text in axes.texts) for axes in grid]
    assert names == [1, 0, 0, 0] and all(axes.lines[0].get_ydata() == [97.5] * 2 for axes in grid)
    places = [axes.get_window_extent() for axes in grid]
    assert places[0].y0 == places[1].y0 > places[2].y1 and places[0].x0 == places[2].x0


def test_dots_and_band_have_the_colour_of_their_line(tmp_path, drawn):
    plot_values(tmp_path / 'a.png', {'': {'a': LINE, 'b': LINE}}, 'x')
    colours = [to_hex(shape.get_facecolor()[0]).upper() for shape in drawn[0].axes[1].collections]
    blue, other = style.CYCLE[:2]  # a band, and the two seeds of two values
    assert colours == [blue.upper()] * 3 + [other.upper()] * 3


def test_a_line_looks_alike_in_all_panels_and_in_the_legend(tmp_path, drawn):
    panels = {'one': {'a': LINE, 'b': LINE}, 'two': {'b': LINE}}
    plot_values(tmp_path / 'a.png', panels, 'x')
    page, one, two = drawn[0].axes
    legend = {line.get_ydata()[0] + 4: line.get_color() for line in page.lines}
    names = {text.get_text(): legend[text.get_position()[1]] for text in page.texts[-4:-2]}
    dots = [
        [line.get_color() for line in axes.lines if line.get_marker() == 'o'] for axes in (one, two)
    ]
    assert names == {'a': style.CYCLE[0], 'b': style.CYCLE[1]}
    assert dots == [[names['a'], names['b']], [names['b']]]
    assert one.get_xlabel() == 'x' and not one.texts and not two.texts  # no means between lines


def test_a_row_shows_its_seeds_their_mean_and_deviation(tmp_path, drawn):
    rows = {'many': SEEDS, 'one': [85.0]}
    plot_settings(tmp_path / 'a.png', rows, teacher_accuracy=97.5, note='of three seeds')
    page, axes = drawn[0].axes
    teacher, bar, dot, _, other = axes.lines
    assert teacher.get_xdata() == [97.5, 97.5]
    assert bar.get_xdata() == pytest.approx([93 - 7**0.5, 93 + 7**0.5])
    assert dot.get_xydata().tolist() == [[93, 0]] and other.get_xydata().tolist() == [[85, 1]]
    seeds = [dots.get_offsets().tolist() for dots in axes.collections]
    assert seeds == [[[seed, 0] for seed in SEEDS], [[85, 1]]]
    texts = {text.get_text(): text.get_position() for text in page.texts}
    assert 'of three seeds' in texts
    assert texts['many'][1] == texts['93.00 ± 2.65'][1] < texts['one'][1] == texts['85.00'][1]
    assert dot.get_transform().transform((93, 0))[1] > other.get_transform().transform((85, 1))[1]
    place = axes.transData.transform((97.5, 0))[0]
    assert texts['teacher 97.5'][0] == pytest.approx(place)


def test_values_given_twice_are_refused(tmp_path):
    with pytest.raises(UsageError, match='3 settings, but only 2 different'):
        plot_values(tmp_path / 'a.png', {'': {'run': [*LINE, (0.1, [80.0])]}}, 'x')
    assert not list(tmp_path.iterdir())


def test_same_numbers_same_pixels(tmp_path):
    for plot, content in (
        (plot_values, ({'': {'a': LINE}}, 'x')),
        (plot_settings, ({'a': [1.0]},)),
    ):
        first, again = (_pixels(plot(tmp_path / f'{name}.png', *content)) for name in 'ab')
        assert np.array_equal(first, again)


@pytest.mark.parametrize('panels', [{}, {'': {}}, {'': {'a': []}}, {'': {'a': [(1.0, [])]}}])
def test_nothing_to_draw_is_refused(tmp_path, panels):
    with pytest.raises(UsageError, match='expected one'):
        plot_values(tmp_path / 'a.png', panels, 'x')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('rows', [{}, {'a': []}])
def test_settings_without_accuracies_are_refused(tmp_path, rows):
    with pytest.raises(UsageError, match='expected one'):
        plot_settings(tmp_path / 'a.png', rows)
