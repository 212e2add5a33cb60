"""Tables of paths and labels: right in every spelling that people have, or refused in one line."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from assay.data.sources import load_dataset
from assay.errors import DataError, UnusedOptionError

PATHS = tuple(f"{'a' if i % 2 else 'b'}/p {i}.png" for i in range(12))
LABELS = tuple(("cat", "çäf", "dog")[i % 3] for i in range(12))
SPLITS = tuple("test" if i % 4 == 0 else "train" for i in range(12))
TEST = [0, 4, 8]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in two folders that are no classes; picture i is of the grey level 20i."""
    folder = tmp_path_factory.mktemp("manifests")
    for i, path in enumerate(PATHS):
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 20 * i, np.uint8)).save(folder / path)
    return folder


@pytest.fixture
def write(pictures: Path) -> Callable[..., Path]:
    """A table beside the pictures, of these rows below these names."""

    def write_table(
        rows: Any, name: str = "x.csv", names: str | None = "path,label", *, encoding: str = "utf-8", **dialect: Any
    ) -> Path:
        path = pictures / name
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.writer(file, **dialect)
            writer.writerows([*([] if names is None else [names.split(",")]), *rows])
        return path

    return write_table


def greys(images: torch.Tensor) -> list[int]:
    return [value // 20 for value in images[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.csv", {}),
        ("x.csv", {"encoding": "utf-8-sig"}),
        ("x.csv", {"encoding": "utf-16"}),
        ("x.csv", {"delimiter": ";"}),
        ("x.csv", {"lineterminator": "\n", "quoting": csv.QUOTE_ALL}),
        ("x.TSV", {"delimiter": "\t"}),
    ],
)
def test_every_spelling_of_a_table_is_the_same_set(
    write: Callable[..., Path], name: str, options: dict[str, Any]
) -> None:
    remarks = ["one, two", 'a "quoted" word', "two\nlines", *[""] * 9]
    rows = zip(PATHS, LABELS, SPLITS, remarks, [f"00{i}" for i in range(12)], range(12), strict=True)
    data = load_dataset(write(rows, name, "File Name,Label,Split,remark,patient,age", **options))
    assert greys(data.images) == data.ids.tolist() == TEST
    assert (data.split, data.classes) == ("test", ("cat", "dog", "çäf"))
    assert [data.classes[label] for label in data.labels.tolist()] == [LABELS[i] for i in TEST]
    assert data.filenames == tuple(PATHS[i] for i in TEST)
    assert data.metadata["remark"].tolist() == ["one, two", None, None]
    assert data.metadata["patient"].tolist() == ["000", "004", "008"]  # names, not numbers
    assert data.metadata["age"].dtype == np.int64
    assert data.metadata["age"].tolist() == TEST
    assert data.notes == (f"{name}: 3 columns kept as metadata: remark, patient, age",)


def test_lines_of_json_keep_their_types_and_lists_are_named(pictures: Path) -> None:
    objects = [
        {"path": path, "label": i % 3, "flag": i > 5, "box": [1, 2], **({"half": i / 2} if i else {})}
        for i, path in enumerate(PATHS)
    ]
    (pictures / "x.jsonl").write_text("".join(json.dumps(each) + "\r\n" for each in objects) + "\n")
    data = load_dataset(pictures / "x.jsonl")
    assert greys(data.images) == data.ids.tolist() == list(range(12))
    assert data.labels.tolist() == [0, 1, 2] * 4
    assert data.metadata["flag"].tolist() == [i > 5 for i in range(12)]
    assert np.array_equal(data.metadata["half"], [np.nan, *np.arange(1, 12) / 2], equal_nan=True)
    assert data.notes == ("x.jsonl: 2 columns kept as metadata: flag, half", "x.jsonl: 1 column not used: box")


def test_a_compressed_table_and_windows_paths_and_empty_lines(pictures: Path) -> None:
    lines = [f"{path.replace('/', chr(92))}, {label}\r\n" for path, label in zip(PATHS, LABELS, strict=True)]
    text = "sep=,\r\n" + "path, label\r\n" + "".join(lines) + "\r\n\r\n"
    (pictures / "x.csv.gz").write_bytes(gzip.compress(text.encode()))
    data = load_dataset(pictures / "x.csv.gz")
    assert (greys(data.images), data.classes) == (list(range(12)), ("cat", "dog", "çäf"))


