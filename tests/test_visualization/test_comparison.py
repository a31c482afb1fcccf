# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_comparison, plot_readme_banner, style
from mmdfkd.visualization.comparison import duration

ROWS = [
    dict(name='KD³', accuracy=80.0, std=0.2, agreement=81.0, images=5230, seconds=205),
    dict(name='noise', accuracy=20.0, std=None, agreement=None, images=None, seconds=None),
]
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)


def _pixels(path):
    return np.asarray(Image.open(path).convert('RGB'))


def _matches(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (pixels == rgb).all(axis=-1)


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.2, '0 s'), (45, '45 s'), (59.7, '1 min'), (205, '3 min 25 s'), (7530, '2 h 5 min')],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_bars_are_as_long_as_the_accuracies(tmp_path):
    pixels = _pixels(plot_comparison(tmp_path / 'bars.png', ROWS, teacher_accuracy=90.0))
    assert pixels.shape[1] == 2 * 960
    lengths = _matches(pixels, style.BLUE).sum(axis=1)
    lengths = lengths[lengths > 0]
    # The rows of pixels at the upper edge of each bar meet no text.
    long, short = lengths[2], lengths[-3]
    assert long / short == pytest.approx(80 / 20, rel=0.02)


def test_each_row_has_its_own_numbers_below_their_headings(tmp_path, drawn):
    rows = [*ROWS, dict(ROWS[0], name='none', accuracy=8.0, std=0.0, images=0, seconds=7530)]
    plot_comparison(tmp_path / 'bars.png', rows, teacher_accuracy=90.0, note='of one seed')
    page, axes = drawn[0].axes
    assert 'of one seed' in [text.get_text() for text in page.texts]
    written = [(*text.get_position(), text.get_text()) for text in page.texts]
    (first,) = (y for _, y, text in written if text == 'KD³')
    table = [[text for _, y, text in sorted(written) if y == first + 36 * k] for k in range(3)]
    assert table == [
        ['KD³', '81.0 %', '5,230', '3 min 25 s'],
        ['noise', '–', '–', '–'],
        ['none', '81.0 %', '0', '2 h 5 min'],
    ]
    columns = [x for x, y, _ in sorted(written) if y == first][1:]
    headings = ('the teacher', 'used', 'time')
    assert columns == [x for word in headings for x, _, text in written if text == word]
    tags = [text.get_text() for text in axes.texts]
    assert tags == ['80.0 ± 0.2 %', '20.0 %', '8.0 ± 0.0 %']
    tops = [text.get_window_extent().y1 for text in axes.texts]
    assert tops == sorted(tops, reverse=True)  # from top to bottom
    assert all(text.get_window_extent().x0 > axes.bbox.x0 for text in axes.texts)


def test_the_teachers_line_is_at_its_accuracy_and_named_there(tmp_path, drawn):
    plot_comparison(tmp_path / 'bars.png', ROWS, teacher_accuracy=90.0)
    page, axes = drawn[0].axes
    (line,) = axes.lines
    assert line.get_xdata() == [90, 90]
    (name,) = (text for text in page.texts if text.get_text() == 'teacher 90.0 %')
    assert name.get_position()[0] == pytest.approx(axes.transData.transform((90, 0))[0])


def test_the_name_of_a_weak_teacher_stands_clear_of_that_of_the_axis(tmp_path, drawn):
    for accuracy in (30.0, 60.0, 61.0, 100.0):
        plot_comparison(tmp_path / 'bars.png', ROWS, accuracy)
        page, axes = drawn.pop().axes
        boxes = {text.get_text(): text.get_window_extent() for text in page.texts}
        name = boxes[f'teacher {accuracy:.1f} %']
        assert boxes['accuracy'].x1 < name.x0 and name.x1 < boxes['the teacher'].x0


def test_baselines_are_grey(tmp_path):
    rows = [{**ROWS[0], 'baseline': False}, {**ROWS[1], 'baseline': True}]
    plain = _pixels(plot_comparison(tmp_path / 'plain.png', ROWS, 90.0))
    marked = _pixels(plot_comparison(tmp_path / 'marked.png', rows, 90.0))
    assert _matches(plain, style.GREY).sum() == 0
    assert _matches(marked, style.GREY).sum() > 1000 and _matches(marked, style.BLUE).any()


