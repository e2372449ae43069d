# `make help` lists what there is. Everything is installed into .venv and nowhere else; it is
# installed once, and again when pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
# Two workers on two cores: more threads in each would only wait for one another.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

ARM := build/arm64

.DEFAULT_GOAL := help
.PHONY: help quickstart install test test-all test-arm fuzz audit lint wheel docs notebooks clean
.DELETE_ON_ERROR:

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

quickstart: $(VENV)/.installed ## install, then train, profile, search, export and verify on this machine
	$(BIN)/ofa-deploy quickstart

install: $(VENV)/.installed ## install into .venv, and no more

test: lint ## check style and types, then run the tests
	$(PYTEST)

test-all: test ## the same, then the slow tests
	$(PYTEST) -m slow || test $$? -eq 5  # 5: there is no slow test

test-arm: $(VENV)/.installed-dev $(ARM)/.ready ## run the agent on an ARM processor that qemu emulates
	$(PYTEST) -n 0 -m arm tests/arm

fuzz: $(VENV)/.installed-dev ## feed every parser inputs that find new paths (MINUTES=1 a format)
	@$(PIP_INSTALL) --no-build-isolation -e '.[fuzz]' || echo "no atheris here: going on without"
	@$(BIN)/python -c 'from tests.faults.corrupt_worker import FORMATS; print(*FORMATS, sep="\n")' | \
	  while read -r format; do nice -n 10 $(BIN)/python -m tests.faults.fuzz_targets "$$format" \
	    $$(( $(or $(MINUTES),1) * 60 )) runs/fuzz </dev/null || exit 1; done

audit: $(VENV)/.installed-dev ## look the pinned packages up among known weaknesses (needs the network)
	$(PYTHON) -m venv build/audit && build/audit/bin/python -m pip install -q pip-audit
	build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip --strict

lint: $(VENV)/.installed-dev ## check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

wheel: $(VENV)/.installed-dev ## build dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

docs: $(VENV)/.installed-dev ## build the documentation into site/, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: $(VENV)/.installed-dev ## execute the notebooks again and keep their outputs
	$(BIN)/python notebooks/execute.py

clean: ## remove the environment, caches and what was built (runs/ stays)
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment of an old or half-made Python is replaced, a good one is kept.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ofa-deploy needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; some systems have that in a package" \
	    "of its own, such as Debian's python3-venv." >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (some minutes the first time) ..."
	@$(PIP_INSTALL) hatchling
	@$(PIP_INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the development tools ..."
	@$(PIP_INSTALL) setuptools  # which TensorRT for RTX is built with, having no wheel
	@$(PIP_INSTALL) --no-build-isolation -e '.[dev]'
	@touch $@

$(ARM)/.ready: tests/arm/make_root.py | $(VENV)/.made
	@$(BIN)/python tests/arm/make_root.py $(ARM)
