# `make help` lists what there is. Everything runs in .venv, which `make install` creates.
# Another interpreter: make install PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
TESTS ?= tests
minutes ?= 30
export SLURM_SANDBOX ?= /var/lib/bm-slurm

# Tests never reach the network, and parallel workers share the cores instead of fighting for them.
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# Threads that wait sleep instead of spinning: on a busy machine, that is several times faster.
PATIENT := OMP_WAIT_POLICY=passive

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install check-conf demo notebooks test test-pythons test-slurm faults fuzz format clean \
	lint lint-format lint-rules lint-types lint-layers lint-spelling lint-notebooks

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

install: check-conf $(STAMP) ## create .venv with the pinned dependencies and bm itself

check-conf:
	@test -f conf/config.yaml || { \
		echo "bm: conf/config.yaml is missing. The configuration lies beside the package, not in it:" >&2; \
		echo "bm: run make in a complete clone of the repository (git checkout -- conf brings it back)." >&2; \
		exit 1; }

$(STAMP): requirements.txt setup.py
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "bm: there is no $(PYTHON) here. Install Python 3.11 or later, or name one: make install PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "bm: $(PYTHON) is $$("$(PYTHON)" --version 2>&1), but bm needs Python 3.11 or later. Name another one: make install PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "bm: $(PYTHON) comes without its venv or ensurepip module. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@rm -f $(STAMP)
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: install ## simulate listeners, train on them, report: the whole way in some minutes
	@$(PATIENT) $(BIN)/python -m scripts.demo

notebooks: install ## make the .ipynb of notebook_templates/ of their .py, whose cells count
	@$(BIN)/jupytext --quiet --to ipynb --update notebook_templates/*.py
	@$(BIN)/nbstripout notebook_templates/*.ipynb

test: install ## run the whole test suite (TESTS=tests/test_cache.py for a part of it)
	$(OFFLINE) $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

lint: lint-format lint-rules lint-types lint-layers lint-spelling lint-notebooks ## check style, types and layers

lint-format: install
	$(BIN)/ruff format --check .

lint-rules: install
	$(BIN)/ruff check .

lint-types: install
	$(BIN)/mypy

lint-layers: install
	$(BIN)/lint-imports

lint-spelling: install
	$(BIN)/codespell

lint-notebooks: install
	@git ls-files -z '*.ipynb' | xargs -0 -r $(BIN)/nbstripout --verify

test-slurm: install ## run the tests that need SLURM, on a throw-away cluster of this machine (as root)
	@scripts/slurm_sandbox.sh up
	SLURM_CONF=$(SLURM_SANDBOX)/slurm.conf $(OFFLINE) $(ONE_THREAD) $(BIN)/python -m pytest -m slurm $(TESTS); \
		result=$$?; scripts/slurm_sandbox.sh down; exit $$result

faults: install ## kill, fill, damage: the fault suite in full (as root), its table into docs/reliability.md
	$(OFFLINE) $(ONE_THREAD) $(BIN)/python -m pytest --faults=docs/reliability.md -m faults tests/faults

fuzz: install ## feed every reader of files for minutes=30; findings are printed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-build-isolation -e '.[fuzz]' \
		|| echo "bm: atheris can't be installed here: all cases are drawn at random" >&2
	$(OFFLINE) $(ONE_THREAD) $(BIN)/python tests/fuzz/long.py minutes=$(minutes)

format: install ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-pythons: ## run the tests with each of Python 3.11, 3.12 and 3.13 that is here (TESTS=... for a part)
	@found=; for number in 3.11 3.12 3.13; do \
		python=$$(command -v python$$number) || { echo "bm: no python$$number here: skipped"; continue; }; \
		"$$python" -c 'import venv, ensurepip' 2>/dev/null || { echo "bm: $$python comes without venv: skipped"; continue; }; \
		found="$$found $$number"; \
		$(MAKE) --no-print-directory test PYTHON="$$python" VENV=.venv-$$number || exit 1; \
	done; \
	test -n "$$found" || { echo "bm: none of Python 3.11, 3.12 and 3.13 is here" >&2; exit 1; }; \
	echo "bm: tested with Python$$found"

clean: ## remove .venv and what tools leave behind (not outputs/ and cache/)
	rm -rf $(VENV) .venv-3.* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find bm scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