@pytest.mark.parametrize(
    ('rows', 'teacher', 'message'),
    [
        ([], 90.0, 'found none'),
        ([dict(name='KD³', accuracy=80.0)], 90.0, r"rows\[0\].*'std'.*missing"),
        ([{**ROWS[0], 'accuracy': 101.0}], 90.0, 'percentages'),
        ([{**ROWS[0], 'accuracy': 0.8}], 0.9, 'percentages'),
    ],
)
def test_comparison_refuses_what_does_not_fit(tmp_path, rows, teacher, message):
    with pytest.raises(UsageError, match=message):
        plot_comparison(tmp_path / 'bars.png', rows, teacher)
    assert not list(tmp_path.iterdir())


def test_banner_is_one_wide_picture_and_repeats_itself(tmp_path):
    first, again, other = (
        _pixels(
            plot_readme_banner(
                tmp_path / f'{name}.png', IMAGES[:15], IMAGES[15:], ROWS, 90.0, 'T', 'S', seed=seed
            )
        )
        for name, seed in (('first', 0), ('again', 0), ('other', 1))
    )
    assert first.shape[1] == 2 * 960 and first.shape[1] > 2 * first.shape[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for colour in (style.GREEN, style.GREY, style.BLUE, style.INK):
        assert _matches(first, colour).any()


def test_banner_frames_what_was_selected_above_what_was_not(tmp_path, drawn):
    dark, light = np.zeros((3, 8, 8, 1), np.uint8), np.full((2, 8, 8, 1), 255, np.uint8)
    plot_readme_banner(tmp_path / 'banner.png', dark, light, ROWS, 90.0, 'LeNet5', 'half of it')
    page, axes = drawn[0].axes
    tiles = [(int(image.get_array().max()), image.get_extent()[3]) for image in page.images]
    assert [value for value, _ in tiles] == [0, 0, 0, 255, 255]
    assert tiles[0][1] < tiles[-1][1]  # counted from the top
    frames = [to_hex(frame.get_edgecolor()).upper() for frame in page.patches[:5]]
    assert frames == [style.GREEN.upper()] * 3 + [style.GREY.upper()] * 2
    heights = {text.get_text(): text.get_position()[1] for text in page.texts}
    names = [heights[row['name']] for row in ROWS]
    bars = [bar.get_window_extent().y1 for bar in axes.patches]
    assert names == sorted(names) and bars == sorted(bars, reverse=True)
    assert [bar.get_width() for bar in axes.patches] == [row['accuracy'] for row in ROWS]
    lesson = [heights[text] for text in ('teacher', 'LeNet5', 'student', 'half of it')]
    assert lesson == sorted(lesson)


def test_banner_needs_few_images_and_only_names_and_accuracies(tmp_path, drawn):
    rows = [dict(name='student', accuracy=80.0)]
    path = plot_readme_banner(tmp_path / 'banner.png', IMAGES[:3], IMAGES[:0], rows, 90.0)
    assert Image.open(path).size[0] == 2 * 960
    assert [text.get_text() for text in drawn[0].axes[0].texts].count('none') == 1


def test_banner_grows_with_its_students(tmp_path, drawn):
    rows = [dict(name=f'student {number}', accuracy=80.0) for number in range(12)]
    plot_readme_banner(tmp_path / 'banner.png', IMAGES[:15], IMAGES[15:], rows, 90.0)
    page, axes = drawn[0].axes
    assert axes.get_window_extent().y0 >= page.get_window_extent().y0
    names = [text for text in page.texts if text.get_text().startswith('student ')]
    assert len(names) == 12 and max(name.get_position()[1] for name in names) < page.get_ylim()[0]


def test_banner_says_when_its_images_were_selected(tmp_path, drawn):
    plot_readme_banner(tmp_path / 'banner.png', IMAGES[:15], IMAGES[15:], ROWS, 90.0)
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert sum('the last epoch' in text for text in texts) == 2


def test_banner_names_the_images_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match='rejected_images.*float64'):
        plot_readme_banner(tmp_path / 'banner.png', IMAGES, IMAGES / 255, ROWS, 90.0)
