from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from assay.data.sources import load_dataset
from assay.errors import DataError, InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 7), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 0, 2, 1])


def save(folder: Path, **arrays: object) -> str:
    np.savez(folder / "set.npz", **arrays)
    return str(folder / "set.npz")


@settings(max_examples=30)
@given(
    st.integers(2, 5).flatmap(
        lambda n: hnp.arrays(np.uint8, st.tuples(st.just(n), st.just(3), st.integers(5, 7), st.just(6)))
    ),
    st.booleans(),
    st.sampled_from(["bytes", "unit", "wide"]),
)
def test_what_is_saved_is_what_is_loaded(images: np.ndarray, last: bool, scale: str) -> None:
    stored = images.transpose(0, 2, 3, 1) if last else images
    if scale == "unit":
        stored = (stored / 255).astype(np.float32)
    if scale == "wide":
        stored = stored.astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(save(Path(folder), images=stored, labels=np.arange(len(images)) % 2))
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.tolist() == [i % 2 for i in range(len(images))]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("x_test", "y_test"),
        ("test_images", "test_labels"),
        ("X_test", "Y_test"),
        ("images_test", "labels_test"),
        ("test-x", "test-y"),
    ],
)
def test_the_names_tell_the_split(tmp_path: Path, images: str, labels: str) -> None:
    others = {"x_train": IMAGES[:2], "y_train": LABELS[:2]}
    dataset = load_dataset(save(tmp_path, **others, **{images: IMAGES, labels: LABELS}))
    assert (dataset.split, len(dataset), dataset.name) == ("test", 6, "set.npz")
    train = load_dataset(str(tmp_path / "set.npz"), split="train")
    assert (train.split, len(train)) == ("train", 2)


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("data", "targets"), ("X", "y"), ("a", "b")])
def test_arrays_without_a_split_are_used_whole(tmp_path: Path, images: str, labels: str) -> None:
    dataset = load_dataset(save(tmp_path, **{images: IMAGES, labels: LABELS}), split="train")
    assert (dataset.split, dataset.labels.tolist()) == ("all", LABELS.tolist())


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"image_column": "Bilder", "label_column": "etiketten"}, "etiketten"),
        ({"image_column": "bilder"}, "y"),
        ({"label_column": "test_sorten"}, "test_sorten"),
    ],
)
def test_arrays_of_other_names_are_named(tmp_path: Path, options: dict[str, str], labels: str) -> None:
    images = "images" if "image_column" not in options else "bilder"
    others = {"x_train": IMAGES[:2], "y_train": LABELS[:2], "extra": LABELS}
    data = load_dataset(save(tmp_path, **{images: IMAGES, labels: LABELS[::-1]}, **others), **options)
    assert (data.split, len(data), data.labels.tolist()) == ("all", 6, LABELS[::-1].tolist())


def test_arrays_that_are_not_there_or_not_enough_are_told(tmp_path: Path) -> None:
    path = save(tmp_path, bilder=IMAGES, etiketten=LABELS, extra=LABELS)
    for options, message in (
        ({}, r"got bilder .*|\(--image-column and --label-column name others\)"),
        ({"image_column": "bilder"}, "arrays: expected --label-column as well, got bilder, etiketten, extra"),
        ({"image_column": "pictures"}, "the array 'pictures' of --image-column, got arrays bilder, etiketten, extra"),
        ({"split_column": "x"}, "--split-column: no effect"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(path, **options)


def test_only_the_training_half_is_no_test_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set.npz: expected a 'test' split, got only train"):
        load_dataset(save(tmp_path, x_train=IMAGES, y_train=LABELS))


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], np.eye(3)[LABELS], np.eye(3, dtype=bool)[LABELS]],
    ids=["column", "one-hot", "one-hot bool"],
)
def test_labels_in_columns_are_read(tmp_path: Path, labels: np.ndarray) -> None:
    assert load_dataset(save(tmp_path, images=IMAGES, labels=labels)).labels.tolist() == LABELS.tolist()


def test_class_names_are_taken_along(tmp_path: Path) -> None:
    spec = save(tmp_path, images=IMAGES, labels=LABELS, class_names=np.array(["ant", "bee", "cow", "dog"]))
    assert load_dataset(spec).classes == ("ant", "bee", "cow", "dog")
    assert load_dataset(save(tmp_path, images=IMAGES, labels=np.array(list("bcabca")))).classes == ("a", "b", "c")


