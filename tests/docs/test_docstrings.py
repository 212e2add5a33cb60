"""Every example of a docstring runs, each in an empty folder and from the same seed."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import assay

SOURCE = Path(assay.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def documented(tree: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """The qualified name and docstring of a module, its classes and functions."""
    if isinstance(tree, ast.Module | ast.ClassDef | ast.FunctionDef):
        yield name, ast.get_docstring(tree) or ""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from documented(child, f"{name}.{child.name}")


def examples() -> Iterator[object]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if ">>> " not in text:
            continue
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name, docstring in documented(ast.parse(text), module):
            if ">>> " in docstring:
                yield pytest.param(module, docstring, id=name)


@pytest.mark.parametrize(("module", "docstring"), [*examples()])
def test_an_example_of_a_docstring_runs(
    module: str, docstring: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {} if "import assay" in docstring or "from assay" in docstring else vars(importlib.import_module(module))
    example = doctest.DocTestParser().get_doctest(docstring, dict(names), module, module, 0)
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=told.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(told)
