# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Size and cost of the networks of a config: ``python tools/analysis_tools/get_flops.py CONFIG``.

Prints a line for each part of the method that has parameters, and what the student is of its
teacher. Multiply-adds are those of convolutions and linear layers for one image, or for one latent
of a part that makes images; others say twice as many FLOPs. The numbers of teacher and student are
those in the ``summary.json`` of a run. No weights are needed, unless their file alone says what
the teacher is.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any

from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.reporting import report_errors

HEADINGS = ('part', 'parameters', 'trained', 'multiply-adds')


def macs_of(part: Any, image_shape: Sequence[int]) -> int | None:
    """Multiply-adds for one item; None of a part that takes neither images nor latents."""
    import torch

    from mmdfkd.models.classifiers import Classifier
    from mmdfkd.utils.counting import count_macs

    if isinstance(part, Classifier):
        return count_macs(part)
    first, *others = [*inspect.signature(part.forward).parameters] or ['nothing']
    makes_images = first != 'images' and hasattr(part, 'latent_size')
    if not (first == 'images' or makes_images) or others not in ([], ['labels']):
        return None
    shape = [part.latent_size] if makes_images else image_shape
    return count_macs(part, shape, *(torch.zeros(1, dtype=torch.long) for _ in others))


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description='Count parameters and multiply-adds')
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)
    args = parser.parse_args()
    with report_errors():
        from mmdfkd.apis.untrained import build_untrained
        from mmdfkd.utils.config_check import check_config
        from mmdfkd.utils.config_read import load_config
        from mmdfkd.utils.counting import count_parameters

        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg)
        model = build_untrained(cfg)
        rows, counts = [HEADINGS], {}
        for key, part in model.named_children():
            if not count_parameters(part):
                continue
            macs = macs_of(part, model.student.input_shape)
            counts[key] = count_parameters(part), count_parameters(part, trained=True), macs
            numbers = ('-' if number is None else f'{number:,}' for number in counts[key])
            rows.append((f'{key} ({getattr(part, "name", type(part).__name__)})', *numbers))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print(row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]), sep='  ')
        if model.teacher is not None:
            (parameters, _, macs), teacher = counts['student'], counts['teacher']
            print(
                f'The student has {100 * parameters / teacher[0]:.1f} % of the parameters of its '
                f'teacher, and {100 * macs / teacher[2]:.1f} % of its multiply-adds.'
            )


if __name__ == '__main__':
    main()
