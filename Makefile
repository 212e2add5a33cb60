PYTHON ?= python3
BIN := .venv/bin

.PHONY: check test test-full lint clean

check: .venv/installed  ## train a small network on the built-in digits, put it to the test, write the report
	$(BIN)/assay check --out assay-report --fail-on never

test: .venv/installed-test  ## the whole suite
	$(BIN)/python -m pytest

test-full: .venv/installed-test  ## the suite and the tests that take minutes
	$(BIN)/python -m pytest -m "full or not full" --timeout 1800

lint: .venv/installed-lint  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

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

clean:
	rm -rf .venv assay-report
