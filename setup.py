# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Packaging; names, versions and settings are in ``pyproject.toml``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Also pack configs, tools and the model index into ``mmdfkd/.mim``, where mim looks.

    They are copied into what is being built, never into the source tree: an editable install
    uses the originals.
    """

    def run(self) -> None:
        """Build the package, then add the copies."""
        super().run()
        if self.editable_mode:
            return
        source, target = Path(__file__).parent, Path(self.build_lib, 'mmdfkd', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        for folder in ('configs', 'tools'):
            shutil.copytree(
                source / folder, target / folder, ignore=shutil.ignore_patterns('__pycache__')
            )
        shutil.copy(source / 'model-index.yml', target)


setup(cmdclass={'build_py': BuildWithConfigs})
