"""Whoever reads the documentation meets `assay` and `assay.<package>`, nothing deeper."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import textwrap
from pathlib import Path

import pytest

import assay

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
DEEP = re.compile(r"\bassay\.[a-z_]+\.[a-z_]+")


def blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return [text]
    if path.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return [textwrap.dedent(code) for _, code in FENCE.findall(text)]


PAGES = [
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "examples/*")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and blocks(path)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_imported_is_a_name_of_the_root_or_of_a_package(page: Path) -> None:
    for code in blocks(page):
        for statement in ast.walk(ast.parse(code)):
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "assay":
                assert statement.module.count(".") <= 1, statement.module
                module = importlib.import_module(statement.module)
                exported = dir(module) if module is assay else getattr(module, "__all__", dir(module))
                for alias in statement.names:
                    assert hasattr(module, alias.name), f"{statement.module} has no {alias.name}"
                    assert alias.name in exported, f"{statement.module} does not export {alias.name}"
            if isinstance(statement, ast.Import):
                assert all(alias.name.count(".") <= 1 for alias in statement.names if alias.name.startswith("assay"))
            if isinstance(statement, ast.Attribute) and ast.unparse(statement).startswith("assay."):
                parts = ast.unparse(statement).split(".")
                if all(part.isidentifier() for part in parts):
                    found: object = assay
                    for part in parts[1:3]:
                        assert hasattr(found, part), ast.unparse(statement)
                        found = getattr(found, part)
                        if isinstance(found, type):
                            break


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_public_functions_are_called_with_arguments_that_they_have(page: Path) -> None:
    for code in blocks(page):
        for call in ast.walk(ast.parse(code)):
            if isinstance(call, ast.Call) and re.fullmatch(r"assay\.\w+", name := ast.unparse(call.func)):
                parameters = inspect.signature(getattr(assay, name.removeprefix("assay."))).parameters
                unknown = {keyword.arg for keyword in call.keywords} - {None, *parameters}
                assert not unknown, f"{name} has no {unknown}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda page: page.name)
def test_prose_names_nothing_deeper_either(page: Path) -> None:
    named = set(DEEP.findall(page.read_text(encoding="utf-8")))
    assert [name for name in named if importlib.util.find_spec(name) is not None] == []
