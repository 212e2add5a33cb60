"""What a check keeps of its data: metadata beside the samples that were measured, and a verdict on the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from assay.check import Budget, run_check
from assay.data.dataset import ImageDataset
from assay.models import load_model
from assay.records.accuracy import CleanAccuracy
from assay.records.checkup import Checkup
from assay.records.pixels import PixelRange
from assay.records.sample_table import SampleTable

TINY = Budget(name="tiny", clean=12, attacked=4, probed=4, steps=1, sanity_samples=2, sanity_queries=2)


def write_pictures(folder: Path, *, brightest: int = 255) -> Path:
    """Twenty pictures of noise and a table of them: the site of a picture is that of its row."""
    lines = []
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, brightest + 1, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},site {i % 3},{i}\n")
    (folder / "list.csv").write_text("path,label,site,place\n" + "".join(lines))
    return folder / "list.csv"


def test_check_json_has_the_metadata_of_what_was_measured(tmp_path: Path, assay: Callable[..., Any]) -> None:
    table = write_pictures(tmp_path)
    command = ("check", "mlp", "--data", table, "--budget", "quick", "--limit", 4, "--out", tmp_path / "out")
    ended = assay(*command)
    assert ended.code in {0, 1}, ended
    assert "note: list.csv: 2 columns kept as metadata: site, place" in ended.err.splitlines()
    checkup = Checkup.model_validate_json((tmp_path / "out" / "check.json").read_bytes())
    record, clean = checkup.first(SampleTable), checkup.first(CleanAccuracy)
    assert record is not None
    assert clean is not None
    assert clean.per_sample is not None
    assert record.samples == clean.per_sample.samples
    columns = {column.name: column.unpack() for column in record.columns}
    assert columns == {"site": [f"site {i % 3}" for i in range(20)], "place": list(range(20))}


def test_only_samples_that_a_stage_took_are_in_the_table() -> None:
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    data = ImageDataset(images, torch.arange(40) // 20, ("a", "b"), metadata={"place": np.arange(40)})
    model = load_model("mlp", classes=2, image_shape=data.shape)
    record = run_check(model, data, budget=TINY).first(SampleTable)
    assert record is not None
    assert record.columns[0].unpack() == record.samples.list_ids()
    assert len(record.columns[0].unpack()) < 40
    assert run_check(model, replace(data, metadata={}), budget=TINY).first(SampleTable) is None


@pytest.mark.parametrize(("brightest", "status"), [(1, "warn"), (15, "warn"), (255, "pass")])
def test_pictures_of_another_scale_are_a_verdict(
    tmp_path: Path, assay: Callable[..., Any], brightest: int, status: str
) -> None:
    table = write_pictures(tmp_path, brightest=brightest)
    assay("check", "mlp", "--data", table, "--budget", "quick", "--limit", 2, "--out", tmp_path / "out")
    checkup = Checkup.model_validate_json((tmp_path / "out" / "check.json").read_bytes())
    pixels = checkup.first(PixelRange)
    assert pixels is not None
    assert (pixels.lowest, pixels.highest, pixels.n) == (0, brightest, 20)
    assert {verdict.rule: verdict.status for verdict in checkup.verdicts}["A515"] == status


def test_a_run_folder_reads_its_table_by_the_same_columns(
    tmp_path: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = write_pictures(pictures).read_text().replace("path,label", "where,kind", 1)
    (tmp_path / "list.csv").write_text(rows)
    run, columns = tmp_path / "run", ("--image-column", "where", "--label-column", "site", "--root", pictures)
    ended = assay("train", tmp_path / "list.csv", *columns, "--model", "mlp", "--set", "epochs=1", "--set",
                  "augment.name=none", "--out", run)  # fmt: skip
    assert ended.code == 0, ended
    monkeypatch.chdir(pictures)  # wherever the command is called from
    kept = "note: list.csv: 2 columns kept as metadata: kind, place"
    for command in (("attack", run, "--attack", "fgsm", "--no-sanity"), ("train", "--resume", "--out", run)):
        ended = assay(*command)
        assert ended.code in {0, 1}, ended
        assert kept in ended.err.splitlines()
    refused = assay("attack", "mlp", "--data", "digits", "--root", pictures)
    assert (refused.code, refused.err.strip()) == (2, "assay: --root: no effect on digits")
