"""The built-in set: 1,797 handwritten digits that come with scikit-learn, so nothing has to be fetched."""

from __future__ import annotations

from dataclasses import replace

import torch
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
    from sklearn import datasets

    bunch = datasets.load_digits()
    small = torch.from_numpy(bunch.images).double()[:, None]  # (N, 1, 8, 8), 0..16
    large = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    images, labels = (large * (255 / 16)).round().byte(), torch.from_numpy(bunch.target).long()
    everything = ImageDataset(images, labels, classes=tuple("0123456789"), name="digits")
    train, test = stratified_split(everything, fraction=0.2, seed=0)
    split, part = choose_split({"train": train, "test": test}, wanted=reading.split, where="digits")
    part = part.subset(torch.arange(min(len(part), reading.limit or len(part))))
    if reading.divide is not None:
        own = reading.divide(part.ids.numpy(), part.labels.numpy(), scattered=True)
        part = part.subset(torch.from_numpy(own))
    part = part if reading.only is None else part.subset(torch.isin(part.ids, torch.tensor(list(reading.only))))
    return replace(part, split=split, images=prepare_all(part.images, reading.preparation))
