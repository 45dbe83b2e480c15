# Each target does all the set-up that it needs, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-lowest test-slurm lint format

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

# The fast tests that touch every dependency, with the lowest versions that pyproject.toml allows (.ci/lowest.txt). Old
# libraries under a new torch warn of what they call; that is no mistake of ours.
LOWEST := .venv-lowest/bin/python
test-lowest: .venv-lowest/.ready
	$(LOWEST) -m pytest -n 2 --dist loadfile -m 'not slow and not slurm' -p no:cacheprovider \
	  -W default::DeprecationWarning -W default::FutureWarning \
	  tests/test_config.py tests/test_help.py tests/test_api.py tests/test_cli.py tests/test_doctor.py \
	  tests/test_tracking.py tests/test_inference.py tests/test_checkpoint.py tests/test_metrics.py \
	  tests/data tests/models tests/bench/test_loader.py

.venv-lowest/.ready: pyproject.toml .ci/lowest.txt
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST) -m pip install --quiet --disable-pip-version-check --constraint .ci/lowest.txt --editable '.[test]'
	touch $@

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
