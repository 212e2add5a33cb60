"""The disk is full, the folder is taken, the data is gone: one line, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).eval()
"""
TRAIN = ("train", "digits", "--recipe", "digits", "--set", "epochs=1", "--limit", "200", "--checkpoint-seconds", "0")


def assay(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "assay", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a network and a matrix."""
    (tmp_path / "net.py").write_text(NET)
    np.save(tmp_path / "X.npy", np.random.default_rng(0).standard_normal((400, 300)))
    (tmp_path / "small").mkdir()
    return tmp_path


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


VERBS = {
    "train": ((*TRAIN, "--out", "{out}/run"), "50k"),
    "check": (
        ("check", "{in}/net.py:net", "--data", "digits", "--budget", "quick", "--limit", "20", "--out", "{out}/r"),
        "8k",
    ),
    "attack": (("attack", "{in}/net.py:net", "--data", "digits", "--out", "{out}/a", "--no-sanity"), "8k"),
    "factor": (("factor", "{in}/X.npy", "--rank", "20", "--out", "{out}/F.npz", "--report", "{in}/p.html"), "40k"),
}


@pytest.mark.parametrize(
    "verb", [name if name in {"train", "factor"} else pytest.param(name, marks=pytest.mark.full) for name in VERBS]
)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(verb: str, folder: Path) -> None:
    if not can_mount():
        pytest.skip("needs the right to mount a small file system, such as root's")
    arguments, size = VERBS[verb]
    out = folder / "small"
    command = " ".join(assay(*(part.replace("{out}", str(out)).replace("{in}", str(folder)) for part in arguments)))
    # A mount of this shell's own: it goes when the shell does. What was written is copied out to be looked at.
    script = f"mount -t tmpfs -o size={size} tmpfs {out} && {command}; code=$?; cp -r {out} {folder}/copy; exit $code"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("assay: ")
    left = [path for path in (folder / "copy").rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix == ".tmp"]
    assert not [path for path in left if path.name in {"F.npz", "check.json", "training.json"}]


def test_a_second_process_on_a_run_folder_is_refused_and_the_first_goes_on(folder: Path) -> None:
    out = folder / "run"
    command = assay(*TRAIN, "--set", "epochs=1000", "--out", str(out))  # interrupted long before
    first = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (out / "metrics.jsonl").is_file() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    second = subprocess.run(
        assay(*TRAIN, "--out", str(out), "--resume"), capture_output=True, text=True, env=environment(), check=False
    )
    assert second.returncode == 2
    assert "another process is at work in this folder" in second.stderr
    first.terminate()
    _, errors = first.communicate(timeout=60)
    assert first.returncode in {0, 3}, errors


@pytest.mark.parametrize(
    "arguments", [("check", "{in}/net.py:net"), ("train",), ("attack", "{in}/net.py:net")], ids=lambda a: a[0]
)
def test_data_that_is_gone_is_named(arguments: tuple[str, ...], folder: Path) -> None:
    words = [part.replace("{in}", str(folder)) for part in arguments]
    data = [str(folder / "gone.npz")] if words[0] == "train" else ["--data", str(folder / "gone.npz")]
    done = subprocess.run(
        assay(*words, *data), capture_output=True, text=True, cwd=folder, env=environment(), check=False
    )
    assert done.returncode == 2
    assert "gone.npz" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == ["X.npy", "net.py", "small"]
