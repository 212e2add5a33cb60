from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.data import sources
from assay.data.sources import FILE_FORMATS, SOURCES, canonical_name, format_of, import_function, load_dataset
from assay.errors import DataError, OptionError

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("digits", "digits"),
        ("CIFAR-10", "cifar10"),
        ("cifar_10", "cifar10"),
        ("MNIST", "mnist"),
        ("FashionMNIST", "fashion-mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("cifar", None),
        ("./digits", None),
    ],
)
def test_names_are_known_in_every_spelling(spec: str, name: str | None) -> None:
    assert canonical_name(spec) == name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "cifar01",
            r"^data: expected digits, cifar10, mnist, fashion-mnist, hf:owner/name, .*; did you mean 'cifar10'\?",
        ),
        ("qqq", r"^data: expected digits, .* got 'qqq'$"),
        ("", "^data: expected digits, .* got an empty name"),
        ("tiny.npz", r"^tiny.npz: expected a file or a folder, got nothing there; did you mean 'tinny.npz'\?"),
        (
            "no/such/folder",
            r"no/such/folder: expected a file or a folder, got nothing there \(there is no folder no/such",
        ),
        ("tinyy", r"^data: .*; did you mean 'tinny.npz'\?|got 'tinyy'"),
        ("notes.md", r"^notes.md: expected a folder of class folders, .* got a file of another kind \(.md\)"),
        ("README", r"got a file of another kind \(no ending\)"),
        ("one.png", "^one.png: .* got a single picture, without a label"),
        ("*.md,one.png", r"^\*.md,one.png: expected one folder, or files of one format, got 2 paths of several kinds"),
        ("*.npz", r"tinny.npz: expected a NumPy archive \(.npz\), got an empty file"),
        ("x*.npz", r"^x\*.npz: expected a file or a folder, got nothing there"),
        ("a\0b", "^data: expected"),
        ("x" * 3000, "expected data that can be read, got File name too long"),
    ],
)
def test_what_cannot_be_found_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tinny.npz", "notes.md", "README", "one.png"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, "split: expected 'train', 'test' or 'validation', got 'tset'"),
        ({"limit": 0}, "limit: expected greater than or equal to 1, got 0"),
        ({"limit": 1.5}, "limit: .* got 1.5"),
        ({"max_bad": -1}, "max_bad: expected greater than or equal to 0, got -1"),
        ({"image_size": 0}, "image_size: expected greater than or equal to 1, got 0"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_dataset("digits", **options)


@pytest.mark.parametrize("word", ["val", "valid", "validation", "VAL", "dev"])
def test_the_words_for_a_split_are_understood(tmp_path: Path, make_png: Callable[..., bytes], word: str) -> None:
    for label in ("a", "b"):
        (tmp_path / "validation" / label).mkdir(parents=True)
        (tmp_path / "validation" / label / "1.png").write_bytes(make_png())
    assert load_dataset(str(tmp_path), split=word).split == "validation"


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("assay.data.sources.paths.os.scandir", refuse)
    with pytest.raises(DataError, match=rf"^{tmp_path}: expected data that can be read, got Permission denied"):
        load_dataset(str(tmp_path))


def test_data_files_are_found_below_a_folder_with_pictures_beside_them(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "logo.png").write_bytes(make_png())
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "test-0.parquet", [make_png(1), make_png(2)], [0, 1])
    write_parquet(tmp_path / "data" / "train-0.parquet", [make_png(1), make_png(2)], [0, 1])
    assert load_dataset(str(tmp_path)).split == "test"


def test_a_folder_of_npz_files_is_split_by_their_names(tmp_path: Path) -> None:
    for name, count in (("train", 4), ("test", 2)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((count, 6, 6), np.uint8), labels=np.arange(count) % 2)
    test, train = load_dataset(str(tmp_path)), load_dataset(str(tmp_path), split="train")
    assert (test.split, len(test), train.split, len(train)) == ("test", 2, "train", 4)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "set.npz", images=np.zeros((2, 6, 6), np.uint8), labels=np.arange(2))
    assert len(load_dataset("~/set.npz")) == 2


@pytest.mark.parametrize("row", [*SOURCES, *FILE_FORMATS], ids=lambda row: getattr(row, "loader", None) or row.reader)
def test_every_row_of_the_tables_names_a_function_of_the_agreed_form(row: sources.Source | sources.FileFormat) -> None:
    if isinstance(row, sources.Source):
        signature = inspect.signature(import_function(row.loader))
        signature.bind("digits", reading=None)
    else:
        signature = inspect.signature(import_function(row.reader))
        of_single_files = {} if row.takes_folder else {"split": "test", "others": []}
        signature.bind(None, name="x", reading=None, **of_single_files)


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("train-00000-of-00001.parquet", "parquet"),
        ("a.PQ", "parquet"),
        ("t10k-images-idx3-ubyte.gz", "idx"),
        ("train-labels.idx1-ubyte", "idx"),
        ("digits.idx", "idx"),
        (".hidden-idx3-ubyte", None),
        ("data_batch_3.bin", "cifar"),
        ("test_batch", "cifar"),
        ("data_batch_6", None),
        ("cifar-10-python.tar.gz", "cifar"),
        ("other.tar.gz", "webdataset"),
        ("x-000.tar", "webdataset"),
        ("set.npz", "npz"),
        ("photo.JPeG", "folder"),
        ("notes.md", None),
        ("parquet", None),
    ],
)
def test_a_file_name_tells_the_format(file_name: str, expected: str | None) -> None:
    file_format = format_of(file_name)
    assert (file_format and file_format.name) == expected


def test_files_of_two_splits_named_one_by_one_are_told_apart(tmp_path: Path) -> None:
    for name, count in (("train", 4), ("test", 2)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((count, 6, 6), np.uint8), labels=np.arange(count) % 2)
    dataset = load_dataset(f"{tmp_path / 'train.npz'},{tmp_path / 'test.npz'}")
    assert (dataset.split, len(dataset)) == ("test", 2)
    np.savez(tmp_path / "test-2.npz", images=np.zeros((2, 6, 6), np.uint8), labels=np.arange(2))
    with pytest.raises(DataError, match=r"expected one \.npz file, got test-2\.npz, test\.npz"):
        load_dataset(str(tmp_path))


def test_data_files_of_other_kinds_are_counted_and_named(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "logo.png").write_bytes(make_png())
    (tmp_path / "._test-0.parquet").write_bytes(b"x")
    for name in ("test-0", "train-0", "extra"):
        write_parquet(tmp_path / f"{name}.parquet", [make_png(1), make_png(2)], [0, 1])
    left_out = "1 hidden (._test-0.parquet); 1 of another format (assets/logo.png); 1 of no split (extra.parquet)"
    assert load_dataset(str(tmp_path)).notes == (f"{tmp_path.name}: left out {left_out}",)
