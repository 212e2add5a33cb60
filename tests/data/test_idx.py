from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from assay.data.sources import load_dataset
from assay.data.sources.idx import FASHION_CLASSES, read_idx
from assay.errors import DataError

Writer = Callable[[Path, np.ndarray], Path]

arrays = st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


@settings(max_examples=60)
@given(arrays, st.booleans(), st.integers(0, 6))
def test_what_is_written_is_what_is_read(write_idx: Writer, array: np.ndarray, zipped: bool, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_idx(Path(folder, "a-idx.gz" if zipped else "a-idx"), array)
        assert np.array_equal(read_idx(path), array, equal_nan=array.dtype.kind == "f")
        first = read_idx(path, rows=rows)
        assert np.array_equal(first, array[:rows], equal_nan=array.dtype.kind == "f")
        assert first.dtype == array.dtype


@pytest.fixture
def pair(tmp_path: Path, write_idx: Writer) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 5), dtype=np.uint8)
    labels = (np.arange(12) % 3).astype(np.uint8)
    for split, part in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images[part])
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels[part])
    return tmp_path


def test_a_folder_gives_the_wanted_split(pair: Path) -> None:
    test, train = load_dataset(str(pair)), load_dataset(str(pair), split="train", limit=3)
    assert (test.split, len(test), test.shape, test.labels.tolist()) == ("test", 4, (1, 6, 5), [2, 0, 1, 2])
    assert (train.split, train.ids.tolist(), train.classes) == ("train", [0, 1, 2], ("0", "1", "2"))
    expected = np.random.default_rng(0).integers(0, 256, (12, 6, 5), dtype=np.uint8)
    assert np.array_equal(test.images[:, 0].numpy(), expected[8:])


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_either_file_of_a_pair_will_do(pair: Path, name: str) -> None:
    assert load_dataset(str(pair / name)).labels.tolist() == [2, 0, 1, 2]


def test_the_spelling_with_a_dot_and_files_without_gzip(tmp_path: Path, write_idx: Writer) -> None:
    write_idx(tmp_path / "t10k-images.idx3-ubyte", np.zeros((2, 4, 4), np.uint8))
    write_idx(tmp_path / "t10k-labels.idx1-ubyte", np.array([0, 1], np.uint8))
    assert load_dataset(str(tmp_path)).labels.tolist() == [0, 1]


def test_fashion_is_recognised_by_its_first_labels(tmp_path: Path, write_idx: Writer) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((10, 4, 4), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([9, 2, 1, 1, 6, 1, 4, 6, 5, 7], np.uint8))
    assert load_dataset(str(tmp_path)).classes == FASHION_CLASSES


def test_a_limit_reads_no_more_than_it_needs(tmp_path: Path, write_idx: Writer) -> None:
    path = write_idx(tmp_path / "t10k-images-idx3-ubyte", np.arange(2000, dtype=np.uint8).reshape(5, 20, 20))
    path.write_bytes(path.read_bytes()[: 16 + 2 * 400])  # only two images are there
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 1, 0, 1, 0], np.uint8))
    assert len(load_dataset(str(path), limit=2)) == 2
    with pytest.raises(DataError, match="expected 2,000 bytes of numbers, got 800, a truncated file"):
        load_dataset(str(path))


def header(*numbers: int) -> bytes:
    return bytes((0, 0, 8, len(numbers))) + b"".join(number.to_bytes(4, "big") for number in numbers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the header of an IDX file .*, got nothing"),
        (b"\x89PNG\r\n", "got 89504e47"),
        (bytes((0, 0, 7, 1)), "got 00000701"),
        (bytes((0, 0, 8, 9)), "got 00000809"),
        (header(3)[:6], "expected 1 dimensions in the header, got a truncated file"),
        (header(3) + b"ab", "expected 3 bytes of numbers, got 2, a truncated file"),
        (header(3) + b"abcd", "expected 3 bytes of numbers, got more"),
        (header(2**32 - 1, 2**32 - 1) + b"abcd", "got 4, a truncated file"),
        (gzip.compress(header(3) + b"abc")[:-9], "a truncated file"),
        (b"\x1f\x8b\x08 no gzip at all", "expected a readable IDX file"),
    ],
    ids=["empty", "png", "type", "dimensions", "cut header", "cut", "long", "huge", "cut gzip", "no gzip"],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a-idx1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_missing_partner_and_unequal_lengths_are_named(tmp_path: Path, write_idx: Writer) -> None:
    images = write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match="expected the labels beside it, got no file t10k-labels-idx1-ubyte"):
        load_dataset(str(images))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 1], np.uint8))
    with pytest.raises(DataError, match="expected 2 rows, one for each label, got 3"):
        load_dataset(str(images))


def test_two_sets_below_one_folder_are_not_guessed_between(tmp_path: Path, write_idx: Writer) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_idx(tmp_path / name / "t10k-images-idx3-ubyte", np.zeros((2, 4, 4), np.uint8))
        write_idx(tmp_path / name / "t10k-labels-idx1-ubyte", np.array([0, 1], np.uint8))
    (tmp_path / "c.idx").touch()
    with pytest.raises(DataError, match="expected one folder with IDX files, got .*a and .*b"):
        load_dataset(str(tmp_path))


def test_a_split_that_lacks_the_last_class_has_the_classes_of_the_whole(tmp_path: Path, write_idx: Writer) -> None:
    for split, labels in (("train", [0, 1, 2]), ("t10k", [1, 0])):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", np.full((len(labels), 6, 5), 99, np.uint8))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.array(labels, np.uint8))
    dataset = load_dataset(str(tmp_path))
    assert (dataset.classes, dataset.labels.tolist()) == (("0", "1", "2"), [1, 0])
    assert [note.partition(": ")[2] for note in dataset.notes] == ["no sample of 1 of the 3 classes: 2"]
