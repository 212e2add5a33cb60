"""``check --predictions``, ``--keep-predictions`` and ``compare`` of such files, as they are typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.records.accuracy import CleanAccuracy
from assay.records.comparison import Comparison
from assay.records.reading import read_checkup

Run = Callable[..., object]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``a.csv`` and ``b.npz``: predictions of two classifiers, and ``x.npz``, the 40 samples of three classes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    labels = np.arange(40) % 3
    images = random.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    np.savez("x.npz", images=images, labels=labels)
    one, two = (scale * np.eye(3)[labels] + random.normal(size=(40, 3)) for scale in (4, 1))
    lines = [",".join(map(str, [*row, label])) for row, label in zip(one, labels, strict=True)]
    Path("a.csv").write_text("\n".join(["logit_0,logit_1,logit_2,label", *lines]))
    np.savez("b.npz", logits=two)
    Path("net.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()\n"
    )
    return tmp_path


def test_a_file_is_checked_without_a_model(place: Path, assay: Run) -> None:
    ended = assay("check", "--predictions", "a.csv", "--fail-on", "never", "--format", "junit", "--format", "sarif")
    assert ended.code == 0
    assert "a.csv · 40 predictions, labels in the file (all)" in ended.out
    assert "Did not run:" not in ended.out
    assert "Could not run" not in ended.out
    assert ended.err.count("note: predictions only: no attacks") == 1
    written = {path.name for path in (place / "assay-report").iterdir()}
    assert written == {"check.json", "report.html", "check.junit.xml", "check.sarif"}
    again = assay("report", "assay-report", "--format", "text")
    assert "Predictions only, no model was run" in again.out


def test_findings_decide_the_exit_code(place: Path, assay: Run) -> None:
    Path("bad.csv").write_text("label,pred\n" + "\n".join(f"{i % 2},{(i + 1) % 2}" for i in range(50)))
    assert assay("check", "--predictions", "bad.csv").code == 1
    assert assay("check", "--predictions", "bad.csv", "--fail-on", "never").code == 0


def test_labels_come_from_the_data(place: Path, assay: Run) -> None:
    refused = assay("check", "--predictions", "b.npz")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "expected labels: a column such as label, target or y_true, or --data, got none" in refused.err
    assert not (place / "assay-report").exists()
    ended = assay("check", "--predictions", "b.npz", "--data", "x.npz", "--fail-on", "never")
    assert ended.code == 0
    assert "matched by their order, a guess" in ended.err
    assert read_checkup(place / "assay-report" / "check.json").subject.image_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py:net", "--predictions", "a.csv"), "MODEL: expected either a model or --predictions, got both"),
        (("--predictions", "a.csv", "--budget", "standard"), "--budget: no effect on --predictions, where no model"),
        (("--predictions", "a.csv", "--seed", "0"), "--seed: no effect"),
        (("--predictions", "a.csv", "--weights", "w.safetensors"), "--weights: no effect"),
        (("--predictions", "a.csv", "--apply-fixes"), "--apply-fixes: no effect"),
        (("--predictions", "a.csv", "--keep-predictions", "c.csv"), "--keep-predictions: no effect"),
        (("--predictions", "a.csv", "--split", "train"), "--split: no effect on --predictions without --data"),
        (("--predictions", "none.csv"), "none.csv: expected a file of predictions, got nothing"),
        (("--predictions", "net.py"), "net.py: expected a file of predictions (.csv"),
        (("net.py:net", "--data", "x.npz", "--keep-predictions", "p.txt"), "p.txt: expected a file .csv, .parquet or"),
        (("net.py:net", "--data", "x.npz", "--keep-predictions", "no/p.csv"), "no/p.csv: expected a file in a folder"),
    ],
)
def test_what_has_no_effect_is_refused(place: Path, assay: Run, arguments: tuple[str, ...], message: str) -> None:
    ended = assay("check", *arguments)
    assert ended.code == 2, ended.err
    assert ended.err.splitlines()[-1].startswith(f"assay: {message}")
    assert "Traceback" not in ended.err


def test_names_of_the_classes_come_from_a_file(place: Path, assay: Run) -> None:
    Path("names.txt").write_text("ant\nbee\ncat\n")
    options = ("--classes", "names.txt", "--fail-on", "never")
    assert assay("check", "--predictions", "a.csv", *options).code == 0
    assert read_checkup(place / "assay-report" / "check.json").subject.classes == ("ant", "bee", "cat")
    matched = assay("check", "--predictions", "b.npz", "--data", "x.npz", *options)
    assert matched.code == 0
    assert "matched by position, a guess" in matched.err


def test_kept_predictions_are_those_of_the_model_and_compare_with_it(place: Path, assay: Run) -> None:
    few = ("--data", "x.npz", "--budget", "quick", "--limit", 2, "--fail-on", "never")
    assert assay("check", "net.py:net", *few, "--keep-predictions", "kept.parquet").code == 0
    ended = assay("compare", "assay-report", "kept.parquet", "b.npz", "--data", "x.npz", "--fail-on", "regression")
    comparison = Comparison.model_validate_json((place / "assay-compare" / "compare.json").read_text())
    same, other = comparison.versus
    assert (same.differences[0].paired, same.differences[0].lost, same.differences[0].gained) == (True, 0, 0)
    assert same.regressions == ()
    clean = read_checkup(place / "assay-report" / "check.json").first(CleanAccuracy)
    kept = read_checkup(place / "assay-compare" / "check-2" / "check.json").first(CleanAccuracy)
    assert clean is not None
    assert kept is not None
    assert (kept.confusion, kept.loss) == (clean.confusion, clean.loss)
    assert other.differences[0].paired
    assert ended.code == (1 if other.regressions else 0)


def test_two_files_are_compared_without_data(place: Path, assay: Run) -> None:
    Path("b.csv").write_text(Path("a.csv").read_text().replace("-", ""))
    assert assay("compare", "a.csv", "b.csv").code == 0
    comparison = Comparison.model_validate_json((place / "assay-compare" / "compare.json").read_text())
    assert [each.test for each in comparison.versus[0].differences] == ["McNemar's exact test"]
    assert assay("compare", "a.csv", "missing.csv").code == 2
