# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The common ground of all figures: colours, a canvas measured in pixels, tiles, checked inputs.

Lengths and font sizes are *page pixels*: a figure 960 page pixels wide fills a README column, and
is stored with twice as many, so that it stays sharp on dense screens. Nothing here touches
``matplotlib.pyplot``; matplotlib itself is first imported when a figure is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..utils import UsageError
from ..utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

PathLike = str | os.PathLike[str]

WIDTH = 960
INK, MUTED, FAINT, PAPER = '#1f2933', '#5f6b7a', '#d8dde3', '#ffffff'

# Okabe & Ito's palette: told apart with every common form of colour blindness.
BLUE, ORANGE, GREEN, RED = '#0072b2', '#e69f00', '#009e73', '#d55e00'
PURPLE, SKY, GREY = '#cc79a7', '#56b4e9', '#7d8996'
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, INK, GREY)
_LINES: tuple[Any, ...] = ('-', (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))  # a teacher's is dashed

_SETTINGS: dict[Any, Any] = {
    'font.family': 'DejaVu Sans',
    'font.size': 12,
    'text.color': INK,
    'text.usetex': False,
    'text.parse_math': False,
    'axes.edgecolor': FAINT,
    'axes.labelcolor': MUTED,
    'axes.facecolor': PAPER,
    'axes.grid': False,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.unicode_minus': True,
    'xtick.color': FAINT,
    'ytick.color': FAINT,
    'xtick.labelcolor': MUTED,
    'ytick.labelcolor': MUTED,
    'lines.linewidth': 2,
    'path.simplify': True,
    'savefig.bbox': None,
    'savefig.facecolor': PAPER,
    'savefig.transparent': False,
}


@contextmanager
def canvas(path: PathLike, width: int, height: int, pixel_ratio: int = 2) -> Iterator[Figure]:
    """Opens a figure measured in page pixels and writes it to ``path`` when the block ends.

    The PNG appears under its name only when complete; where the block raises, nothing is written.

    Args:
        path: The PNG file; missing parent folders are made.
        width: Width in page pixels.
        height: Height in page pixels.
        pixel_ratio: Stored pixels per page pixel.

    Yields:
        An empty matplotlib figure in which one point is one page pixel.

    Raises:
        UsageError: If the path does not end in ``.png`` or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != '.png':
        raise UsageError(
            f'figures are written as PNG, but the path is "{target}": let it end in .png'
        )
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=PAPER)
        FigureCanvasAgg(figure)
        yield figure
        png = BytesIO()
        figure.savefig(png, format='png', dpi=72 * pixel_ratio)
    try:
        with atomic_path(target) as temporary:
            temporary.write_bytes(png.getvalue())
    except OSError as error:
        raise UsageError(
            f'cannot write the figure "{target}" ({error.strerror or error}): choose a folder that '
            f'can be written and has {len(png.getvalue()):,} bytes free'
        ) from error


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes whose box is given in page pixels from the top left corner of the figure."""
    page_width, page_height = figure.get_size_inches() * 72
    box = (
        left / page_width,
        1 - (top + height) / page_height,
        width / page_width,
        height / page_height,
    )
    return figure.add_axes(box)


def page_of(figure: Figure) -> Axes:
    """Adds invisible axes over the whole figure: x to the right, y down, both in page pixels."""
    width, height = figure.get_size_inches() * 72
    page = axes_at(figure, 0, 0, width, height)
    page.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    page.set_axis_off()
    return page


