# The commands of the repository; `make help` lists them. Everything they make is in .venv and demo-data.

PYTHON ?= python3
PORT ?= 8642
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format bench clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: $(VENV)/.installed  ## serve on 127.0.0.1:8642 (PORT= moves it) and run three real tasks
	@$(BIN)/python -m taskd.demo --port $(PORT)

test: $(VENV)/.installed-dev  ## all the tests (ARGS= goes to pytest)
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev  ## ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict

format: $(VENV)/.installed-dev  ## let ruff put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-bench  ## the load benchmark (ARGS= names parts and options)
	@$(BIN)/python -m benchmarks.load $(ARGS)

clean:  ## remove everything that make made
	rm -rf $(VENV) demo-data dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Stamps, so that a second run is quick. A change of pyproject.toml installs again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "taskd needs Python 3.11 or newer, and '$(PYTHON)' is not one: say where one is, e.g. make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.made
	$(PIP) -e '.[bench]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.installed $@
