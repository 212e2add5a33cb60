"""``assay claims`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.claims import find_claims
from assay.records.claims import ClaimsReport


def test_list_names_every_claim_and_measures_none(assay: Callable, tmp_path: Path) -> None:
    ended = assay("claims", "--list", "--out", tmp_path / "out")
    assert ended.code == 0
    assert all(claim.id in ended.out for claim in find_claims([]))
    assert not (tmp_path / "out").exists()


def test_a_claim_is_measured_printed_and_written(assay: Callable, tmp_path: Path) -> None:
    ended = assay("claims", "group-by-name", "--out", tmp_path, "--processes", 1)
    assert ended.code == 0
    assert "Of 1 textbook statement, 1 does not" in ended.out
    assert "refuted" in ended.out
    assert "17 of 20, not 20 of 20" in " ".join(ended.out.split())
    report = ClaimsReport.model_validate_json((tmp_path / "claims.json").read_text())
    assert [result.id for result in report.results] == ["group-by-name"]
    assert 'id="group-by-name"' in (tmp_path / "claims.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "claims.html",
        "claims.json",
        "results",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["factor-sdv"],
            "assay: ID: expected a claim of `assay claims --list`, got 'factor-sdv' (did you mean",
        ),
        (["--weights", "w.pt"], "assay: --weights: expected a --model to load them into, got none"),
        (["--model", "no-such-net"], "no-such-net"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--processes", "0"], "--processes"),
        (["--budget", "tiny"], "tiny"),
    ],
    ids=["unknown claim", "weights alone", "unknown model", "no data", "no process", "unknown budget"],
)
def test_bad_input_is_one_line_and_nothing_written(
    assay: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = assay("claims", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
