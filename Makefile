# Everything a machine with Python >= 3.11 (with venv) and make needs: no root, no services, no tools by hand.
# Each target does its own set-up. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --warn-undefined-variables

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet

# One stamp per content of the locks: another lock, another stamp, a new install. The dev lock holds the runtime lock
# (same versions), so having installed it serves `make run` too.
KEY := $(shell cat requirements.lock requirements-dev.lock pyproject.toml | cksum | cut -d' ' -f1)
READY_TO_RUN := $(VENV)/.caisse-run-$(KEY)
READY_TO_TEST := $(VENV)/.caisse-test-$(KEY)

# uv only writes the locks (it resolves for every platform at once); it is no part of the environment.
UV := uv==0.13.8
UV_COMPILE := $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header

# More arguments for pytest: make test ARGS='-k writer'
ARGS :=

.PHONY: help run test contract check bench bench-large docs lock format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sort | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

run: $(READY_TO_RUN) ## Set up and start the demonstration: six providers, a sample merchant, live traffic
	@exec $(BIN)/caisse dev

test: $(READY_TO_TEST) ## Set up and run the whole test suite (ARGS='-k name' for a part)
	@exec $(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal $(ARGS)

check: $(READY_TO_TEST) ## Format, lint, types and house rules: fast, before every push
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo "Formatting differs: run 'make format'."; exit 1; }
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest --quiet tests/tidy

format: $(READY_TO_TEST) ## Format the code and fix what ruff can fix
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: $(READY_TO_TEST) ## Measure it all and judge: about 70 minutes (ARGS='--help' for the parts)
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-large: $(READY_TO_TEST) ## Measure intake with 5,000,000 callbacks stored: needs 30 GB free
	@exec $(BIN)/python -m tests.bench --part large $(ARGS)

contract: $(READY_TO_TEST) ## Ask the providers' real sandboxes, where their keys are in the environment
	@CAISSE_CONTRACT=1 exec $(BIN)/python -m pytest --quiet tests/contract $(ARGS)

docs: $(READY_TO_TEST) ## Write the pages of docs/ that are made from the code
	@exec $(BIN)/python -m tests.tidy.pages

lock: ## Write the locks anew from pyproject.toml (ARGS='--upgrade' takes newer versions)
	@test -x $(VENV)-lock/bin/uv || { python=$$($(FIND_PYTHON)) || exit 1; "$$python" -m venv $(VENV)-lock; }
	@$(VENV)-lock/bin/python -m pip --disable-pip-version-check --quiet install '$(UV)'
	@$(UV_COMPILE) $(ARGS) pyproject.toml --group build --output-file requirements.lock
	@$(UV_COMPILE) $(ARGS) pyproject.toml --group dev --constraints requirements.lock --output-file requirements-dev.lock

clean: ## Remove caches and what was built; keeps databases and the virtual environment
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis ./*.egg-info
	@find service outbox scheduler tests -name __pycache__ -prune -exec rm -rf {} +

# --- set-up -------------------------------------------------------------------------------------------

# Prints the first Python that is new enough and can make an environment. A name on the PATH may be a shim
# that does not run, so each is tried. PYTHON=/path/to/python chooses one.
PYTHON := python3.13 python3.12 python3.11 python3.14 python3 python
FIND_PYTHON = for python in $(PYTHON); do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && exit 0; done; \
	echo 'caisse needs Python 3.11 or newer with its venv module (on Debian and Ubuntu: the package python3-venv).' >&2; exit 1

$(BIN)/python:
	@python=$$($(FIND_PYTHON)) || exit 1; echo "Making $(VENV) with $$python …"; "$$python" -m venv $(VENV)

$(READY_TO_RUN): | $(BIN)/python
	@$(call install,requirements.lock)
	@rm -f $(VENV)/.caisse-*; touch $@

$(READY_TO_TEST): | $(BIN)/python
	@$(call install,requirements-dev.lock)
	@rm -f $(VENV)/.caisse-*; touch $(READY_TO_RUN) $@

# Only wheels whose hashes are in the lock; then the project itself, built by the locked setuptools, fetching nothing.
define install
echo "Installing $(1) …"
$(PIP) install --require-hashes --only-binary :all: --requirement $(1)
$(PIP) install --no-build-isolation --no-deps --no-index --editable .
endef
