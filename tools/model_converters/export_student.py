# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Write a student for where it will work: ``python .../export_student.py SOURCE FILE``.

SOURCE is the work directory of a run, its ``student.pth``, or another of its checkpoints, such as
the best one; the suffix of FILE says the format.
"""

from __future__ import annotations

import argparse

from mmdfkd.utils.reporting import report_errors


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description='Write a student for where it will work')
    parser.add_argument('source', help='work directory, student.pth or epoch_N.pth of a run')
    parser.add_argument(
        'file',
        help='.pt (TorchScript), .pt2 (torch.export), .onnx (needs the packages onnx and '
        'onnxscript) or .pth (for mmdfkd)',
    )
    parser.add_argument(
        '--normalised',
        action='store_true',
        help="the file takes images that are normalised like the teacher's, not uint8 pixels",
    )
    args = parser.parse_args()
    with report_errors():
        from mmdfkd.apis import export_student

        print(export_student(args.source, args.file, pixels=not args.normalised))


if __name__ == '__main__':
    main()
