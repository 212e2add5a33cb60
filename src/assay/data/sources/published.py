"""Well-known sets by name: what their files are called, where they are looked for, and where they are published."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.data.dataset import ImageDataset
from assay.data.download import RemoteFile, fetch
from assay.data.reading import Reading, group_by_split
from assay.data.sources import canonical_name
from assay.data.sources.cifar import CLASSES as CIFAR10_CLASSES
from assay.data.sources.cifar import find_batches, load_cifar
from assay.data.sources.idx import FASHION_CLASSES, MNIST_CLASSES, is_images_name, load_idx
from assay.data.sources.parquet import class_names, load_parquet
from assay.errors import DataError


@dataclass(frozen=True)
class Published:
    """A set by name: its classes, the shape of an image, its folders' usual names, and the files by split.

    ``files`` holds (name, bytes, SHA-256); together with ``base_url`` that is what is downloaded when nothing is found.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    folders: tuple[str, ...]
    base_url: str
    files: Mapping[str, tuple[tuple[str, int, str], ...]]


def _files(lines: str) -> dict[str, tuple[tuple[str, int, str], ...]]:
    rows = [line.split() for line in lines.strip().splitlines()]
    return {
        split: tuple((name, int(size), sha256) for part, name, size, sha256 in rows if part == split)
        for split in ("train", "test")
    }


CIFAR10 = Published(
    name="cifar10",
    classes=CIFAR10_CLASSES,
    shape=(3, 32, 32),
    folders=("cifar10", "cifar-10", "CIFAR10", "CIFAR-10", "cifar-10-batches-bin", "cifar-10-batches-py"),
    base_url="https://huggingface.co/datasets/uoft-cs/cifar10/resolve/0b2714987fa478483af9968de7c934580d0bb9a2/plain_text",
    files=_files("""
        train train-00000-of-00001.parquet 119705255 8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883
        test test-00000-of-00001.parquet 23940850 841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de
    """),
)
MNIST = Published(
    name="mnist",
    classes=MNIST_CLASSES,
    shape=(1, 28, 28),
    folders=("mnist", "MNIST/raw", "MNIST"),
    base_url="https://storage.googleapis.com/cvdf-datasets/mnist",
    files=_files("""
        train train-images-idx3-ubyte.gz 9912422 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
        train train-labels-idx1-ubyte.gz 28881 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
        test t10k-images-idx3-ubyte.gz 1648877 8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
        test t10k-labels-idx1-ubyte.gz 4542 f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6
    """),
)
FASHION_MNIST = Published(
    name="fashion-mnist",
    classes=FASHION_CLASSES,
    shape=(1, 28, 28),
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST"),
    base_url="https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    files=_files("""
        train train-images-idx3-ubyte.gz 26421880 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84
        train train-labels-idx1-ubyte.gz 29515 a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845
        test t10k-images-idx3-ubyte.gz 4422102 346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073
        test t10k-labels-idx1-ubyte.gz 5148 67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5
    """),
)
PUBLISHED = {published.name: published for published in (CIFAR10, MNIST, FASHION_MNIST)}


def load_named(spec: str, *, reading: Reading) -> ImageDataset:
    return load_published(PUBLISHED[canonical_name(spec) or ""], reading=reading)


def load_published(published: Published, *, reading: Reading, base_url: str | None = None) -> ImageDataset:
    """The wanted split from the data folder, the folders in $ASSAY_DATA, or the cache; only then from the network.

    What is downloaded goes to the cache and is checked against the SHA-256 in this file, so ``base_url`` can name any
    mirror. Raises :class:`DataError` when the set is neither found nor fetched, or what is found is something else.
    """
    if reading.split not in published.files:
        raise DataError(published.name, expected="the split 'train' or 'test'", got=repr(reading.split))
    if reading.data_dir is not None and not reading.data_dir.is_dir():
        raise DataError(str(reading.data_dir), expected="a folder to look for data in", got="no such folder")
    for folder, named in _places(published, reading.data_dir):
        dataset = _load_folder(folder, published, named=named, reading=reading)
        if dataset is not None:
            return _check(dataset, published, folder=folder, reading=reading)
    cache = cache_folder() / published.name
    base = (base_url or published.base_url).rstrip("/")
    for name, size, sha256 in published.files[reading.split]:
        fetch(RemoteFile(name, f"{base}/{name}", size, sha256), cache)
    fetched = _load_folder(cache, published, named=True, reading=reading)
    if fetched is None:
        raise DataError(str(cache), expected=f"the files of {published.name}", got="none of them")
    return _check(fetched, published, folder=cache, reading=reading)


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/assay``, or the usual place of the system."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "assay"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "assay" / "cache"
    return Path.home() / ".cache" / "assay"


def _places(published: Published, data_dir: Path | None) -> Iterator[tuple[Path, bool]]:
    """Folders that may hold the set, and whether the set's name is what led there."""
    roots = [Path(part) for part in os.environ.get("ASSAY_DATA", "").split(os.pathsep) if part]
    for root in [data_dir, *roots] if data_dir else roots:
        for folder in published.folders:
            if (root / folder).is_dir():
                yield from ((place, True) for place in _with_subfolders(root / folder, depth=2))
        if root.is_dir():
            yield root, root.name in published.folders
    if (cache := cache_folder() / published.name).is_dir():
        yield cache, True


def _with_subfolders(folder: Path, *, depth: int) -> Iterator[Path]:
    """The folder itself, then what is below it: downloads are often unpacked one folder deeper."""
    yield folder
    if depth:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            yield from _with_subfolders(inner, depth=depth - 1)


def _load_folder(folder: Path, published: Published, *, named: bool, reading: Reading) -> ImageDataset | None:
    """The wanted split from the files right in ``folder``; None when they are not there, or are another set's."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    tables = sorted(folder / name for name in names if name.endswith(".parquet"))
    groups = group_by_split(tables, root=folder)
    if reading.split in groups and (named or _same(class_names(groups[reading.split][0]), published.classes)):
        return load_parquet(groups[reading.split], name=published.name, split=reading.split, reading=reading)
    pairs = [folder / name for name in names if is_images_name(name)]
    if published is not CIFAR10 and reading.split in group_by_split(pairs, root=folder):
        dataset = load_idx(folder, name=published.name, reading=reading)
        return dataset if named or dataset.classes == published.classes else None
    if published is not CIFAR10 or find_batches(folder, split=reading.split) is None:
        return None
    return load_cifar(folder, name=published.name, reading=reading)


def _check(dataset: ImageDataset, published: Published, *, folder: Path, reading: Reading) -> ImageDataset:
    expected_shape = published.shape if reading.preparation is None else dataset.shape
    if not _same(dataset.classes, published.classes) or dataset.shape != expected_shape:
        expected = f"{published.name}: {published.shape} images of {', '.join(published.classes[:3])}, …"
        got = f"{dataset.shape} images of {', '.join(dataset.classes[:3])}, …"
        raise DataError(str(folder), expected=expected, got=got)
    return dataset


def _same(names: tuple[str, ...] | None, classes: tuple[str, ...]) -> bool:
    """Whether two lists of class names agree but for case, spaces and signs."""
    plain = [[re.sub(r"[^a-z0-9]", "", name.lower()) for name in some] for some in (names or (), classes)]
    return plain[0] == plain[1]
