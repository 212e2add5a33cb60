from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from assay.data.pictures import decode
from assay.data.sources import load_dataset
from assay.errors import DataError


@pytest.fixture
def add(tmp_path: Path, make_png: Callable[..., bytes]) -> Callable[..., Path]:
    """Put a picture of noise at a path below the test's folder."""
    count = 0

    def put(path: str, content: bytes | None = None, **options: object) -> Path:
        nonlocal count
        count += 1
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_png(count, **options) if content is None else content)
        return file

    return put


def test_classes_are_the_sorted_folders_and_samples_take_turns(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("dog/b.png", "cat/z.png", "dog/a.jpg.png", "cat/deep/er/a.PNG", "10/x.png", "9/y.png"):
        add(path)
    dataset = load_dataset(str(tmp_path))
    assert dataset.classes == ("10", "9", "cat", "dog")
    assert (dataset.split, dataset.name) == ("all", tmp_path.name)
    assert dataset.filenames == ("cat/z.png", "dog/a.jpg.png", "10/x.png", "9/y.png", "cat/deep/er/a.PNG", "dog/b.png")
    assert dataset.ids.tolist() == [2, 4, 0, 1, 3, 5]
    assert dataset.labels.tolist() == [2, 3, 0, 1, 2, 3]
    for place, name in enumerate(dataset.filenames):
        pixels = decode(tmp_path / name)
        assert isinstance(pixels, np.ndarray)
        assert np.array_equal(dataset.images[place].permute(1, 2, 0).numpy(), pixels)


def test_hidden_files_notes_and_foreign_folders_are_passed_over(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("a/1.png", "b/1.png", ".git/1.png", "__MACOSX/1.png", "a/.1.png", "preview.png"):
        add(path)
    add("a/notes.txt", b"notes")
    add("b/Thumbs.db", b"thumbs")
    assert load_dataset(str(tmp_path)).filenames == ("a/1.png", "b/1.png")


def test_pictures_are_told_by_their_content_where_the_name_does_not(tmp_path: Path, add: Callable[..., Path]) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 90, 200)).save(jpeg, format="JPEG")
    for path in ("a/1.jfif", "a/2.JPEG", "a/3", "b/photo.2021", "b/5.JPG_large"):
        add(path, jpeg.getvalue())
    assert load_dataset(str(tmp_path)).filenames == ("a/1.jfif", "b/5.JPG_large", "a/2.JPEG", "b/photo.2021", "a/3")
    assert load_dataset(str(tmp_path)).notes == ()


@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000"] + ["AVIF"] * features.check("avif"))
def test_what_pillow_was_built_with_is_read(tmp_path: Path, add: Callable[..., Path], kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 90, 200)).save(content, format=kind, quality=90)
    for path in ("a/1", "b/2"):
        add(path, content.getvalue())
    assert len(load_dataset(str(tmp_path))) == 2


def test_what_is_left_out_is_counted_and_named(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("a/1.png", "b/1.png", ".git/1.png", "a/.1.png", "preview.png", "b/deep/2.png"):
        add(path)
    for path in ("a/notes.txt", "b/Thumbs.db", "b/empty", "b/deep/film.mp4"):
        add(path, b"" if path == "b/empty" else b"text")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    (tmp_path / "around").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "b" / "pipe.png")
    dataset = load_dataset(str(tmp_path))
    assert sorted(dataset.filenames or ()) == ["a/1.png", "b/1.png", "b/deep/2.png"]
    assert dataset.classes == ("a", "b")
    where = tmp_path.name
    assert dataset.notes == (
        f"{where}: left out 2 hidden (.git, a/.1.png); 2 outside of the class folders (around, preview.png); "
        "1 links to folders (a/more); "
        "5 without a picture (a/notes.txt, b/Thumbs.db, b/empty and 2 more)",
        f"{where}: 1 of 3 pictures lie in folders inside of the class folders, which are no classes of their own: "
        "b/deep",
    )
    assert load_dataset(str(tmp_path), limit=2).notes == dataset.notes
    assert dataset.subset(dataset.labels == 1).notes == dataset.notes


