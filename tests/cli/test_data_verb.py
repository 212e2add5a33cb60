"""``assay data``: exit codes, what it writes, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import assay
from assay.cli.main import app
from assay.errors import DataError

run = CliRunner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures of two classes as test, of which two are in train as well, one under another label."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(12)]
    places = {"test": range(8), "train": (0, 1, 8, 9, 10, 11)}
    for split, numbers in places.items():
        for number in numbers:
            label = "cat" if (number + (split == "train" and number == 1)) % 2 else "dog"
            path = tmp_path / "pets" / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[number]).save(path)
    return tmp_path / "pets"


def test_leaks_and_contradictions_are_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data", str(folder), "--against", str(folder), "--write-manifest", "clean.csv", "--format", "junit"]
    result = run.invoke(app, [*words, "--format", "sarif"], catch_exceptions=False)
    assert result.exit_code == 1
    checkup = assay.read_checkup(tmp_path / "assay-data" / "data.json")
    statuses = {verdict.rule: verdict.status for verdict in checkup.verdicts}
    assert {rule: statuses[rule] for rule in ("A701", "A702", "A703")} == {
        "A701": "error", "A702": "pass", "A703": "warn",
    }  # fmt: skip
    page = (tmp_path / "assay-data" / "data.html").read_text(encoding="utf-8")
    assert "cat ≠ dog" in page or "dog ≠ cat" in page
    assert "the same pixels" in page
    assert (tmp_path / "assay-data" / "data.junit.xml").is_file()
    assert json.loads((tmp_path / "assay-data" / "data.sarif").read_text())["runs"][0]["results"]
    stay = assay.load_dataset("clean.csv")
    assert len(stay) == 6
    assert all(Path(name).name not in {"0.png", "1.png"} for name in stay.filenames or ())


def test_nothing_found_ends_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run.invoke(app, ["data", "digits", "--limit", "120"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "0 pictures of 120 more than once in the set" in " ".join(result.output.split())
    checkup = assay.read_checkup(tmp_path / "assay-data" / "data.json")
    assert next(stage.skipped for stage in checkup.stages if stage.name == "leaks from training")


def test_a_set_is_not_held_against_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as refused:
        run.invoke(app, ["data", "digits", "--split", "train", "--against", "digits"], catch_exceptions=False)
    assert str(refused.value) == (
        "--against digits: expected other images than those that are looked up, got the same, its split train"
    )
    assert not (tmp_path / "assay-data").exists()


def test_a_missing_training_set_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="got .nowhere."):
        run.invoke(app, ["data", "digits", "--limit", "20", "--against", "nowhere"], catch_exceptions=False)


def test_a_manifest_says_that_not_every_pair_was_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "xy":
        (tmp_path / "same" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "same" / name / f"{number}.png")
    monkeypatch.setattr("assay.quality.duplicates.MOST_PAIRS", 1)
    monkeypatch.chdir(tmp_path)
    ended = run.invoke(app, ["data", str(tmp_path / "same"), "--write-manifest", "clean.csv"])
    assert "more pairs within the set were not listed" in ended.output
