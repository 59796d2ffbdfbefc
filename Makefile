# Every command here also runs by hand: see what it does with `make -n TARGET`.
# names another Python than the first that fits: make PYTHON=python3.12 setup
PYTHON ?=
# another folder of the environment: make VENV=.venv-3.11 PYTHON=python3.11 test
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
LUIGI := $(BIN)/luigi --module tasks
# The tests start hundreds of processes: with bytecode, whatever the environment says about it, these compile nothing.
# Each of these test processes imports torch and collects all tests, so there are no more of them than cores.
TESTS := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $$(nproc) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup try data train report test test-slow test-all coverage gpu-check lint types check hooks docs docs-links clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "More: $(BIN)/python -m pipeline --help (data), $(BIN)/python -m tasks --help (predict, evaluate, report)"

setup: $(VENV)/.ready  ## the virtual environment, with everything installed
	@echo "Ready. Next: make try       a real clip -> people, joints in metres, bodies -> one page: 93 MB, 1 to 3 minutes"
	@echo "             make report    demo data -> features -> models -> one page about all of it, 2 to 10 minutes"
	@echo "Your clips: $(BIN)/python -m pipeline prepare videos --raw CLIPS --cache CACHE; datasets: docs/getting-started.md; on a folder of its own: $(BIN)/python -m pipeline init"

$(VENV)/.ready: pyproject.toml
	@python=$$(PYTHON="$(PYTHON)" VENV="$(VENV)" ./find_python.sh) && echo "Setting up $(VENV) with $$python: 7.5 GB, about 10 minutes, once" && "$$python" -m venv $(VENV)
	@echo "  1/3 PyTorch and its CUDA libraries (5.4 GB, most of the time)"
	@$(PIP) $$($(BIN)/python -c 'import tomllib; print(*(p for p in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if p.startswith("torch")))')
	@echo "  2/3 NumPy, OpenCV, Zarr, Luigi and the rest of the pipeline"
	@$(PIP) --editable .
	@echo "  3/3 extras, and tools for tests and docs"
	@$(PIP) --editable '.[dev,docs]'
	@touch $@

try: $(VENV)/.ready  ## people, joints in metres and bodies in a real clip, on one page: 93 MB, 1 to 3 minutes
	@$(BIN)/python -m pipeline try

# What an interruption says is to be typed again.
data train report: export TYPED_COMMAND = make $@

data: $(VENV)/.ready  ## raw data -> tracks -> features, for every dataset that luigi.cfg enables
	@$(LUIGI) Data

train: $(VENV)/.ready  ## all of `make data`, then train VIBE, evaluate it, and say where to look
	@$(LUIGI) EvaluateVIBE

report: $(VENV)/.ready  ## all of `make train`, then one page about data, training and results
	@$(LUIGI) Report

test: $(VENV)/.ready  ## the tests, but for the slow ones: minutes, on all cores
	@$(TESTS)

test-slow: $(VENV)/.ready  ## the slow tests: crash loops, whole runs in processes of their own, benchmarks
	@$(TESTS) -m slow

test-all: $(VENV)/.ready  ## both
	@$(TESTS) -m ""

coverage: $(VENV)/.ready  ## what the tests of `make test` do not run, line by line, and as a site in htmlcov/
	@$(TESTS) --cov --cov-report=term-missing:skip-covered --cov-report=html

gpu-check: $(VENV)/.ready  ## on a machine with a GPU: does all of it work there, and how fast? Into benchmarks/gpu_check.md
	@$(BIN)/python benchmarks/gpu_check.py --out benchmarks/gpu_check.md

lint: $(VENV)/.ready  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.ready  ## mypy --strict
	@$(BIN)/mypy --strict cache pipeline vibe_model tasks benchmarks changes docs/*.py docs/adding-a-dataset/lab_recordings*.py docs/adding-a-stream/small_*.py docs/adding-a-model/former/*.py

check: lint types test  ## all that must be green before a commit

hooks: $(VENV)/.ready  ## have git run lint and types before each commit
	@$(BIN)/pre-commit install

docs: $(VENV)/.ready  ## the documentation as a site, in docs/_build/html
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . docs/_build/html
	@echo "docs/_build/html/index.html"

docs-links: $(VENV)/.ready  ## look whether the links to other sites still lead somewhere; wants a network
	@$(BIN)/sphinx-build --quiet --builder linkcheck --conf-dir docs . docs/_build/links

clean:  ## remove the built documentation, and the folder demo: demo data, and what was made of them (not .venv)
	@rm -rf docs/_build
	@if grep -qs '"stand_in": true' demo/body/STAND_IN.json; then rm -rf demo; fi
