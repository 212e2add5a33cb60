from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.cli.main import app
from assay.errors import AssayError
from assay.records.factorization import FactorizationReport
from assay.report.factor_page import render_factor_page


def run(*arguments: str) -> None:
    app(["factor", *arguments], standalone_mode=False)


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "X.npy"
    np.save(path, np.random.default_rng(0).standard_normal((30, 12)))
    return path


def test_factors_a_certificate_and_a_page(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(matrix), "--rank", "3", "--out", str(tmp_path / "F.npz"))
    printed = capsys.readouterr().out
    assert "certified optimal" in printed and "optimum    in [" in printed
    x, found = np.load(matrix), np.load(tmp_path / "F.npz")
    best = np.sqrt((np.linalg.svd(x, compute_uv=False)[3:] ** 2).sum())
    assert np.linalg.norm(x - found["A"] @ found["B"]) == pytest.approx(best)
    page = (tmp_path / "X.factor.html").read_text()
    assert page.count('role="img"') == 2 * 5  # each for a wide column and for a phone
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page) and "default-src 'none'" in page
    assert "strict saddle" in page and "global minimum" in page


def test_the_record_is_printed_as_json(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(matrix), "--energy", "0.5", "--json")
    record = FactorizationReport.model_validate(json.loads(capsys.readouterr().out))
    assert record.energy_kept >= 0.5 and record.curve[0].relative_error == 1.0
    assert record.landscape is not None and record.landscape.largest_difference < 1e-9


def test_a_picture_is_shown_at_several_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 70, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    run(str(tmp_path / "p.png"), "--rank", "7")
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("rank ")] == ["1", "5", "7", "20", "50"]
    assert (tmp_path / "p.factor.html").read_text().count("data:image/png;base64,") == 6


def test_names_are_escaped(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(matrix), "--rank", "2", "--json")
    record = FactorizationReport.model_validate(json.loads(capsys.readouterr().out))
    page = render_factor_page(record.model_copy(update={"source": "<script>alert(1)</script>"}))
    assert page.count("<script") == 1 and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npy", "--rank", "2"], "nothing of that name"),
        (["X.npy", "--rank", "99"], r"rank: expected a whole number in 1\.\.12, got 99"),
        (["X.npy", "--rank", "two"], "--rank: expected a number"),
        (["X.npy", "--rank", "2", "--energy", "0.5"], "rank and energy"),
        (["X.npy", "--rank", "2", "--out", "F.txt"], r"\.npz"),
        (["X.npy", "--rank", "2", "--out", "nowhere/F.npz"], "a folder that exists"),
        (["X.npy", "--rank", "2", "--method", "magic"], "method"),
        (["broken.png"], "a picture that can be read"),
        (["X.npy", "--longest", "9"], "--longest: only a picture"),
        (["X.npy", "--split", "train"], "--split: X is a file"),
        (["X.npy", "--max-bad", "3"], "--max-bad: X is a file"),
        (["X.npy", "--scale", "2", "--ridge", "1"], "--scale: with --ridge"),
        (["zero.npy", "--scale", "2"], "--scale: the matrix is zero"),
        (["X.npy", "--noise", "2"], "noise: expected rank 'gavish-donoho' beside it"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    np.save(tmp_path / "zero.npy", np.zeros((4, 3)))
    with pytest.raises(AssayError, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "X.factor.html").exists()


def test_a_rule_that_is_not_kept_is_told_everywhere_and_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    np.save(tmp_path / "X.npy", x)
    for extra in ([], ["--json"]):
        arguments = ["factor", str(tmp_path / "X.npy"), "--tolerance", "1e-12", *extra]
        assert app(arguments, standalone_mode=False) == 1  # factors in float32 cannot be that near
    printed = capsys.readouterr().out
    assert "not what was asked for" in printed and "certified optimal" not in printed
    assert "That is not met: the relative error is" in printed
    record = FactorizationReport.model_validate_json(printed[printed.index("{") :])
    assert record.missed.endswith("more than 1e-12") and not record.certificate.certified
    page = (tmp_path / "X.factor.html").read_text()
    assert "Not what was asked for" in page and "more than 1e-12" in page and "Certified optimal" not in page
    run(str(tmp_path / "X.npy"), "--tolerance", "1e-5", "--json")
    assert not FactorizationReport.model_validate_json(capsys.readouterr().out).missed
