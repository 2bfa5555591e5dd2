# Needs Python 3.11 or later as `python3` (or PYTHON=...) and nothing else.
PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
LOWEST_VENV ?= .venv-lowest
# More arguments for `trainbus run`, as in: make demo DEMO_ARGS="--set seed=1"
DEMO_ARGS ?=
# More arguments for pytest, as in: make test TEST_ARGS="-k resume"
TEST_ARGS ?=

BIN := $(VENV)/bin
PROJECTS := $(wildcard plugins/*)
# Where examples are found that are not installed.
EXAMPLES := $(shell echo examples/*/src | tr " " :)
# Whatever can change what is installed; the sources are editable and cannot.
INSTALL_INPUTS := requirements.txt setup.py setup.cfg pyproject.toml \
	$(PROJECTS:%=%/setup.cfg) $(PROJECTS:%=%/pyproject.toml)
# One thread a worker: two workers with two threads each are slower on two cores.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lowest faults lint walls format types check bench docs site pictures wheels clean

help:  ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Make .venv and install everything, editable.

demo: $(VENV)/.installed  ## Train the embedded demonstration; nothing is downloaded.
	$(BIN)/trainbus run config/demo.yaml $(DEMO_ARGS)

test: $(VENV)/.installed-test  ## Run the tests of the whole and of the plugins.
	$(PYTEST) $(TEST_ARGS)

test-fast: $(VENV)/.installed-test  ## Run the tests that are not marked slow.
	$(PYTEST) -m "not slow and not exhaustive" $(TEST_ARGS)

lowest: $(LOWEST_VENV)/.installed  ## Run test-fast on the oldest versions allowed (7 GB).
	$(TEST_ENV) $(LOWEST_VENV)/bin/python -m pytest -n 2 --dist worksteal \
		-m "not slow and not exhaustive" $(TEST_ARGS)

faults: $(VENV)/.installed-test  ## Run every fault test, the long ones too (20 min).
	$(TEST_ENV) $(BIN)/python -m pytest tests/faults -m '' $(TEST_ARGS)

lint: $(VENV)/.installed-test walls  ## Check style, formatting, and who imports whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

walls: $(VENV)/.installed-test  ## Check the contracts of pyproject.toml: who imports whom.
	PYTHONPATH=$(EXAMPLES) $(BIN)/lint-imports --no-cache --no-logo pyproject.toml

format: $(VENV)/.installed-test  ## Format the code and mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test  ## Check types: the kernel, data, models, the plugins.
	$(BIN)/mypy

check: lint types test  ## All of what a change must pass.

bench: $(BENCH_VENV)/.installed  ## Measure overhead and start-up beside the peers.
	$(BENCH_VENV)/bin/python benchmarks/overhead.py --write
	$(BENCH_VENV)/bin/python benchmarks/startup.py --write

docs: $(VENV)/.installed  ## Write the pages of docs/ that are made from the code.
	$(BIN)/python docs/generate.py

site: $(VENV)/.installed-docs  ## Build the pages of docs/ as a site, into build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(VENV)/.installed-docs  ## Draw the README's pictures again, from real runs.
	$(BIN)/python docs/pictures/terminal.py
	$(BIN)/python docs/pictures/tensorboard.py

wheels: $(VENV)/.installed  ## Build the wheels into dist/.
	rm -rf build plugins/*/build  # what was deleted must not come back
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist . $(PROJECTS:%=./%)

clean:  ## Remove environments, caches and build outputs; runs and data sets stay.
	rm -rf $(VENV) $(BENCH_VENV) $(LOWEST_VENV) build dist plugins/*/build
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	rm -rf plugins/*/src/*.egg-info core/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: pip runs again only when a file above has changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"trainbus needs Python 3.11 or later; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

$(VENV)/.installed-test: $(INSTALL_INPUTS) | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/python -m pip install -r requirements.txt -e '.[test,lora,datasets,report]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(INSTALL_INPUTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install -r requirements.txt -e '.[docs]'
	@touch $@

# All the oldest at once: pip finds nothing to choose from. The oldest torch comes with
# CUDA's libraries, whatever the machine. Without datasets: what pip installs for it needs
# a newer numpy.
$(LOWEST_VENV)/.installed: $(INSTALL_INPUTS) tests/lowest.py
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(PYTHON) tests/lowest.py > $(LOWEST_VENV)/constraints.txt
	$(LOWEST_VENV)/bin/python -m pip install -c $(LOWEST_VENV)/constraints.txt \
		-e '.[test,report,lora]' $(PROJECTS:%=-e ./%)
	@touch $@

$(BENCH_VENV)/.installed: $(INSTALL_INPUTS) benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install -r requirements.txt
	$(BENCH_VENV)/bin/python -m pip install -r benchmarks/requirements.txt
	@touch $@
