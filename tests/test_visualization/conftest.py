# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A look at what is drawn, and records to draw."""

import json

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


@pytest.fixture
def write_start(tmp_path):
    """Writes a start of a run as mmengine does: training counts steps, validation epochs."""

    def write(name, accuracies, first=1):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        lines = []
        for epoch, accuracy in enumerate(accuracies, first):
            lines.append(json.dumps({'loss': 1.0, 'epoch': epoch, 'step': 100 * epoch}))
            lines.append(json.dumps({'accuracy/top1': accuracy, 'step': epoch}))
        (folder / 'scalars.json').write_text('\n'.join(lines) + '\n')

    return write
