# One command for everything; each makes the virtual environment .venv when it needs to.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.12 python3.11 python3.10)
RUN := .venv/bin/python
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN) -m pip install --quiet --quiet

.PHONY: help demo test check docs clean

help:  ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 15
	@echo '  Python 3.10 to 3.12; another than python3: make PYTHON=/path/to/python ...'

demo: .venv/installed  ## Distil a student from scratch in a few minutes, no data needed
	@$(RUN) tools/demo.py

test: .venv/installed-tests  ## Run the tests
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 4

check: .venv/installed-dev  ## Lint, formatting, types, spelling, metafiles, the page of results
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@.venv/bin/codespell
	@$(RUN) tools/misc/check_metafiles.py
	@$(RUN) tools/misc/model_zoo.py --check

docs: .venv/installed-docs  ## Make a site of the documentation, with the API reference
	@$(RUN) -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --conf-dir docs/en . docs/_build
	@echo 'Open docs/_build/docs/en/index.html in a browser.'

clean:  ## Remove .venv, caches and build products; runs and data stay
	@rm -rf .venv build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/created:
	@for python in $(CANDIDATES); do \
	  if $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    $$python -m venv .venv && touch $@ && exit; exit 1; \
	  fi; \
	done; \
	echo 'mmdfkd needs Python 3.10, 3.11 or 3.12, which none of these is: $(CANDIDATES). Install one and name it: make PYTHON=/path/to/python3.12 ...' >&2; \
	exit 1

.venv/installed: .venv/created setup.py pyproject.toml requirements.txt
	@echo 'Installing mmdfkd with PyTorch into .venv: 2 to 5 minutes and 6 GB, once.'
	@$(PIP) --editable .
	@touch $@

.venv/installed-tests: .venv/installed
	@echo 'Installing what tests need: some seconds, once.'
	@$(PIP) --editable '.[tests]'
	@touch $@

.venv/installed-dev: .venv/installed
	@echo 'Installing ruff, mypy and codespell: half a minute, once.'
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/installed-docs: .venv/installed
	@echo 'Installing Sphinx and its theme: half a minute, once.'
	@$(PIP) --editable '.[docs]'
	@touch $@