def test_columns_are_those_that_are_named(write: Callable[..., Path], pictures: Path, tmp_path: Path) -> None:
    rows = zip(["no.png"] * 12, PATHS, LABELS, range(12), [*["Val"] * 3, *["train"] * 9], strict=True)
    table = write(rows, names="path,Where,Species,label,fold")
    (tmp_path / "x.csv").write_bytes(table.read_bytes())
    named = {"image_column": "where", "label_column": "Species", "split_column": "fold", "root": pictures}
    data = load_dataset(tmp_path / "x.csv", **named)  # type: ignore[arg-type]
    assert (greys(data.images), data.split, data.classes) == ([0, 1, 2], "validation", ("cat", "dog", "çäf"))
    assert data.notes[0] == "x.csv: the labels are those of the column 'Species', not of 'label'"
    assert sorted(data.metadata) == ["label", "path"]


def test_a_column_of_pictures_is_known_by_its_cells(write: Callable[..., Path]) -> None:
    data = load_dataset(write(zip(LABELS, PATHS, strict=True), names="animal,where"))
    assert (greys(data.images), data.classes) == (list(range(12)), ("cat", "dog", "çäf"))


def test_labels_of_other_splits_number_the_classes_and_may_be_missing(write: Callable[..., Path]) -> None:
    labels = ["dog", "cat", "", "emu", *["dog", "cat", "emu", ""] * 2]
    splits = ["test", "test", "train", "train", *["test", "test", "train", "train"] * 2]
    data = load_dataset(write(zip(PATHS, labels, splits, strict=True), names="path,label,split"))
    assert data.classes == ("cat", "dog", "emu")
    assert data.ids.tolist() == [0, 1, 4, 5, 8, 9]
    assert data.labels.tolist() == [1, 0] * 3
    assert any("no sample of 1 of the 3 classes: emu" in note for note in data.notes)
    with pytest.raises(DataError, match=r"x\.csv:label\[\d+\]: expected a label, got none"):
        load_dataset(write(zip(PATHS, labels, splits, strict=True), names="path,label,split"), split="train")


def test_rows_of_no_known_split_are_counted_and_a_column_of_other_words_parts_nothing(
    write: Callable[..., Path],
) -> None:
    some = load_dataset(write(zip(PATHS, LABELS, ["test"] * 9 + ["extra", "extra", ""], strict=True),
                              names="path,label,split"))  # fmt: skip
    assert len(some) == 9
    assert "x.csv: 3 rows of no known split left out (extra, nothing)" in some.notes
    table = write(zip(PATHS, LABELS, "AAABBBCCCDDD", strict=True), names="path,label,set")
    every = load_dataset(table)
    assert (len(every), every.split, every.metadata["set"].tolist()) == (12, "all", list("AAABBBCCCDDD"))
    assert "x.csv: the column 'set' names no split (A, B, C, D): every row is used" in every.notes
    with pytest.raises(DataError, match=r"x\.csv:set: expected names of splits \(train, .*\), got A, B, C, D"):
        load_dataset(table, split_column="set")
    with pytest.raises(DataError, match=r"expected a 'validation' split, got only test and train"):
        load_dataset(write(zip(PATHS, LABELS, SPLITS, strict=True), names="path,label,split"), split="validation")


def test_a_column_of_folds_parts_the_rows_only_where_it_is_named(write: Callable[..., Path]) -> None:
    rows = [(PATHS[i], "ab"[i % 2], "test" if i % 4 else "train") for i in range(8)]
    path = write(rows, names="path,label,fold")
    assert (len(load_dataset(path)), load_dataset(path).split) == (8, "all")
    assert list(load_dataset(path).metadata["fold"]) == [fold for _, _, fold in rows]
    named = load_dataset(path, split_column="fold")
    assert (len(named), named.split, dict(named.metadata)) == (6, "test", {})


def test_a_limit_is_fair_and_reads_no_other_picture(
    write: Callable[..., Path], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_class = sorted(zip(PATHS, LABELS, range(12), strict=True), key=lambda row: row[1])
    read: list[str] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.suffix), real(path))[1])
    data = load_dataset(write(by_class, names="path,label,place"), limit=6)
    assert np.bincount(data.labels.numpy()).tolist() == [2, 2, 2]
    assert greys(data.images) == data.metadata["place"].tolist() == [by_class[i][2] for i in data.ids.tolist()]
    assert read.count(".png") == 6


