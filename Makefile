# Two commands matter to a newcomer: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Wheels by uv (5 times as fast), and by pip where uv cannot: pip alone reads pip's own settings (mirrors, certificates).
INSTALL := scripts/install-locked $(PY)
# Extra words for the command that a target ends in: make test ARGS="-k fairness -n 2".
ARGS ?=

# The first interpreter that is new enough. Each is run and not only looked for, because version managers leave shims
# that exist and fail. Looked up only when the environment has to be made.
find_python = for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$p"; break; fi; done

# $(call not_yet,FILE,WHAT): a target whose file does not exist says so and fails, so that nobody takes silence for success.
not_yet = if [ ! -e $(1) ]; then echo "make $@: not yet: $(2) ($(1) does not exist)" >&2; exit 1; fi

.PHONY: help run test check coverage bench bench-quick bench-steps bench-curves quality chaos soak bundle docs lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="…" is passed on, e.g. make test ARGS="-k fairness". PYTHON=python3.13 picks the interpreter.'

run: $(VENV)/.base.stamp ## Install what is needed and run the first example
	@$(call not_yet,examples/stdlib_facts.py,the first example)
	@$(PY) examples/stdlib_facts.py $(ARGS)

test: $(VENV)/.dev.stamp ## Run the tests (as root on Debian, install the servers they need)
	@scripts/install-test-servers
	@$(PY) -m pytest -n 2 --dist loadgroup --durations=30 $(ARGS)

check: $(VENV)/.dev.stamp ## Lint, format, types, import direction, file and function sizes
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict src tests scripts benchmarks
	@$(PY) scripts/lint_imports.py
	@$(PY) scripts/check_sizes.py

coverage: $(VENV)/.dev.stamp ## All tests with branch coverage: the core whole, everything above 85 %
	@scripts/install-test-servers
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest $(ARGS)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report --include='*/jarvis/core/*' --fail-under=100
	@$(PY) -m coverage report --fail-under=85

bench: $(VENV)/.dev.stamp ## Measure, side by side with peers (12 minutes; ARGS=--write puts the table into docs/benchmarks.md)
	@$(PY) -m benchmarks.run $(ARGS)

bench-quick: $(VENV)/.dev.stamp ## The same with a tenth of the volume, one round
	@$(PY) -m benchmarks.run --quick $(ARGS)

bench-steps: $(VENV)/.dev.stamp ## What a workflow of 10,000 steps costs over as many plain tasks
	@$(PY) -m benchmarks.steps $(ARGS)

bench-curves: $(VENV)/.dev.stamp ## How costs grow with tasks, nodes, arrays and steps, with exponents (a minute when quiet; ARGS=--write for the docs)
	@$(PY) -m benchmarks.curves $(ARGS)

quality: $(VENV)/.dev.stamp ## Judge the scheduler on public workloads, beside published figures
	@$(call not_yet,benchmarks/quality.py,the quality of the scheduler)
	@$(PY) -m benchmarks.quality $(ARGS)

chaos: $(VENV)/.dev.stamp ## Kill, freeze and cut real processes under load
	@$(call not_yet,tests/chaos,the fault tests)
	@$(PY) -m pytest tests/chaos $(ARGS)

soak: $(VENV)/.dev.stamp ## The long volumes of faults, models, simulation and fuzzing (hours)
	@$(call not_yet,tests/chaos,the fault tests)
	@JARVIS_SOAK=1 $(PY) -m pytest tests/chaos tests/sim tests/model tests/fuzz tests/e2e/cluster/test_large_files.py \
		tests/e2e/cluster/test_systemd.py -m "soak or not soak" -s $(ARGS)

bundle: $(VENV)/.dev.stamp ## All wheels and a script that installs them without an index: dist/jarvis-bundle.tar.gz
	@scripts/bundle $(PY) dist/jarvis-bundle.tar.gz

docs: $(VENV)/.dev.stamp ## Build the documentation
	@$(call not_yet,docs/build.py,a built documentation; read the pages in docs/ as they are)
	@$(PY) docs/build.py $(ARGS)

lock: ## Resolve the dependencies anew for all platforms (UPGRADE=1 takes newer versions)
	@python="$$($(find_python))"; UPGRADE="$(UPGRADE)" scripts/lock "$${python:-python3}"

clean: ## Remove the environment and all caches
	rm -rf $(VENV) dist build htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an install happens when a lock or the package's metadata changed, and otherwise costs nothing. A venv that moved
# or whose interpreter went away is made anew.
$(VENV)/.venv.stamp: requirements/build.lock
	@python="$$($(find_python))"; \
	if [ -z "$$python" ]; then \
		echo "Jarvis needs Python 3.11 or newer, and none was found (looked for python3 and python3.11 to 3.14)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
		echo "$$python cannot make virtual environments: its venv module is missing." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; "$$python" -m venv --clear $(VENV)
	@$(PIP) --require-hashes -r requirements/build.lock
	@touch $@

$(VENV)/.base.stamp: $(VENV)/.venv.stamp requirements/base.lock pyproject.toml
	@echo "Installing Jarvis"
	@$(INSTALL) requirements/base.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev.stamp: $(VENV)/.base.stamp requirements/dev.lock
	@echo "Installing the tools for tests and checks"
	@$(INSTALL) requirements/dev.lock
	@touch $@
