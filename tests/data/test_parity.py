"""One set in every format: equal images, labels and classes, and equal records of what was measured on them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assay.data.dataset import ImageDataset
from assay.data.sources import load_dataset
from assay.evaluate import measure_clean_accuracy
from assay.models import load_model

CLASSES = ("ant", "bee", "cow")


@dataclass(frozen=True)
class Sample:
    place: int
    pixels: np.ndarray
    content: bytes
    label: int
    split: str

    @property
    def path(self) -> str:
        return f"{self.split}/{CLASSES[self.label]}/{self.place:02}.png"


def make_samples(shape: tuple[int, ...]) -> list[Sample]:
    """Forty pictures of noise, unequal in their classes and splits."""
    samples, draws = [], np.random.default_rng(0)
    for place in range(40):
        pixels, buffer = draws.integers(0, 256, shape, dtype=np.uint8), io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        label = int(draws.choice(3, p=(0.5, 0.3, 0.2)))
        samples.append(Sample(place, pixels, buffer.getvalue(), label, "train" if place % 3 else "test"))
    return samples


def write_folder(folder: Path, samples: list[Sample]) -> Path:
    for sample in samples:
        (folder / sample.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / sample.path).write_bytes(sample.content)
    return folder


def write_csv(folder: Path, samples: list[Sample], *, delimiter: str = ",", ending: str = "csv") -> Path:
    write_folder(folder / "pictures", samples)
    with (folder / f"list.{ending}").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["file_name", "label", "split", "place"])
        writer.writerows((f"pictures/{each.path}", CLASSES[each.label], each.split, each.place) for each in samples)
    return folder / f"list.{ending}"


def write_tsv(folder: Path, samples: list[Sample]) -> Path:
    return write_csv(folder, samples, delimiter="\t", ending="tsv")


def write_jsonl(folder: Path, samples: list[Sample]) -> Path:
    write_folder(folder / "pictures", samples)
    lines = [
        {"path": f"pictures/{each.path}", "label": CLASSES[each.label], "split": each.split, "place": each.place}
        for each in samples
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "list.jsonl"


def write_tables(folder: Path, samples: list[Sample], cells: Callable[[list[Sample]], pa.Array]) -> Path:
    """A Parquet file for each split."""
    for split in ("train", "test"):
        part = [each for each in samples if each.split == split]
        columns = {"image": cells(part), "label": [CLASSES[each.label] for each in part]}
        pq.write_table(pa.table({**columns, "place": [each.place for each in part]}), folder / f"{split}.parquet")
    return folder


def write_parquet(folder: Path, samples: list[Sample]) -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return write_tables(
        folder, samples, lambda part: pa.array([{"bytes": each.content, "path": None} for each in part], kind)
    )


def write_parquet_of_paths(folder: Path, samples: list[Sample]) -> Path:
    write_folder(folder / "pictures", samples)
    return write_tables(folder, samples, lambda part: pa.array([f"pictures/{each.path}" for each in part]))


def write_parquet_with_splits(folder: Path, samples: list[Sample]) -> Path:
    columns: dict[str, Any] = {"image": [each.content for each in samples], "split": [each.split for each in samples]}
    columns |= {"label": [CLASSES[each.label] for each in samples], "place": [each.place for each in samples]}
    pq.write_table(pa.table(columns), folder / "all.parquet", row_group_size=7)
    return folder / "all.parquet"


def write_npz(folder: Path, samples: list[Sample]) -> Path:
    arrays: dict[str, np.ndarray] = {"classes": np.array(CLASSES)}
    for split in ("train", "test"):
        part = [each for each in samples if each.split == split]
        arrays[f"x_{split}"] = np.stack([each.pixels for each in part])
        arrays[f"y_{split}"] = np.array([each.label for each in part])
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    return folder / "set.npz"


def write_shards(folder: Path, samples: list[Sample]) -> Path:
    for split in ("train", "test"):
        with tarfile.open(folder / f"{split}-0.tar", "w") as shard:
            for each in samples:
                fields = json.dumps({"label": CLASSES[each.label], "place": each.place}).encode()
                for name, content in ((f"{each.place:02}.png", each.content), (f"{each.place:02}.json", fields)):
                    if each.split == split:
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        shard.addfile(member, io.BytesIO(content))
    return folder


FORMATS = {
    "folder": write_folder, "csv": write_csv, "tsv": write_tsv, "jsonl": write_jsonl, "parquet": write_parquet,
    "paths in parquet": write_parquet_of_paths, "splits in parquet": write_parquet_with_splits, "npz": write_npz,
    "shards": write_shards,
}  # fmt: skip
WITH_METADATA = set(FORMATS) - {"folder", "npz"}


def by_place(dataset: ImageDataset, samples: list[Sample]) -> ImageDataset:
    """``dataset`` in the order of ``samples``, whose pixels all differ."""
    places = {each.pixels.tobytes(): each.place for each in samples}
    found = [places[image.permute(1, 2, 0).contiguous().numpy().tobytes()] for image in dataset.images]
    return dataset.subset(torch.tensor(found).argsort())


@pytest.mark.parametrize("shape", [(8, 8), (9, 7, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_format_gives_the_same_set_and_the_same_record(
    tmp_path: Path, name: str, shape: tuple[int, ...], split: str
) -> None:
    samples = make_samples(shape)
    part = [each for each in samples if each.split == split]
    read = load_dataset(FORMATS[name](tmp_path, samples), split=split)
    dataset = by_place(read, samples)
    expected = torch.from_numpy(np.stack([each.pixels for each in part]).reshape(len(part), *shape[:2], -1))
    assert dataset.images.permute(0, 2, 3, 1).equal(expected)
    assert dataset.labels.tolist() == [each.label for each in part]
    assert (dataset.classes, dataset.split) == (CLASSES, split)
    if name in WITH_METADATA:
        assert dataset.metadata["place"].tolist() == [each.place for each in part]
    again = load_dataset(tmp_path / read.name if read.name != tmp_path.name else tmp_path, split=split, limit=5)
    assert len(again) == 5
    assert set(again.ids.tolist()) <= set(read.ids.tolist())
    torch.manual_seed(0)
    model = load_model("mlp", classes=3, image_shape=dataset.shape)
    reference = ImageDataset(dataset.images, torch.tensor([each.label for each in part]), CLASSES)
    records = [
        measure_clean_accuracy(model, each).model_dump(exclude={"per_sample", "images_per_second"})
        for each in (dataset, reference)
    ]
    assert records[0] == records[1]


def test_idx_files_are_the_same_set(tmp_path: Path, write_idx: Callable[[Path, np.ndarray], Path]) -> None:
    samples = make_samples((8, 8))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        part = [each for each in samples if each.split == split]
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.stack([each.pixels for each in part]))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.array([each.label for each in part], np.uint8))
    for split in ("train", "test"):
        part = [each for each in samples if each.split == split]
        dataset = by_place(load_dataset(tmp_path, split=split), samples)
        assert dataset.labels.tolist() == [each.label for each in part]
        assert dataset.images[:, 0].equal(torch.from_numpy(np.stack([each.pixels for each in part])))
