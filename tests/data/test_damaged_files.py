"""Damaged bytes of every format give a set or a DataError, never anything else, and no warning."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.data.pictures import FORMATS, Broken, decode
from assay.data.sources import load_dataset
from assay.errors import DataError

ROUNDS = 150


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut the end off, change some bytes, or both."""
    damaged = bytearray(content)
    kind = rng.integers(3)
    if kind != 1:
        damaged = damaged[: rng.integers(len(content))]
    if kind != 0 and damaged:
        for _ in range(rng.integers(1, 9)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
    return bytes(damaged)


@pytest.fixture
def samples(
    tmp_path: Path, make_png: Callable[..., bytes], write_idx: Callable[..., Path], write_parquet: Callable[..., Path]
) -> dict[str, Path]:
    """One small file of each format."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    labels = np.arange(6) % 3
    np.savez_compressed(tmp_path / "zipped.npz", images=images, labels=labels)
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels.astype(np.uint8))
    write_idx(tmp_path / "train-images-idx3-ubyte", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels.astype(np.uint8))
    write_parquet(tmp_path / "a.parquet", [make_png(seed) for seed in range(6)], labels, ("x", "y", "z"))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(6):
            for name, content in ((f"{index}.png", make_png(index)), (f"{index}.cls", b"01"[index % 2 :][:1])):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(make_png(index))
    rows = [(f"{index}.png", "ab"[index % 2], f"site {index}") for index in range(6)]
    (tmp_path / "list.csv").write_text("path,label,site\n" + "".join(f"{','.join(row)}\n" for row in rows))
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress((tmp_path / "list.csv").read_bytes(), mtime=0))
    objects = [json.dumps(dict(zip(("path", "label", "site"), row, strict=True))) for row in rows]
    (tmp_path / "list.jsonl").write_text("\n".join(objects))
    folder = tmp_path / "python"
    folder.mkdir()
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, 3))
    return {path.name: path for path in [*tmp_path.iterdir(), folder / "test_batch"] if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        "zipped.npz",
        "plain.npz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "a.parquet",
        "a.tar",
        "test_batch",
        "list.csv",
        "list.csv.gz",
        "list.jsonl",
    ],
)
def test_a_damaged_file_gives_a_data_error_or_a_valid_set(samples: dict[str, Path], name: str) -> None:
    path, rng = samples[name], np.random.default_rng(0)
    content = path.read_bytes()
    assert len(load_dataset(str(path))) > 0
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(damage(content, rng))
        try:
            dataset = load_dataset(str(path), max_bad=6)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert len(dataset) + len(dataset.skipped) > 0
    assert refused > ROUNDS / 3


@pytest.mark.parametrize("name", ["plain.npz", "zipped.npz", "train-images-idx3-ubyte", "a.parquet", "a.tar"])
def test_a_file_cut_anywhere_is_always_refused(samples: dict[str, Path], name: str) -> None:
    path = samples[name]
    content = path.read_bytes()
    end = len(content.rstrip(b"\0")) if name == "a.tar" else len(content)
    for length in range(0, end, max(1, end // 60)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            load_dataset(str(path))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_damaged_picture_is_broken_or_a_picture(kind: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    shape = (16, 12) if mode == "L" else (16, 12, 3)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(buffer, format=kind)
    assert not isinstance(decode(buffer.getvalue()), Broken)
    found = [decode(damage(buffer.getvalue(), rng), image_size=8) for _ in range(ROUNDS)]
    assert sum(isinstance(result, Broken) for result in found) > ROUNDS / 5
    assert {result.shape[:2] for result in found if not isinstance(result, Broken)} <= {(8, 8)}
