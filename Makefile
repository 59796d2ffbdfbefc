# Every command here also runs by hand: see what it does with `make -n TARGET`.
# names another Python than the first that fits: make PYTHON=python3.12 setup
PYTHON ?=
# another folder of the environment: make VENV=.venv-3.11 PYTHON=python3.11 test
VENV ?= .venv
BIN := $(VENV)/bin
LUIGI := $(BIN)/luigi --module tasks
# The tests start hundreds of processes: with bytecode, whatever the environment says about it, these compile nothing.
# Each of these test processes imports torch and collects all tests, so there are no more of them than cores.
TESTS := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $$(nproc) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup try quick data train report test test-slow test-bounds test-all coverage gpu-check lint types check hooks docs docs-links clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "More: $(BIN)/python -m pipeline --help (data), $(BIN)/python -m tasks --help (predict, evaluate, report)"

setup: $(VENV)/.ready  ## the virtual environment: all that the pipeline, training and `make try` need
	@echo "Ready. Next: make try       a real clip -> people, joints in metres, bodies -> one page: 93 MB, 1 to 3 minutes"
	@echo "             make report    demo data -> features -> models -> one page about all of it, 2 to 10 minutes"
	@echo "Your clips: $(BIN)/python -m pipeline prepare videos --raw CLIPS --cache CACHE; datasets: docs/getting-started.md; on a folder of its own: $(BIN)/python -m pipeline init"

# uv chooses the builds of PyTorch for this machine: without an NVIDIA driver, those for CPUs. These are in an index of
# PyTorch's own. Where that cannot be reached, and by pip, those of the package index are installed: for CUDA.
CLONE := --constraint constraints.txt --editable '.[clips]'
ifneq ($(shell command -v uv),)
CREATE := uv venv --quiet --allow-existing --seed --python "$$python" $(VENV)
INSTALL := uv pip install --quiet --python $(BIN)/python
PRODUCT = $(INSTALL) $(CLONE) --torch-backend auto || { \
	echo "  no builds of PyTorch for this machine: from the package index, with CUDA's libraries (3.6 GB to download)"; \
	$(INSTALL) $(CLONE); }
else
CREATE := "$$python" -m venv $(VENV)
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
# The pip of Python 3.11 knows no --group.
PRODUCT = $(INSTALL) 'pip>=25.1' && $(INSTALL) $(CLONE)
endif

$(VENV)/.ready: pyproject.toml constraints.txt
	@python=$$(PYTHON="$(PYTHON)" VENV="$(VENV)" ./find_python.sh) && echo "Setting up $(VENV) with $$python, once: 1.7 GB, with CUDA's libraries 6.7 GB; 1 to 8 minutes" && $(CREATE)
	@$(PRODUCT)
	@touch $@

# what tests, checks and docs need beyond that
$(VENV)/.dev: $(VENV)/.ready
	@echo "Adding the tools for tests, checks and docs to $(VENV), once: 1.2 GB, 1 to 3 minutes"
	@$(INSTALL) --constraint constraints.txt --group dev --group docs
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

quick: $(VENV)/.dev  ## the tests nearest to what differs from HEAD: a minute
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m tests.quick

test: $(VENV)/.dev  ## the tests, but for the slow ones: minutes, on all cores
	@$(TESTS)

test-slow: $(VENV)/.dev  ## the slow tests: crash loops, whole runs, benchmarks; with SLOW=1..7, a group of them
	@$(TESTS) -m slow $(if $(SLOW),$$($(BIN)/python -m tests.slow_groups $(SLOW)))

test-bounds: $(VENV)/.dev  ## the ends of the allowed versions, installed from a package index: 6 GB
	@$(BIN)/python -m pytest -m bounds tests/test_install.py

test-all: $(VENV)/.dev  ## all of these tests
	@$(TESTS) -m ""

coverage: $(VENV)/.dev  ## what the tests of `make test` do not run, line by line, and as a site in htmlcov/
	@$(TESTS) --cov --cov-report=term-missing:skip-covered --cov-report=html

gpu-check: $(VENV)/.dev  ## on a machine with a GPU: does all of it work there, and how fast? Into benchmarks/gpu_check.md
	@$(BIN)/python benchmarks/gpu_check.py --out benchmarks/gpu_check.md

lint: $(VENV)/.dev  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy --strict
	@$(BIN)/mypy --strict cache pipeline vibe_model tasks benchmarks changes release.py docs/*.py docs/adding-a-dataset/lab_recordings*.py docs/adding-a-stream/small_*.py docs/adding-a-model/former/*.py

check: lint types test  ## all that must be green before a commit

hooks: $(VENV)/.dev  ## have git run lint and types before each commit
	@$(BIN)/pre-commit install

docs: $(VENV)/.dev  ## the documentation as a site, in docs/_build/html
	@# All pages are written: of the others, Sphinx would lose the entries of the search's index.
	@$(BIN)/sphinx-build --quiet --write-all --fail-on-warning --keep-going --conf-dir docs . docs/_build/html
	@echo "docs/_build/html/index.html"

docs-links: $(VENV)/.dev  ## look whether the links to other sites still lead somewhere; wants a network
	@$(BIN)/sphinx-build --quiet --builder linkcheck --conf-dir docs . docs/_build/links

clean:  ## remove the built documentation, and the folder demo: demo data, and what was made of them (not .venv)
	@rm -rf docs/_build
	@if grep -qs '"stand_in": true' demo/body/STAND_IN.json; then rm -rf demo; fi
