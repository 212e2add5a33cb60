from __future__ import annotations

import io
import pickle
import pickletools
import tarfile
from pathlib import Path

import numpy as np
import pytest

from assay.data.sources import cifar, load_dataset
from assay.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 60)
PARTS = {
    **{f"data_batch_{i}": slice(10 * i - 10, 10 * i) for i in range(1, 6)},
    "test_batch": slice(50, 60),
}


def binary(part: slice) -> bytes:
    return np.concatenate([LABELS[part, None].astype(np.uint8), IMAGES[part].reshape(10, -1)], axis=1).tobytes()


def pickled(part: slice) -> bytes:
    """A batch exactly as Python 2 wrote it, opcode by opcode: its text is bytes, NumPy's module has its old name."""

    def text(content: bytes) -> bytes:
        return b"T" + len(content).to_bytes(4, "little") + content

    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x0aM\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(IMAGES[part].tobytes()) + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS[part].tolist()) + b"e"
    note = text(b"batch_label") + text(b"testing batch 1 of 1")
    return b"\x80\x02}(" + note + text(b"labels") + labels + text(b"data") + data + b"u."


def write(folder: Path, form: str) -> Path:
    for name, part in PARTS.items():
        if form == "binary":
            (folder / f"{name}.bin").write_bytes(binary(part))
        else:
            (folder / name).write_bytes(pickled(part))
    return folder


def archive(folder: Path, form: str) -> Path:
    path = folder / f"cifar-10-{form}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, part in PARTS.items():
            content = binary(part) if form == "binary" else pickled(part)
            member = tarfile.TarInfo(f"cifar-10-batches/{name}" + (".bin" if form == "binary" else ""))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [write, archive], ids=["folder", "archive"])
@pytest.mark.parametrize("form", ["binary", "python"])
def test_every_published_form_is_read(tmp_path: Path, make: object, form: str) -> None:
    spec = str(make(tmp_path, form))
    test, train = load_dataset(spec), load_dataset(spec, split="train")
    assert np.array_equal(test.images.numpy(), IMAGES[50:])
    assert np.array_equal(train.images.numpy(), IMAGES[:50])
    assert test.labels.tolist() == LABELS[50:].tolist()
    assert train.labels.tolist() == LABELS[:50].tolist()
    assert test.classes == cifar.CLASSES
    assert train.ids.tolist() == list(range(50))
    assert load_dataset(spec, split="train", limit=7).ids.tolist() == list(range(7))


def test_a_folder_with_some_batches_and_the_archive_of_all_is_read_from_the_archive(tmp_path: Path) -> None:
    archive(tmp_path, "python")
    (tmp_path / "data_batch_1").write_bytes(b"left over from an interrupted unpacking")
    assert load_dataset(str(tmp_path), split="train").labels.tolist() == LABELS[:50].tolist()
    assert load_dataset(str(tmp_path / "data_batch_1"), split="test").labels.tolist() == LABELS[50:].tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_written_anew_are_read_too(protocol: int) -> None:
    batch = {"data": IMAGES[50:].reshape(10, -1), "labels": LABELS[50:].tolist()}
    images, labels = cifar._parse(pickle.dumps(batch, protocol), where="x")
    assert np.array_equal(images, IMAGES[50:])
    assert labels.tolist() == LABELS[50:].tolist()


class Evil:
    def __init__(self, call: object, *arguments: object) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> object:
        return self.reduced


def crash(*_: object) -> None:
    pytest.fail("code named in the file ran")


@pytest.mark.parametrize(
    "value",
    [
        Evil(crash),
        Evil(eval, "1/0"),
        {b"data": Evil(crash), b"labels": []},
        np.array([Evil(crash)], object),
        Evil(np.zeros, 10),
    ],
    ids=["function", "eval", "inside", "object array", "numpy"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_names_anything_else_is_refused_unrun(tmp_path: Path, value: object, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    assert any(operation.name in {"GLOBAL", "STACK_GLOBAL"} for operation, _, _ in pickletools.genops(content))
    write(tmp_path, "python")
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(
        DataError, match="test_batch: expected a dictionary with data .*could run code and is not followed"
    ):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "got list"),
        ({b"data": b"x" * 3072, b"labels": [1]}, "got bytes and list"),
        ({b"labels": [1]}, "got NoneType and list"),
        ({b"data": IMAGES[:2].reshape(2, -1), b"labels": [1]}, "expected 2 labels 0..9, got 1 of them"),
        (
            {b"data": IMAGES[:1].reshape(1, -1), b"labels": [-1]},
            "expected 1 labels 0..9, got 1 of them, or other values",
        ),
        ({b"data": IMAGES[:1].reshape(1, -1), b"labels": ["a"]}, "or other values"),
        ({b"data": IMAGES[:1].reshape(1, -1).astype(float), b"labels": [1]}, "expected data as uint8"),
        ({b"data": IMAGES[:1], b"labels": [1]}, "expected data as uint8"),
        ({b"data": IMAGES[:1].reshape(1, -1).view(np.int8), b"labels": [1]}, "expected data as uint8"),
        ({b"data": IMAGES[:1].reshape(1, -1), b"labels": [11]}, r"labels\)\[0\]: expected 0..9, got 11"),
    ],
    ids=["list", "bytes", "no data", "lengths", "negative", "text", "floats", "shape", "signed", "range"],
)
def test_a_pickle_with_something_else_in_it_is_named(tmp_path: Path, value: object, message: str) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(value, 2))
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path))


def test_missing_and_truncated_batches_are_named(tmp_path: Path) -> None:
    write(tmp_path, "binary")
    (tmp_path / "data_batch_3.bin").unlink()
    assert len(load_dataset(str(tmp_path))) == 10
    with pytest.raises(DataError, match="expected data_batch_1 and .*, got no data_batch_3"):
        load_dataset(str(tmp_path), split="train")
    (tmp_path / "test_batch.bin").write_bytes(binary(PARTS["test_batch"])[:-5])
    with pytest.raises(DataError, match="test_batch: expected a multiple of 3,073 bytes, got 30,725, a truncated file"):
        load_dataset(str(tmp_path))


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path, "binary")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="binary.tar.gz: expected readable CIFAR-10 batches, got "):
        load_dataset(str(path))


def test_there_is_no_validation_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the split 'train' or 'test', got 'validation'"):
        load_dataset(str(write(tmp_path, "binary")), split="val")
