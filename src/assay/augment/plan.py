"""A plan holds the operations of each sample of a batch; :func:`apply_plan` is what all of augmentation calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from assay.arguments import checked_kinds
from assay.augment.engine import run_kernels
from assay.augment.operations import CODES, OPERATIONS, check_magnitude, find_operation
from assay.errors import DataError, OptionError

Interpolation = Literal["nearest", "bilinear"]
Fill = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class AugmentPlan:
    """The operations of each sample, one after the other.

    ``codes``       uint8 (B, S): the operation of sample b at step s (:data:`~assay.augment.operations.CODES`)
    ``magnitudes``  float64 (B, S): its magnitude, sign included
    ``places``      int32 (B, S, 2): row and column; the corner of a Crop, the centre of a Cutout, else 0
    """

    codes: Tensor
    magnitudes: Tensor
    places: Tensor

    def then(self, other: AugmentPlan) -> AugmentPlan:
        return AugmentPlan(
            torch.cat([self.codes, other.codes], dim=1),
            torch.cat([self.magnitudes, other.magnitudes], dim=1),
            torch.cat([self.places, other.places], dim=1),
        )

    def describe(self, sample: int) -> str:
        """The program of one sample in words: ``Rotate 20° · Equalize``."""
        steps = zip(self.codes[sample].tolist(), self.magnitudes[sample].tolist(), strict=True)
        shown = [(OPERATIONS[code], magnitude) for code, magnitude in steps if code]
        words = [f"{operation.name} {operation.show(magnitude)}".strip() for operation, magnitude in shown]
        return " · ".join(words) or "unchanged"


@checked_kinds("fill", "interpolation")
def apply_plan(
    images: Tensor, plan: AugmentPlan, *, fill: Fill = 0, interpolation: Interpolation = "nearest"
) -> Tensor:
    """Run the program of every sample of a batch.

    Args:
        images: uint8 (B, C, H, W) of any size from 1×1 and on any device; the work is done on the CPU. C is 1 or 3;
            2 and 4 are possible where no operation needs the luma (Contrast, Color, Hue).
        plan: one row of operations for each image.
        fill: shown where an image has moved away; one number of 0..255, or one a channel.
        interpolation: of shears and rotations, ``"nearest"`` or ``"bilinear"``.

    Returns:
        A new tensor, uint8 (B, C, H, W), on the device of ``images``.

    Raises:
        DataError: the images are not such a batch, or the plan is for another number of them.
        OptionError: a wrong ``fill`` or ``interpolation``.
    """
    check_images(images)
    channels = images.shape[1]
    fill_bytes = _check_fill(fill, channels)
    if interpolation not in ("nearest", "bilinear"):
        raise OptionError("interpolation", expected="nearest or bilinear", got=repr(interpolation))
    if len(plan.codes) != len(images):
        raise DataError("plan", expected=f"one row for each of {len(images)} images", got=f"{len(plan.codes)} rows")
    for name in ("Contrast", "Color", "Hue") if channels in {2, 4} else ():
        if bool((plan.codes == CODES[name]).any()):
            raise DataError("images", expected=f"1 or 3 channels for {name}", got=f"{channels} channels")
    codes, magnitudes, places = (tensor.cpu().contiguous() for tensor in (plan.codes, plan.magnitudes, plan.places))
    batch, bilinear = images.cpu().contiguous(), interpolation == "bilinear"
    return run_kernels(batch, codes, magnitudes, places, fill=fill_bytes, bilinear=bilinear).to(images.device)


@checked_kinds("magnitude", "fill", "interpolation")
def apply_operation(
    images: Tensor,
    operation: str,
    magnitude: float | Tensor = 0.0,
    *,
    place: tuple[int, int] | None = None,
    fill: Fill = 0,
    interpolation: Interpolation = "nearest",
) -> Tensor:
    """One operation on a batch.

    Args:
        images: uint8 (B, C, H, W), as for :func:`apply_plan`.
        operation: such as ``"Rotate"`` or ``"shear_x"``; see :data:`assay.augment.operations.OPERATIONS`.
        magnitude: in the operation's own unit; a number for all samples, or a tensor (B,) with one each.
        place: (row, column): the centre of a Cutout (default: the middle) or the corner of a Crop (default: the one
            that changes nothing).
        fill: shown where an image has moved away; one number of 0..255, or one a channel.
        interpolation: of shears and rotations, ``"nearest"`` or ``"bilinear"``.

    Returns:
        A new tensor, uint8 (B, C, H, W).

    Raises:
        OptionError: an unknown operation, or a magnitude outside of its range.
        DataError: the images are not such a batch.

    Example:
        >>> import torch
        >>> from assay.augment import apply_operation
        >>> apply_operation(torch.full((1, 1, 1, 2), 200, dtype=torch.uint8), "Brightness", 0.5).tolist()
        [[[[100, 100]]]]
    """
    plan = plan_operation(images, operation, magnitude, place=place)
    return apply_plan(images, plan, fill=fill, interpolation=interpolation)


def plan_operation(
    images: Tensor, operation: str, magnitude: float | Tensor = 0.0, *, place: tuple[int, int] | None = None
) -> AugmentPlan:
    """The plan, one step long, of :func:`apply_operation`; its arguments are checked."""
    check_images(images)
    chosen = find_operation(operation)
    batch = len(images)
    if not isinstance(magnitude, int | float | Tensor):
        raise OptionError("magnitude", expected=f"a number, or a tensor ({batch},)", got=repr(magnitude))
    magnitudes = torch.as_tensor(magnitude, dtype=torch.float64)
    if magnitudes.shape not in ((), (batch,)):
        raise OptionError("magnitude", expected=f"a number, or a tensor ({batch},)", got=tuple(magnitudes.shape))
    for value in torch.stack(magnitudes.aminmax()).tolist() if batch else ():  # NaN is both minimum and maximum
        check_magnitude(chosen, value)
    magnitudes = magnitudes.expand(batch)
    if place is not None:
        places = torch.tensor(place, dtype=torch.int32).expand(batch, 2)
    elif chosen.name == "Crop":
        places = magnitudes.int()[:, None].expand(batch, 2)
    else:
        middle = [images.shape[2] // 2, images.shape[3] // 2] if chosen.name == "Cutout" else [0, 0]
        places = torch.tensor(middle, dtype=torch.int32).expand(batch, 2)
    codes = torch.full((batch, 1), chosen.code, dtype=torch.uint8)
    return AugmentPlan(codes, magnitudes[:, None], places[:, None])


def check_images(images: Tensor) -> None:
    """Raise :class:`DataError` unless ``images`` is uint8 (B, C, H, W), C in 1..4, of at least one pixel."""
    expected = "uint8 (B, C, H, W) with 1 to 4 channels"
    if not isinstance(images, Tensor):
        raise DataError("images", expected=expected, got=type(images).__name__)
    shape = images.shape
    if images.dtype == torch.uint8 and len(shape) == 4:
        if 1 <= shape[1] <= 4 and shape[2] > 0 and shape[3] > 0:
            return
        if 1 <= shape[1] <= 4:
            expected = "pictures of at least one pixel"
        elif shape[3] in {1, 3, 4}:
            expected += "; is it (B, H, W, C)?"
    raise DataError("images", expected=expected, got=f"{images.dtype} {tuple(shape)}")


def _check_fill(fill: Fill, channels: int) -> Tensor:
    values = list(fill) if isinstance(fill, Sequence) else [fill] * channels
    if len(values) != channels or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise OptionError("fill", expected=f"0..255, one number or {channels}", got=fill)
    return torch.tensor(values, dtype=torch.uint8)
