"""Feed damaged and hostile files to every reader: libFuzzer (through atheris) mutates them, guided by coverage.

    python benchmarks/fuzz.py --runs 100000 --json fuzz.json [--only npz] [--quick]

A reader may return something or raise an AssayError. Anything else fails: another exception, a warning, a crash, an
input that takes 10 s, more than 2 GiB of memory, and any attempt to start a process, open a connection or write a file
(an audit hook sees them, pickle payloads included). Each reader gets its share of ``--runs`` in a process of its own.
Needs the package ``atheris``.

    python benchmarks/fuzz.py --structured 2000 --seed 0

draws models, data sets and measurements instead, and holds each number against a plain loop; see ``structured.py``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEGABYTES = 10, 2048
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "shutil.",
    "os.remove",
)


@dataclass(frozen=True)
class Target:
    """``read`` gets the path of a file called ``name``; ``seeds`` are where mutation starts from."""

    name: str
    read: Callable[[Path], object]
    seeds: Callable[[], Iterator[bytes]]


class Payload:
    """What a hostile pickle holds: a call that must never happen."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch /tmp/assay-was-here",))


def pictures() -> Iterator[bytes]:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, kind)
        yield sink.getvalue()
    # A decompression bomb: 40,000 x 40,000 pixels of nothing in a few hundred bytes.
    yield (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x9c@\x00\x00\x9c@\x08\x02\x00\x00\x00"
        b"\x9b\x1d\xb3\x8d\x00\x00\x00\x0aIDATx\x9cc\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82"
    )


