# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_bank, style


def bank(count=60, num_classes=3):
    draw = np.random.default_rng(0)
    return dict(
        images=draw.integers(0, 256, (count, 8, 8, 1), np.uint8),
        targets=np.arange(count) % num_classes,
        classes=[f'class {label}' for label in range(num_classes)],
    )


def answers(count=60, num_classes=3):
    """A teacher that is right about two of three images."""
    labels = np.arange(count) % num_classes
    labels[::3] = (labels[::3] + 1) % num_classes
    return dict(labels=labels, confidences=np.linspace(0.2, 1, count))


def pixels(path):
    return np.asarray(Image.open(path).convert('RGB'))


@pytest.fixture
def written(monkeypatch):
    """What is written on a page, and in which colour."""
    texts = []
    plain = style.write

    def write(page, x, y, text, *args, **kwargs):
        texts.append((text, kwargs.get('color')))
        return plain(page, x, y, text, *args, **kwargs)

    monkeypatch.setattr(style, 'write', write)
    return texts


def test_rows_and_counts(tmp_path, written):
    sheet = pixels(plot_bank(tmp_path / 'bank.png', **bank(), title='Made up'))
    assert sheet.shape[1] == 2 * 960
    texts = [text for text, _ in written]
    assert texts[0] == 'Made up' and '60 images by the class' in texts[1]
    assert [text for text in texts if text.startswith('class')] == ['class 0', 'class 1', 'class 2']
    assert texts.count('20 made') == 3 and not any('seen' in text for text in texts)


def test_what_the_teacher_sees(tmp_path, written):
    plot_bank(tmp_path / 'bank.png', **bank(), **answers())
    texts = [text for text, _ in written]
    assert 'The teacher sees that class in 67% of them' in texts[1]
    # of 60 targets 0, 1, 2, 0, ..., every third one, always a 0, is seen as a 1
    assert [text for text in texts if 'seen' in text] == ['0 seen', '40 seen', '20 seen']
    captions = [(text, colour) for text, colour in written if text.startswith('class ')][:13]
    assert captions[0] == ('class 0', None)
    assert captions[1:11] == [('class 1', style.RED)] * 10
    assert captions[11] == ('class 1', None) and captions[12][1] == style.MUTED


def test_bars_are_in_proportion_to_the_longest_of_all(tmp_path, drawn):
    plot_bank(tmp_path / 'bank.png', **bank(), **answers())
    bars = drawn[0].axes[0].patches
    lengths = [[bar.get_width() for bar in bars[first::2]] for first in (0, 1)]
    longest = max(lengths[1])  # 40 images seen as class 1
    assert longest == 68  # of 130 pixels, 62 for the number
    assert lengths[0] == pytest.approx([longest / 2] * 3)
    assert lengths[1] == pytest.approx([0, longest, longest / 2])
    colours = [{to_hex(bar.get_facecolor()).upper() for bar in bars[first::2]} for first in (0, 1)]
    assert colours == [{style.BLUE.upper()}, {style.ORANGE.upper()}]


def test_long_names_leave_room_for_numbers_and_neighbours(tmp_path, drawn):
    names = ['airplane', 'automobile', 'a_class_with_a_long_name']
    plot_bank(tmp_path / 'bank.png', **{**bank(), 'classes': names}, **answers())
    small = [text for text in drawn[0].axes[0].texts if text.get_fontsize() == 10]
    seen, sure = small[::2], small[1::2]
    assert {text.get_text() for text in seen} == {'automobile', 'a_class_w…'}
    assert all(0.2 <= float(text.get_text()) <= 1 for text in sure)
    boxes = [text.get_window_extent() for text in seen[:10]]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_many_classes(tmp_path, written):
    made = bank(count=300, num_classes=30)
    made['targets'][:] = np.random.default_rng(1).integers(0, 30, 300)
    plot_bank(tmp_path / 'bank.png', **made)
    texts = [text for text, _ in written]
    assert 'Shown: 20 of the 30 classes, from most to least frequent.' in texts
    made_for = [int(text.split()[0]) for text in texts if text.endswith(' made')]
    assert len(made_for) == 20 and made_for == sorted(made_for, reverse=True)


def test_a_class_without_images(tmp_path, written):
    made = bank()
    made['targets'] = np.zeros(60, np.int64)
    plot_bank(tmp_path / 'bank.png', **made)
    assert [t for t, _ in written if t.endswith(' made')] == ['60 made', '0 made', '0 made']


def test_same_seed_same_pixels(tmp_path):
    first, again, other = (
        pixels(plot_bank(tmp_path / f'{name}.png', **bank(), per_class=4, seed=seed))
        for name, seed in (('first', 0), ('again', 0), ('other', 1))
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(targets=np.zeros(59, np.int64)), 'targets: found shape'),
        (dict(targets=np.full(60, 3)), 'targets: found int64 values from 3 to 3'),
        (dict(images=np.zeros((60, 8, 8, 1))), 'images: found float64'),
        (dict(per_class=0), 'per_class: found 0'),
        (dict(labels=np.full(60, 9), confidences=np.ones(60)), 'labels: found'),
        (dict(labels=np.zeros(60, np.int64), confidences=np.ones(6)), 'confidences: found shape'),
    ],
)
def test_what_does_not_fit(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        plot_bank(tmp_path / 'bank.png', **{**bank(), **changes})
    assert not (tmp_path / 'bank.png').exists()
