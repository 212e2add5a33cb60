"""What is optional is optional, imports are quick to start and touch no network, and the package installs anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = ("gradio", "huggingface_hub", "torchvision", "timm", "tensorboard", "webdataset", "torchattacks", "foolbox")
WITHOUT = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from assay.cli.main import main
main()
"""
NO_NETWORK = """
import importlib, pkgutil, sys

def listen(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind"}:
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(listen)
import assay
count = 0
for module in pkgutil.walk_packages(assay.__path__, "assay."):
    if not module.name.endswith("__main__") and ".app" not in module.name:
        importlib.import_module(module.name)
        count += 1
print(count)
"""
NET = """
from torch import nn
net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).eval()
"""


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def test_the_main_job_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    options = ("--data", "digits", "--budget", "quick", "--limit", "10", "--fail-on", "never")
    done = run(WITHOUT, "check", "net.py:net", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "assay-report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("anatomy", "torchvision:resnet18"), "torchvision"),
        (("anatomy", "timm:resnet18"), "timm"),
        (("check", "net.py:net", "--data", "hf:somebody/something"), "hub"),
        (("train", "digits", "--limit", "50", "--set", "epochs=1", "--tensorboard"), "tensorboard"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_an_extra_names_it(arguments: tuple[str, ...], extra: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    done = run(WITHOUT, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'assay[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_importing_everything_opens_no_connection() -> None:
    done = run(NO_NETWORK)
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout) > 100


def test_help_loads_neither_torch_nor_numpy() -> None:
    """What `assay --help` takes is measured elsewhere; that it can be quick is settled here."""
    code = """
import sys
from assay.cli.main import main
sys.argv = ["assay", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
print(sorted({"torch", "numpy", "pyarrow", "sklearn", "altair", "PIL", "numba"} & set(sys.modules)), file=sys.stderr)
"""
    done = run(code)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert "check" in done.stdout


@pytest.mark.full
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_installs_in_an_empty_environment(kind: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "build"], check=True)
    subprocess.run([str(python), "-m", "build", f"--{kind}", "--outdir", str(tmp_path / "dist"), str(ROOT)], check=True)
    (built,) = (tmp_path / "dist").iterdir()
    subprocess.run([*pip, "install", str(built)], check=True)
    command = [
        str(tmp_path / "empty" / "bin" / "assay"),
        "check",
        "--budget",
        "quick",
        "--limit",
        "20",
        "--fail-on",
        "never",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "assay-report" / "report.html").stat().st_size < 3_000_000
