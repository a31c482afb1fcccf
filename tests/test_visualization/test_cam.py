# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_cam, style
from mmdfkd.visualization.cam import overlay

COLD, HOT = np.array(to_rgb('#10306b')), np.array(to_rgb(style.RED))


def drawing(count=3, num_classes=4):
    """Two networks; the student sees class 1 in the first image, the teacher class 0 in all."""
    draw = np.random.default_rng(0)
    teacher, student = np.full((2, count, num_classes), 0.1)
    teacher[:, 0] = student[:, 0] = 0.7
    student[0, :2] = 0.2, 0.6
    return dict(
        images=draw.integers(0, 256, (count, 8, 8, 1), np.uint8),
        classes=[f'class {label}' for label in range(num_classes)],
        asked=np.zeros(count, np.int64),
        maps=dict(teacher=draw.random((count, 2, 2)), student=draw.random((count, 4, 4))),
        probabilities=dict(teacher=teacher, student=student),
        labels=np.arange(count) % num_classes,
    )


def test_what_is_written(tmp_path, drawn):
    path = plot_cam(tmp_path / 'cam.png', **drawing())
    assert Image.open(path).size[0] == 2 * 960
    page = drawn[0].axes[0]
    texts = [text.get_text() for text in page.texts]
    assert texts[0] == 'Where teacher and student look'
    assert texts.count('image, true class') == texts.count('teacher') == 2  # two in a row
    assert [text for text in texts if text.startswith('class')] == [
        *('class 0', 'class 0: 0.70', 'class 0: 0.20'),
        *('class 1', 'class 0: 0.70', 'class 0: 0.70'),
        *('class 2', 'class 0: 0.70', 'class 0: 0.70'),
    ]
    (other,) = [text for text in page.texts if text.get_text().startswith('sees')]
    assert other.get_text() == 'sees class 1: 0.60' and other.get_color() == style.RED
    assert all(0 <= text.get_window_extent().x0 for text in page.texts)
    assert all(text.get_window_extent().x1 < style.WIDTH for text in page.texts)


def test_every_image_stands_beside_its_maps(tmp_path, drawn):
    given = drawing()
    plot_cam(tmp_path / 'cam.png', **given)
    _, *tiles = drawn[0].axes[0].images  # the first one is the scale
    assert len(tiles) == 9
    places = [(tile.get_extent()[0], tile.get_extent()[3]) for tile in tiles]
    assert places[:6] == sorted(places[:6]) and len({y for _, y in places[:6]}) == 1
    assert places[6][0] == places[0][0] and places[6][1] > places[0][1]  # the next row
    for number, image in enumerate(given['images']):
        plain, *overlaid = (np.asarray(tile.get_array()) for tile in tiles[3 * number :][:3])
        assert np.array_equal(plain, image.repeat(3, 2))
        for name, found in zip(('teacher', 'student'), overlaid, strict=True):
            assert np.array_equal(found, overlay(image, given['maps'][name][number]))


def test_without_labels_and_of_tensors(tmp_path, drawn):
    given = drawing() | dict(labels=None)
    first = plot_cam(tmp_path / 'a.png', **given).read_bytes()
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert texts.count('image') == 2 and 'class 1' not in texts
    given['images'] = torch.from_numpy(given['images']).permute(0, 3, 1, 2)
    given['asked'] = torch.from_numpy(given['asked'])
    for key in ('maps', 'probabilities'):
        given[key] = {name: torch.from_numpy(values) for name, values in given[key].items()}
    assert plot_cam(tmp_path / 'b.png', **given).read_bytes() == first


def test_an_empty_map_is_said_to_be_one(tmp_path, drawn):
    """Also where the network sees something else; rows make room for a third line."""
    given = drawing()
    plot_cam(tmp_path / 'cam.png', **given)
    given['maps']['student'][0] = 0
    plot_cam(tmp_path / 'cam.png', **given)
    first, second = (figure.axes[0] for figure in drawn)
    texts = {text.get_text(): text.get_position() for text in second.texts}
    (x, y), empty = texts['sees class 1: 0.60'], texts['no place speaks for it']
    assert empty == (x, y + 14)
    assert second.get_ylim()[0] == first.get_ylim()[0] + 2 * 14
    assert 'no place speaks for it' not in [text.get_text() for text in first.texts]