def test_what_lies_outside_of_the_splits_and_a_class_that_a_split_lacks_are_named(
    tmp_path: Path, add: Callable[..., Path]
) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/a/1.png", "test/c/1.png", "extra/a/1.png"):
        add(path)
    add("test/list.csv", b"1,2")
    where, dataset = tmp_path.name, load_dataset(str(tmp_path))
    assert dataset.classes == ("a", "b", "c")
    assert dataset.labels.tolist() == [0, 2]
    assert dataset.notes == (
        f"{where}: left out 1 outside of the splits (extra); 1 outside of the class folders (test/list.csv)",
        f"{where} (test): no sample of 1 of the 3 classes: b",
    )


def test_one_folder_too_deep_is_explained(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("data/a/1.png", "data/b/1.png"):
        add(path)
    with pytest.raises(DataError, match=r"got only 'data'; are the folders inside of it \(a, b\) the classes\?"):
        load_dataset(str(tmp_path))


def test_a_limit_is_a_spread_over_the_classes_and_the_beginning_of_the_whole(
    tmp_path: Path, add: Callable[..., Path]
) -> None:
    for label in "abc":
        for index in range(5):
            add(f"{label}/{index}.png")
    whole, part = load_dataset(str(tmp_path)), load_dataset(str(tmp_path), limit=4)
    assert part.labels.tolist() == [0, 1, 2, 0]
    assert part.ids.tolist() == whole.ids[:4].tolist()
    assert part.filenames == whole.filenames[:4]


def test_a_limit_opens_no_other_file(tmp_path: Path, add: Callable[..., Path]) -> None:
    for label in "ab":
        add(f"{label}/0.png")
        add(f"{label}/1.png", b"broken")
    assert len(load_dataset(str(tmp_path), limit=2)) == 2
    with pytest.raises(DataError, match=r"^a/1.png: expected a readable image"):
        load_dataset(str(tmp_path), limit=3)


def test_splits_share_their_classes(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("train/ant/1.png", "train/bee/1.png", "train/cow/1.png", "test/cow/1.png", "test/bee/1.png"):
        add(path)
    test, train = load_dataset(str(tmp_path)), load_dataset(str(tmp_path), split="train")
    assert test.classes == train.classes == ("ant", "bee", "cow")
    assert (test.split, test.labels.tolist()) == ("test", [1, 2])
    assert (train.split, train.labels.tolist()) == ("train", [0, 1, 2])
    with pytest.raises(DataError, match="expected a 'validation' split, got only test and train"):
        load_dataset(str(tmp_path), split="validation")


def test_val_stands_in_for_test_under_its_own_name(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"):
        add(path)
    assert load_dataset(str(tmp_path)).split == "validation"


def test_a_class_may_be_called_train(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("bus/1.png", "train/1.png", "plane/1.png"):
        add(path)
    dataset = load_dataset(str(tmp_path), split="train")
    assert (dataset.split, dataset.classes) == ("all", ("bus", "plane", "train"))


def test_grey_palette_and_alpha_become_one_channel_count(tmp_path: Path, add: Callable[..., Path]) -> None:
    add("a/grey.png", mode="L")
    add("a/colour.png", mode="RGB")
    add("b/alpha.png", mode="RGBA")
    assert load_dataset(str(tmp_path)).shape == (3, 8, 8)
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "a" / "colour.png").unlink()
    add("b/grey.png", mode="L")
    assert load_dataset(str(tmp_path)).shape == (1, 8, 8)


def test_mixed_sizes_name_two_files_and_the_option(tmp_path: Path, add: Callable[..., Path]) -> None:
    add("a/small.png", size=(8, 8))
    add("b/large.png", size=(12, 10))
    with pytest.raises(DataError, match=r"b/large.png: expected 8x8 pixels as in a/small.png.*--image-size.*got 12x10"):
        load_dataset(str(tmp_path))
    assert load_dataset(str(tmp_path), image_size=9).shape == (3, 9, 9)


def test_broken_pictures_are_named_and_counted(tmp_path: Path, add: Callable[..., Path]) -> None:
    add("a/1.png")
    add("a/2.jpg", b"broken")
    add("b/1.png", b"")
    add("b/2.png")
    dataset = load_dataset(str(tmp_path), max_bad=2)
    assert dataset.skipped == ("b/1.png: the file is empty", "a/2.jpg: not a picture in a known format")
    assert dataset.filenames == ("a/1.png", "b/2.png")
    with pytest.raises(DataError, match=r"^b/1.png: .* 1 may be skipped"):
        load_dataset(str(tmp_path), max_bad=1)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no class folder and no known data file"),
        (["notes.txt"], "no class folder and no known data file"),
        (["1.png", "2.png"], "expected class folders with pictures.*, got 2 pictures that lie in no class folder"),
        (["a/1.txt", "b/1.txt"], "expected pictures in class folders, got no picture in a, b"),
        (["a/1.png"], "expected at least two class folders, got only 'a'"),
        (["a/1.png", "b/1.txt"], "b: expected at least one picture, got a class folder without any"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.txt"], r"\(test\): expected pictures in class folders, got none"),
    ],
    ids=["empty", "notes", "loose", "no pictures", "one class", "empty class", "empty split"],
)
def test_names_what_is_wrong(tmp_path: Path, add: Callable[..., Path], paths: list[str], message: str) -> None:
    for path in paths:
        add(path)
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("folders", "classes", "noted"),
    [
        (["10", "2", "1"], ("1", "2", "10"), True),
        (["001", "010", "002"], ("001", "002", "010"), False),
        (["1", "10", "b"], ("1", "10", "b"), False),
    ],
)
def test_folders_of_numbers_are_in_the_order_of_numbers(
    folders: list[str], classes: tuple[str, ...], noted: bool, tmp_path: Path, make_png: Callable[..., bytes]
) -> None:
    for number, folder in enumerate(folders):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(make_png(seed=number))
    data = load_dataset(tmp_path)
    assert data.classes == classes
    assert all(data.sample_name(i).startswith(classes[label]) for i, label in enumerate(data.labels.tolist()))
    assert any("the class folders are numbers, in the order 1, 2, 10" in note for note in data.notes) == noted


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["cat/train/1.png", "cat/test/1.png", "dog/train/1.png", "dog/test/1.png", "dog/2.png"],
            r"expected the folders of splits outside of the class folders, such as test/cat/ and train/cat/, got "
            r"cat/test/ and cat/train/",
        ),
        (["x/y/cat/1.png", "x/y/dog/1.png"], r"only 'x'; are the folders .* the classes\? Then name .*x/y$"),
        (
            [f"x/{split}/{name}/1.png" for split in ("train", "test") for name in ("cat", "dog")],
            r"expected class folders, or folders of splits with class folders, got only 'x', .*: name .*/x$",
        ),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/1.png"],
            r"/test: expected class folders with pictures, as in the other splits, got pictures that lie in no class",
        ),
        (["train/cat/1.png", "train/dog/1.png"], r"expected a 'test' split, got only train"),
    ],
    ids=["splits inside", "two deep", "one around splits", "bare split", "train only"],
)
def test_unusual_layouts_are_explained(
    tmp_path: Path, add: Callable[..., Path], paths: list[str], message: str
) -> None:
    for path in paths:
        add(path)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_folders_in_a_class_may_be_called_like_one_split(tmp_path: Path, add: Callable[..., Path]) -> None:
    for path in ("cat/train/1.png", "dog/1.png", "dog/train/2.png"):  # a cat in a train
        add(path)
    assert len(load_dataset(tmp_path)) == 3
