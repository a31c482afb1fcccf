# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A look at what is drawn."""

import pytest


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that are written, in order."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        figure.canvas.draw()  # so that texts tell their size in page pixels
        figures.append(figure)

    monkeypatch.setattr(Figure, 'savefig', savefig)
    return figures
