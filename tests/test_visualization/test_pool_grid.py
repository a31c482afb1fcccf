# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_pool_grid, save_image_grid, style


def _pool(count=60, num_classes=3):
    draw = np.random.default_rng(0)
    confidences = draw.random(count)
    return dict(
        images=draw.integers(0, 256, (count, 8, 8, 3), np.uint8),
        classes=[f'class {label}' for label in range(num_classes)],
        pseudo_labels=draw.integers(0, num_classes, count),
        confidences=confidences,
        selected=confidences > 0.5,
        thresholds=np.full(num_classes, 0.5),
    )


def _pixels(path):
    return np.asarray(Image.open(path).convert('RGB'))


def _count(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == rgb).all(axis=-1).sum())


def _texts(monkeypatch):
    """Collects what is written on a page."""
    written = []
    plain = style.write

    def write(page, x, y, text, *args, **kwargs):
        written.append(text)
        return plain(page, x, y, text, *args, **kwargs)

    monkeypatch.setattr(style, 'write', write)
    return written


def test_grid_is_as_wide_as_a_readme_and_grows_with_the_classes(tmp_path):
    few = _pixels(plot_pool_grid(tmp_path / 'few.png', **_pool(num_classes=2)))
    many = _pixels(plot_pool_grid(tmp_path / 'many.png', **_pool(num_classes=5)))
    assert few.shape[1] == many.shape[1] == 2 * 960
    assert many.shape[0] > few.shape[0] > 300


