"""One picture, a sample or a file of the user's, changed by image operations; and what the model predicts for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from assay.arguments import checked
from assay.augment.operations import check_magnitude, find_operation
from assay.augment.plan import apply_operation
from assay.data.dataset import ImageDataset
from assay.data.decoding import Broken, decode_alone
from assay.diagnostics.saliency import measure_input_gradients
from assay.errors import DataError, ModelError
from assay.evaluate import predict
from assay.records.gradients import InputGradientSample
from assay.records.preparation import Preparation
from assay.views.context import LIMITS, Limits, ViewContext

LARGEST_MAP = 512  # pixels a side of an input gradient that is shown alone


@dataclass(frozen=True, eq=False)
class Picture:
    """``image`` uint8 (C, H, W); ``label`` None where unknown; ``words`` are its arguments on a command line.

    ``notes`` say what was guessed or left out when its file was read.
    """

    image: Tensor
    label: int | None
    name: str
    words: tuple[str, ...] = ()
    sample_id: int = 0
    notes: tuple[str, ...] = ()

    def with_label(self, label: int, *, name: str) -> Picture:
        """The same picture with another label, the class called ``name``."""
        return replace(self, label=label, words=(*self.words, "--label", name))

    def as_dataset(self, classes: tuple[str, ...], *, label: int) -> ImageDataset:
        """A data set of this picture alone; the sample keeps its id, which seeds random numbers."""
        return ImageDataset(
            images=self.image[None], labels=torch.tensor([label]), classes=classes, name=self.name,
            ids=torch.tensor([self.sample_id]), filenames=(self.name,),
        )  # fmt: skip


def pick_sample(dataset: ImageDataset, sample: int | str) -> Picture:
    """The sample with this id, or with its name in reports. Raises :class:`DataError` where there is none."""
    text = str(sample)
    identity = text.removeprefix(f"{dataset.split}/")
    if dataset.filenames is not None and text in dataset.filenames:
        place = dataset.filenames.index(text)
    elif identity.isdecimal() and bool((matches := dataset.ids == int(identity)).any()):
        place = int(matches.nonzero()[0])
    else:
        examples = ", ".join(dataset.sample_name(i) for i in range(min(3, len(dataset))))
        raise DataError("--sample", expected=f"a sample of {dataset.name} such as {examples}", got=text[:80])
    return sample_at(dataset, place)


@checked
def sample_at(dataset: ImageDataset, place: int) -> Picture:
    """The sample at an index of the data set."""
    if not 0 <= place < len(dataset):
        raise DataError("sample", expected=f"0..{len(dataset) - 1}", got=place)
    identity = int(dataset.ids[place])
    words = ("--sample", str(identity))
    return Picture(dataset.images[place], int(dataset.labels[place]), dataset.sample_name(place), words, identity)


@checked
def read_picture(
    content: bytes,
    *,
    name: str,
    shape: tuple[int, int, int],
    preparation: Preparation | None = None,
    label: int | None = None,
    limits: Limits = LIMITS,
) -> Picture:
    """A picture file as the model takes it: grey or RGB, resized and cropped as the samples are, by ``preparation``.

    Without one, or where it does not end in (H, W), it is resized to cover (H, W) and cropped about the centre.

    Raises :class:`DataError` for a file that is too large, holds too many pixels, or is no picture.
    """
    channels, height, width = shape
    if channels not in {1, 3}:
        raise DataError(name, expected="a model of 1 or 3 channels, for picture files", got=f"one of {channels}")
    decoded, notes = _decode(content, name=name, preparation=preparation, limits=limits)
    picture = decoded.convert("L" if channels == 1 else "RGB")
    fitted = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR))
    pixels = fitted[None] if channels == 1 else fitted.transpose(2, 0, 1)
    return Picture(torch.from_numpy(pixels.copy()), label, name, words=("--image", name), notes=notes)


def _decode(
    content: bytes, *, name: str, preparation: Preparation | None, limits: Limits
) -> tuple[Image.Image, tuple[str, ...]]:
    if len(content) > limits.upload_bytes:
        expected = f"a picture file of at most {limits.upload_bytes / 1e6:g} MB"
        raise DataError(name, expected=expected, got=f"{len(content) / 1e6:.1f} MB")
    decoded = decode_alone(content, preparation=preparation, most_pixels=limits.upload_pixels)
    if isinstance(decoded, Broken):
        raise DataError(name, expected="a picture file (PNG, JPEG, WebP, BMP, GIF, TIFF, PPM)", got=decoded.reason)
    return Image.fromarray(decoded[0]), tuple(f"{name}: {note}" for note in decoded[1])


@checked
def apply_operations(picture: Picture, operations: Mapping[str, float]) -> Picture:
    """The picture after ``operations`` (name to magnitude), in order; those at their identity are left out.

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


@dataclass(frozen=True, eq=False)
class Prediction:
    """``probabilities`` of every class; ``label`` the class whose cross-entropy ``loss`` was differentiated.

    ``gradient`` holds the map Σ_c |∂ℓ/∂x_c| as a picture, its peak white, and its norm.
    """

    picture: Picture
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    label: int
    loss: float
    gradient: InputGradientSample

    @property
    def predicted(self) -> int:
        """The class of the largest probability."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)


@checked
def predict_picture(context: ViewContext, picture: Picture) -> Prediction:
    """Probabilities, loss and input gradient of a picture; without a label, the loss is that of the predicted class.

    Raises :class:`ModelError` when the model cannot take it, or returns numbers that are not finite.
    """
    with context.exclusive_model() as model:
        dataset = as_labelled(context, picture)
        predictions = predict(model, dataset)
        samples = measure_input_gradients(model, dataset, n=1, shown=1, largest=LARGEST_MAP).samples
    if not samples or not bool(predictions.logits.isfinite().all()):
        raise ModelError(picture.name, expected="finite logits and a finite gradient", got="NaN or infinity")
    return Prediction(
        picture=picture,
        classes=context.classes,
        probabilities=tuple(predictions.logits[0].softmax(dim=0).tolist()),
        label=int(dataset.labels[0]),
        loss=float(predictions.losses[0]) + 0.0,  # never −0
        gradient=samples[0],
    )


def as_labelled(context: ViewContext, picture: Picture) -> ImageDataset:
    """The picture as a data set of one, under its label or else the predicted class; the caller holds the model."""
    dataset = picture.as_dataset(context.classes, label=picture.label or 0)
    if picture.label is None:
        predicted = predict(context.model, dataset).classes.clamp_min(0)
        dataset = picture.as_dataset(context.classes, label=int(predicted[0]))
    return dataset
