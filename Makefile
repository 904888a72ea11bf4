.DEFAULT_GOAL := help
.PHONY: help demo test quick coverage lint bench claims docs clean

VENV := .venv
PYTHON ?= python3
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq

help:
	@echo "make demo    set up, then assess a model of real health data, apply a control and measure again"
	@echo "make test    set up, then run the whole test suite"
	@echo "make quick   the tests that take under two minutes"
	@echo "make coverage  the whole suite, with what it covers"
	@echo "make lint    style, types and layers"
	@echo "make bench   all benchmarks, with peers in environments of their own; DATA=DIR names the public data"
	@echo "make claims  each promise with the evidence behind it"
	@echo "make docs    the documentation site, into site/"

# pytest already uses every core; threads inside each process would only fight over them. The ci profile draws the same examples each time:
# a plain `pytest` searches on.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.examples: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Holdfast and its examples into $(VENV) (one to three minutes) ..."
	@$(PIP) install -c constraints.txt -e '.[examples]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Holdfast with everything its tests need into $(VENV) (two to four minutes) ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.examples

$(VENV)/.docs: $(VENV)/.dev
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(VENV)/.examples
	@$(VENV)/bin/python -m examples.care_management

test: $(VENV)/.dev
	$(ONE_THREAD) $(VENV)/bin/python -m pytest --hypothesis-profile ci -n auto --dist loadscope

quick: $(VENV)/.dev
	$(ONE_THREAD) $(VENV)/bin/python -m pytest --hypothesis-profile ci -n auto -m "not slow"

coverage: $(VENV)/.dev
	$(ONE_THREAD) $(VENV)/bin/python -m pytest --hypothesis-profile ci -n auto --dist loadscope --cov --cov-report=term:skip-covered

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks $(if $(DATA),--data $(DATA))

claims: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks.claims --write

docs: $(VENV)/.docs
	$(VENV)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) site dist .pytest_cache .mypy_cache .ruff_cache
