"""How fast are labelled pictures read? The same pictures from a folder, a table of paths, Parquet and WebDataset.

Every way ends with the same bytes: one tensor uint8 (N, 3, H, W) and the labels (asserted). The peers are torchvision's
``ImageFolder`` behind a ``DataLoader`` and Hugging Face's ``datasets`` reading the same Parquet file behind one, each
with 0 and with 2 workers, of which the faster counts. All decode with Pillow. Two kinds of pictures: JPEG of 224 × 224,
cut from photographs, and PNG of 32 × 32. Ways take turns in random order; ``ratio`` is that of the medians against the
faster peer.

    pip install datasets
    python benchmarks/reading.py [--quick] [--json result.json]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from assay.data.sources import load_dataset
from assay.runtime import describe_environment

CLASSES = 10


def photographs(n: int, side: int) -> list[Image.Image]:
    """Crops of photographs, each other than the rest."""
    from skimage import data

    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    draw = np.random.default_rng(0)
    crops = []
    for i in range(n):
        picture = sources[i % len(sources)]
        y, x = (int(draw.integers(0, size - side)) for size in picture.shape[:2])
        crops.append(Image.fromarray(picture[y : y + side, x : x + side, :3]))
    return crops


def write_all(folder: Path, crops: list[Image.Image], *, suffix: str) -> dict[str, Path]:
    """The same encoded files in every form."""
    options = {"quality": 90} if suffix == "jpg" else {}
    encoded, names, labels = [], [], []
    for i, crop in enumerate(crops):
        buffer = io.BytesIO()
        crop.save(buffer, format="JPEG" if suffix == "jpg" else "PNG", **options)
        encoded.append(buffer.getvalue())
        labels.append(i % CLASSES)
        names.append(f"{i % CLASSES}/{i:06}.{suffix}")
    tree = folder / "tree"
    for name, content in zip(names, encoded, strict=True):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    (tree / "table.csv").write_text(f"path,label\n{rows}")
    cells = pa.array([{"bytes": content, "path": name} for content, name in zip(encoded, names, strict=True)])
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": [str(c) for c in range(CLASSES)]},
    }
    schema = pa.table({"image": cells, "label": labels}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(schema, folder / "set.parquet", row_group_size=500)
    with tarfile.open(folder / "set.tar", "w") as archive:
        for i, (content, label) in enumerate(zip(encoded, labels, strict=True)):
            for ending, part in ((suffix, content), ("cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{i:06}.{ending}")
                entry.size = len(part)
                archive.addfile(entry, io.BytesIO(part))
    return {
        "folder": tree,
        "table of paths": tree / "table.csv",
        "Parquet": folder / "set.parquet",
        "WebDataset": folder / "set.tar",
    }


def to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def ours(path: Path) -> tuple[Tensor, Tensor]:
    dataset = load_dataset(path)
    return dataset.images, dataset.labels


def collect(loader: DataLoader, *, n: int) -> tuple[Tensor, Tensor]:
    images, labels, filled = torch.empty(0), torch.empty(n, dtype=torch.int64), 0
    for batch, numbers in loader:
        if not filled:
            images = batch.new_empty(n, *batch.shape[1:])
        images[filled : filled + len(batch)] = batch
        labels[filled : filled + len(batch)] = numbers
        filled += len(batch)
    return images, labels


def torchvision_folder(path: Path, *, workers: int) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(path), transform=to_tensor)
    return collect(DataLoader(dataset, batch_size=250, num_workers=workers), n=len(dataset))


class Rows(torch.utils.data.Dataset):
    """The rows of a Hugging Face data set as pairs."""

    def __init__(self, rows: object) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        return to_tensor(row["image"]), row["label"]


def hugging_face(path: Path, *, workers: int, cache: Path) -> tuple[Tensor, Tensor]:
    from datasets import Dataset

    rows = Dataset.from_parquet(str(path), cache_dir=str(cache))
    return collect(DataLoader(Rows(rows), batch_size=250, num_workers=workers), n=len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    rows = []
    for case, n, side, suffix in (("JPEG, 224 x 224", 2_000, 224, "jpg"), ("PNG, 32 x 32", 20_000, 32, "png")):
        n = n // 10 if options.quick else n
        with tempfile.TemporaryDirectory() as folder:
            places = write_all(Path(folder), photographs(n, side), suffix=suffix)
            ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
                name: partial(ours, path) for name, path in places.items()
            }
            for workers in (0, 2):
                ways[f"torchvision, {workers} workers"] = partial(torchvision_folder, places["folder"], workers=workers)
                ways[f"datasets, {workers} workers"] = partial(
                    hugging_face, places["Parquet"], workers=workers, cache=Path(folder) / "cache"
                )
            seconds = measure(ways, rounds=rounds, n=n)
        rates = {name: n / statistics.median(times) for name, times in seconds.items()}
        peer = max((name for name in ways if "workers" in name), key=lambda name: rates[name])
        for name in places:
            rows.append(
                {
                    "case": f"{case}, {name}", "peer": peer, "unit": "images/s", "ours": rates[name],
                    "theirs": rates[peer], "ratio": rates[name] / rates[peer],
                    "all": {way: round(rate) for way, rate in rates.items()},
                }
            )  # fmt: skip
            print(f"{case}, {name:16} {rates[name]:9.0f} images/s   {peer:24} {rates[peer]:9.0f}"
                  f"   ratio {rates[name] / rates[peer]:.2f}", flush=True)  # fmt: skip
    result = {"environment": describe_environment("cpu").model_dump(), "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def measure(ways: dict[str, Callable[[], tuple[Tensor, Tensor]]], *, rounds: int, n: int) -> dict[str, list[float]]:
    """The seconds of every round of each way, after a round that is not counted; all give the same pictures."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sums, order, shuffle = set(), list(ways.items()), random.Random(0).shuffle
    for turn in range(rounds + 1):
        shuffle(order)  # what ran before leaves the memory in another state
        for name, way in order:
            started = time.perf_counter()
            images, labels = way()
            took = time.perf_counter() - started
            if turn:
                seconds[name].append(took)
            else:  # ways differ in the order of the samples
                assert len(images) == n
                sums.add((int(images.sum()), tuple(torch.bincount(labels).tolist())))
            del images, labels  # before the next one is timed
    assert len(sums) == 1, sums
    return seconds


if __name__ == "__main__":
    main()