def test_same_seed_same_pixels_other_seed_other_images(tmp_path):
    first, again, other = (
        _pixels(plot_pool_grid(tmp_path / f'{name}.png', **_pool(), per_class=4, seed=seed))
        for name, seed in (('first', 0), ('again', 0), ('other', 1))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_layout_of_the_images_does_not_matter(tmp_path):
    arguments = _pool()
    last = _pixels(plot_pool_grid(tmp_path / 'last.png', **arguments))
    arguments['images'] = arguments['images'].transpose(0, 3, 1, 2)
    assert np.array_equal(_pixels(plot_pool_grid(tmp_path / 'first.png', **arguments)), last)


def test_frames_tell_selected_from_rejected(tmp_path):
    arguments = _pool()
    arguments['images'][:] = 0
    arguments['selected'][:] = True
    every = _pixels(plot_pool_grid(tmp_path / 'every.png', **arguments))
    arguments['selected'] = ~arguments['selected']
    none = _pixels(plot_pool_grid(tmp_path / 'none.png', **arguments))
    assert _count(every, style.GREEN) > 5000 and _count(every, style.GREY) == 0
    assert _count(none, style.GREY) > 5000 and _count(none, style.GREEN) == 0


def test_counts_thresholds_and_empty_sides_are_written(tmp_path, monkeypatch):
    written = _texts(monkeypatch)
    plot_pool_grid(
        tmp_path / 'grid.png',
        images=np.zeros((5, 8, 8, 1), np.uint8),
        classes=['cat', 'dog', 'owl'],
        pseudo_labels=[0, 0, 0, 1, 1],
        confidences=[0.25, 0.75, 0.5, 0.9, 0.8],
        selected=np.array([False, True, True, False, False]),
        thresholds=[0.3, 0.95, 0.0],
    )
    assert 'Which pool images the student learned from in the last epoch' in written
    assert '2 of 5 images selected (40 %) in that epoch.' in written
    rows = written[written.index('cat') :]
    # Selected ones first, each side by falling confidence; 'dog' has nothing selected; no 'owl'.
    assert rows == [
        *('cat', 'threshold 0.30', '2 of 3 selected', '0.75', '0.50', '0.25'),
        *('dog', 'threshold 0.95', '0 of 2 selected', 'none', '0.90', '0.80'),
        *('owl', 'never predicted', 'none', 'none'),
    ]


def test_each_image_stands_above_its_confidence_in_the_frame_of_its_side(tmp_path, drawn):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    confidences = np.array([0.5, 0.9, 0.7, 0.6, 0.8, 0.4])
    plot_pool_grid(
        tmp_path / 'grid.png',
        images=images,
        classes=['cat'],
        pseudo_labels=np.zeros(6, int),
        confidences=confidences,
        selected=np.array([False, True, True, True, False, False]),
        thresholds=None,
    )
    (page,) = drawn[0].axes
    tiles = [int(image.get_array()[0, 0, 0]) for image in page.images]
    assert tiles == [1, 2, 3, 4, 0, 5]
    captions = {text.get_position()[0]: text.get_text() for text in page.texts}
    for image, frame, tile in zip(page.images, page.patches, tiles, strict=True):
        left, right, *_ = image.get_extent()
        assert captions[(left + right) / 2] == f'{confidences[tile]:.2f}'
        colour = style.GREEN if tile in (1, 2, 3) else style.GREY
        assert to_hex(frame.get_edgecolor()).upper() == colour.upper()


def test_many_images_of_a_class_make_a_wider_picture(tmp_path, drawn):
    arguments = {**_pool(), 'selected': np.arange(60) % 2 == 0, 'per_class': 16}
    arguments['pseudo_labels'] = np.zeros(60, int)
    plot_pool_grid(tmp_path / 'grid.png', **arguments)
    (page,) = drawn[0].axes
    ends = [image.get_extent()[1] for image in page.images]
    assert len(ends) == 2 * 16 and max(ends) < page.get_xlim()[1]


def test_images_that_made_up_for_too_few_confident_ones_are_counted(tmp_path, monkeypatch):
    written = _texts(monkeypatch)
    plot_pool_grid(
        tmp_path / 'grid.png',
        images=np.zeros((4, 8, 8, 1), np.uint8),
        classes=['cat', 'dog'],
        pseudo_labels=[0, 0, 1, 1],
        confidences=[0.75, 0.5, 0.5, 0.25],
        selected=np.array([True, True, True, False]),
        thresholds=[0.5, 0.9],  # to be exceeded: the second cat and the first dog do not
    )
    assert any('(75 %) in that epoch, 2 of them below their threshold.' in t for t in written)


def _written_of(count, tmp_path, monkeypatch):
    """What a grid of many classes says; class k is predicted k + 1 times, the last one most."""
    written = _texts(monkeypatch)
    labels = np.repeat(np.arange(count), np.arange(1, count + 1))
    plot_pool_grid(
        tmp_path / 'grid.png',
        images=np.zeros((len(labels), 4, 4, 1), np.uint8),
        classes=[f'class {label}' for label in range(count)],
        pseudo_labels=labels,
        confidences=np.ones(len(labels)),
        selected=np.ones(len(labels), bool),
        thresholds=None,
        per_class=1,
    )
    return written


def test_a_hundred_classes_show_twenty_from_frequent_to_rare(tmp_path, monkeypatch):
    written = _written_of(100, tmp_path, monkeypatch)
    shown = [int(text[6:]) for text in written if text.startswith('class ')]
    assert len(shown) == 20 and shown[0] == 99 and shown[-1] == 0
    assert shown == sorted(shown, reverse=True)
    assert any('20 of the 100 classes' in text for text in written)


def test_twenty_classes_are_all_shown_in_their_order(tmp_path, monkeypatch):
    written = _written_of(20, tmp_path, monkeypatch)
    shown = [text for text in written if text.startswith('class ')]
    assert shown == [f'class {label}' for label in range(20)]
    assert not any('Shown:' in text for text in written)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(pseudo_labels=np.zeros(59, int)), r'pseudo_labels.*\(59,\).*\(60,\)'),
        (dict(pseudo_labels=np.full(60, 3)), 'from 0 to 2'),
        (dict(pseudo_labels=np.zeros(60)), 'float64'),
        (dict(confidences=np.zeros((60, 3))), 'confidences'),
        (dict(selected=np.zeros(60)), 'booleans'),
        (dict(thresholds=np.zeros(4)), 'one value per class'),
        (dict(images=np.zeros((60, 8, 8), np.uint8)), 'images'),
        (dict(per_class=0), 'per_class'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        plot_pool_grid(tmp_path / 'grid.png', **{**_pool(), **change})
    assert not list(tmp_path.iterdir())


def test_image_grid_keeps_every_pixel(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    pixels = _pixels(save_image_grid(tmp_path / 'grid.png', images, columns=3, upscale=2))
    # 4 pixels between images and around them: 3 * (7 * 2 + 4) + 4 by 2 * (6 * 2 + 4) + 4.
    assert pixels.shape == (36, 58, 3)
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        tile = pixels[4 + 16 * row : 16 + 16 * row, 4 + 18 * column : 18 + 18 * column]
        assert np.array_equal(tile[::2, ::2], image)
        assert np.array_equal(tile[1::2, 1::2], image)
    assert (pixels[20:32, 40:54] == 255).all()  # the sixth place stays empty


def test_a_row_is_no_wider_than_its_images(tmp_path):
    images = np.zeros((2, 6, 7, 1), np.uint8)
    pixels = _pixels(save_image_grid(tmp_path / 'grid.png', images, columns=8))
    assert pixels.shape == (2 * 6 + 8, 2 * (2 * 7 + 4) + 4, 3)


def test_captions_stand_below_the_images(tmp_path):
    images = np.full((2, 32, 32, 1), 255, np.uint8)
    plain = _pixels(save_image_grid(tmp_path / 'plain.png', images, 2))
    named = _pixels(save_image_grid(tmp_path / 'named.png', images, 2, ['cat\n0.98', 'dog\n0.5']))
    assert (plain == 255).all()
    assert named.shape[0] > plain.shape[0] and named.shape[1] == plain.shape[1]
    assert (named[:68] == 255).all() and (named[68:] < 128).any()
    uneven = save_image_grid(tmp_path / 'uneven.png', images, 2, ['cat', 'dog\n0.5'])
    assert _pixels(uneven).shape == named.shape


def test_each_caption_is_that_of_its_image(tmp_path, drawn):
    images = np.zeros((3, 32, 32, 1), np.uint8)
    save_image_grid(tmp_path / 'grid.png', images, 2, ['a', 'b', 'c'])
    places = {text.get_text(): text.get_position() for text in drawn[0].axes[0].texts}
    assert places == {'a': (36, 80), 'b': (104, 80), 'c': (36, 161)}  # 64 pixels and 4 between


@pytest.mark.parametrize(
    'arguments', [dict(columns=0), dict(columns=2, upscale=0), dict(columns=2, labels=['one'])]
)
def test_image_grid_refuses_what_does_not_fit(tmp_path, arguments):
    with pytest.raises(UsageError):
        save_image_grid(tmp_path / 'grid.png', np.zeros((2, 4, 4, 1), np.uint8), **arguments)
