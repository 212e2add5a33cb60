"""The picture that is looked at: a sample of the data or a file of one's own, changed by image operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from assay.augment.operations import check_magnitude, find_operation
from assay.augment.plan import apply_operation
from assay.data.dataset import ImageDataset
from assay.data.pictures import Broken, decode
from assay.errors import DataError
from assay.views.subject import LIMITS, Limits


@dataclass(frozen=True, eq=False)
class Picture:
    """``image`` uint8 (C, H, W); ``label`` None where nobody said what it is; ``words`` name it on a command line."""

    image: Tensor
    label: int | None
    name: str
    words: tuple[str, ...] = ()
    sample_id: int = 0

    def under(self, label: int, *, name: str) -> Picture:
        """The same picture under another label, the class called ``name``."""
        return replace(self, label=label, words=(*self.words, "--label", name))

    def as_dataset(self, classes: tuple[str, ...], *, label: int) -> ImageDataset:
        """A data set of this picture alone; random numbers hang on the sample's own id."""
        return ImageDataset(
            images=self.image[None],
            labels=torch.tensor([label]),
            classes=classes,
            name=self.name,
            ids=torch.tensor([self.sample_id]),
            filenames=(self.name,),
        )


def pick_sample(dataset: ImageDataset, sample: int | str) -> Picture:
    """The sample with this id, or with the name that reports call it by; raises :class:`DataError` without such."""
    text = str(sample)
    identity = text.removeprefix(f"{dataset.split}/")
    if dataset.filenames is not None and text in dataset.filenames:
        place = dataset.filenames.index(text)
    elif identity.isdecimal() and bool((found := dataset.ids == int(identity)).any()):
        place = int(found.nonzero()[0])
    else:
        some = ", ".join(dataset.sample_name(i) for i in range(min(3, len(dataset))))
        raise DataError("--sample", expected=f"a sample of {dataset.name} such as {some}", got=text[:80])
    return sample_at(dataset, place)


def sample_at(dataset: ImageDataset, place: int) -> Picture:
    """The sample at a place of the data set, 0 the first."""
    if not 0 <= place < len(dataset):
        raise DataError("sample", expected=f"0..{len(dataset) - 1}", got=place)
    identity = int(dataset.ids[place])
    return Picture(
        image=dataset.images[place],
        label=int(dataset.labels[place]),
        name=dataset.sample_name(place),
        words=("--sample", str(identity)),
        sample_id=identity,
    )


def read_picture(
    content: bytes, *, name: str, shape: tuple[int, int, int], label: int | None = None, limits: Limits = LIMITS
) -> Picture:
    """A picture file as the model takes it: grey or RGB, filled to (H, W) and cut about the centre.

    Raises :class:`DataError` for a file that is too large, holds too many pixels, or is no picture.
    """
    channels, height, width = shape
    if channels not in {1, 3}:
        raise DataError(name, expected="a model of 1 or 3 channels, for picture files", got=f"one of {channels}")
    picture = _decode(content, name=name, limits=limits).convert("L" if channels == 1 else "RGB")
    fitted = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR))
    pixels = fitted[None] if channels == 1 else fitted.transpose(2, 0, 1)
    return Picture(torch.from_numpy(pixels.copy()), label, name, words=("--image", name))


def _decode(content: bytes, *, name: str, limits: Limits) -> Image.Image:
    if len(content) > limits.upload_bytes:
        expected = f"a picture file of at most {limits.upload_bytes / 1e6:g} MB"
        raise DataError(name, expected=expected, got=f"{len(content) / 1e6:.1f} MB")
    decoded = decode(content, most_pixels=limits.upload_pixels)
    if isinstance(decoded, Broken):
        raise DataError(name, expected="a picture file (PNG, JPEG, WebP, BMP, GIF, TIFF, PPM)", got=decoded.reason)
    return Image.fromarray(decoded)


def alter(picture: Picture, operations: Mapping[str, float]) -> Picture:
    """The picture after ``operations`` (name to magnitude), in their order; those that change nothing are left out.

    Raises :class:`OptionError` for an unknown operation or a magnitude out of its range.
    """
    image, words = picture.image[None], list(picture.words)
    for name, magnitude in operations.items():
        operation = find_operation(name)
        check_magnitude(operation, magnitude)
        if operation.takes_magnitude and magnitude == operation.identity:
            continue
        image = apply_operation(image, operation.name, magnitude)
        value = f"={magnitude:g}" if operation.takes_magnitude else ""
        words += ["--apply", f"{operation.name.lower()}{value}"]
    return replace(picture, image=image[0], words=tuple(words))
