from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from assay.models.sources import load_model, open_model
from assay.models.sources.factories import import_factory

Refused = Callable[[Callable[[], object]], str]

SOURCE = """
import torch
from torch import nn
from neighbour import WIDTH

class Net(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
        self.linear = nn.Linear(WIDTH, num_classes)
    def forward(self, x):
        return self.linear(x.flatten(1))

def plain():
    return Net(10)

def with_classes(classes):
    print("noise on standard output")
    return Net(classes)

def with_defaults(width=3, num_classes=1000, **extra):
    return Net(num_classes)

def needs_more(width, num_classes, *args):
    return Net(num_classes)

def nothing():
    pass

def breaks():
    return nn.Linear(3, 4) / 0

def leaves():
    raise SystemExit(7)

def lazy(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

def nan(classes):
    net = Net(classes)
    net.linear.weight.data[0, 0] = float("nan")
    return net

made = Net(4)
number = 3

class Outer:
    class Inner(Net):
        pass
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 48\n")
    (tmp_path / "nets.py").write_text(SOURCE)
    return tmp_path / "nets.py"


@pytest.fixture(autouse=True)
def _forget_neighbours() -> object:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in {"neighbour", "nets", "broken", "zoo", "zoo.nets"}:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("plain", 10),
        ("with_classes", 7),
        ("with_defaults", 7),
        ("Net", 7),
        ("made", 4),
        ("Outer.Inner", 7),
        ("lazy", 7),
    ],
)
def test_functions_classes_and_modules_of_a_file_load(file: Path, name: str, outputs: int) -> None:
    model = load_model(f"{file}:{name}", classes=7, image_shape=(3, 4, 4))
    assert model(torch.rand(2, 3, 4, 4)).shape == (2, outputs)
    assert model.training  # a user's model comes as it was made


def test_a_relative_path_and_a_module_of_the_current_directory_load(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = list(sys.path)
    for spec in ("nets.py:plain", "./nets.py:plain", "nets:plain"):
        assert load_model(spec)(torch.rand(1, 3, 4, 4)).shape == (1, 10)
    assert sys.path == before


def test_a_module_in_a_package_loads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = file.parent / "zoo"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text("from torch import nn\ndef small(): return nn.Identity()\n")
    monkeypatch.chdir(file.parent)
    assert isinstance(load_model("zoo.nets:small"), nn.Identity)


def test_what_the_code_prints_keeps_off_standard_output(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(f"{file}:with_classes")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "noise on standard output\n")


def test_random_weights_follow_from_the_seed(file: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (load_model(f"{file}:plain", seed=seed).linear.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "plian",
            "expected one of Net, plain, with_classes, with_defaults, needs_more, nothing, breaks, leaves, "
            "got 'plian' (did you mean plain?)",
        ),
        (
            "needs_more",
            "expected a function that needs no argument but classes or num_classes, got one that needs width",
        ),
        ("nothing", "expected a torch.nn.Module, got a NoneType"),
        ("number", "expected a function, a class or a torch.nn.Module, got a int"),
        (
            "breaks",
            "expected a model, got TypeError: unsupported operand type(s) for /: 'Linear' and 'int' (nets.py, line 30)",
        ),
        ("leaves", "expected a model, got SystemExit: 7 (nets.py, line 33)"),
        ("nan", "linear.weight: expected finite numbers, got 1 NaN and 0 infinite of 480"),
        ("", "expected the name of a function that makes the model, {file}:NAME, got no name"),
    ],
)
def test_faults_of_a_factory_are_one_line(file: Path, name: str, fault: str, refused: Refused) -> None:
    message = refused(lambda: load_model(f"{file}:{name}"))
    assert message == f"{file}:{name}: {fault.replace('{file}', str(file))}"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(:\n", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package' (broken.py, line 1)"),
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero (broken.py, line 2)"),
    ],
)
def test_faults_of_a_file_are_one_line(tmp_path: Path, source: str, fault: str, refused: Refused) -> None:
    spec = f"{tmp_path / 'broken.py'}:f"
    (tmp_path / "broken.py").write_text(source)
    assert refused(lambda: load_model(spec)) == f"{spec}: expected a model, got {fault}"


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("nowhere/nets.py:plain", "expected a Python file, got no file nowhere/nets.py"),
        ("no_such_package.nets:plain", "expected a model, got ModuleNotFoundError: No module named 'no_such_package'"),
        ("nets.py", "expected the name of what makes the model, nets.py:FACTORY, got no name"),
        (":f", "expected FILE.py:FACTORY or PACKAGE.MODULE:FACTORY, got nothing before the colon"),
    ],
)
def test_places_that_are_not_there(spec: str, fault: str, refused: Refused) -> None:
    assert refused(lambda: load_model(spec)) == f"{spec}: {fault}"


def test_a_file_named_like_a_module_does_not_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("def f():\n    from torch import nn\n    return nn.Identity()\n")
    spec = f"{tmp_path / 'torch.py'}:f"
    before = sys.modules["torch"]
    import_factory(spec)
    assert sys.modules["torch"] is before


def test_weights_load_into_a_users_model_and_may_set_its_classes(file: Path, tmp_path: Path) -> None:
    saved = {"module.linear.weight": torch.rand(5, 48), "module.linear.bias": torch.rand(5)}
    torch.save({"state_dict": saved}, tmp_path / "w.pt")
    loaded = open_model(f"{file}:Net", weights=tmp_path / "w.pt", image_shape=(3, 4, 4))
    assert loaded.classes == 5
    assert torch.equal(loaded.model.linear.weight, saved["module.linear.weight"])


def test_a_normalization_is_put_before_a_users_model_only_where_asked(file: Path) -> None:
    images = torch.rand(2, 3, 4, 4)
    bare = load_model(f"{file}:plain", image_shape=(3, 4, 4))
    behind = load_model(f"{file}:plain", image_shape=(3, 4, 4), normalization="0.5/0.25")
    torch.testing.assert_close(behind(images), bare((images - 0.5) / 0.25))
