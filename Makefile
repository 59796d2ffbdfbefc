# Every command here also runs by hand: see what it does with `make -n TARGET`.
PYTHON ?= python3
BIN := .venv/bin
LUIGI := $(BIN)/luigi --module tasks --local-scheduler

.DEFAULT_GOAL := help
.PHONY: help setup data train test lint types check clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready  ## the virtual environment, with everything installed

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv (PyTorch and its libraries: a few minutes and 6 GB, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

data: .venv/.ready  ## raw data -> tracks -> features, for every dataset that luigi.cfg enables
	@$(LUIGI) Data

train: .venv/.ready  ## all of `make data`, then train VIBE, evaluate it, and say where to look
	@$(LUIGI) EvaluateVIBE

test: .venv/.ready  ## all tests
	@$(BIN)/python -m pytest

lint: .venv/.ready  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.ready  ## mypy --strict
	@$(BIN)/mypy --strict cache pipeline vibe_model tasks benchmarks docs/adding-a-dataset/lab_recordings*.py docs/adding-a-stream/resnet18_*.py

check: lint types test  ## all that must be green before a commit

clean:  ## remove the embedded data, the cache and the runs (not .venv)
	rm -rf data/embedded data/cache runs
