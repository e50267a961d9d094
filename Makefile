# The commands of the repository; `make help` lists them. Everything they make is in .venv, demo-data,
# web/node_modules and web/dist. No Node is needed: where there is none, it comes into .venv from PyPI.

PYTHON ?= python3
PORT ?= 8642
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
WEB := $(BIN)/python web/build.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Node, where the machine has none, and then the page, where it is missing or older than its sources.
NODE = { needs=$$($(WEB) needs) && { [ -z "$$needs" ] || $(PIP) "$$needs"; }; }
BUILD_PAGE = { $(WEB) fresh || { $(NODE) && $(WEB); }; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo page docs test matrix torture check format screenshots bench clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 21

demo: $(VENV)/.installed  ## serve on 127.0.0.1:8642 (PORT= moves it) and run three real tasks
	@$(BUILD_PAGE) || echo "taskd: going on with the page as it is" >&2
	@$(BIN)/python docs/examples/demo.py --port $(PORT)

page: $(VENV)/.installed $(if $(DEV),web/node_modules/.installed)  ## build the page; DEV=1 shows it as it is edited, with a running taskd
	@$(if $(DEV),$(WEB) npm run dev,$(BUILD_PAGE))

docs: $(VENV)/.installed-docs  ## build the documentation into build/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f - < docs/mkdocs.yml

test: $(VENV)/.installed-dev web/node_modules/.installed  ## all the tests (ARGS= goes to pytest, CHROMIUM= names a browser)
	@$(BUILD_PAGE)
	$(BIN)/python -m pytest $(if $(ARGS),,-n 3 --dist worksteal) $(ARGS)

matrix:  ## all the tests on Debian 13 and unstable, and as a user without a home (RUN='trixie sid' chooses); needs root
	@ARGS='$(ARGS)' .ci/matrix $(RUN)

torture: $(VENV)/.installed-dev  ## the bars R1 to R17 at their full size, about two hours (ARGS='-k kill' chooses); prints their table
	TASKD_TORTURE=1 $(BIN)/python -m pytest -m bar -p no:cacheprovider $(ARGS)

check: $(VENV)/.installed-dev web/node_modules/.installed  ## ruff and mypy --strict; svelte-check, eslint and prettier
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(WEB) npm run --silent check
	$(WEB) npm run --silent lint

format: $(VENV)/.installed-dev web/node_modules/.installed  ## let ruff, eslint and prettier put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(WEB) npm run --silent format

screenshots: $(VENV)/.installed-dev web/node_modules/.installed  ## make the pictures of the README anew, in Chromium
	@$(BUILD_PAGE)
	PYTHON=$(abspath $(BIN)/python) $(WEB) npm run --silent screenshots

bench: $(VENV)/.installed-bench  ## the load benchmark (ARGS= names parts and options)
	@$(BIN)/python -m benchmarks.load $(ARGS)

clean:  ## remove everything that make made
	rm -rf --one-file-system $(VENV) .matrix demo-data dist build web/dist web/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis
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

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.made
	$(PIP) -e '.[docs]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.installed $@

# What the page is built with comes with the installation; this is what it is checked and tested with.
web/node_modules/.installed: web/package-lock.json $(VENV)/.made
	@$(NODE)
	$(WEB) npm ci --ignore-scripts --prefer-offline --loglevel=error
	@touch $@
