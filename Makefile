PYTHON ?= python3
BIN := .venv/bin

.PHONY: check test test-full test-oldest lint docs mutants lock clean

check: .venv/installed  ## train a small network on the built-in digits, put it to the test, write the report
	$(BIN)/assay check --out assay-report --fail-on never

test: .venv/installed-test  ## the whole suite
	$(BIN)/python -m pytest

test-full: .venv/installed-test  ## the suite and the tests that take minutes
	$(BIN)/python -m pytest -m "full or not full" --timeout 1800

test-oldest: .venv/bin/python  ## the suite on the oldest versions that pyproject.toml allows, in an environment of its own
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable ".[test]"
	.venv-oldest/bin/python -m pytest -W default

lint: .venv/installed-lint  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: .venv/installed-test  ## mutation testing of the numerical core (about 20 minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "mutmut>=3.8"
	$(BIN)/mutmut run
	$(BIN)/mutmut results

lock: .venv/bin/python  ## pin the development environment, and list what it is made of (CycloneDX)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv cyclonedx-bom
	$(BIN)/uv pip compile pyproject.toml --extra test --extra lint --no-annotate --no-header --no-emit-index-url --quiet --output-file requirements-dev.lock
	$(BIN)/cyclonedx-py requirements requirements-dev.lock --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@ .venv/installed

.venv/installed-lint: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[lint]"
	@touch $@

docs: .venv-docs/installed  ## the documentation site, in site/; ends when a link leads nowhere or a page would fetch anything
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src .venv-docs/bin/mkdocs build --strict

# An environment of its own: the site needs neither torch nor what the tests need.
.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check "mkdocs-material>=9.5" "pydantic>=2.8"
	@touch $@

clean:
	rm -rf .venv .venv-docs .venv-oldest assay-report site
