from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.data.reading import Reading
from assay.data.sources import load_dataset
from assay.data.sources.idx import FASHION_CLASSES
from assay.data.sources.published import CIFAR10, FASHION_MNIST, MNIST, PUBLISHED, cache_folder, load_published
from assay.errors import DataError

DIGITS = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
CLOTHES = [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]

pytestmark = pytest.mark.usefixtures("own_places")


@pytest.fixture
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ASSAY_DATA", raising=False)


@pytest.fixture
def add_idx(write_idx: Callable[..., Path]) -> Callable[..., Path]:
    def add(folder: Path, labels: list[int], split: str = "t10k", shade: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", np.full((len(labels), 28, 28), shade, np.uint8))
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", np.array(labels, np.uint8))
        return folder

    return add


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("inside", ["", "mnist", "MNIST/raw", "MNIST", "mnist/some/where"])
def test_mnist_is_found_wherever_it_usually_lies(tmp_path: Path, add_idx: Callable[..., Path], inside: str) -> None:
    add_idx(tmp_path / inside, DIGITS)
    dataset = load_dataset("mnist", data_dir=tmp_path)
    assert (dataset.name, dataset.split, dataset.labels.tolist()) == ("mnist", "test", DIGITS)


@pytest.mark.usefixtures("no_network")
def test_the_data_folder_goes_before_the_environment_and_that_before_the_cache(
    tmp_path: Path, add_idx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shade() -> int:
        return int(load_dataset("mnist", data_dir=given if given.is_dir() else None).images[0, 0, 0, 0])

    given = tmp_path / "given"
    add_idx(cache_folder() / "mnist", DIGITS, shade=1)
    assert shade() == 1
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path / "env"))
    assert shade() == 1
    add_idx(tmp_path / "env" / "mnist", DIGITS, shade=2)
    assert shade() == 2
    add_idx(given, DIGITS, shade=3)
    assert shade() == 3


def test_the_other_set_with_the_same_file_names_is_not_taken_for_it(
    tmp_path: Path, add_idx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_idx(tmp_path, CLOTHES)
    assert load_dataset("fashion-mnist", data_dir=tmp_path).classes == FASHION_CLASSES
    asked = []
    monkeypatch.setattr("assay.data.sources.published.fetch", lambda file, _: asked.append(file.name) or add_cache())

    def add_cache() -> None:
        add_idx(cache_folder() / "mnist", DIGITS)

    assert load_dataset("mnist", data_dir=tmp_path).classes == tuple("0123456789")
    assert asked == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


def test_the_wrong_set_under_the_right_name_is_an_error(tmp_path: Path, add_idx: Callable[..., Path]) -> None:
    add_idx(tmp_path / "mnist", CLOTHES)
    with pytest.raises(
        DataError, match=r"mnist: expected mnist: .* images of 0, 1, 2, …, got .* images of T-shirt/top"
    ):
        load_dataset("mnist", data_dir=tmp_path)


@pytest.mark.usefixtures("no_network")
@pytest.mark.shared
@pytest.mark.parametrize("inside", ["data", "data/cifar10"])
def test_cifar10_is_found_as_parquet(shared: Path, inside: str) -> None:
    dataset = load_dataset("cifar10", data_dir=shared / inside, limit=5)
    assert (dataset.name, dataset.labels.tolist()) == ("cifar10", [9, 3, 7, 0, 9])


@pytest.mark.usefixtures("no_network")
def test_cifar10_is_found_as_batches_and_another_sets_tables_are_passed_over(
    tmp_path: Path, make_png: Callable[..., bytes], write_parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "env" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(bytes(range(4)) * 3073)
    write_parquet(tmp_path / "test-0.parquet", [make_png()] * 2, [0, 1], ("other", "set"))
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path / "env"))
    assert len(load_dataset("CIFAR-10", data_dir=tmp_path)) == 4


def test_there_are_two_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar10: expected the split 'train' or 'test', got 'validation'"):
        load_dataset("cifar10", split="val")
    with pytest.raises(DataError, match="nowhere: expected a folder to look for data in, got no such folder"):
        load_dataset("cifar10", data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
def test_the_table_of_files_is_well_formed(published: object) -> None:
    assert published.base_url.startswith("https://")
    assert set(published.files) == {"train", "test"}
    for files in published.files.values():
        for name, size, sha256 in files:
            assert size > 0
            assert len(bytes.fromhex(sha256)) == 32
            assert "/" not in name


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server over ``tmp_path``/mirror, and the list of paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "mirror"))

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_what_is_not_found_is_downloaded_checked_and_then_found(
    tmp_path: Path, add_idx: Callable[..., Path], mirror: tuple[str, list[str]]
) -> None:
    url, asked = mirror
    folder = add_idx(tmp_path / "mirror", DIGITS)
    files = tuple(
        (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    )
    small = replace(MNIST, files={"test": files, "train": files})
    first = load_published(small, reading=Reading(), base_url=url)
    second = load_published(small, reading=Reading(limit=3), base_url=url)
    assert first.labels.tolist() == DIGITS
    assert second.labels.tolist() == DIGITS[:3]
    assert asked == ["/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("published", [CIFAR10, MNIST, FASHION_MNIST], ids=lambda published: published.name)
def test_a_mirror_with_other_content_is_refused(
    tmp_path: Path, mirror: tuple[str, list[str]], published: object
) -> None:
    (tmp_path / "mirror").mkdir()
    for name, size, _ in published.files["test"]:
        with (tmp_path / "mirror" / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(DataError, match="expected content with SHA-256"):
        load_published(published, reading=Reading(), base_url=mirror[0])
    assert not [path for path in (cache_folder() / published.name).iterdir() if path.suffix != ".lock"]


def test_the_real_fashion_mnist_of_this_system() -> None:
    folder = Path("/usr/share/datasets")
    if not (folder / "fashion-mnist").is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    test = load_dataset("fashion-mnist", data_dir=folder)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.shape == (1, 28, 28)
    assert test.images.double().mean().item() == pytest.approx(73.15, abs=0.01)
