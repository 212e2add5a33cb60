"""Images of what augmentation does: each operation on one image, its magnitude swept, a policy on several."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from assay.augment.operations import Operation, find_operation, gallery_magnitudes
from assay.augment.plan import apply_operation, apply_plan
from assay.augment.policies import Policy
from assay.report.page import Page, render
from assay.report.parts import Section, Shot, ShotGrid, ShotRow
from assay.wording import plural

SWEPT = (
    *("ShearX", "TranslateX", "Rotate", "Brightness", "Color"),
    *("Hue", "Contrast", "Sharpness", "Posterize", "Solarize", "Equalize"),
)


@dataclass(frozen=True, eq=False)
class GalleryPanel:
    """One image, uint8 (C, H, W), with its name and what was done to it."""

    name: str
    detail: str
    image: Tensor


@dataclass(frozen=True, eq=False)
class Strip:
    name: str
    detail: str
    panels: tuple[GalleryPanel, ...]


@dataclass(frozen=True, eq=False)
class Gallery:
    """What a page or a sheet shows: ``original`` and ``panels`` in a grid, then the ``strips``."""

    title: str
    subtitle: str
    original: GalleryPanel | None
    panels: tuple[GalleryPanel, ...]
    strips: tuple[Strip, ...]


def draw_operations(
    image: Tensor, *, title: str, magnitudes: Mapping[str, float] | None = None, sweep: bool = True
) -> Gallery:
    """The original, each operation at its magnitude (default: the preset ``gallery``), and a strip of each swept.

    ``image`` is uint8 (C, H, W). ``magnitudes`` by operation name replace the preset as a whole.
    Raises :class:`OptionError` for an unknown name or a magnitude out of range.
    """
    _, height, width = image.shape
    chosen = magnitudes or gallery_magnitudes(height=height, width=width)
    panels = tuple(_panel(image, find_operation(name), value) for name, value in chosen.items())
    swept = [find_operation(name).name for name in magnitudes] if magnitudes else SWEPT
    small = _reduce(image)
    reduction = image.shape[2] / small.shape[2]
    strips = tuple(sweep_operation(small, name, reduction=reduction) for name in swept) if sweep else ()
    counted = f"{len(panels)} operation{'s' * (len(panels) > 1)}"
    count = "the twelve operations and hue" if magnitudes is None else counted
    return Gallery(title, f"{width} × {height} pixels, {count}", GalleryPanel("original", "", image), panels, strips)


def sweep_operation(image: Tensor, name: str, *, count: int = 7, reduction: float = 1.0) -> Strip:
    """``count`` magnitudes of one operation from end to end; those without a magnitude show before and after.

    Pixels are captioned as those of an image ``reduction`` times as large.
    """
    operation = find_operation(name)
    if not operation.takes_magnitude:
        after = GalleryPanel("after", "", _perform(image, operation, 0.0))
        return Strip(operation.name, operation.meaning, (GalleryPanel("before", "", image), after))
    values = sweep_magnitudes(operation, count=count, height=image.shape[1], width=image.shape[2])
    scale = reduction if operation.unit == "px" else 1.0
    panels = [GalleryPanel(operation.show(value * scale), "", _perform(image, operation, value)) for value in values]
    return Strip(operation.name, operation.meaning, tuple(panels))


def sweep_magnitudes(operation: Operation, *, count: int, height: int, width: int) -> list[float]:
    """Evenly spaced magnitudes over the range in which an operation's effect is seen on an image of this size."""
    low, high = {
        **dict.fromkeys(("ShearX", "ShearY"), (-0.6, 0.6)),
        "TranslateX": (-width / 2, width / 2),
        "TranslateY": (-height / 2, height / 2),
        "Rotate": (-45.0, 45.0),
        **dict.fromkeys(("Brightness", "Contrast"), (0.1, 1.9)),
        **{"Color": (0.0, 3.0), "Sharpness": (0.0, 24.0), "Hue": (-0.5, 0.5)},
        **{"Posterize": (7.0, 1.0), "Solarize": (256.0, 0.0)},
        **{"Cutout": (0.0, 0.75 * min(height, width)), "Crop": (0.0, 0.0)},
    }[operation.name]
    values = [low + (high - low) * step / (count - 1) for step in range(count)]
    return [float(round(value)) for value in values] if operation.unit in {"px", "bits", "threshold"} else values


