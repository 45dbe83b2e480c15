# Each target does all the set-up that it needs, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo model study test test-slow test-lowest test-slurm docs lint format

setup: .venv/.ready

.venv/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# make demo FRESH=1 starts over; without it a finished demo is shown again, and an interrupted one resumes.
demo: setup
	$(BIN)/python -m srgan_dist.demo $(if $(FRESH),--fresh)

# The model that is in the package, from its photographs to its card: two hours on two cores, or make model MINUTES=10;
# interrupted, the same command goes on. BENCHMARKS="DIR DIR" are the test sets of the card's figures. What it makes
# ships once it is copied into srgan_dist/default_model.
MINUTES := 60
BENCHMARKS :=
MODEL := srgan_dist/default_model
model: setup
	$(BIN)/srgan-dist fetch --config $(MODEL)/gan.yaml
	$(BIN)/python -m srgan_dist.default_model.make --minutes $(MINUTES) $(if $(BENCHMARKS),--benchmarks $(BENCHMARKS))

# Does n:1 help? configs/study.yaml says what is trained; interrupted, the same command resumes it. Another study:
# make study STUDY=my-study.yaml STUDY_DIR=runs/my-study, the latter as --run.dir in the file's command.
STUDY := configs/study.yaml
STUDY_DIR := runs/study
study: setup
	test $(STUDY) != configs/study.yaml -o -f runs/demo/weights/pretrained.safetensors || $(BIN)/python -m srgan_dist.demo
	$(BIN)/srgan-dist sweep $(STUDY)
	$(BIN)/srgan-dist compare $(STUDY_DIR) -o $(STUDY_DIR).html

# Two at a time: each process has one thread, and half of the tests are alone with it.
test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not slurm'

# What starts several processes or trains for a while.
test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# The fast tests that touch every dependency, with the lowest versions that pyproject.toml allows (.ci/lowest.txt). Old
# libraries under a new torch warn of what they call; that is no mistake of ours.
LOWEST := .venv-lowest/bin/python
test-lowest: .venv-lowest/.ready
	$(LOWEST) -m pytest -n 2 --dist loadfile -m 'not slow and not slurm' -p no:cacheprovider \
	  -W default::DeprecationWarning -W default::FutureWarning \
	  tests/test_api.py tests/config tests/cli tests/tracking tests/inference tests/imaging tests/models tests/data \
	  tests/checkpointing/test_manager.py tests/evaluation/test_metrics.py tests/planning/test_doctor.py \
	  tests/bench/test_loader.py

.venv-lowest/.ready: pyproject.toml .ci/lowest.txt
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST) -m pip install --quiet --disable-pip-version-check --constraint .ci/lowest.txt --editable '.[test]'
	touch $@

# Needs root; installs Debian's packages of Slurm where they are missing.
test-slurm: setup
	tests/slurm/cluster.sh install
	$(BIN)/python -m pytest -rs -m slurm tests/slurm

# docs/ as a site in site/: no page needs a network. A warning, a broken link or a stale reference fails it.
docs: .venv/.docs
	@command -v dot >/dev/null || { echo "make docs draws its diagrams by Graphviz's dot: apt-get install graphviz" >&2; exit 1; }
	$(BIN)/python docs/configuration_reference.py --check
	rm -rf site
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir build/docs -b html docs site
	$(BIN)/python docs/check_site.py site

.venv/.docs: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
