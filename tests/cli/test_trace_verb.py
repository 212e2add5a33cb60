from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay.cli.main import app
from assay.data.sequences import adding_problem
from assay.errors import AssayError
from assay.records.reading import read_checkup
from assay.training.recipes import load_recipe
from assay.training.sequence_model import train_sequence_model

runner = CliRunner()


def run(*arguments: str) -> str:
    result = runner.invoke(app, ["trace", *arguments], env={"COLUMNS": "160"})
    if isinstance(result.exception, AssayError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_over_depth_writes_records_pictures_and_verdicts(tmp_path: Path) -> None:
    said = run(
        "mlp",
        "--data",
        "digits",
        "--limit",
        "64",
        "--steps",
        "3",
        "--every",
        "1",
        "--curvature",
        "--out",
        str(tmp_path),
    )
    kinds = {record["kind"] for record in json.loads((tmp_path / "trace.json").read_text())["records"]}
    assert kinds >= {
        "mode_audit",
        "normalization_audit",
        "gradient_flow",
        "input_gradients",
        "depth_trace",
        "curvature",
    }
    for name in ("layers-by-steps", "input-gradients"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for part in ("A401", "A414", "A512", "steps 1, 2, 3 of 3", "λ =", "below 2/λmax", "here 0.01"):
        assert part in said


def test_over_time_compares_models_with_theory(tmp_path: Path) -> None:
    said = run("rnn,lstm,transformer", "--task", "adding", "--length", "20", "--hidden", "8", "--out", str(tmp_path))
    records = json.loads((tmp_path / "trace.json").read_text())["records"]
    assert [record["label"] for record in records] == ["rnn", "lstm", "transformer"]
    assert "necessary and sufficient" in said
    assert "stepped against fused kernel" in said
    page = (tmp_path / "report.html").read_text()
    assert "Not met: No vanishing gradients over time (the horizon covers the sequence) (×" in page
    assert "32 sequences of adding (test)" in page
    assert read_checkup(tmp_path / "trace.json").records
    svg = (tmp_path / "gradients-over-time.svg").read_text()
    assert "transformer" in svg
    assert (tmp_path / "time-constants.png").is_file()


def test_remedies_are_run_printed_and_drawn(tmp_path: Path) -> None:
    said = run("--remedies", "--length", "8", "--hidden", "8", "--steps", "2", "--out", str(tmp_path))
    assert "orthogonal start" in said
    assert "a loss of 0.1667 needs no memory" in said
    assert (tmp_path / "remedies.svg").is_file()


@pytest.mark.parametrize("task", ["rows", "pixels", "copy"])
def test_every_task_runs(task: str) -> None:
    said = run("gru", "--task", task, "--length", "5", "--side", "4", "--limit", "20", "--hidden", "8", "--steps", "2")
    assert "2 steps of training" in said


def test_a_run_of_a_task_is_traced_beside_untrained_models(tmp_path: Path) -> None:
    recipe = load_recipe("adding-lstm", overrides=["epochs=1", "sequence.samples=64", "sequence.length=12"])
    train_sequence_model(adding_problem(12), recipe=recipe, out=tmp_path / "run")
    said = run(f"{tmp_path / 'run'},rnn", "--out", str(tmp_path / "trace"))
    kinds = [record["kind"] for record in json.loads((tmp_path / "trace" / "trace.json").read_text())["records"]]
    assert kinds == ["time_trace", "sequence_accuracy", "time_trace"]  # only what was trained is tested
    assert "without memory 0.1667" in said
    assert "A417" in said
    with pytest.raises(AssayError, match="run: expected a run on copy, 25 steps, got one on adding, 12 steps"):
        run(str(tmp_path / "run"), "--task", "copy", "--length", "5")


def test_a_cell_written_by_hand_is_followed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.cell, self.readout = nn.Linear(6, 4), nn.Linear(4, classes)\n"
        "    def forward(self, x):\n"
        "        h = x.new_zeros(len(x), 4)\n"
        "        for step in x.unbind(1):\n"
        "            h = self.cell(torch.cat([step, h], 1)).tanh()\n"
        "        return self.readout(h)\n"
    )
    spec = f"{tmp_path / 'mine.py'}:Net"
    assert "A411" in run(spec, "--task", "adding", "--length", "9", "--cells", "cell")
    with pytest.raises(AssayError, match="with none of them in its forward pass"):
        run(spec, "--task", "adding", "--length", "9")
    with pytest.raises(AssayError, match="cells: expected module names such as cell, readout, got gate"):
        run(spec, "--task", "adding", "--length", "9", "--cells", "gate")


def test_a_classifier_that_reads_rows_is_traced_over_time_as_well() -> None:
    assert "A411" in run("lstm,hidden=8", "--data", "digits", "--limit", "20", "--steps", "0")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssayError, match="MODEL: expected a model, or --task"):
        run()
    with pytest.raises(AssayError, match="--data: expected the images to test on"):
        run("mlp")
    with pytest.raises(AssayError, match="cell: expected one of rnn"):
        run("nonsense", "--task", "adding")
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(AssayError, match="not a folder that can be written to"):
        run("mlp", "--data", "digits", "--out", str(blocked / "x"))
