# Every target sets up .venv by itself the first time and whenever pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs wheel

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

demo: .venv/.installed ## train an ANN on digits, convert it, print the table, write the HTML page
	$(BIN)/transpike demo

# One thread a worker: two workers that each start one thread a core would fight over the cores.
test: .venv/.installed ## run every test (browser tests too where a Chromium is found)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

check: .venv/.installed ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.installed ## run the quick benchmarks, each against a peer and the floor
	@set -e; for script in benchmarks/*.py; do \
		if grep -q '^# quick' "$$script"; then echo "== $$script"; $(BIN)/python "$$script"; fi; done

docs: .venv/.docs-installed ## build docs/ and the API reference into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site
	@echo "site/index.html"

wheel: .venv/.installed ## build a file in dist/ that pip installs anywhere
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "transpike needs Python >= 3.11; set PYTHON=python3.x")'
	@echo "Installing into .venv: once, some minutes; PyTorch's CUDA build is about 5 GB."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --editable ".[dev]"
	$(BIN)/pip install --disable-pip-version-check --no-deps "sinabs>=3.1" pbr
	@touch $@

.venv/.docs-installed: .venv/.installed
	$(BIN)/pip install --disable-pip-version-check --editable ".[docs]"
	@touch $@
