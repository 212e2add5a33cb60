"""The built-in set: 1,797 handwritten digits that come with scikit-learn, so nothing has to be fetched."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from assay.data.dataset import ImageDataset
from assay.data.preparing import prepare_all
from assay.data.reading import Reading, choose_split
from assay.data.selection import stratified_split


def load_digits(_spec: str = "digits", *, reading: Reading) -> ImageDataset:
    """8x8 digits with 17 grey levels (Alpaydin and Kaynak, 1998), one channel, enlarged to 32x32 (bilinear).

    A fixed fifth of every class, 359 in all, is the test split; the other 1,438 are the training split. An id is the
    sample's place in scikit-learn's array.
    """
    pixels, targets = _read_digits()
    small = torch.from_numpy(pixels).double()[:, None]  # (N, 1, 8, 8), 0..16
    large = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    images, labels = (large * (255 / 16)).round().byte(), torch.from_numpy(targets).long()
    everything = ImageDataset(images, labels, classes=tuple("0123456789"), name="digits")
    train, test = stratified_split(everything, fraction=0.2, seed=0)
    split, part = choose_split({"train": train, "test": test}, wanted=reading.split, where="digits")
    part = part.subset(torch.arange(min(len(part), reading.limit or len(part))))
    if reading.divide is not None:
        own = reading.divide(part.ids.numpy(), part.labels.numpy(), scattered=True)
        part = part.subset(torch.from_numpy(own))
    part = part if reading.only is None else part.subset(torch.isin(part.ids, torch.tensor(list(reading.only))))
    return replace(part, split=split, images=prepare_all(part.images, reading.preparation))


def _read_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels (N, 8, 8) and targets (N,), from scikit-learn's file: importing the package takes as long as torch."""
    package = find_spec("sklearn")
    for folder in [] if package is None else package.submodule_search_locations or []:
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits as load_from_package  # the file lies elsewhere in its version

    bunch = load_from_package()
    return bunch.images, bunch.target