def test_colours_over_black_and_white():
    """Half of the colour is the map's: the last where it is largest, the first where it is 0."""
    heat = np.array([[0.0, 3.0]])
    for value in (0, 255):
        mixed = overlay(np.full((4, 8, 1), value, np.uint8), heat)
        assert mixed.shape == (16, 32, 3) and mixed.dtype == np.uint8
        for column, colour in ((0, COLD), (-1, HOT)):
            expected = 255 * (0.5 * colour + 0.5 * value / 255)
            np.testing.assert_allclose(mixed[0, column], expected, atol=1)
        # beyond the centres of the two places nothing changes, between them all does
        assert (mixed[:, :8] == mixed[:, :1]).all() and (mixed[:, 24:] == mixed[:, -1:]).all()
        assert (np.diff(mixed[0, 8:24].astype(int), axis=0) != 0).any(1).all()


def test_the_unit_of_a_map_does_not_matter():
    draw = np.random.default_rng(0)
    image, heat = draw.integers(0, 256, (8, 8, 3), np.uint8), draw.random((3, 3))
    assert np.array_equal(overlay(image, heat), overlay(image, 100 * heat))
    mirrored = overlay(image[:, ::-1], heat[:, ::-1])
    assert np.array_equal(overlay(image, heat)[:, ::-1], mirrored)
    empty = overlay(np.zeros((8, 8, 1), np.uint8), np.zeros((3, 3)))
    np.testing.assert_allclose(empty, np.broadcast_to(127.5 * COLD, (32, 32, 3)), atol=1)


def test_a_map_may_cover_the_middle_only():
    """Two places on half of 16 pixels: their centres are at 6 and 10, at 4 times 6 and 10."""
    mixed = overlay(np.zeros((16, 16, 1), np.uint8), np.ones((2, 2)), reach=0.5)
    np.testing.assert_allclose(mixed[30, 30], 127.5 * HOT, atol=1)
    np.testing.assert_allclose(mixed[24, 40], 127.5 * HOT, atol=25)
    for corner in (mixed[:7], mixed[-7:], mixed[:, :7], mixed[:, -7:]):
        np.testing.assert_allclose(corner, np.broadcast_to(127.5 * COLD, corner.shape), atol=1)


def test_long_names_and_three_networks_fit(tmp_path, drawn):
    given = drawing()
    given['classes'] = ['a class with a very long name, and another'] * 4
    for key in ('maps', 'probabilities'):
        given[key] = {f'{name} with a long name': v for name, v in given[key].items()}
        given[key]['third'] = given[key]['student with a long name']
    plot_cam(tmp_path / 'cam.png', **given)
    page = drawn[0].axes[0]
    assert all(text.get_window_extent().x1 < style.WIDTH for text in page.texts)
    texts = [text.get_text() for text in page.texts]
    assert texts.count('third') == 1  # one block in a row
    assert texts.count('a class with …: 0.70') == 7 and 'sees a class w…: 0.60' in texts


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(images=np.zeros((3, 8, 8, 1))), 'images: found float64'),
        (dict(asked=np.full(3, 4)), 'asked: found int64 values from 4 to 4'),
        (dict(labels=np.zeros(2, np.int64)), 'labels: found shape'),
        (dict(maps=dict(teacher=np.ones((3, 2)))), r'maps\["teacher"\]: found shape \(3, 2\)'),
        (dict(maps=dict(teacher=-np.ones((3, 2, 2)))), 'values from 0 on'),
        (dict(maps=dict(teacher=np.full((3, 2, 2), np.nan))), 'values from 0 on'),
        (
            dict(probabilities=dict(teacher=np.ones((3, 3)), student=np.ones((3, 4)))),
            r'probabilities\["teacher"\]: found shape \(3, 3\), expected \(3, 4\)',
        ),
    ],
)
def test_what_does_not_fit(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        plot_cam(tmp_path / 'a.png', **{**drawing(), **changes})
    assert not (tmp_path / 'a.png').exists()
