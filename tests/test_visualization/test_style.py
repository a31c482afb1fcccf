# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import save_image_grid, style

IMAGES = np.zeros((2, 8, 8, 1), np.uint8)


def test_importing_the_figures_leaves_matplotlib_alone():
    script = (
        'import sys, mmdfkd.utils\n'
        'for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:\n'
        '    del sys.modules[name]\n'
        'import mmdfkd.visualization\n'
        'assert "matplotlib" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_drawing_leaves_pyplot_and_the_settings_of_others_alone(tmp_path):
    script = (
        'import sys, numpy, matplotlib\n'
        'before = matplotlib.rcParams.copy()\n'  # reading them one by one would import pyplot
        'from mmdfkd.visualization import save_image_grid\n'
        f'save_image_grid({str(tmp_path / "a.png")!r}, numpy.zeros((1, 4, 4, 1), "uint8"), 1)\n'
        'assert "matplotlib.pyplot" not in sys.modules\n'
        'assert matplotlib.rcParams.copy() == before\n'
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_settings_of_others_do_not_reach_the_figures(tmp_path):
    import matplotlib

    plain = save_image_grid(tmp_path / 'plain.png', IMAGES, 2, ['$a_b$', 'cat'])
    with matplotlib.rc_context({'savefig.bbox': 'tight', 'text.color': 'red'}):
        other = save_image_grid(tmp_path / 'other.png', IMAGES, 2, ['$a_b$', 'cat'])
    assert np.array_equal(np.asarray(Image.open(plain)), np.asarray(Image.open(other)))


def test_missing_folders_are_made_and_no_temporary_file_stays(tmp_path):
    path = save_image_grid(tmp_path / 'a' / 'b' / 'grid.png', IMAGES, 2)
    assert Image.open(path).format == 'PNG'
    assert [file.name for file in path.parent.iterdir()] == ['grid.png']


def test_a_failing_figure_leaves_the_old_file(tmp_path):
    path = tmp_path / 'figure.png'
    path.write_bytes(b'old')
    with pytest.raises(ZeroDivisionError), style.canvas(path, 20, 20):
        _ = 1 / 0
    assert path.read_bytes() == b'old'
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'taken').write_text('')
    with pytest.raises(UsageError, match='taken'):
        save_image_grid(tmp_path / 'taken' / 'grid.png', IMAGES, 2)


def test_only_png_is_written(tmp_path):
    with pytest.raises(UsageError, match=r'end in \.png'):
        save_image_grid(tmp_path / 'grid.jpg', IMAGES, 2)


def test_both_layouts_are_read_the_same_way():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    assert np.array_equal(style.checked_images(images), images)
    assert np.array_equal(style.checked_images(images.transpose(0, 3, 1, 2)), images)


def test_checked_images_reads_tensors_and_copies_no_memory_map(tmp_path):
    torch = pytest.importorskip('torch')
    tensor = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    assert np.array_equal(style.checked_images(tensor), tensor.permute(0, 2, 3, 1).numpy())
    np.save(tmp_path / 'pool.npy', IMAGES)
    pool = np.load(tmp_path / 'pool.npy', mmap_mode='r')
    assert np.shares_memory(style.checked_images(pool), pool)


@pytest.mark.parametrize(
    ('images', 'found'),
    [
        (np.zeros((2, 8, 8, 1), np.float32), 'float32'),
        (np.zeros((2, 8, 8), np.uint8), r'\(2, 8, 8\)'),
        (np.zeros((2, 8, 8, 4), np.uint8), r'\(2, 8, 8, 4\)'),
    ],
)
def test_what_is_no_image_is_refused(images, found):
    with pytest.raises(UsageError, match=found):
        style.checked_images(images, 'pool')


def test_text_colours_read_well_on_white():
    def luminance(colour):  # https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in (style.INK, style.MUTED, *map(style.darker, style.CYCLE)):
        # 3 : 1 is the bound of WCAG for large or bold text.
        assert 1.05 / (luminance(colour) + 0.05) > 3, colour


def test_a_tile_is_upright_and_keeps_its_proportions(tmp_path):
    image = np.zeros((1, 2, 3), np.uint8)
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    image = image.repeat(2, axis=1)  # twice as wide as high
    with style.canvas(tmp_path / 'a.png', 40, 40, pixel_ratio=1) as figure:
        style.draw_tile(style.page_of(figure), image, 4, 8, 20)
    pixels = np.asarray(Image.open(tmp_path / 'a.png').convert('RGB'))
    box = pixels[13:23, 4:24]  # 20 by 10, in the middle of 20 by 20
    assert np.array_equal(box, image.repeat(5, axis=0).repeat(5, axis=1))
    assert (pixels != 255).any(2).sum() == 200
