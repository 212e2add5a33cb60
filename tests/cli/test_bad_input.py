"""Bad input gives one line (where, expected, got), exit code 2, and leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from assay.models.architectures import build

FACTORY = """
from torch import nn

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 7))

def colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))

def broken():
    raise RuntimeError("no such luck")

def poisoned():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    model[1].weight.data[0, 0] = float("nan")
    return model

class Pair(nn.Module):
    def forward(self, x):
        return x, x
"""


class Payload:
    """A pickle that would create a file when loaded the unsafe way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A folder with one specimen of each kind of bad input."""
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "syntax.py").write_text("def (:\n")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Payload(tmp_path / "owned")))
    (tmp_path / "text.safetensors").write_text("these are no weights")
    (tmp_path / "empty").mkdir()
    mlp = build("mlp", classes=10, image_shape=(1, 32, 32))
    state = {key: value.clone() for key, value in mlp.state_dict().items()}
    weight = next(key for key, value in state.items() if value.ndim == 2)
    state[weight][0, 0] = float("inf")
    save_file(state, tmp_path / "infinite.safetensors")
    images = np.zeros((5, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "labels.npz", images=images, labels=np.array([0, 1, 2, 12, -1]))
    np.savez(tmp_path / "short.npz", images=images, labels=np.array([0, 1]))
    np.savez(tmp_path / "none.npz", images=images[:0], labels=np.zeros(0, np.int64))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "labels.npz").read_bytes()[:200])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "file").write_text("in the way")
    return tmp_path


# Arguments and the whole message; {} is the folder of bad input, … whatever a list or another library says there.
CASES = {
    "unknown model": (
        ["check", "resnet21", "--data", "digits"],
        "model: expected a run folder, one of resnet8, …, got 'resnet21' (did you mean resnet20?)",
    ),
    "no data": (
        ["check", "resnet20"],
        "--data: expected the images to test on, such as cifar10 or a folder, got nothing",
    ),
    "data without a model": (
        ["check", "--data", "cifar10"],
        "MODEL: expected a model for cifar10, got none (only the digits need none)",
    ),
    "unknown data": (
        ["check", "mlp", "--data", "cifar11"],
        "data: expected digits, cifar10, …, got 'cifar11'; did you mean 'cifar10'?",
    ),
    "missing file": (
        ["check", "mlp", "--data", "{}/nowhere.parquet"],
        "{}/nowhere.parquet: expected a file or a folder, got nothing there; did you mean '{}/cut.parquet'?",
    ),
    "missing weights": (
        ["check", "mlp", "--weights", "{}/no.pt", "--data", "digits"],
        "{}/no.pt: expected a file of weights, got no such file (did you mean none.npz?)",
    ),
    "folder without images": (
        ["check", "mlp", "--data", "{}/empty"],
        "{}/empty: expected class folders with pictures, such as cat/ and dog/, got no class folder and no known data "
        "file",
    ),
    "labels out of range": (
        ["check", "mlp", "--data", "{}/labels.npz"],
        "{}/labels.npz:labels[4]: expected 0..12, got -1 (not labelled: use another split)",
    ),
    "labels too few": (
        ["check", "mlp", "--data", "{}/short.npz"],
        "{}/short.npz:labels: expected one label for each image, got 5 images and 2 labels",
    ),
    "empty set": (["check", "mlp", "--data", "{}/none.npz"], "none.npz: expected at least one image, got an empty set"),
    "cut npz": (
        ["check", "mlp", "--data", "{}/cut.npz"],
        "{}/cut.npz: expected a NumPy archive (.npz), got something else, or a truncated one",
    ),
    "cut parquet": (
        ["check", "mlp", "--data", "{}/cut.parquet"],
        "{}/cut.parquet: expected a readable Parquet file, got …",
    ),
    "wrong width": (
        ["check", "{}/net.py:narrow", "--data", "digits"],
        "model output: expected one tensor of logits (N, 10), a column for each class of the data, got torch.float32 "
        "(2, 7) for 2 images",
    ),
    "wrong shape": (
        ["check", "{}/net.py:colour", "--data", "digits"],
        "model(images): expected a model that takes images of shape (N, 1, 32, 32), got …",
    ),
    "no logits": (
        ["check", "{}/net.py:Pair", "--data", "digits"],
        "model output: expected one tensor of logits (N, 10), a column for each class of the data, got tuple",
    ),
    "factory that raises": (
        ["check", "{}/net.py:broken", "--data", "digits"],
        "{}/net.py:broken: expected a model, got RuntimeError: no such luck (net.py, line 11)",
    ),
    "no such factory": (
        ["check", "{}/net.py:nothing", "--data", "digits"],
        "{}/net.py:nothing: expected one of narrow, colour, broken, poisoned, Pair, got 'nothing'",
    ),
    "file that is no python": (
        ["check", "{}/syntax.py:net", "--data", "digits"],
        "{}/syntax.py:net: expected a model, got SyntaxError: invalid syntax (syntax.py, line 1)",
    ),
    "nan weights": (
        ["check", "{}/net.py:poisoned", "--data", "digits"],
        "{}/net.py:poisoned: 1.weight: expected finite numbers, got 1 NaN and 0 infinite of 10240",
    ),
    "infinite weights": (
        ["check", "mlp", "--weights", "{}/infinite.safetensors", "--data", "digits"],
        "{}/infinite.safetensors: layers.linear1.weight: expected finite numbers, got 0 NaN and 1 infinite of 524288",
    ),
    "pickle that needs code": (
        ["check", "mlp", "--weights", "{}/evil.pt", "--data", "digits"],
        "{}/evil.pt: expected a checkpoint written by torch.save, or a .safetensors file, got a pickle of another "
        "kind, which would need to run code from the file",
    ),
    "weights that are none": (
        ["check", "mlp", "--weights", "{}/text.safetensors", "--data", "digits"],
        "{}/text.safetensors: expected a safetensors file, got …",
    ),
    "unwritable output": (
        ["check", "mlp", "--data", "digits", "--out", "{}/file"],
        "{}/file: not a folder that can be written to (File exists)",
    ),
    "unknown option": (["check", "--nope"], "No such option: --nope…"),
    "wrong budget": (
        ["check", "--budget", "huge"],
        "Invalid value for '--budget': …'huge' is not one of 'quick', 'standard', 'full'.",
    ),
    "limit zero": (["check", "--limit", "0"], "Invalid value for '--limit': …greater than or equal to 1…"),
    "unknown device": (
        ["check", "mlp", "--data", "digits", "--device", "tpu"],
        "device: expected auto or one of: cpu…, got tpu",
    ),
    "unknown split": (
        ["check", "mlp", "--data", "digits", "--split", "dev"],
        "digits: expected a 'validation' split, got only test and train",
    ),
    "unknown verb": (["chek"], "No such command 'chek'. Did you mean 'check'?"),
    "unknown rule": (["explain", "A999"], "rule: expected an id such as … (assay explain lists all), got A999"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_exit_code_2(case: str, bad: Path, assay: Callable[..., Any], tmp_path: Path) -> None:
    arguments, message = CASES[case]
    full = [argument.format(bad) for argument in arguments]
    report = tmp_path / "report"
    if full[0] == "check" and "--out" not in full:
        full += ["--out", str(report)]
    before = sorted(path.name for path in bad.iterdir())
    ended = assay(*full)
    assert ended.code == 2, ended
    last = ended.err.strip().splitlines()[-1]
    pattern = ".*".join(re.escape(part) for part in f"assay: {message}".replace("{}", str(bad)).split("…"))
    assert re.fullmatch(pattern, last), last
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) <= 2, ended.err  # at most one note above the error
    after = sorted(path.name for path in bad.iterdir() if path.name not in {"__pycache__", "report"})
    assert after == [name for name in before if name != "__pycache__"]
    assert not report.exists() or not list(report.iterdir())


def test_a_malicious_pickle_never_runs(bad: Path, assay: Callable[..., Any]) -> None:
    assert assay("check", "mlp", "--weights", bad / "evil.pt", "--data", "digits").code == 2
    assert not (bad / "owned").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the file in the way covers the refusal")
def test_a_read_only_folder_is_refused(bad: Path, assay: Callable[..., Any]) -> None:
    (bad / "locked").mkdir(mode=0o500)
    ended = assay("check", "mlp", "--data", "digits", "--out", bad / "locked" / "report")
    assert ended.code == 2


def test_a_random_network_is_allowed(tmp_path: Path, assay: Callable[..., Any]) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nnet = lambda: nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))\n"
    )
    ended = assay(
        "check",
        f"{tmp_path}/net.py:net",
        "--data",
        "digits",
        "--budget",
        "quick",
        "--limit",
        "200",
        "--out",
        tmp_path / "r",
    )
    assert ended.code == 1, ended.err
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "r" / "check.json").is_file()
