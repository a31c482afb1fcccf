# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Figures as pure functions: arrays in, a PNG out. matplotlib is imported on the first call.

``records`` finds those arrays in the work directory of a run, ``runs`` draws them.
"""

from .bank import plot_bank
from .cam import plot_cam
from .comparison import plot_comparison, plot_readme_banner
from .confusion import confusion_matrix, plot_confusion
from .curves import plot_history, plot_sweep
from .gan import plot_gan
from .learning_rates import plot_schedules
from .matrix import plot_matrix
from .pool_grid import plot_pool_grid, save_image_grid
from .records import read_scalars
from .runs import draw_features, draw_run
from .sweep import plot_settings, plot_values
from .tsne import plot_tsne

__all__ = [
    'confusion_matrix',
    'draw_features',
    'draw_run',
    'plot_bank',
    'plot_cam',
    'plot_comparison',
    'plot_confusion',
    'plot_gan',
    'plot_history',
    'plot_matrix',
    'plot_pool_grid',
    'plot_readme_banner',
    'plot_schedules',
    'plot_settings',
    'plot_sweep',
    'plot_tsne',
    'plot_values',
    'read_scalars',
    'save_image_grid',
]