def draw_policy(
    images: Tensor, ids: Tensor, names: Sequence[str], *, policy: Policy, title: str, seed: int = 0, draws: int = 7
) -> Gallery:
    """A strip a sample: the original, then what the policy makes of it in the first ``draws`` epochs."""
    _, _, height, width = images.shape
    columns: list[list[GalleryPanel]] = [[GalleryPanel("original", "", image)] for image in images]
    for epoch in range(draws):
        plan = policy.plan(ids, seed=seed, epoch=epoch, height=height, width=width)
        for sample, result in enumerate(apply_plan(images, plan)):
            columns[sample].append(GalleryPanel(f"epoch {epoch}", plan.describe(sample), result))
    strips = tuple(Strip(name, "", tuple(panels)) for name, panels in zip(names, columns, strict=True))
    samples = f"{len(images)} sample{'s' * (len(images) > 1)} of {width} × {height} pixels"
    return Gallery(title, f"{samples}, seed {seed}: the same on any number of workers", None, (), strips)


def _reduce(image: Tensor) -> Tensor:
    """A photograph at the size at which its strip shows it, so that a sweep of a dozen operations takes a second."""
    _, height, width = image.shape
    scale = _SWEPT / max(height, width)
    if scale >= 1:
        return image
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return F.interpolate(image[None].float(), size=size, mode="area")[0].round().byte()


def _panel(image: Tensor, operation: Operation, value: float) -> GalleryPanel:
    detail = operation.show(value)
    if operation.unit == "slope":
        detail = f"{math.degrees(math.atan(value)):.0f}°".replace("-", "−")
    return GalleryPanel(operation.name, detail, _perform(image, operation, value))


def _perform(image: Tensor, operation: Operation, value: float) -> Tensor:
    return apply_operation(image[None], operation.name, torch.tensor(float(value)))[0]


SMALL = 96  # images up to this side are shown enlarged, pixel by pixel
_PANEL, _STRIP, _SWEPT = 420, 200, 256  # pixels, the longer side of an image: on the page, and while swept


def render_gallery(gallery: Gallery) -> str:
    """The page as text, images inside; names are escaped. Small images stay PNG, photographs become JPEG."""
    first = (gallery.original or gallery.strips[0].panels[0]).image
    sharp = max(first.shape[1:]) <= SMALL
    large = gallery.original is None and not sharp  # a policy's photographs are shown larger
    sections = []
    if gallery.original is not None:
        shown = (gallery.original, *gallery.panels)
        original, *shots = (Shot(each.name, each.detail, data_url(each.image, side=_PANEL)) for each in shown)
        grid = ShotGrid(original, tuple(shots), shape=(first.shape[1], first.shape[2]), sharp=sharp)
        sections.append(Section("operations", "Operations", "Point at an image to see the original.", (grid,)))
    if gallery.strips:
        rows = []
        for strip in gallery.strips:
            side = _PANEL if large else _STRIP
            row = tuple(Shot(each.name, each.detail, data_url(each.image, side=side)) for each in strip.panels)
            layout = "large" if large else "short" if len(row) < 4 else ""
            rows.append(ShotRow(strip.name, strip.detail, row, layout=layout, sharp=sharp))
        title, summary = "From one end to the other", "Each operation at evenly spaced magnitudes."
        if gallery.original is None:
            title, summary = "Epochs", "What the policy makes of each sample in successive epochs."
        sections.append(Section("strips", title, summary, tuple(rows)))
    operations, verb = plural(len(gallery.panels), "operation"), "makes" if len(gallery.panels) == 1 else "make"
    headline = f"What {operations} {verb} of {gallery.title}"
    if gallery.original is None:
        headline = f"What {gallery.title} makes of {plural(len(gallery.strips), 'sample')}"
    return render(Page(gallery.title, "augmentation", headline, tuple(sections), text=gallery.subtitle))


def to_picture(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) to a PIL image; of two or four channels the first one or three are shown."""
    pixels = image.numpy()
    return Image.fromarray(pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def data_url(image: Tensor, *, side: int) -> str:
    """The image as a ``data:`` address, made smaller where its longer side exceeds ``side`` pixels."""
    picture = to_picture(image)
    kind, options = ("jpeg", {"quality": 86}) if max(picture.size) > SMALL else ("png", {"optimize": True})
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
