from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from assay.data import pictures as decode
from assay.data.sources import load_dataset
from assay.errors import DataError

NAMES = ("ant", "bee", "cow")


@settings(max_examples=20)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 14))
def test_what_is_written_is_what_is_loaded(
    make_png: Callable[..., bytes], write_parquet: Callable[..., Path], labels: list[int], group: int, limit: int
) -> None:
    pictures = [make_png(seed) for seed in range(len(labels))]
    with tempfile.TemporaryDirectory() as folder:
        spec = str(write_parquet(Path(folder, "set.parquet"), pictures, labels, NAMES, row_group_size=group))
        whole, part = load_dataset(spec), load_dataset(spec, limit=limit)
    expected = [decode.decode(picture).transpose(2, 0, 1) for picture in pictures]
    assert np.array_equal(whole.images.numpy(), np.stack(expected))
    assert whole.labels.tolist() == labels
    assert whole.classes == NAMES
    assert whole.filenames == tuple(f"{i}.png" for i in range(len(labels)))
    assert len(part) == min(limit, len(labels))
    for index, identity in enumerate(part.ids.tolist()):
        assert torch.equal(part.images[index], whole.images[identity])
        assert part.labels[index] == labels[identity]


@pytest.mark.shared
def test_real_cifar10(shared: Path) -> None:
    dataset = load_dataset(str(shared / "data" / "cifar10"), limit=200)
    assert dataset.name == "cifar10"
    assert dataset.split == "test"
    assert dataset.shape == (3, 32, 32)
    assert " ".join(dataset.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert dataset.labels[:10].tolist() == [9, 3, 7, 0, 9, 7, 7, 9, 6, 5]
    assert dataset.ids.tolist() == list(range(200))
    assert dataset.filenames[:2] == ("tow_truck_s_002120.png", "tabby_cat_s_000540.png")
    row = pq.ParquetFile(shared / "data/cifar10/test-00000-of-00001.parquet").read_row_group(0)["img"][7].as_py()
    assert np.array_equal(dataset.images[7].numpy(), decode.decode(row["bytes"]).transpose(2, 0, 1))


@pytest.mark.full
@pytest.mark.shared
def test_the_training_pixels_are_cifar10s(shared: Path) -> None:
    train = load_dataset(str(shared / "data" / "cifar10"), split="train")
    assert len(train) == 50_000
    assert train.labels.bincount().tolist() == [5000] * 10
    mean = train.images.double().mean((0, 2, 3))
    assert mean.tolist() == pytest.approx([125.307, 122.950, 113.865], abs=5e-4)


def test_a_limit_decodes_no_other_rows(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    pictures = [make_png(0), make_png(1), *[b"broken"] * 30]
    spec = str(write_parquet(tmp_path / "a.parquet", pictures, [0, 1] * 16))
    assert len(load_dataset(spec, limit=2)) == 2
    with pytest.raises(DataError, match=r"a.parquet\[2\] 2.png: expected a readable image"):
        load_dataset(spec, limit=3)


def test_a_limit_spreads_over_rows_laid_out_class_by_class(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    pictures = [make_png(seed) for seed in range(9)]
    spec = str(write_parquet(tmp_path / "a.parquet", pictures, [0] * 3 + [1] * 3 + [2] * 3))
    part, whole = load_dataset(spec, limit=5), load_dataset(spec)
    assert part.ids.tolist() == [0, 3, 6, 1, 4]
    assert part.labels.tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(part.images, whole.images[part.ids])
    assert whole.ids.tolist() == list(range(9))


def test_broken_rows_are_skipped_and_keep_the_others_ids(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    pictures = [make_png(0), b"broken", make_png(2), None, make_png(4)]
    dataset = load_dataset(str(write_parquet(tmp_path / "a.parquet", pictures, [0, 1, 2, 0, 1])), max_bad=2)
    assert dataset.ids.tolist() == [0, 2, 4]
    assert dataset.labels.tolist() == [0, 2, 1]
    assert dataset.filenames == ("0.png", "2.png", "4.png")
    assert dataset.skipped == (
        "a.parquet[1] 1.png: not a picture in a known format",
        "a.parquet[3] 3.png: there are no bytes of a picture",
    )


def test_splits_are_chosen_by_file_and_folder_names(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    pictures = [make_png(seed) for seed in range(3)]
    for name, labels in [("train-0.parquet", [0, 1, 2]), ("train-1.parquet", [2, 1, 0]), ("test-0.parquet", [1, 1, 2])]:
        write_parquet(tmp_path / name, pictures, labels, NAMES)
    (tmp_path / "validation").mkdir()
    write_parquet(tmp_path / "validation" / "0000.parquet", pictures, [0, 0, 1], NAMES)
    folder = str(tmp_path)
    train = load_dataset(folder, split="train")
    assert (train.split, train.labels.tolist(), train.ids.tolist()) == ("train", [0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 5])
    assert load_dataset(folder).labels.tolist() == [1, 1, 2]
    assert load_dataset(folder, split="val").labels.tolist() == [0, 0, 1]
    pattern = load_dataset(f"{folder}/train-*.parquet")
    assert (pattern.split, len(pattern)) == ("train", 6)
    listed = load_dataset(f"{folder}/test-0.parquet,{folder}/train-1.parquet")
    assert (listed.split, listed.labels.tolist()) == ("test", [1, 1, 2])


def test_a_split_that_is_not_there_is_named(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    write_parquet(tmp_path / "train-0.parquet", [make_png(), make_png()], [0, 1], NAMES)
    with pytest.raises(DataError, match="expected a 'test' split, got only train"):
        load_dataset(str(tmp_path))


def test_validation_stands_in_for_test_under_its_own_name(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    write_parquet(tmp_path / "val-0.parquet", [make_png(), make_png()], [0, 1], NAMES)
    assert load_dataset(str(tmp_path)).split == "validation"


def test_text_labels_are_numbered_alike_in_every_split(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    pictures = [make_png(seed) for seed in range(3)]
    write_parquet(tmp_path / "train-0.parquet", pictures, ["ant", "bee", "cow"])
    write_parquet(tmp_path / "test-0.parquet", pictures, ["cow", "bee", "cow"])
    test = load_dataset(str(tmp_path))
    assert (test.classes, test.labels.tolist()) == (NAMES, [2, 1, 2])


def write_table(path: Path, metadata: dict[str, object] | None = None, **columns: pa.Array) -> str:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    pq.write_table(table, path)
    return str(path)


GREY = np.random.default_rng(0).integers(0, 256, (4, 6, 6), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 7, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array(GREY.reshape(4, -1).tolist()), GREY[:, None]),
        (pa.array(GREY.tolist(), pa.list_(pa.list_(pa.uint8()))), GREY[:, None]),
        (pa.array((GREY / 255).tolist()), GREY[:, None]),
        (pa.array(COLOUR.tolist()), COLOUR.transpose(0, 3, 1, 2)),
        (pa.FixedSizeListArray.from_arrays(pa.array(GREY.ravel()), 36), GREY[:, None]),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(COLOUR), COLOUR.transpose(0, 3, 1, 2)),
    ],
    ids=["flat", "rows", "floats", "height-width-channels", "fixed list", "tensor"],
)
def test_lists_of_pixels_in_every_form(tmp_path: Path, cells: pa.Array, expected: np.ndarray) -> None:
    dataset = load_dataset(write_table(tmp_path / "a.parquet", image=cells, label=pa.array([0, 1, 1, 0])), limit=3)
    assert np.array_equal(dataset.images.numpy(), expected[:3])


@pytest.mark.parametrize(
    ("image", "label"), [("image", "labels"), ("IMG", "Label"), ("picture", "fine_label"), ("content", "kind")]
)
def test_columns_are_found_by_usual_names_or_as_the_only_ones_that_fit(
    tmp_path: Path, make_png: Callable[..., bytes], image: str, label: str
) -> None:
    cells = pa.array([make_png(0), make_png(1)])
    dataset = load_dataset(write_table(tmp_path / "a.parquet", **{image: cells, label: pa.array([1, 0])}))
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.filenames is None


def test_the_metadata_goes_before_names_and_fine_before_coarse(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    names = {"_type": "ClassLabel", "names": ["x", "y"]}
    spec = write_table(
        tmp_path / "a.parquet",
        {"scan": {"_type": "Image"}, "coarse_label": {"_type": "ClassLabel", "names": ["p", "q"]}, "fine_label": names},
        image=pa.array([b"thumb", b"nail"]),
        scan=pa.array([make_png(0), make_png(1)]),
        label=pa.array([7, 9]),
        coarse_label=pa.array([0, 0]),
        fine_label=pa.array([0, 1]),
    )
    assert load_dataset(spec).classes == ("x", "y")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": pa.array(["a"]), "label": pa.array([0])},
            r"a column of pictures .* got columns text \(string\), label",
        ),
        ({"image": pa.array([b"a"]), "text": pa.array(["a"]), "n": pa.array([0])}, r"a column of labels .*got columns"),
        ({"image": pa.array([b"a", b"b"]), "label": pa.array([0, None])}, r"label\[1\]: expected a label, got none"),
        ({"image": pa.array([b"a", b"b"]), "label": pa.array([[0], [1]])}, r"a.parquet:label: .* got type list"),
        (
            {"image": pa.array([b"a", b"b"]), "label": pa.array([-1, -1])},
            r"label\[0\]: expected .* got -1 \(not labelled",
        ),
        ({"image": pa.array([b"a", b"b"]), "label": pa.array([1, 1])}, "labels of at least two classes, got only 1"),
        ({"image": pa.array([[1, 2], [1]]), "label": pa.array([0, 1])}, "images of one size, got lists of 2 different"),
        ({"image": pa.array([[1], None]), "label": pa.array([0, 1])}, "pixels in every row, got an empty cell"),
    ],
    ids=["no picture", "no label", "null", "list", "unlabelled", "one class", "ragged", "empty cell"],
)
def test_names_what_is_wrong(tmp_path: Path, columns: dict[str, pa.Array], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(write_table(tmp_path / "a.parquet", **columns))


def test_labels_out_of_the_named_classes_are_named(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    spec = str(write_parquet(tmp_path / "a.parquet", [make_png()] * 3, [0, 2, 12], NAMES))
    with pytest.raises(DataError, match=r"a.parquet:label\[2\]: expected 0..2, got 12"):
        load_dataset(spec)


def test_files_that_do_not_agree_are_named(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    write_parquet(tmp_path / "test-0.parquet", [make_png()] * 2, [0, 1], NAMES)
    write_parquet(tmp_path / "test-1.parquet", [make_png()] * 2, [0, 1], ("p", "q"))
    with pytest.raises(DataError, match=r"test-1.parquet: expected columns img, label and class names as in test-0"):
        load_dataset(str(tmp_path))


def test_an_empty_table_and_a_file_of_another_kind_are_named(
    tmp_path: Path, write_parquet: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match="a.parquet:label: expected at least one image, got an empty table"):
        load_dataset(str(write_parquet(tmp_path / "a.parquet", [], [], NAMES)))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but nothing else PAR1")
    with pytest.raises(DataError, match="a.parquet: expected a readable Parquet file, got "):
        load_dataset(str(tmp_path / "a.parquet"))


def test_grey_pictures_stay_one_channel(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    cells = pa.array([make_png(0, mode="L"), make_png(1, mode="L")])
    assert load_dataset(write_table(tmp_path / "a.parquet", image=cells, label=pa.array([0, 1]))).shape == (1, 8, 8)


def test_broken_metadata_is_passed_over(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    table = pa.table({"image": pa.array([make_png(0), make_png(1)]), "label": pa.array([0, 1])})
    for text in (b"{", b"[]", b'{"info": 3}', b'{"info": {"features": []}}', b"\xff"):
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), tmp_path / "a.parquet")
        assert load_dataset(str(tmp_path / "a.parquet")).classes == ("0", "1")


def test_bool_labels(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    cells = pa.array([make_png(0), make_png(1)])
    dataset = load_dataset(write_table(tmp_path / "a.parquet", image=cells, label=pa.array([True, False])))
    assert (dataset.classes, dataset.labels.tolist()) == (("false", "true"), [1, 0])


def test_the_picture_is_what_pil_shows(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    picture = make_png(3, size=(5, 9))
    (tmp_path / "x.png").write_bytes(picture)
    cells = pa.array([picture, picture])
    dataset = load_dataset(write_table(tmp_path / "a.parquet", image=cells, label=pa.array([0, 1])))
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(dataset.images[0].permute(1, 2, 0).numpy(), np.asarray(image))


def test_a_file_name_that_is_no_text_is_a_damaged_file(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [make_png(), make_png()], [0, 1], NAMES)
    content = path.read_bytes()
    assert content.count(b"1.png") > 0
    path.write_bytes(content.replace(b"1.png", b"\xff.png"))
    with pytest.raises(DataError, match="a.parquet: expected a readable Parquet file, got 'utf-8' codec"):
        load_dataset(str(path))


def test_columns_that_could_be_meant_as_well_are_named(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    pictures = [make_png(1), make_png(2)]
    table = pa.table({"image": pictures, "mask": pictures, "fine_label": [0, 1], "class": [1, 0], "note": ["a", "b"]})
    pq.write_table(table, tmp_path / "x.parquet")
    dataset = load_dataset(str(tmp_path / "x.parquet"))
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.notes == (
        "x.parquet: the labels are those of the column 'fine_label', not of 'class'",
        "x.parquet: 2 columns kept as metadata: class, note",
        "x.parquet: 1 column not used: mask",
    )
