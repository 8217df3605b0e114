# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Both make the environment first; it is remade when the lock file changes.

PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two workers: the tests' time is compilation, which keeps about one core busy. Whole
# files in the order of tests/conftest.py, the longest first.
PYTEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder --durations=15

# Compiled programs are kept between runs: what took a minute takes seconds.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types bench lock clean

help: ## Shows the commands.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Makes .venv with the tested packages and this one.

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] in ((3, 11), (3, 12)) \
	  else "Python 3.11 or 3.12 is needed (dm_control has a package, labmaze, without" \
	  " wheels for later ones); name one by make PYTHON=python3.12.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: $(STAMP) ## Trains from ratings, prints the table, draws curves and a clip.
	$(BIN)/python experiments/demo.py

test: $(STAMP) ## Runs all tests.
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(STAMP) ## Checks style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Formats the code and mends what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Checks the types.
	$(BIN)/mypy

bench: $(STAMP) ## Measures speed, against stable-baselines3 and brax too.
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[bench]'
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/updates.py

# Pins stay as they are where pyproject.toml allows; delete the file to renew them all.
lock: $(STAMP) ## Renews requirements.lock from pyproject.toml.
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --extra dev --extra report --output-file requirements.lock pyproject.toml

clean: ## Removes the environment and all caches; runs/ stays.
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
