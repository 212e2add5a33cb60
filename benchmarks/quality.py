"""Duplicates of CIFAR-10's test pictures in its training pictures: average precision and processor seconds.

python benchmarks/quality.py --json FILE [--quick]

The peers are the plain nearest neighbour in 16 × 16 pixels and in the histograms of gradients that candidates come
from. People judged the duplicates (truth/duplicates-train.csv beside the data); what they did not list is no proof of
a picture without one, so that the numbers of all three are lower bounds, on equal terms.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

import assay
from assay.files import write_atomically
from assay.quality.candidates import Describer
from assay.quality.thumbnails import make_thumbnails

SHARED = Path(os.environ.get("ASSAY_SHARED", Path(__file__).parents[2] / "shared"))


def nearest(queries: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """The negative distance to the nearest of the targets, by rows."""
    squares = targets.square().sum(dim=1)
    parts = [
        (part.square().sum(dim=1, keepdim=True) + squares - 2 * part @ targets.T).amin(dim=1)
        for part in queries.split(500)
    ]
    return -torch.cat(parts).numpy()


def by_pixels(test: assay.ImageDataset, train: assay.ImageDataset) -> np.ndarray:
    return nearest(*(F.avg_pool2d(each.images.float() / 255, 2).flatten(1) for each in (test, train)))


def by_gradients(test: assay.ImageDataset, train: assay.ImageDataset) -> np.ndarray:
    thumbnails = make_thumbnails(train.images)
    describer = Describer.fit(thumbnails)
    return nearest(describer.describe(make_thumbnails(test.images)), describer.describe(thumbnails))


def by_registration(test: assay.ImageDataset, train: assay.ImageDataset) -> np.ndarray:
    return np.array(assay.find_duplicates(test, train, shown=0).scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="the listed pictures and 500 others, against 10,000")
    options = parser.parse_args()
    folder = SHARED / "data" / "cifar10"
    with (folder / "truth" / "duplicates-train.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["judgment"] in {"0", "1"}]
    listed, partners = ({row[name] for row in rows} for name in ("test_image", "train_image"))
    test = assay.load_dataset("cifar10", data_dir=SHARED / "data")
    train = assay.load_dataset("cifar10", data_dir=SHARED / "data", split="train")
    if options.quick:
        test = test.subset(torch.tensor([i < 500 or name in listed for i, name in enumerate(test.filenames or ())]))
        chosen = [i < 10_000 or name in partners for i, name in enumerate(train.filenames or ())]
        train = train.subset(torch.tensor(chosen))
    truth = np.array([name in listed for name in test.filenames or ()])
    methods: dict[str, Callable[..., np.ndarray]] = {
        "nearest neighbour, 16 × 16 pixels": by_pixels,
        "nearest neighbour, gradients": by_gradients,
        "assay.find_duplicates": by_registration,
    }
    measured = {}
    for name, method in methods.items():
        clock = time.process_time()
        scores = method(test, train)
        measured[name] = (average_precision_score(truth, scores), time.process_time() - clock)
        print(f"{name:36} average precision {measured[name][0]:.3f}, {measured[name][1]:.1f} s of processor time")
    ours = measured.pop("assay.find_duplicates")
    case = f"{len(test):,} × {len(train):,} pictures of CIFAR-10"
    table = [
        {"case": case, "peer": peer, "unit": unit, "ours": own, "theirs": theirs, "ratio": ratio}
        for peer, values in measured.items()
        for unit, own, theirs, ratio in (
            ("average precision", ours[0], values[0], ours[0] / values[0]),
            ("s of processor time", ours[1], values[1], values[1] / ours[1]),
        )
    ]
    if options.json is not None:
        import json

        from assay.runtime import describe_environment

        document = {"environment": describe_environment("cpu").model_dump(), "rows": table}
        write_atomically(options.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
