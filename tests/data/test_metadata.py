"""What a source tells of each sample beside image and label stays with the sample."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assay.data.dataset import ImageDataset
from assay.data.metadata import make_column
from assay.data.selection import evenly_spaced, fair_sample, random_sample, stratified_split
from assay.data.sources import load_dataset
from assay.errors import DataError, UnusedOptionError
from assay.records.preparation import Preparation


def make(n: int = 12) -> ImageDataset:
    """Every column repeats the id, so that a column that lost its samples shows."""
    texts = np.array([None if i == 3 else f"site {i}" for i in range(n)], object)
    metadata = {"site": texts, "number": np.arange(n), "half": np.arange(n) / 2, "even": np.arange(n) % 2 == 0}
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    return ImageDataset(images, torch.arange(n) % 2, ("a", "b"), metadata=metadata)


def assert_together(part: ImageDataset) -> None:
    ids = part.ids.numpy()
    assert part.metadata["number"].tolist() == ids.tolist()
    assert part.metadata["half"].tolist() == (ids / 2).tolist()
    assert part.metadata["even"].tolist() == (ids % 2 == 0).tolist()
    assert part.metadata["site"].tolist() == [None if i == 3 else f"site {i}" for i in ids]


def test_every_part_of_a_set_keeps_what_belongs_to_its_samples() -> None:
    dataset = make()
    sorted_by_class = dataset.arranged(torch.tensor([0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]))
    parts = [
        dataset.subset(torch.tensor([3, 0, 7])),
        dataset.subset(dataset.labels == 1),
        dataset.arranged(torch.tensor([5, 3, 99])),
        dataset.renumbered((1, 0), classes=("b", "a")),
        replace(dataset, split="test"),
        fair_sample(sorted_by_class, 4),
        random_sample(dataset, 5, key=(0, 1)),
        evenly_spaced(dataset, 3),
        *stratified_split(dataset, fraction=0.5, seed=0),
    ]
    for part in parts:
        assert_together(part)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.arange(3), r"metadata\['m'\]: expected one value for each of 12 samples, got shape \(3,\)"),
        (np.zeros((12, 2)), r"one value for each of 12 samples, got shape \(12, 2\)"),
        (np.zeros(12, np.float32), "expected int64, float64, bool, or objects that are text, got float32"),
        (np.array(["a"] * 12), "or objects that are text, got <U1"),
        (np.array([1] * 12, object), "text or None in an array of objects, got 1"),
        ([1] * 12, r"metadata\['m'\]: expected a NumPy array"),
    ],
)
def test_a_column_is_one_scalar_a_sample(column: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(make(), metadata={"m": column})


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2, 3], "i", [1, 2, 3]),
        ([True, False], "b", [True, False]),
        ([True, None], "O", ["true", None]),
        ([1, 2.5], "f", [1, 2.5]),
        (["a", None], "O", ["a", None]),
        ([None, None], "O", [None, None]),
        ([1, "a"], "O", ["1", "a"]),
        ([1 << 63, 1], "O", [str(1 << 63), "1"]),
        ([(1 << 62) + 1, None], "O", [str((1 << 62) + 1), None]),  # not in float64
        ([datetime.date(2024, 5, 1)], "O", ["2024-05-01"]),
    ],
)
def test_values_become_a_column(values: list[object], kind: str, expected: list[object]) -> None:
    column = make_column(values)
    assert column is not None
    assert (column.dtype.kind, column.tolist()) == (kind, expected)
    replace(make(len(values)), metadata={"m": column})


def test_missing_numbers_are_not_numbers() -> None:
    column = make_column([1, None, 3])
    assert column is not None
    assert np.array_equal(column, [1, np.nan, 3], equal_nan=True)


@pytest.mark.parametrize("values", [[[1, 2]], [b"x"], [{"a": 1}, None]])
def test_what_is_no_scalar_makes_no_column(values: list[object]) -> None:
    assert make_column(values) is None


@pytest.mark.parametrize("name", ["image_column", "label_column", "split_column", "root"])
def test_an_option_of_tables_is_refused_where_it_has_no_effect(name: str) -> None:
    with pytest.raises(UnusedOptionError, match=f"--{name.replace('_', '-')}: no effect on digits"):
        load_dataset("digits", **{name: "x"})  # type: ignore[arg-type]


def encoded(place: int) -> bytes:
    """A picture of the grey level 20 · ``place``."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 20 * place, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows sorted by class, in row groups of four, with columns of every kind."""
    names = ["x", "y", "z"]
    features = {"site": {"_type": "ClassLabel", "names": names}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    table = pa.table(
        {
            "image": [encoded(i) for i in range(12)],
            "label": [int(i >= 6) for i in range(12)],
            "site": [None if i == 5 else i % 3 for i in range(12)],
            "place": list(range(12)),
            "taken": [datetime.datetime(2024, 1, 1 + i) for i in range(12)],
            "kind": pa.array([f"k{i % 2}" for i in range(12)]).dictionary_encode(),
            "box": [[1, 2]] * 12,
            "raw": [b"x"] * 12,
            "part": ["test" if i % 2 else "train" for i in range(12)],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = tmp_path_factory.mktemp("data") / "all.parquet"
    pq.write_table(table, path, row_group_size=4)
    return path


def test_columns_of_parquet_stay_with_their_samples(parquet: Path) -> None:
    data = load_dataset(parquet, limit=5)
    ids = data.ids.tolist()
    assert sorted(ids) != ids  # sorted by class, so the classes take turns
    assert (data.images[:, 0, 0, 0] // 20).tolist() == data.metadata["place"].tolist() == ids
    assert data.metadata["site"].tolist() == [None if i == 5 else "xyz"[i % 3] for i in ids]  # names of its classes
    assert data.metadata["kind"].tolist() == [f"k{i % 2}" for i in ids]
    assert data.metadata["taken"].tolist()[0] == f"2024-01-{1 + ids[0]:02} 00:00:00"
    assert data.notes == (
        "all.parquet: 5 columns kept as metadata: site, place, taken, kind, part",
        "all.parquet: 2 columns not used: box, raw",
    )


def test_columns_of_parquet_are_named_and_part_the_rows(parquet: Path) -> None:
    data = load_dataset(parquet, label_column="Kind", split_column="part", image_column="image")
    assert (data.ids.tolist(), data.split) == ([1, 3, 5, 7, 9, 11], "test")
    assert (data.classes, set(data.labels.tolist())) == (("k0", "k1"), {1})
    assert (data.images[:, 0, 0, 0] // 20).tolist() == data.metadata["place"].tolist() == data.ids.tolist()
    assert data.read_again is not None
    again = data.read_again(Preparation.square(2), data.ids[[4, 1]])
    assert again.metadata["place"].tolist() == again.ids.tolist() == [9, 3]
    with pytest.raises(DataError, match=r"expected the column 'kin' of --label-column, got columns image, label"):
        load_dataset(parquet, label_column="kin")
    with pytest.raises(DataError, match=r"all\.parquet:place: expected pictures, or paths to them, got type int64"):
        load_dataset(parquet, image_column="place")


@pytest.mark.parametrize("struct", [True, False])
def test_cells_with_only_a_path_are_read_from_the_folder_or_the_root(tmp_path: Path, struct: bool) -> None:
    (tmp_path / "pictures").mkdir()
    paths = [f"pictures/{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        (tmp_path / path).write_bytes(encoded(i))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def write(paths: list[str], folder: Path = tmp_path) -> Path:
        cells = pa.array([{"bytes": None, "path": path} for path in paths], kind) if struct else pa.array(paths)
        pq.write_table(pa.table({"image": cells, "label": [0, 1, 0, 1][: len(paths)]}), folder / "x.parquet")
        return folder / "x.parquet"

    data = load_dataset(write(paths))
    assert (data.images[:, 0, 0, 0] // 20).tolist() == [0, 1, 2, 3]
    assert data.filenames == tuple(paths)
    (tmp_path / "elsewhere").mkdir()
    table = write(paths, tmp_path / "elsewhere")
    assert len(load_dataset(table, root=tmp_path, limit=2)) == 2
    lost = "there are no bytes of a picture" if struct else r"4 of 4 are not there: pictures/0\.png"
    with pytest.raises(DataError, match=lost):
        load_dataset(table)
    with pytest.raises(DataError, match=r"x\.parquet:image\[1\]: expected a path inside of .*, got \.\./a\.png"):
        load_dataset(write([paths[0], "../a.png"]))


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_fields_of_json_in_shards_stay_with_their_samples(tmp_path: Path) -> None:
    members = []
    for i in range(6):
        fields = {"label": i // 3, "site": f"s{i}", "place": i, "boxes": [1], **({"flag": True} if i else {})}
        members += [(f"{i}.png", encoded(i)), (f"{i}.json", json.dumps(fields).encode())]
    data = load_dataset(write_shard(tmp_path / "a.tar", members), limit=4)
    ids = data.ids.tolist()
    assert (data.images[:, 0, 0, 0] // 20).tolist() == data.metadata["place"].tolist() == ids == [0, 3, 1, 4]
    assert data.metadata["site"].tolist() == [f"s{i}" for i in ids]
    assert data.metadata["flag"].tolist() == [None, "true", "true", "true"]
    assert data.notes == (
        "a.tar: 3 columns kept as metadata: site, place, flag",
        "a.tar: 1 column not used: boxes",
    )


def test_the_field_of_the_label_and_the_picture_of_a_shard_are_named(tmp_path: Path) -> None:
    members = []
    for i in range(4):
        fields = json.dumps({"label": 0, "kind": "ab"[i % 2]}).encode()
        members += [(f"{i}.jpg", encoded(i)), (f"{i}.png", encoded(i + 4)), (f"{i}.json", fields), (f"{i}.cls", b"7")]
    shard = write_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"0\.jpg and 0\.png \(--image-column jpg takes the pictures of that ending\)"):
        load_dataset(shard)
    data = load_dataset(shard, image_column="png", label_column="kind")
    assert (data.images[:, 0, 0, 0] // 20).tolist() == [4, 5, 6, 7]
    assert (data.classes, data.labels.tolist()) == (("a", "b"), [0, 1, 0, 1])
    assert data.metadata["label"].tolist() == [0] * 4
    assert "4 further pictures (0.jpg" in data.notes[0]
    assert "4 with labels beside those of the named field (0.cls" in data.notes[0]
    with pytest.raises(DataError, match=r"--image-column: expected an ending of the pictures \(jpg, png\), got webp"):
        load_dataset(shard, image_column="webp")
    with pytest.raises(DataError, match="expected a label"):
        load_dataset(shard, image_column="png", label_column="nothing")


def test_a_part_has_the_columns_of_the_whole_set(tmp_path: Path) -> None:
    """Where only some samples lack a value, a limit that takes none of them gives the same types."""
    rows = [{"label": i % 2, "age": i if i < 6 else None, "seen": True if i < 6 else None} for i in range(8)]
    features = {name: {"_type": "ClassLabel", "names": ["x", "y"]} for name in ("label", "site")}
    columns = {name: [row[name] for row in rows] for name in ("label", "age", "seen")}
    sites = [0, 1, 0, 1, 0, 1, 1, 7]  # the last one has no name
    table = pa.table({"image": [encoded(i) for i in range(8)], **columns, "site": sites})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
        tmp_path / "x.parquet",
    )
    members = [(f"{i}.png", encoded(i)) for i in range(8)]
    members += [(f"{i}.json", json.dumps({**row, "site": site}).encode())
                for i, (row, site) in enumerate(zip(rows, sites, strict=True))]  # fmt: skip
    for source in (tmp_path / "x.parquet", write_shard(tmp_path / "x.tar", members)):
        every, part = load_dataset(source), load_dataset(source, limit=4)
        assert {name: column.dtype for name, column in part.metadata.items()} == {
            "age": np.dtype(float), "seen": np.dtype(object), "site": np.dtype(int),
        }  # fmt: skip
        for name, column in every.metadata.items():
            assert column.dtype == part.metadata[name].dtype
            assert np.array_equal(column[part.ids.numpy()], part.metadata[name])
