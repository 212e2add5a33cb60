"""Running claims: side by side, resumable, one run a folder, and no claim takes another with it."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assay.claims import CLAIMS, Claim, Settings, find_claims, run_claims
from assay.claims.claim import ORDER
from assay.claims.run import identify, read_result
from assay.errors import OptionError, OutputError
from assay.files import exclusive
from assay.records.claims import ClaimEvidence, ClaimResult, ClaimSample, ClaimsReport
from assay.runtime.store import IDENTITY, ResumableStore

TINY = Settings(budget="tiny")
CHEAP, QUICKEST = "factor-gauge", "group-by-name"


ODD = """
import os

def fails(settings):
    raise ValueError("no such\\nthing")

def dies(settings):
    os._exit(7)
"""


def odd(name: str) -> Claim:
    """A claim whose experiment is a function of the module ``odd_experiments``."""
    return replace(find_claims([CHEAP])[0], id=name, measure=getattr(importlib.import_module("odd_experiments"), name))


def result_of(name: str, settings: Settings = TINY) -> ClaimResult:
    claim = find_claims([name])[0]
    return ClaimResult(
        id=claim.id,
        sentence=claim.sentence,
        decides=claim.decides,
        would_change=claim.would_change,
        references=claim.references,
        budget=settings.budget,
        data=settings.data,
        seed=settings.seed,
        evidence=ClaimEvidence(
            how="so", samples=(ClaimSample(name="x", unit="", values=(float("nan"),), expects="same", margin=1),)
        ),
        effects=(),
        verdict="undecided",
        because="kept",
        seconds=1.0,
    )


def test_claims_that_fail_or_die_leave_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_experiments.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[str] = []
    report = run_claims(
        [odd("fails"), odd("dies"), *find_claims([CHEAP])],
        folder=tmp_path / "out",
        settings=TINY,
        processes=2,
        on_result=lambda result: seen.append(result.id),
    )
    assert [result.id for result in report.results] == [CHEAP]
    errors = {failed.id: failed.error for failed in report.failed}
    assert errors["fails"] == "ValueError: no such thing"
    assert "its process ended with code 7" in errors["dies"]
    assert sorted(seen) == ["dies", CHEAP, "fails"]
    assert {path.name for path in (tmp_path / "out" / "results").iterdir()} == {f"{CHEAP}.json", IDENTITY}


def test_one_seed_gives_one_result_in_any_process(tmp_path: Path, examined) -> None:
    report = run_claims(find_claims([CHEAP]), folder=tmp_path, settings=TINY, processes=1)
    here = examined(CHEAP)
    assert report.results[0].model_copy(update={"seconds": 0.0}) == here.model_copy(update={"seconds": 0.0})
    assert ClaimsReport.model_validate_json(report.model_dump_json()) == report


def test_a_second_run_on_one_folder_is_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(OutputError, match="another process is at work"):
        run_claims(find_claims([CHEAP]), folder=tmp_path, settings=TINY)


def test_results_are_taken_over_only_with_resume_and_only_of_the_same_settings(tmp_path: Path) -> None:
    store = ResumableStore(tmp_path / "results", identify(TINY))
    store.claim(replace=False)
    store.write(CHEAP, result_of(CHEAP).model_dump_json())
    report = run_claims(find_claims([CHEAP]), folder=tmp_path, settings=TINY, resume=True)
    assert report.results[0].because == "kept"
    with pytest.raises(OptionError, match=r"identity.json: seed: expected 0 as in the run to resume, got 1"):
        run_claims(find_claims([CHEAP]), folder=tmp_path, settings=replace(TINY, seed=1), resume=True)
    finished = read_result(store, CHEAP)
    assert finished is not None
    assert finished.model_dump_json() == result_of(CHEAP).model_dump_json(), "a refused run removes nothing"
    store.path(CHEAP).write_text('{"id": ')
    assert read_result(store, CHEAP) is None
    store.write(CHEAP, result_of(CHEAP).model_dump_json())
    report = run_claims(find_claims([CHEAP]), folder=tmp_path, settings=TINY, resume=False)
    assert report.results[0].because != "kept"


def test_the_identity_of_a_run_knows_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"one")
    settings = replace(TINY, model="resnet20", weights=weights)
    before = identify(settings)
    weights.write_bytes(b"two")
    after = identify(settings)
    assert {key for key in before if before[key] != after[key]} == {"weights"}
    assert identify(TINY)["weights"] is None


def test_claims_are_found_by_id_in_the_order_of_the_registry() -> None:
    every = [claim.id for claim in find_claims([])]
    assert len(set(every)) == len(every)
    assert [claim.id for claim in find_claims(["factor-svd", "residual-shape", "factor-svd"])] == [
        name for name in every if name in {"factor-svd", "residual-shape"}
    ]
    with pytest.raises(OptionError, match="did you mean factor-svd"):
        find_claims(["factor-sdv"])


@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param(signal.SIGINT, 3, id="Ctrl-C"),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="kill -9", marks=pytest.mark.full),
    ],
)
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, how: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "assay", "claims", QUICKEST, "factor-svd", "--processes", "1"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    finished = tmp_path / "results" / f"{QUICKEST}.json"
    deadline = time.monotonic() + 120
    while not finished.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)  # as a terminal does
    _, errors = process.communicate(timeout=60)  # returns only once the measuring process has ended too
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "claims.json").exists()

    kept = ClaimResult.model_validate_json(finished.read_text())
    report = run_claims(find_claims([QUICKEST]), folder=tmp_path, settings=Settings(), resume=True)
    assert report.results == (kept,)


def test_every_claim_of_the_package_is_listed_in_its_place() -> None:
    assert tuple(claim.id for claim in CLAIMS) == ORDER
    assert {claim.measure.__module__ for claim in CLAIMS} == {
        f"assay.claims.{claim.id.replace('-', '_')}" for claim in CLAIMS
    }


def test_a_claim_without_a_place_is_listed_last() -> None:
    code = """
        from assay.claims.claim import list_claims, register_claim
        register_claim("aardvark", "It works.", decides="d", would_change="w", references=())(print)
        print(list_claims()[-1].id, len(list_claims()))
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["aardvark", str(len(ORDER) + 1)]


def test_what_is_not_measured_in_time_is_left_out_and_can_be_measured_later(tmp_path: Path) -> None:
    claims = find_claims([QUICKEST, "residual-depth"])
    full = replace(TINY, budget="full")  # minutes of work for the second
    started = time.monotonic()
    report = run_claims(claims, folder=tmp_path, settings=full, processes=2, within=25.0)
    assert time.monotonic() - started < 40
    assert [result.id for result in report.results] == [QUICKEST]
    assert [failed.id for failed in report.failed] == ["residual-depth"]
    assert report.failed[0].error.startswith("not measured within 25.0")
    store = ResumableStore(tmp_path / "results", identify(replace(full, folder=tmp_path)))
    assert read_result(store, QUICKEST) is not None
    again = run_claims(find_claims([QUICKEST]), folder=tmp_path, settings=full, resume=True)
    assert again.results == report.results
    with pytest.raises(OptionError, match="within: expected a number of seconds above 0"):
        run_claims(claims, folder=tmp_path, settings=full, within=0.0)
