# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Check that the model zoo's records match the files: ``python tools/misc/check_metafiles.py``.

Every folder of configs has a README and a metafile, the model index lists every metafile, every
model in a metafile is named after a config that exists, and every config is a model there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml


def main() -> None:
    """Print every mismatch and exit with status 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', nargs='?', type=Path, default=Path(__file__).parents[2])
    problems = find_problems(parser.parse_args().root)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(1)
    print('The metafiles match the configs.')


def find_problems(root: Path) -> list[str]:
    """Return one sentence per mismatch below the repository ``root``."""
    problems = []
    listed = yaml.safe_load((root / 'model-index.yml').read_text())['Import']
    for missing in [name for name in listed if not (root / name).is_file()]:
        problems.append(f'model-index.yml lists {missing}, which does not exist.')
    for folder in sorted((root / 'configs').iterdir()):
        if folder.name == '_base_' or not folder.is_dir():
            continue
        name = folder.relative_to(root)
        if not (folder / 'README.md').is_file():
            problems.append(f'{name} has no README.md.')
        metafile = folder / 'metafile.yml'
        if not metafile.is_file():
            problems.append(f'{name} has no metafile.yml.')
            continue
        if f'{name}/metafile.yml' not in listed:
            problems.append(f'model-index.yml does not list {name}/metafile.yml.')
        problems += _models(metafile, root)
    return problems


def _models(metafile: Path, root: Path) -> list[str]:
    problems = []
    where = metafile.relative_to(root)
    content = yaml.safe_load(metafile.read_text())
    collections = {collection['Name'] for collection in content.get('Collections', [])}
    for model in content.get('Models', []):
        name, config = model.get('Name'), model.get('Config', '')
        if not (root / config).is_file():
            problems.append(f'{where}: {name} has no config {config}.')
        elif Path(config).stem != name:
            problems.append(f'{where}: {name} must be named after its config {config}.')
        if model.get('In Collection') not in collections:
            problems.append(f'{where}: {name} is in no collection of this file.')
    known = {model.get('Config') for model in content.get('Models', [])}
    configs = [str(path.relative_to(root)) for path in sorted(metafile.parent.rglob('*.py'))]
    problems += [f'{where} has no model of {config}.' for config in configs if config not in known]
    return problems


if __name__ == '__main__':
    main()
