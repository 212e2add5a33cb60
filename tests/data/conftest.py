"""Small files of every format, made on the spot.

make_png       (seed, size, mode) -> the bytes of a PNG of noise
write_idx      (path, array) -> the array as an IDX file, gzipped when the name ends in .gz
write_parquet  (path, images, labels, names) -> pictures and labels in the hub's layout
stored         a folder with one set of forty pictures in every format
no_network     every attempt to open a URL fails the test
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    def make(seed: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
        width, height = size
        shape = (height, width) if mode == "L" else (height, width, len(mode))
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def write_idx() -> Callable[[Path, np.ndarray], Path]:
    def write(path: Path, array: np.ndarray) -> Path:
        header = bytes((0, 0, CODES[array.dtype.str[1:]], array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        content = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
        path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture(scope="session")
def write_parquet() -> Callable[..., Path]:
    def write(
        path: Path,
        images: Sequence[bytes | None],
        labels: Sequence[object],
        names: Sequence[str] | None = None,
        *,
        image: str = "img",
        label: str = "label",
        row_group_size: int = 4,
    ) -> Path:
        cells = [{"bytes": content, "path": f"{index}.png"} for index, content in enumerate(images)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({image: pa.array(cells, kind), label: pa.array(labels)})
        if names is not None:
            features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": list(names)}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, path, row_group_size=row_group_size)
        return path

    return write


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory, make_png: Callable[..., bytes], write_parquet, write_idx) -> Path:
    """One set in every format, sorted by class where that is how the format is laid out."""
    names, labels = ("ant", "bee", "cat"), np.arange(40) % 3
    root = tmp_path_factory.mktemp("stored")
    encoded = [make_png(place) for place in range(40)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in encoded])
    for place, content in enumerate(encoded):
        folder = root / "folder" / names[place % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place:02}.png").write_bytes(content)
    write_parquet(root / "a.parquet", encoded, labels.tolist(), names, row_group_size=4)
    rows = [f"folder/{names[place % 3]}/{place:02}.png,{names[place % 3]},{place}" for place in range(40)]
    (root / "a.csv").write_text("\n".join(["path,label,site", *rows]) + "\n")
    for shard in range(4):
        with tarfile.open(root / f"x-{shard}.tar", "w") as archive:
            for place in range(10 * shard, 10 * shard + 10):
                for ending, content in (("png", encoded[place]), ("cls", names[place % 3].encode())):
                    member = tarfile.TarInfo(f"{place:02}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    np.savez(root / "a.npz", images=pixels, labels=labels)
    (root / "idx").mkdir()
    write_idx(root / "idx" / "t-images-idx3-ubyte", pixels[..., 0])
    write_idx(root / "idx" / "t-labels-idx1-ubyte", labels.astype(np.uint8))
    return root


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
