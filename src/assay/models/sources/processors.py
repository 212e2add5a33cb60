"""Image processors of Hugging Face's transformers: their settings as a preparation that gives the same pixels.

A processor is read by its settings, which are taken only where pictures show that these are all that it does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from assay.errors import ModelError, one_line
from assay.records.preparation import Preparation

CONVNEXT_SQUASHES_FROM = 384  # pixels; below that its processor crops


def prepared_by(processor: Any, *, source: str) -> Preparation:
    """The steps of an image ``processor`` on PIL's pictures, as a record that gives the same pixels.

    Raises :class:`ModelError` for a processor that does anything else: its own result on two pictures is compared.
    """
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    try:
        steps = {**_geometry(processor, kind), **_numbers(processor)}
        preparation = Preparation.model_validate({**steps, "rounding": "transformers", "source": source})
        proven = _agrees(processor, preparation)
    except Exception as error:  # a processor of unknown make can fail in any way
        raise _not_understood(kind, one_line(error), source=source) from None
    if not proven:
        raise _not_understood(kind, "its pictures come out otherwise", source=source)
    return preparation


def _not_understood(kind: str, reason: str, *, source: str) -> ModelError:
    expected = "a processor that resizes, crops at the centre, rescales and normalises"
    return ModelError(source, expected=expected, got=f"{kind}, which does something else ({reason})")


def _geometry(processor: Any, kind: str) -> dict[str, Any]:
    """The resize and the crop that the settings ask for, with the rules of the three kinds that have their own."""
    size, crop = _sizes(processor, "size"), _sizes(processor, "crop_size")
    short, pair = size.get("shortest_edge"), (size.get("height"), size.get("width"))
    share: Any = getattr(processor, "crop_pct", None)
    steps: dict[str, Any] = {"interpolation": Image.Resampling(int(getattr(processor, "resample", 2))).name.lower()}
    if getattr(processor, "do_center_crop", None):
        steps["crop"] = (crop["height"], crop["width"])
    if not getattr(processor, "do_resize", None):
        return steps
    resize: object = short if short is not None else pair
    if kind.startswith("ConvNext") and short is not None:
        resize = (short, short)
        if short < CONVNEXT_SQUASHES_FROM:
            steps, resize = {"crop": (short, short), **steps}, int(short / share)
    elif kind.startswith("Levit") and short is not None:
        resize = int(256 / 224 * short)
    elif kind.startswith("PoolFormer") and share is not None:
        same = pair[0] if pair[0] == pair[1] else None
        resize = int((short or same) / share) if short or same else tuple(int(side / share) for side in pair)
    return {**steps, "resize": resize}


def _numbers(processor: Any) -> dict[str, Any]:
    """Scale, mean and standard deviation of pixels in [0, 1], and the order of the channels."""
    scale, mean, std = 255.0, np.zeros(1), np.ones(1)
    if getattr(processor, "do_rescale", None):
        scale *= processor.rescale_factor
        mean = mean + bool(getattr(processor, "rescale_offset", None))
    if getattr(processor, "do_normalize", None):
        mean, std = mean + np.atleast_1d(processor.image_mean), std * np.atleast_1d(processor.image_std)
    if getattr(processor, "include_top", None):  # EfficientNet divides twice
        std = std * np.atleast_1d(processor.image_std)
    mean, std = np.broadcast_arrays(mean, std)
    return {
        "scale": round(scale, 12),
        "mean": tuple(mean.tolist()),
        "std": tuple(std.tolist()),
        "channels": "bgr" if getattr(processor, "do_flip_channel_order", None) else "rgb",
    }


def _sizes(processor: Any, name: str) -> dict[str, int]:
    size = getattr(processor, name, None)
    return {key: int(value) for key, value in dict(size or {}).items() if value}


def _agrees(processor: Any, preparation: Preparation) -> bool:
    """Whether the processor does on a wide and on a high picture what transformers' plain steps of these sizes do."""
    from transformers.image_processing_backends import PilBackend

    resize, crop = preparation.resize, preparation.crop

    def sides(pair: tuple[int, int] | None) -> dict[str, int]:
        return dict(zip(("height", "width"), pair or (1, 1), strict=True))

    plain = PilBackend(
        do_resize=resize is not None,
        size={"shortest_edge": resize} if isinstance(resize, int) else sides(resize),
        resample=Image.Resampling[preparation.interpolation.upper()],
        do_center_crop=crop is not None,
        crop_size=sides(crop),
        do_rescale=False,
        do_normalize=False,
    )
    draws = np.random.default_rng(0)
    mean, std = (np.asarray(each)[:, None, None] for each in (preparation.mean, preparation.std))
    for height, width in ((61, 97), (120, 53)):
        picture = Image.fromarray(draws.integers(0, 256, (height, width, 3), dtype=np.uint8))
        own, pixels = (np.asarray(each(picture)["pixel_values"][0], dtype=np.float64) for each in (processor, plain))
        if preparation.channels == "bgr":
            pixels = pixels[::-1]
        expected = (pixels / 255 * preparation.scale - mean) / std
        if own.shape != expected.shape or not np.allclose(own, expected, rtol=1e-4, atol=1e-4):
            return False
    return True
