"""Processes of one machine read a set together: each decodes its share, and all hold what one process reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assay.data import load_dataset, pictures
from assay.data import together as together_module
from assay.data.dataset import ImageDataset, identify_samples
from assay.data.selection import draw_held_out, stratified_split
from assay.data.together import read_together
from assay.errors import DataError
from assay.runtime.processes import ALONE, Processes
from threads_as_processes import run_in_threads

SPECS = ("folder", "a.parquet", "a.csv", "x-{0..3}.tar", "a.npz", "idx")


def read(spec: Path, processes: Processes, **options: Any) -> ImageDataset:
    arrange = options.pop("arrange", None)
    return read_together(lambda shard: load_dataset(spec, shard=shard, **options), processes, arrange=arrange)


def assert_same(got: ImageDataset, expected: ImageDataset) -> None:
    for name in ("images", "labels", "ids"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    for name in ("classes", "name", "split", "filenames", "skipped", "notes", "preparation", "part"):
        assert getattr(got, name) == getattr(expected, name), name
    assert identify_samples(got) == identify_samples(expected)
    assert got.metadata.keys() == expected.metadata.keys()
    for name, column in got.metadata.items():
        assert column.dtype == expected.metadata[name].dtype
        assert column.tolist() == expected.metadata[name].tolist()


@pytest.mark.parametrize(("count", "limit"), [(2, None), (3, 17)])
@pytest.mark.parametrize("spec", SPECS)
def test_each_holds_the_set_of_one_process(stored: Path, spec: str, count: int, limit: int | None) -> None:
    expected = load_dataset(stored / spec, limit=limit)
    for got in run_in_threads(count, lambda processes: read(stored / spec, processes, limit=limit)):
        assert_same(got, expected)
        again = got.read_again(got.preparation, got.ids[:2]) if got.read_again and got.preparation else None
        assert again is None or torch.equal(again.images, got.images[:2])


@pytest.mark.parametrize("spec", ["folder", "a.parquet", "a.csv", "x-{0..3}.tar"])
def test_each_picture_is_decoded_once(stored: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: dict[str, int] = {}

    def count(content: bytes | Path | None, **options: object) -> object:
        key = str(content)
        counted[key] = counted.get(key, 0) + 1
        return original(content, **options)  # type: ignore[arg-type]

    original = pictures.decode_picture
    monkeypatch.setattr(pictures, "decode_picture", count)
    run_in_threads(4, lambda processes: read(stored / spec, processes))
    assert sorted(counted.values()) == [1] * 40


def test_one_file_without_a_name_holds_the_pixels_of_all(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together_module.tempfile, "tempdir", str(tmp_path))
    first, second = run_in_threads(2, lambda processes: read(stored / "a.parquet", processes))
    assert not list(tmp_path.iterdir())
    first.images[0, 0, 0, 0] ^= 255
    assert torch.equal(first.images, second.images)


def test_one_process_reads_as_always(stored: Path) -> None:
    assert_same(read(stored / "folder", ALONE), load_dataset(stored / "folder"))


def test_more_processes_than_samples_read_all(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    for place in range(2):
        (tmp_path / "ab"[place]).mkdir()
        (tmp_path / "ab"[place] / f"{place}.png").write_bytes(make_png(place))
    for got in run_in_threads(3, lambda processes: read(tmp_path, processes)):
        assert_same(got, load_dataset(tmp_path))


def write(root: Path, *images: Image.Image | bytes) -> Path:
    for place, image in enumerate(images):
        folder = root / "ab"[place % 2]
        folder.mkdir(exist_ok=True)
        if isinstance(image, bytes):
            (folder / f"{place}.png").write_bytes(image)
        else:
            image.save(folder / f"{place}.png")
    return root


def flat(value: int | tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, value)


def deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, np.uint16))


CLEAR = flat((9, 200, 9, 0), "RGBA"), flat((9, 200, 9, 128), "RGBA")
SETS: dict[str, tuple[Image.Image | bytes, ...]] = {
    "one picture in colour": (*[flat(200, "L")] * 5, flat((200, 0, 0))),
    "transparent ones": (flat((200, 0, 0)), *[CLEAR[1]] * 4, CLEAR[0]),
    "a dark share": (*[flat(3, "L"), flat(4, "L"), flat(200, "L")] * 2,),
    "all dark": (*[flat(3, "L")] * 6,),
    "16 bits beside 8": (*[deep(40000), deep(200), flat(90, "L")] * 2,),
    "12 bits": (*[deep(100)] * 5, deep(4000)),
    "broken ones": (flat(200, "L"), flat(200, "L"), b"none", flat(200, "L"), flat(200, "L"), b"no"),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", SETS)
def test_what_follows_from_all_pictures_is_that_of_one_process(name: str, count: int, tmp_path: Path) -> None:
    folder = write(tmp_path, *SETS[name])
    expected = load_dataset(folder, max_bad=2)
    for got in run_in_threads(count, lambda processes: read(folder, processes, max_bad=2)):
        assert_same(got, expected)


@pytest.mark.parametrize(
    "images",
    [
        (flat(200, "L"), b"none", flat(200, "L"), flat(200, "L"), b"no", flat(200, "L")),
        (*[flat(200, "L")] * 3, flat(200, "L", (5, 4)), *[flat(200, "L")] * 2),
        (*[flat(200, "L"), flat(200, "L", (5, 4))] * 3,),
    ],
    ids=["more broken than may be", "one of another size", "a share of another size"],
)
def test_all_fail_as_one_process_does(tmp_path: Path, images: tuple[Image.Image | bytes, ...]) -> None:
    folder = write(tmp_path, *images)
    with pytest.raises(DataError) as expected:
        load_dataset(folder, max_bad=1)

    def fail(processes: Processes) -> DataError:
        with pytest.raises(DataError) as error:
            read(folder, processes, max_bad=1)
        return error.value

    for error in run_in_threads(2, fail):
        assert str(error) == str(expected.value)


def test_what_is_held_out_lies_behind_the_rest_so_that_neither_is_copied(stored: Path) -> None:
    expected = stratified_split(load_dataset(stored / "folder"), fraction=0.25, seed=0)

    def arrange(ids: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
        return draw_held_out(ids, labels, classes, fraction=0.25, seed=0).int().argsort(stable=True)

    for got in run_in_threads(2, lambda processes: read(stored / "folder", processes, arrange=arrange)):
        parts = stratified_split(got, fraction=0.25, seed=0)
        for part, of_one in zip(parts, expected, strict=True):
            assert_same(part, of_one)
            assert part.images.untyped_storage().data_ptr() == got.images.untyped_storage().data_ptr()


@pytest.mark.parametrize("values", [(3, 200, 250, 251), (3, 4, 5, 6), (0, 0, 0, 1)], ids=["bright", "dark", "bits"])
@pytest.mark.parametrize("kind", [pa.uint8(), pa.float32(), pa.int64()], ids=str)
def test_the_scale_of_pixels_in_a_table_is_that_of_all(
    tmp_path: Path, kind: pa.DataType, values: tuple[int, ...]
) -> None:
    scale = 1 / 255 if pa.types.is_floating(kind) else 1
    cells = pa.array([[[value * scale] * 4] * 4 for value in values], pa.list_(pa.list_(kind)))
    pq.write_table(pa.table({"image": cells, "label": [0, 1, 0, 1]}), tmp_path / "a.parquet")
    expected = load_dataset(tmp_path / "a.parquet")
    for got in run_in_threads(2, lambda processes: read(tmp_path / "a.parquet", processes)):
        assert_same(got, expected)


PROGRAM = """
import sys
from pathlib import Path

