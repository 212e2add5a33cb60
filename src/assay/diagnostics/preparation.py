"""Is a model given its pictures as its author meant it? Its accuracy under the neighbouring preparations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.selection import fair_sample
from assay.diagnostics.alternatives import try_alternatives
from assay.diagnostics.batches import example, which_right
from assay.diagnostics.pixel_scales import own_normalization, replaced_normalizations
from assay.errors import AssayError
from assay.evaluate import Predictions
from assay.models.calls import calling
from assay.models.wrappers import PRESETS
from assay.records.accuracy import Proportion
from assay.records.configuration import PreparationAudit, PreparationVariant
from assay.records.preparation import Pair, Preparation
from assay.runtime import uncompiled

SHARES = (0.875, 0.9, 0.95, 1.0)  # of the resized picture's side that the crop takes


@checked
def audit_preparation(
    model: nn.Module, dataset: ImageDataset, *, n: int = 1000, batch_size: int = 128, clean: Predictions | None = None
) -> PreparationAudit:
    """Accuracy under the neighbouring preparations, one aspect changed at a time, each tested on the same pictures.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: images and labels of K classes. Where they can be read again from where they are stored, they are also
            resized and cropped in other ways.
        n: most samples.
        batch_size: images in one forward pass.
        clean: the predictions on ``dataset`` as prepared, where they are known.

    Returns:
        The record: the accuracy as prepared, and with other interpolations, without antialiasing, with other crop
        fractions, squashed, in other normalisations than the model's own, and in BGR; of each how many pictures became
        right and wrong, and the chance of such a gain, corrected for how many ways were tried. A way that cannot be
        better any more, after 64 pictures or twice, four times … as many, gets no more of them.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> from assay.diagnostics.preparation import audit_preparation
        >>> data = assay.load_dataset("digits", limit=64, prepare="resize=28:bicubic")
        >>> model = assay.load_model("resnet8", classes=10, image_shape=data.shape)
        >>> audit = audit_preparation(model, data)
        >>> audit.variants[0].name, audit.not_tried
        ('resized bilinear', '')

    Reference:
        McNemar 1947, Psychometrika 12; Holm 1979, Scandinavian Journal of Statistics 6.
    """
    data = fair_sample(dataset, n)
    numbers = own_normalization(model)
    with (
        torch.no_grad(),
        uncompiled(),
        calling(model, example(data), classes=len(data.classes)) as network,
    ):
        known = clean is not None and len(data) == len(dataset)
        before = clean.correct if clean is not None and known else which_right(network, data, batch_size=batch_size)
        not_tried = _why_not_read_again(data)
        sizes = {} if not_tried or data.preparation is None else neighbours(data.preparation, size=data.shape[1:])
        channels = data.shape[0]
        ways = replaced_normalizations(numbers or PRESETS["none"], channels=len(numbers.mean) if numbers else channels)
        if channels == 3:
            ways["in BGR"] = lambda x: x.flip(1)

        def right_under(name: str, rows: Tensor) -> Tensor:
            part = data.subset(rows)
            if name in ways:
                return which_right(network, part, batch_size=batch_size, convert=ways[name])
            return which_right(network, _prepared(part, sizes[name]), batch_size=batch_size)

        outcomes = try_alternatives((*sizes, *ways), right_under, before=before)
    prepared = data.preparation
    if numbers is not None:
        prepared = (prepared or Preparation(source="the model")).model_copy(
            update={"mean": numbers.mean, "std": numbers.std, "scale": 1.0}
        )
    return PreparationAudit(
        n=len(data),
        height=data.shape[1],
        width=data.shape[2],
        preparation="" if prepared is None else prepared.spelled,
        source="" if prepared is None else prepared.source,
        resized=data.preparation is not None,
        as_prepared=Proportion.of(int(before.sum()), len(data)),
        variants=tuple(
            PreparationVariant.of(each.correct, each.n, name=name, **each.counts) for name, each in outcomes.items()
        ),
        not_tried=not_tried,
    )


def _why_not_read_again(data: ImageDataset) -> str:
    """Why pictures cannot be prepared in another way, empty where they can: what is read again must be the same."""
    if data.read_again is None:
        return "sizes and interpolations were not tried: the images are final, without the pictures that they come from"
    if data.preparation is None:
        return "sizes and interpolations were not tried: the pictures are used as they are stored"
    try:
        first = data.subset(torch.arange(min(4, len(data))))
        again = data.read_again(data.preparation, first.ids)
        if torch.equal(again.ids, first.ids) and torch.equal(again.images.expand_as(first.images), first.images):
            return ""
        reason = "what is stored is not what was measured"
    except (AssayError, RuntimeError) as error:  # moved or changed since
        reason = str(error)
    return f"sizes and interpolations were not tried: {reason}"


def _prepared(data: ImageDataset, preparation: Preparation) -> ImageDataset:
    """The same samples, their pictures read again and prepared in another way."""
    assert data.read_again is not None
    again = data.read_again(preparation, data.ids)
    images = again.images.expand(-1, data.shape[0], -1, -1)  # grey pictures beside others in colour
    return ImageDataset(images, data.labels, data.classes, ids=data.ids)


def neighbours(own: Preparation, *, size: Pair) -> dict[str, Preparation]:
    """The preparations that differ from ``own`` in one aspect, by name; all give pictures of ``size`` (H, W)."""
    ways = {
        f"resized {name}": own.model_copy(update={"interpolation": name, "antialias": True})
        for name in ("bilinear", "bicubic")
    }
    if own.interpolation in {"bilinear", "bicubic"}:
        ways["resized without antialiasing"] = own.model_copy(update={"antialias": False})
    for share in SHARES:
        resized = (math.floor(size[0] / share), math.floor(size[1] / share))
        is_square = size[0] == size[1]
        fitted = {"resize": resized[0], "fit": "short"} if is_square else {"resize": resized, "fit": "cover"}
        ways[f"cropped to {share:g} of the short side"] = own.model_copy(update={**fitted, "crop": size})
    ways["squashed, nothing cropped"] = own.model_copy(update={"resize": size, "fit": "squash", "crop": None})
    return {name: way for name, way in ways.items() if _geometry(way, size) != _geometry(own, size)}


def _geometry(preparation: Preparation, size: Pair) -> tuple[object, ...]:
    """What decides over the pixels of a picture; a square squash and its crop to the same size are one."""
    crop = preparation.crop or size
    return preparation.resize, preparation.fit, crop, preparation.interpolation, preparation.antialias
