PYTHON ?= python3
BIN := .venv/bin
INSTALL := python -m pip install --quiet --disable-pip-version-check

# Two processes, each with the tests of one file at a time, so that what a file shares is made once.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help check test test-full test-oldest format lint docs mutants lock release clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check: .venv/installed  ## train a small network on the built-in digits, put it to the test, write the report
	$(BIN)/assay check --out assay-report --fail-on never

test: .venv/installed-test  ## the whole suite, and the share of the lines of src that it runs (at least 90 %)
	$(PYTEST) --cov --cov-report= --cov-fail-under=0
	@printf "Line coverage of src, in percent: "; $(BIN)/coverage report --format=total

test-full: .venv/installed-test  ## the suite and the tests that take minutes
	$(PYTEST) -m "full or not full" --timeout 1800

test-oldest: .venv/bin/python  ## the suite on the oldest versions that pyproject.toml allows, in an environment of its own
	$(BIN)/$(INSTALL) uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable ".[test]"
	.venv-oldest/bin/python -m pytest -W default

format: .venv/installed-lint  ## mend what can be mended without thinking: imports, layout
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

lint: .venv/installed-lint  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv-docs/installed  ## the documentation site, in site/; ends when a link leads nowhere or a page would fetch anything
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src .venv-docs/bin/mkdocs build --strict

mutants: .venv/installed-test  ## mutation testing of the numerical core (about 20 minutes)
	$(BIN)/$(INSTALL) "mutmut>=3.8"
	$(BIN)/mutmut run
	$(BIN)/mutmut results

lock: .venv/bin/python  ## pin the development environment, and list what it is made of (CycloneDX)
	$(BIN)/$(INSTALL) uv cyclonedx-bom
	$(BIN)/uv pip compile pyproject.toml --extra test --extra lint --no-annotate --no-header --no-emit-index-url --quiet --output-file requirements-dev.lock
	$(BIN)/cyclonedx-py requirements requirements-dev.lock --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json

release: .venv/bin/python  ## build the distributions in dist/, check them, run the wheel from an environment of its own
	rm -rf dist .venv-release
	$(BIN)/$(INSTALL) build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/$(INSTALL) dist/*.whl
	cd .venv-release && bin/assay --version && bin/python -c "import assay; [getattr(assay, name) for name in assay.__all__]"
	rm -rf .venv-release

clean:  ## remove environments, the report, the site and the distributions
	rm -rf .venv .venv-docs .venv-oldest .venv-release assay-report dist site

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/$(INSTALL) --editable .
	@touch $@

.venv/installed-test: .venv/bin/python pyproject.toml
	$(BIN)/$(INSTALL) --editable ".[test]"
	@touch $@ .venv/installed

.venv/installed-lint: .venv/bin/python pyproject.toml
	$(BIN)/$(INSTALL) --editable ".[lint]"
	@touch $@

# An environment of its own: the site needs neither torch nor what the tests need.
.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/$(INSTALL) "mkdocs-material>=9.5" "mkdocstrings-python>=1.10" "ruff>=0.6" "pydantic>=2.8"
	@touch $@
