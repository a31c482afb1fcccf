# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Make the page of all results from the metafiles: ``python tools/misc/model_zoo.py``.

Numbers are written once, in the metafile of a method; ``--check`` says whether the page agrees.
Metrics of a result: ``Top 1 Accuracy`` (mean over seeds, last epoch), ``Standard Deviation``,
``Seeds``, and ``Paper`` (the paper's number). A model may name its ``Hardware``.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

PAGE = Path('docs/en/model_zoo/results.md')
COLUMNS = ['config', 'teacher', 'student', 'training data', 'ours', 'paper', 'hardware']
ALIGNMENT = ['---', '---', '---', '---', '---:', '---:', '---']
HEAD = """# Results

Top-1 accuracy in percent on the test set after the last epoch: mean ± standard deviation over the
seeds in brackets, which count from 0: `python tools/train.py CONFIG --seed N`. What distils on
CIFAR-10 ran in bfloat16 (`--amp`); the runs of HiDFD's ablation share their GANs, as its page says.
Configs that are not here have no result of ours yet; the papers' numbers are on the pages of the
methods.

This page is made from the metafiles by `python tools/misc/model_zoo.py`.
"""


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='compare only; exit status 1 if old')
    parser.add_argument('--root', type=Path, default=Path(__file__).parents[2])
    args = parser.parse_args()
    page, text = args.root / PAGE, make_page(args.root)
    if args.check:
        if not page.is_file() or page.read_text(encoding='utf-8') != text:
            sys.exit(f'{PAGE} does not agree with the metafiles. Run tools/misc/model_zoo.py.')
        print(f'{PAGE} agrees with the metafiles.')
        return
    page.write_text(text, encoding='utf-8')
    print(f'Wrote {page}.')


def make_page(root: Path) -> str:
    """The page's text: one table per dataset, in the order of the model index."""
    tables: dict[str, list[list[str]]] = defaultdict(list)
    for listed in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((root / listed).read_text(encoding='utf-8'))['Models']:
            for result in model.get('Results', []):
                tables[result['Dataset']].append(row(model, result['Metrics'], root))
    parts = [HEAD]
    for dataset, rows in tables.items():
        filled = [number for number, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
        lines = [COLUMNS, ALIGNMENT, *rows]
        lines = ['| ' + ' | '.join(line[number] for number in filled) + ' |' for line in lines]
        parts.append(f'## {dataset}\n\n' + '\n'.join(lines) + '\n')
    return '\n'.join(parts)


def row(model: dict[str, Any], metrics: dict[str, Any], root: Path) -> list[str]:
    """The cells of a line. A column in which all are empty is left out."""
    details = model.get('Metadata', {})
    up = '../' * (len(PAGE.parts) - 1)
    if 'Top 1 Accuracy' in metrics:
        ours = f'{metrics["Top 1 Accuracy"]:.2f}'
        if 'Standard Deviation' in metrics:
            ours += f' ± {metrics["Standard Deviation"]:.2f}'
        ours += f' ({metrics.get("Seeds", 1)})'
    else:
        ours = '–'
    paper = f'{metrics["Paper"]:.2f}' if 'Paper' in metrics else ''
    return [
        f'[{model["Name"]}]({up}{model["Config"]})',
        details.get('Teacher', ''),
        details.get('Student', details.get('Architecture', '')),
        details.get('Training Data', ''),
        ours,
        paper,
        details.get('Hardware', ''),
    ]


if __name__ == '__main__':
    main()
