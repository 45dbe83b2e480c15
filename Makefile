# Each target does all the set-up that it needs, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slurm lint format

setup: .venv/.ready

.venv/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# make demo FRESH=1 starts anew; without it a finished demo is shown again, and a broken-off one goes on.
demo: setup
	$(BIN)/python -m srgan_dist.demo $(if $(FRESH),--fresh)

# Two at a time: each process has one thread, and half of the tests are alone with it.
test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Needs root; installs Debian's packages of Slurm where they are missing.
test-slurm: setup
	tests/slurm/cluster.sh install
	$(BIN)/python -m pytest -rs -m slurm tests/slurm

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