def test_a_set_is_read_again_by_its_row_numbers(write: Callable[..., Path]) -> None:
    data = load_dataset(write(zip(PATHS, LABELS, SPLITS, strict=True), names="path,label,split"))
    assert data.read_again is not None
    from assay.records.preparation import Preparation

    again = data.read_again(Preparation.parse("resize=2", where="x"), data.ids[[2, 0]])
    assert (again.ids.tolist(), again.shape, greys(again.images)) == ([8, 0], (1, 2, 2), [8, 0])


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([("a/p 1.png", 1)], "path,score,b", r"x\.csv:2: expected 3 cells, as in the first row, got 2: a/p 1\.png"),
        ([("a/p 1.png", 1, 2)], "path,score,b", r"a column of labels \(label, .*\), got columns path, score, b"),
        ([("x", "cat")], "one,two", r"expected a column of paths \(path, file_name, .*--image-column .*got columns"),
        ([("b/p 0.png", "cat")], None, r"expected a first row with the names .*, got a sample there: b/p 0\.png"),
        ([("", "cat"), (PATHS[0], "dog")], "path,label", r"x\.csv:path\[0\]: expected the path of a picture, got none"),
        ([(PATHS[0], 0.0), (PATHS[1], 0.5)], "path,label", r"label\[1\]: expected a class number or a .*, got 0\.5"),
        ([(PATHS[0], "a"), (PATHS[1], "")], "path,label", r"x\.csv:label\[1\]: expected a label, got none"),
        ([(PATHS[0], "a"), (PATHS[1], "a")], "path,label", r"expected labels of at least two classes, got only 'a'"),
        ([(PATHS[0], 0, 1)], "path,label,label", r"expected columns of different names, got 2 called 'label'"),
        ([], "path,label", r"x\.csv:path: expected at least one sample, got no row below the names"),
        ([(PATHS[0], 0), ("no.png", 1), ("a", 1)], "path,label", r"1 of 3 are not there: no\.png"),
        ([("p 0.png", 0), ("p 2.png", 1)], "path,label", r"2 of 2 are not there: .*it is there below .*b$"),
        ([("a/P 1.PNG", 0), ("b/p 0.png", 1)], "path,label", r"1 of 2 are not there: .*; there is p 1\.png, which"),
        ([("a/p 1", 0), ("b/p 0", 1)], "path,label", r"there is p 1\.png: paths need the ending of the file"),
    ],
)  # fmt: skip
def test_names_what_is_wrong(write: Callable[..., Path], rows: Any, names: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(write(rows, names=names))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../x.png", r"x\.csv:path\[1\]: expected a path inside of .*--root.*, got \.\./x\.png"),
        ("a/../../x.png", r"expected a path inside of .*, got a/\.\./\.\./x\.png"),
        ("..\\x.png", r"expected a path inside of .*, got \.\.\\x\.png"),
        ("/etc/hosts", r"expected a path inside of .*, got /etc/hosts"),
        (r"C:\data\1.png", r"expected a path inside of .*, got C:\\data\\1\.png"),
        ("https://x.org/1.png", r"expected the path of a file \(nothing is fetched\), got https"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(write: Callable[..., Path], path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(write([(PATHS[0], "cat"), (path, "dog")]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a row of names and rows of samples, got an empty file"),
        (b"\xef\xbb\xbf \r\n", "got an empty file"),
        ("path,label\nä,1".encode("latin-1"), "expected text in UTF-8"),
        ("path,label\n".encode("utf-16-le"), "expected text in UTF-8, or a byte-order mark that tells another"),
        (b"path,label\n" + b"a" * (1 << 20) + b"a,1\n", "y.csv:2: expected a readable row, got field larger than"),
        (b'path,label\n"a,1\nb,2\n', "expected a readable row, got unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_is_named(pictures: Path, content: bytes, message: str) -> None:
    (pictures / "y.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(pictures / "y.csv")
    assert csv.field_size_limit() == 131072  # that of the process is left as it was


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"path": 1}]', r"y\.jsonl:1: expected an object of JSON in each line, such as .*, got a list"),
        ('{"path": "a"}\n{"path": ', r"y\.jsonl:2: expected an object of JSON in each line, got Expecting value"),
        ('{"path": "a", "path": "b", "label": 1}', r"y\.jsonl:1: expected every name once, got twice path"),
        (
            '{"path": {"bytes": ""}, "label": 1}\n{"path": "a", "label": 0}',
            r"path\[0\]: expected the path of a picture, got \{'bytes'",
        ),
        (
            '{"path": "b/p 0.png", "label": [1, 2]}\n{"path": "b/p 2.png", "label": [1]}',
            r"label\[0\]: expected .*, got list",
        ),
        ('{"path": "b/p 0.png", "label": 1}\n{"path": "b/p 2.png"}', r"label\[1\]: expected a label, got none"),
        (
            '{"path": "b/p 0.png", "label": 1}\n{"path": "b/p 2.png", "label": "x"}',
            r"label\[0\]: expected .* got int 1",
        ),
    ],
)
def test_lines_that_are_no_samples_are_named(pictures: Path, text: str, message: str) -> None:
    (pictures / "y.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(pictures / "y.jsonl")


def test_as_many_pictures_may_be_missing_as_are_allowed(write: Callable[..., Path]) -> None:
    rows = [*zip(PATHS, LABELS, range(12), strict=True), ("gone.png", "cat", 12)]
    data = load_dataset(write(rows, names="path,label,place"), max_bad=1)
    assert data.skipped == ("gone.png: No such file or directory",)
    assert data.metadata["place"].tolist() == list(range(12))
    half = [(path if i % 2 else f"no/{i}.png", label) for i, (path, label, _) in enumerate(rows)]
    with pytest.raises(DataError, match=r"--max-bad N leaves out up to N\), got 7 of 13 are not there: no/0\.png"):
        load_dataset(write(half), max_bad=3)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(
    write: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    for name, target in {"in.png": pictures / PATHS[1], "out.png": tmp_path / "secret.png", "away": tmp_path}.items():
        (pictures / name).unlink(missing_ok=True)
        (pictures / name).symlink_to(target)
    rows = [(PATHS[0], "a"), ("in.png", "b")]
    assert greys(load_dataset(write(rows)).images) == [0, 1]
    for path in ("out.png", "away/secret.png"):
        with pytest.raises(
            DataError, match=rf"x\.csv:path\[2\]: expected a path inside of .*, got a link out of it: {path}"
        ):
            load_dataset(write([*rows, (path, "a")]))


def test_a_path_from_the_top_is_taken_where_it_leads_into_the_folder(
    write: Callable[..., Path], pictures: Path
) -> None:
    table = write(zip([pictures / path for path in PATHS], LABELS, strict=True))
    assert load_dataset(table).filenames == PATHS
    with pytest.raises(DataError, match=r"expected a path inside of .*/a \("):
        load_dataset(table, root=pictures / "a")
    with pytest.raises(DataError, match="--root: expected a folder, got nothing such at nowhere"):
        load_dataset(table, root="nowhere")


def test_a_picture_in_several_rows_is_told(write: Callable[..., Path]) -> None:
    rows = [*zip(PATHS, LABELS, strict=True), (PATHS[0], LABELS[0]), (PATHS[1], "cat")]
    notes = load_dataset(write(rows)).notes
    assert f"x.csv: 2 pictures in several rows, 1 of them under different labels ({PATHS[0]}, {PATHS[1]})" in notes


def test_a_folder_with_a_table_and_no_class_folders_is_what_the_table_says(tmp_path: Path) -> None:
    for split in ("train", "test"):  # as the image folders of Hugging Face have it
        (tmp_path / split).mkdir()
        for i in range(4):
            Image.fromarray(np.full((4, 4), 20 * i, np.uint8)).save(tmp_path / split / f"{i}.png")
        rows = "".join(f"{i}.png,{'ab'[i % 2]},{i}\n" for i in range(4))
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label,place\n{rows}")
    data = load_dataset(tmp_path)
    assert (data.split, data.classes, greys(data.images)) == ("test", ("a", "b"), [0, 1, 2, 3])
    assert data.notes[0] == f"{tmp_path.name}: the pictures are those that test/metadata.csv names"
    (tmp_path / "test" / "metadata.csv").rename(tmp_path / "train" / "more.csv")
    with pytest.raises(DataError, match=r"expected one table of pictures .*, got train/metadata\.csv, train/more\.csv"):
        load_dataset(tmp_path, split="train")


def test_class_folders_go_before_a_table_and_that_is_told(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
    (tmp_path / "labels.csv").write_text("path,label\ncat/1.png,x\ndog/1.png,y\n")
    (tmp_path / "other.csv").write_text("name,number\nx,1\n")
    data = load_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    told = [note for note in data.notes if "class folders are read" in note]
    assert told == [f"{tmp_path.name}: the class folders are read, and not labels.csv, which names pictures and labels "
                    "as well: name it as the data to use it"]  # fmt: skip
    assert load_dataset(tmp_path / "labels.csv").classes == ("x", "y")
    with pytest.raises(UnusedOptionError, match="--label-column: no effect on a folder of class folders"):
        load_dataset(tmp_path, label_column="label")


def test_folders_of_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
    with pytest.raises(DataError, match=r"expected class folders in test/ and train/, or a table of paths and labels"):
        load_dataset(tmp_path)
    (tmp_path / "notes.csv").write_text("name,number\nx,1\n")
    with pytest.raises(DataError, match=r"notes\.csv: expected a column of paths .*got columns name, number"):
        load_dataset(tmp_path)
