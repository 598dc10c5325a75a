# make repro: the environment, the whole pipeline, the result.   make test: the environment and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
NOT_INSTALLED := { echo "The environment could not be installed. Check the network, the package index that pip uses and the free disk, then say make again: it goes on where it stopped." >&2; exit 1; }
export DVC_NO_ANALYTICS := 1

.PHONY: repro test test-slow test-gpu check lint clean
.DEFAULT_GOAL := repro

repro: $(VENV)/.ready
	@$(BIN)/pedigree check
	@$(BIN)/dvc repro
	@$(BIN)/pedigree summary

test: $(VENV)/.ready
	@$(BIN)/python -m pytest

test-slow: $(VENV)/.ready
	@$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.ready
	@$(BIN)/python -m pytest -m gpu

check: $(VENV)/.ready
	@$(BIN)/pedigree check

lint: $(VENV)/.ready
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The environment is made anew where the pins have changed. torch first: by its exact version it is a CPU build where
# the machine offers one.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pedigree needs Python 3.11 or newer; say make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the environment into $(VENV) (about two minutes after the downloads)"
	@$(INSTALL) pip==25.3 || $(NOT_INSTALLED)
	@$(INSTALL) -c constraints.txt torch==2.13.0 || $(NOT_INSTALLED)
	@$(INSTALL) -c constraints.txt --group all -e . || $(NOT_INSTALLED)
	@touch $@

clean:
	rm -rf $(VENV) .pedigree build *.egg-info
