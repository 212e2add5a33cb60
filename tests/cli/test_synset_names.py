"""Folders called by ids of synsets: a check speaks of their classes in words where the model has both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assay.check.stages import STAGES
from assay.records.accuracy import CleanAccuracy
from assay.records.reading import read_checkup

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 1000)).eval()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    for synset in ("n01440764", "n02012849", "n03126707"):
        (tmp_path / "photos" / synset).mkdir(parents=True)
        for place in range(4):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / synset / f"{place}.png")
    return tmp_path


def classes_of(assay: Callable[..., Any], folder: Path, *more: str) -> tuple[str, ...]:
    options = ("--data", folder / "photos", "--budget", "quick", "--fail-on", "never", "--out", folder / "out")
    ended = assay("check", f"{folder}/net.py:net", *options, *more)
    assert ended.code in {0, 4}, ended.err
    checkup = read_checkup(folder / "out" / "check.json")
    clean = checkup.first(CleanAccuracy)
    assert clean is not None
    assert tuple(group.name for group in clean.per_class) == checkup.subject.classes
    return checkup.subject.classes


def test_a_check_speaks_in_words_where_ids_were_matched(
    folder: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"mode audit", "clean accuracy"}
    monkeypatch.setattr("assay.check.run.STAGES", tuple(stage for stage in STAGES if stage.name in wanted))
    words = classes_of(assay, folder, "--classes", "imagenet")
    assert words == ("tench", "crane (n02012849)", "crane (n03126707)")