def test_limit_and_image_size(tmp_path: Path) -> None:
    spec = save(tmp_path, images=IMAGES, labels=LABELS)
    dataset = load_dataset(spec, limit=4, image_size=5)
    assert dataset.ids.tolist() == [0, 1, 2, 3]
    assert dataset.shape == (3, 5, 5)
    grouped = load_dataset(save(tmp_path, images=IMAGES, labels=np.sort(LABELS)), limit=3)
    assert grouped.labels.tolist() == [0, 1, 2]
    assert np.array_equal(grouped.images.numpy(), IMAGES[grouped.ids])


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("code from the file ran",))


def test_python_objects_are_refused_and_never_run(tmp_path: Path) -> None:
    spec = save(tmp_path, images=IMAGES, labels=np.array([Evil()] * 6, object))
    with pytest.raises(DataError, match=r"set.npz:labels: expected an array of numbers or text, got Python objects"):
        load_dataset(spec)
    (tmp_path / "set.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="expected a NumPy archive .*, got a pickle, which is not read"):
        load_dataset(spec)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES, "labels": LABELS[:4]}, "one label for each image, got 6 images and 4 labels"),
        ({"images": IMAGES}, r"arrays: expected images and labels, .* got images \(6, 3, 8, 7\)"),
        ({}, "arrays: expected images and labels, .* got none"),
        ({"images": IMAGES, "labels": np.ones((6, 3))}, r"or one-hot rows, got shape \(6, 3\)"),
        ({"images": IMAGES * 1.5, "labels": LABELS}, "set.npz:images: expected pixels 0..255"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"set.npz:labels\[0\]: expected 0..1, got -1"),
        ({"images": IMAGES, "labels": LABELS * 0}, "labels of at least two classes, got only 0"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b"])}, r"labels\[1\]: expected 0..1, got 2"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one image, got an empty set"),
    ],
    ids=["lengths", "no labels", "nothing", "many labels", "scale", "unlabelled", "one class", "range", "empty"],
)
def test_names_what_is_wrong(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(save(tmp_path, **arrays))


def test_a_lone_array_an_empty_file_and_a_truncated_archive_are_named(tmp_path: Path) -> None:
    spec = tmp_path / "set.npz"
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    for content, got in [
        (buffer.getvalue(), "a single NumPy array"),
        (b"", "an empty file"),
        (Path(save(tmp_path, images=IMAGES, labels=LABELS)).read_bytes()[:-30], "something else, or a truncated one"),
    ]:
        spec.write_bytes(content)
        with pytest.raises(DataError, match=rf"{spec}: expected a NumPy archive \(.npz\), got {got}"):
            load_dataset(str(spec))


def test_an_array_that_claims_more_than_there_is_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 3, 64, 64)})
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue() + b"only this")
        archive.writestr("labels.npy", buffer.getvalue())
    with pytest.raises(DataError, match="expected a readable NumPy archive"):
        load_dataset(str(tmp_path / "set.npz"))


def test_a_split_that_lacks_a_class_numbers_the_others_as_the_whole(tmp_path: Path) -> None:
    images = np.zeros((3, 6, 6), np.uint8) + 99
    labels = {"train": np.array(["a", "b", "c"]), "test": np.array(["c", "b"])}
    both = {f"x_{split}": images[: len(found)] for split, found in labels.items()}
    np.savez(tmp_path / "both.npz", **both, **{f"y_{split}": found for split, found in labels.items()}, extra=images)
    dataset = load_dataset(str(tmp_path / "both.npz"))
    assert (dataset.classes, dataset.labels.tolist()) == (("a", "b", "c"), [2, 1])
    assert [note.partition(": ")[2] for note in dataset.notes] == [
        "1 array not used: extra",
        "no sample of 1 of the 3 classes: a",
    ]
    (tmp_path / "apart").mkdir()
    for split, found in labels.items():
        np.savez(tmp_path / "apart" / f"{split}.npz", images=images[: len(found)], labels=found)
    assert load_dataset(str(tmp_path / "apart")).labels.tolist() == [2, 1]


def test_class_names_as_bytes_are_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 6, 6), np.uint8), labels=np.arange(2), classes=[b"cat", b"dog"])
    assert load_dataset(str(tmp_path / "x.npz")).classes == ("cat", "dog")


def test_one_hot_rows_and_a_column_are_labels(tmp_path: Path) -> None:
    for labels in (np.eye(3)[[2, 0]], np.eye(3, dtype=bool)[[2, 0]], np.array([[2], [0]])):
        np.savez(tmp_path / "x.npz", images=np.zeros((2, 6, 6), np.uint8), labels=labels)
        dataset = load_dataset(str(tmp_path / "x.npz"))
        assert (dataset.labels.tolist(), dataset.classes) == ([2, 0], ("0", "1", "2"))