def draw_grid(axes: Axes, axis: Literal['x', 'y'] = 'y') -> None:
    """Gives axes a faint grid behind the data, and takes away their ticks and left edge."""
    axes.grid(axis=axis, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines['left'].set_visible(False)
    axes.tick_params(length=0, labelsize=12)


def look(number: int) -> tuple[str, Any]:
    """Returns colour and line style of the n-th of several curves; 24 of them differ."""
    turn, place = divmod(number, len(CYCLE))
    return CYCLE[place], _LINES[turn % len(_LINES)]


def darker(colour: str) -> str:
    """Returns a shade of a colour in which text reads well on white."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f'#{int(red * 0.72):02x}{int(green * 0.72):02x}{int(blue * 0.72):02x}'


def write(page: Axes, x: float, y: float, text: str, size: float = 12, **kwargs: Any) -> Text:
    """Writes a line with its baseline at (x, y) of a page; returns it."""
    return page.text(x, y, text, fontsize=size, verticalalignment='baseline', **kwargs)


def write_lines(page: Axes, x: float, y: float, text: str, size: float, **kwargs: Any) -> None:
    """Writes lines of text, the first one with its baseline at (x, y) of a page."""
    for number, line in enumerate(text.split('\n')):
        write(page, x, y + number * 1.4 * size, line, size, **kwargs)


def write_fitting(
    page: Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    width: float,
    keep_end: bool = False,
    **kwargs: Any,
) -> Text:
    """Writes one line, shortened with an ellipsis where it is wider than ``width`` pixels.

    The ellipsis takes the place of the end, or of the beginning where the end is to be kept.
    """
    artist = write(page, x, y, text, size, **kwargs)
    kept = text
    while kept and artist.get_window_extent().width > width:
        kept = kept[1:] if keep_end else kept[:-1]
        artist.set_text(f'…{kept.lstrip()}' if keep_end else f'{kept.rstrip()}…')
    return artist


def shorten(name: str, most: int = 16) -> str:
    """Returns a name of at most so many characters, the last one an ellipsis if it was longer."""
    return name if len(name) <= most else f'{name[: most - 1]}…'


def draw_title(page: Axes, title: str, note: str = '') -> None:
    """Writes the heading of a figure and, under it, one or more lines that explain it."""
    write(page, 20, 34, title, 18, fontweight='bold')
    write_lines(page, 20, 57, note, 12.5, color=MUTED)


def draw_tile(
    page: Axes, image: np.ndarray, x: float, y: float, size: float, frame: str | None = None
) -> None:
    """Draws one uint8 image (H, W, C) into the square at (x, y), keeping its proportions."""
    height, width, channels = image.shape
    scale = size / max(height, width)
    shown_width, shown_height = width * scale, height * scale
    left, top = x + (size - shown_width) / 2, y + (size - shown_height) / 2
    page.imshow(
        image if channels == 3 else np.repeat(image, 3, axis=2),
        extent=(left, left + shown_width, top + shown_height, top),
        aspect='auto',
        interpolation='nearest',
    )
    if frame is not None:
        from matplotlib.patches import Rectangle

        page.add_patch(
            Rectangle(
                (left - 1, top - 1),
                shown_width + 2,
                shown_height + 2,
                fill=False,
                edgecolor=frame,
                linewidth=2,
            )
        )


def as_array(values: Any) -> np.ndarray:
    """Views an array, a sequence or a torch tensor (of any device) as a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, 'detach') else values)


def checked_images(images: Any, name: str = 'images') -> np.ndarray:
    """Views images of either layout as (N, H, W, C); a memory map is not read.

    Args:
        images: uint8 array or tensor, (N, H, W, C) or (N, C, H, W), C = 1 or 3.
        name: What to call it in an error message.

    Raises:
        UsageError: If the type, the number of dimensions or of channels is another one.
    """
    array = as_array(images)
    if array.dtype != np.uint8:
        raise UsageError(
            f'{name}: found {array.dtype} values, expected uint8 in 0-255; '
            "un-normalise them first with the data preprocessor's denormalize()"
        )
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array.transpose(0, 2, 3, 1)
    raise UsageError(
        f'{name}: found shape {array.shape}, expected (N, H, W, C) or (N, C, H, W) '
        'with C = 1 (grey) or 3 (RGB)'
    )


def checked_length(values: Any, length: int, name: str, meaning: str) -> np.ndarray:
    """Views ``values`` as an array of shape (length,); ``meaning`` says what is counted.

    Raises:
        UsageError: If the shape is another one.
    """
    array = as_array(values)
    if array.shape != (length,):
        raise UsageError(
            f'{name}: found shape {array.shape}, expected ({length},), one value per {meaning}'
        )
    return array


def checked_classes(values: Any, count: int, num_classes: int, name: str) -> np.ndarray:
    """Views ``values`` as the classes of ``count`` images, integers in [0, num_classes).

    Raises:
        UsageError: If they are something else, or there are no images or classes.
    """
    labels = checked_length(values, count, name, 'image')
    if count == 0 or num_classes == 0:
        raise UsageError(f'found {count} images and {num_classes} classes, expected some of both')
    if labels.dtype.kind not in 'iu' or labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(
            f'{name}: found {labels.dtype} values from {labels.min()} to {labels.max()}, expected '
            f'integers from 0 to {num_classes - 1}, one of the {num_classes} classes'
        )
    return labels
