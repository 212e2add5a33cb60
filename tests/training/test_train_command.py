"""``assay train`` and ``assay groups`` as a user runs them: killed, resumed, in two processes, refused."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

Run = Callable[..., tuple[int, str, str]]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
QUICK = (
    "--set", "epochs=2", "--set", "model_options.widths=[4,4,8]", "--limit", "320",
    "--set", "micro_batch=16", "--no-test",
)  # fmt: skip


def assay(*arguments: str | Path, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *(launcher or ("assay",)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruptions."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = assay("train", "digits", "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    return out


def test_a_run_folder_holds_all_that_a_run_is(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    expected = {
        "config.json",
        "environment.json",
        "inputs.json",
        "metrics.jsonl",
        "model.safetensors",
        "state.pt",
        "training.json",
    }
    assert names == expected
    config = json.loads((uninterrupted / "config.json").read_text())
    assert config["model"]["name"] == "speednet"
    assert config["model"]["image_shape"] == [1, 32, 32]
    assert config["recipe"]["epochs"] == 2
    assert config["seed"] == 0
    assert len(json.loads((uninterrupted / "training.json").read_text())["epochs"]) == 2


def test_killed_at_random_moments_and_resumed_it_ends_in_the_same_weights(uninterrupted: Path, tmp_path: Path) -> None:
    moments = random.Random(7)
    command = [sys.executable, "-m", "assay", "train", "digits", "--out", tmp_path / "run", *QUICK, "--resume"]
    killed = 0
    for _ in range(2):
        process = subprocess.Popen(
            [*map(str, command), "--checkpoint-seconds", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        metrics = tmp_path / "run" / "metrics.jsonl"
        before = metrics.stat().st_size if metrics.is_file() else 0
        while process.poll() is None and (not metrics.is_file() or metrics.stat().st_size <= before):
            time.sleep(0.005)  # until it trains
        time.sleep(moments.uniform(0, 0.1))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 1
    last = assay(*command[3:])
    assert last.returncode == 0, last.stderr
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (uninterrupted, tmp_path / "run"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["kind"] == "step"] == list(range(1, 11))


def test_ctrl_c_ends_with_code_3_and_can_be_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "assay", "train", "digits", "--out", str(out), *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while process.poll() is None and (
        not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").stat().st_size
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 3, errors
    assert re.search(r"assay: interrupted after step \d+ of 10; go on with --resume", errors)
    assert assay("train", "--out", out, "--resume", "--limit", "320", "--no-test").returncode == 0  # the recipe is kept
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (uninterrupted, out))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_processes_train_the_same_network(uninterrupted: Path, tmp_path: Path) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "assay")
    out = tmp_path / "run"
    arguments = [argument for argument in QUICK if argument != "--no-test"]
    done = assay("train", "digits", "--out", out, *arguments, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run: ") == 1
    first, second = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (uninterrupted, out)
    )
    assert [line["step"] for line in first] == [line["step"] for line in second]
    assert [line["loss"] for line in second] == pytest.approx([line["loss"] for line in first], rel=1e-3)
    assert [line["accuracy"] for line in second] == pytest.approx([line["accuracy"] for line in first], abs=0.02)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (uninterrupted, out))
    for name in ours:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(theirs[name], ours[name], rtol=1e-2, atol=1e-3)
    assert json.loads((out / "test.json").read_text())["n"] == 359


REFUSED = {
    "a run already there": (
        ("train", "digits", "--out", "{uninterrupted}"),
        r"--out: expected a new folder, or --resume",
    ),
    "unknown recipe": (("train", "--recipe", "digit"), r"recipe: expected one of .*digits.* got digit"),
    "unknown field": (("train", "--set", "optimizer.speed=3"), r"--set optimizer\.speed: not an option of sgd"),
    "unknown precision": (("train", "--precision", "half"), r"precision: expected 'auto', 'float32' or 'bfloat16'"),
    "unknown model": (("train", "--model", "resnet21", "--out", "{new}"), r"architecture: expected one of .*resnet20"),
    "nothing to resume": (("train", "--resume"), r"--resume: expected --out"),
    "another seed": (
        ("train", "--resume", "--out", "{uninterrupted}", "--seed", "5", "--limit", "320"),
        r"state\.pt: seed: expected 0 as in the run to resume, got 5",
    ),
    "not writable": (("train", "--out", "/proc/none"), r"/proc/none: not a folder that can be written to"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused_in_one_line(
    uninterrupted: Path, tmp_path: Path, run: Run, arguments: tuple[str, ...], message: str
) -> None:
    code, _, errors = run(
        *(argument.format(uninterrupted=uninterrupted, new=tmp_path / "new") for argument in arguments)
    )
    assert code == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0])


OVERRULED = {
    "data": (("digits", "--set", "data=cifar10"), "--set data: no effect, as the data are digits"),
    "model": (("digits", "--model", "mlp", "--set", "model=resnet8"), "--set model: no effect, as --model is mlp"),
    "views": (
        ("digits", "--no-test", "--set", "test_views=2"),
        "--set test_views: no effect, as nothing is tested with --no-test",
    ),
    "precision": (
        ("digits", "--precision", "float32", "--set", "precision=bfloat16"),
        "--set precision: no effect, as --precision is float32",
    ),
    "overwriting": (("digits", "--resume", "--overwrite"), "--overwrite: expected either it or --resume, got both"),
    "options of another model": (
        ("digits", "--model", "mlp", "--set", "model_options.padding=9"),
        "padding: expected no option of this name",
    ),
    "an average of nothing": (
        ("digits", "--limit", "64", "--set", "average.decay=0.9", "--set", "average.every=999"),
        "average.every: expected at most the",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), OVERRULED.values(), ids=OVERRULED)
def test_what_another_option_overrules_is_refused_and_no_folder_is_made(
    tmp_path: Path, run: Run, arguments: tuple[str, ...], message: str
) -> None:
    code, _, errors = run("train", *arguments, "--out", tmp_path / "run")
    assert code == 2
    assert message in " ".join(errors.split())
    assert not (tmp_path / "run").exists()


def test_averaged_views_are_a_second_number_with_its_own_label(tmp_path: Path, run: Run) -> None:
    few = [argument for argument in QUICK if argument != "--no-test"]
    out = tmp_path / "run"
    code, printed, _ = run("train", "digits", "--out", out, *few, "--set", "test_views=2", "--precision", "bfloat16")
    assert code == 0
    plain, averaged = (json.loads((out / name).read_text()) for name in ("test.json", "test-averaged.json"))
    assert f"Test accuracy {plain['accuracy']:.2%}" in printed
    assert f"Test accuracy, averaged over 2 views {averaged['accuracy']:.2%}" in printed
    assert averaged["loss"] != plain["loss"]
    assert re.search(r"Trained speednet on 320 images of digits in \d+\.\d s \(bfloat16\)\.", printed)
    assert "Time: " in printed
    assert json.loads((out / "config.json").read_text())["recipe"]["precision"] == "bfloat16"


def test_show_prints_a_recipe_that_can_be_read_back(tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine.toml").write_text(run("train", "--show", "--set", "optimizer.lr=0.05")[1])
    code, again, _ = run("train", "--recipe", tmp_path / "mine.toml", "--show")
    assert code == 0
    assert "lr = 0.05" in again
    assert again == (tmp_path / "mine.toml").read_text()


def test_groups_prints_the_table_and_what_a_search_by_name_misses(run: Run) -> None:
    pytest.importorskip("torchvision")
    code, table, _ = run("groups", "torchvision:resnet18", "--classes", "1000")
    assert code == 0
    assert re.search(r"norm\s+40\s+9,600\s+0\s", table)
    assert re.search(r"weight\s+21\s+11,678,912\s+0\.0005\s", table)
    assert "would miss 6 norm parameters" in table
    assert "layer2.0.downsample.1.weight" in table
    assert json.loads(run("groups", "resnet20", "--json")[1])["kind"] == "decay_groups"
