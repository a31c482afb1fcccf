# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Name a network after its content: ``<stem>-<first 8 hex digits of its SHA-256>.pth``.

python tools/model_converters/publish_model.py work_dirs/lenet5_digits/student.pth \
        --stem lenet5_digits --out mmdfkd/zoo
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

from mmdfkd.models.classifiers import load_classifier
from mmdfkd.utils.reporting import report_errors


def main() -> None:
    """Check that the file is a network, then copy it under its published name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, help='student.pth of a run')
    parser.add_argument('--stem', help="name without hash; default: the work directory's name")
    parser.add_argument('--out', type=Path, default=Path('.'), help='folder to write to')
    args = parser.parse_args()
    with report_errors():
        network = load_classifier(args.checkpoint)
        digest = hashlib.sha256(args.checkpoint.read_bytes()).hexdigest()[:8]
        stem = args.stem or args.checkpoint.absolute().parent.name
        args.out.mkdir(parents=True, exist_ok=True)
        target = args.out / f'{stem}-{digest}.pth'
        shutil.copyfile(args.checkpoint, target)
        known = network.meta.get('accuracy')
        accuracy = 'accuracy unknown' if known is None else f'accuracy {known} %'
        print(f'{target}: {network.name}, {accuracy}')


if __name__ == '__main__':
    main()