import torch
from torch import nn

from assay.check import Budget, run_check
from assay.data import load_dataset
from assay.data.together import read_together
from assay.runtime.processes import joined_processes

torch.set_num_threads(1)
root, out, specs = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
budget = Budget(name="tiny", clean=None, attacked=None, probed=8, steps=2, sanity_samples=4, sanity_queries=4)
with joined_processes() as processes:
    for spec in specs:
        data = read_together(lambda shard: load_dataset(root / spec, shard=shard), processes)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(data.images[0].numel(), len(data.classes))).eval()
        checkup = run_check(model, data, budget=budget, processes=processes, folder=out / spec)
        if processes.leads:
            (out / f"{spec}.json").write_text(checkup.model_dump_json())
"""
TIMINGS = {"seconds", "images_per_second", "started", "environment", "stages"}


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMINGS}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.full
def test_a_check_by_two_processes_has_the_records_of_one_in_every_format(stored: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "program.py").write_text(PROGRAM)
    for out, start in (("alone", []), ("together", launcher)):
        (tmp_path / out).mkdir()
        command = [sys.executable, *start, str(tmp_path / "program.py"), str(stored), str(tmp_path / out), *SPECS]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    for spec in SPECS:
        alone, together = (
            timeless(json.loads((tmp_path / out / f"{spec}.json").read_text())) for out in ("alone", "together")
        )
        assert not any(record["kind"] == "failed_measurement" for record in alone["records"])
        assert together == alone, spec
