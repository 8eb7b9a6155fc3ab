# Every target prepares what it needs on a fresh machine: a virtual environment with pinned packages and,
# for the tests, a virtual screen.

PYTHON ?= python3
VENV ?= .venv
HEADLESS ?= .venv-headless
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: help demo test test-headless lint format docs pictures clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) scripts/make_venv.py $(VENV) dev
	@touch $@

$(HEADLESS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) scripts/make_venv.py $(HEADLESS) test
	@touch $@

demo: $(VENV)/.ready  ## Segment objects of a real volume with the model in the package
	$(BIN)/napari-sam demo --output demo-output

test: $(VENV)/.ready  ## Run all tests (real windows on a virtual screen)
	sh scripts/need_screen.sh
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-headless: $(HEADLESS)/.ready  ## Run everything but the plugin's tests where napari and Qt are absent
	$(HEADLESS)/bin/python scripts/check_headless.py
	$(HEADLESS)/bin/python -m pytest -p no:pytest-qt -p no:xvfb --ignore=tests/plugin $(PYTEST_ARGS)

lint: $(VENV)/.ready  ## ruff, mypy --strict, import arrows, the plugin manifest
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate src/napari_sam/napari.yaml

format: $(VENV)/.ready  ## Format the code
	$(BIN)/ruff check --fix src tests benchmarks scripts
	$(BIN)/ruff format src tests benchmarks scripts

docs: $(VENV)/.ready  ## Build the documentation into build/docs, checking its links
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --strict

pictures: $(VENV)/.ready  ## Make the pictures of docs/images again
	sh scripts/need_screen.sh
	$(BIN)/python scripts/make_pictures.py

clean:  ## Remove environments and built files
	rm -rf $(VENV) $(HEADLESS) build demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