def idx_files() -> Iterator[bytes]:
    yield bytes([0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(range(96))
    yield bytes([0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 4]) + bytes(9)


def npz_files() -> Iterator[bytes]:
    import numpy as np

    images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 3
    for save in (np.savez, np.savez_compressed):
        sink = io.BytesIO()
        save(sink, images=images, labels=labels)
        yield sink.getvalue()
    sink = io.BytesIO()
    np.savez(sink, images=images, labels=np.array([Payload()] * 6, dtype=object))
    yield sink.getvalue()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../images.npy", bytes(20_000_000))  # a bomb with a path that leaves
    yield sink.getvalue()


def npz_matrices() -> Iterator[bytes]:
    import numpy as np

    sink = io.BytesIO()
    np.savez(sink, X=np.eye(4))
    yield sink.getvalue()
    yield from npz_files()


def npy_files() -> Iterator[bytes]:
    import numpy as np

    for array in (
        np.ones((5, 4)),
        np.ones((5, 4), np.float32),
        np.asfortranarray(np.eye(3)),
        np.arange(6).reshape(2, 3),
    ):
        sink = io.BytesIO()
        np.save(sink, array)
        yield sink.getvalue()
    sink = io.BytesIO()
    np.save(sink, np.array([[Payload()]], dtype=object))
    yield sink.getvalue()


def parquet_files() -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    png = next(pictures())
    image = [{"bytes": png, "path": "../../a.png"}] * 4
    for table in (
        pa.table({"image": image, "label": [0, 1, 2, 1]}),
        pa.table({"img": [png] * 4, "label": list("abca")}),
    ):
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="none")
        yield sink.getvalue()


def tar_files() -> Iterator[bytes]:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in (
            ("0.png", next(pictures())),
            ("0.cls", b"0"),
            ("../../1.png", next(pictures())),
            ("../../1.cls", b"1"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    yield sink.getvalue()


def safetensors_files() -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    yield save({"weight": torch.ones(2, 3), "bias": torch.ones(2)})


def checkpoints() -> Iterator[bytes]:
    import torch

    for content in ({"weight": torch.ones(2, 3)}, {"state_dict": {"module.weight": torch.ones(2, 3)}, "epoch": 3}):
        for modern in (True, False):
            sink = io.BytesIO()
            torch.save(content, sink, _use_new_zipfile_serialization=modern)
            yield sink.getvalue()
    yield pickle.dumps(Payload())
    yield pickle.dumps({"weight": Payload()}, protocol=0)


def configs() -> Iterator[bytes]:
    model = {"name": "mlp", "classes": ["a", "b"], "image_shape": [1, 8, 8], "mean": [0.5], "std": [0.5], "options": {}}
    yield json.dumps({"schema_version": 1, "model": model}).encode()
    yield b"[" * 500


def recipes() -> Iterator[bytes]:
    from assay.training.recipes import load_recipe

    for name in ("digits", "robust", "allcnn"):
        yield load_recipe(name).to_toml().encode()


def checkups() -> Iterator[bytes]:
    import torch

    from assay.check.run import run_check
    from assay.check.stages import BUDGETS
    from assay.data.dataset import ImageDataset
    from assay.models.architectures import build

    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 1, 8, 8), generator=draws, dtype=torch.uint8)
    hostile = ("<script>alert(1)</script>", "\x1b[31mred", "\u202egnp.exe", "n" * 10_000)
    data = ImageDataset(images, torch.arange(12) % 4, classes=hostile, name="hostile", split="test")
    model = build("mlp", classes=4, image_shape=(1, 8, 8))
    yield run_check(model, data, budget=BUDGETS["quick"]).model_dump_json().encode()


def make_targets() -> tuple[Target, ...]:
    """Every reader of files that come from outside."""
    from assay.data.pictures import decode
    from assay.data.sources import load_dataset
    from assay.lowrank.sources import open_matrix
    from assay.models.sources.run_folder import read_config
    from assay.models.weights import read_weights
    from assay.records.reading import read_checkup
    from assay.report.ci import render_junit, render_sarif
    from assay.training.recipes import load_recipe

    def data(path: Path) -> object:
        return load_dataset(str(path))

    def draw(path: Path) -> object:
        checkup = read_checkup(path)  # the page takes seconds and has tests of its own with hostile documents
        return render_junit(checkup), render_sarif(checkup), checkup._repr_html_()

    return (
        Target("picture.png", lambda path: decode(path.read_bytes()), pictures),
        Target("t10k-images-idx3-ubyte", data, idx_files),
        Target("set.npz", data, npz_files),
        Target("set.parquet", data, parquet_files),
        Target("set.tar", data, tar_files),
        Target("X.npy", open_matrix, npy_files),
        Target("X.npz", open_matrix, npz_matrices),
        Target("w.safetensors", read_weights, safetensors_files),
        Target("w.pt", read_weights, checkpoints),
        Target("config.json", lambda path: read_config(path.parent), configs),
        Target("recipe.toml", load_recipe, recipes),
        Target("check.json", draw, checkups),
    )


def forbid(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: nothing that a file says may start a process, connect, or remove anything."""
    if event.startswith(FORBIDDEN):
        raise SystemError(f"{event} {arguments!r:.200}")


def fuzz(name: str, *, runs: int, folder: Path) -> None:
    """Fuzz one target in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["assay"]):
        targets = {target.name: target for target in make_targets()}
    from assay.errors import AssayError

    target = targets[name]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)
    path = folder / target.name
    path.write_bytes((corpus / "0").read_bytes())
    if "images-idx3" in target.name:  # its labels are in a file beside it
        path.with_name("t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 6, 0, 1, 2, 0, 1, 2]))
    target.read(path)  # the first seed is a good file
    warnings.simplefilter("error")

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            target.read(path)
        except AssayError as error:
            assert "\n" not in str(error).strip() or len(str(error)) < 2000

    sys.addaudithook(forbid)
    flags = [
        f"-runs={runs}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={MEGABYTES}",
        "-seed=1",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder}/found-", str(corpus)], one)
    atheris.Fuzz()


def run(name: str, *, runs: int, keep: Path) -> dict[str, object]:
    """Fuzz one target in a process of its own and tell how it went."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as temporary:
        command = [sys.executable, __file__, "--target", name, "--runs", str(runs), "--folder", temporary]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        for found in Path(temporary).glob("found-*"):
            keep.mkdir(exist_ok=True)
            (keep / f"{name}-{found.name}").write_bytes(found.read_bytes())
    said = done.stdout + done.stderr
    numbers = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", said)}
    row: dict[str, object] = {
        "case": name,
        "inputs": numbers.get("number_of_executed_units", 0),
        "slowest_seconds": numbers.get("slowest_unit_time_sec", 0),
        "peak_megabytes": numbers.get("peak_rss_mb", 0),
        "fault": "" if done.returncode == 0 else _fault(said),
    }
    return row


def _fault(said: str) -> str:
    at = said.find("=== Uncaught Python exception")
    return " ".join((said[at:] if at >= 0 else said[-1500:]).split())[:1500]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs in all, shared among the readers")
    parser.add_argument("--only", action="append", help="these readers alone")
    parser.add_argument("--quick", action="store_true", help="100 inputs a reader")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="where inputs that failed are kept")
    parser.add_argument("--structured", type=int, help="draw so many models, data sets and measurements instead")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--start", type=int, default=0, help="the first combination of that seed")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.target:
        fuzz(arguments.target, runs=arguments.runs, folder=arguments.folder)
        return
    if arguments.structured:
        import structured

        rows = structured.run(arguments.structured, seed=arguments.seed, start=arguments.start)
        for row in rows:
            print("{case:24} {right:6,} right {refused:6,} refused {fault:4,} faults".format(**row), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
        raise SystemExit(int(any(row["fault"] for row in rows)))
    names = [target.name for target in make_targets() if not arguments.only or target.name in arguments.only]
    runs = 100 if arguments.quick else -(-arguments.runs // len(names))
    rows = []
    for name in names:
        rows.append(run(name, runs=runs, keep=arguments.keep))
        print(
            "{case:24} {inputs:8,} inputs, slowest {slowest_seconds} s, {peak_megabytes} MB  {fault}".format(
                **rows[-1]
            ),
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if any(row["fault"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
