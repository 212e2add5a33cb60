"""The operations by name: what their magnitude means, which values it may take, and the presets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.errors import OptionError


@dataclass(frozen=True)
class Operation:
    """One operation.

    ``code`` is its number inside a plan; ``unit`` that of its magnitude (empty: it takes none); ``lowest`` and
    ``highest`` bound the magnitude; ``identity`` is the magnitude that changes nothing, or None.
    """

    code: int
    name: str
    unit: str
    lowest: float
    highest: float
    identity: float | None
    meaning: str

    @property
    def takes_magnitude(self) -> bool:
        return bool(self.unit)

    def show(self, magnitude: float) -> str:
        """The magnitude with its unit, as a caption: ``20°``, ``×0.5``, ``3 bits``; empty where there is none."""
        if not self.unit:
            return ""
        if self.unit in {"px", "bits"}:
            magnitude = int(magnitude)
        number = (f"{magnitude:.2g}" if abs(magnitude) < 10 else f"{magnitude:.0f}").replace("-", "−")
        if self.unit in {"×", "threshold", "slope"}:
            return {"×": f"×{number}", "threshold": f"≥ {number}", "slope": number}[self.unit]
        return f"{number}{self.unit}" if self.unit == "°" else f"{number} {self.unit}"


_LARGEST = 1e6  # beyond it a shift in pixels no longer fits the fixed-point arithmetic

_ROWS: tuple[tuple[str, str, float, float, float | None, str], ...] = (
    ("Identity", "", 0.0, 0.0, 0.0, "leave the image unchanged"),
    ("Brightness", "×", 0.0, 1000.0, 1.0, "blend with black"),
    ("Contrast", "×", 0.0, 1000.0, 1.0, "blend with the mean grey"),
    ("Posterize", "bits", 0.0, 8.0, 8.0, "keep the highest bits of each value"),
    ("Solarize", "threshold", 0.0, 256.0, 256.0, "invert the values at or above the threshold"),
    ("Equalize", "", 0.0, 0.0, None, "flatten each channel's histogram"),
    ("AutoContrast", "", 0.0, 0.0, None, "stretch each channel to the full range"),
    ("Invert", "", 0.0, 0.0, None, "the negative"),
    ("Color", "×", 0.0, 1000.0, 1.0, "blend with the image in grey"),
    ("Sharpness", "×", 0.0, 1000.0, 1.0, "blend with the smoothed image"),
    ("Hue", "turn", -0.5, 0.5, 0.0, "rotate the hue circle"),
    ("ShearX", "slope", -100.0, 100.0, 0.0, "row y moves left by slope·y"),
    ("ShearY", "slope", -100.0, 100.0, 0.0, "column x moves up by slope·x"),
    ("Rotate", "°", -_LARGEST, _LARGEST, 0.0, "turn counter-clockwise about the centre"),
    ("TranslateX", "px", -_LARGEST, _LARGEST, 0.0, "move to the right"),
    ("TranslateY", "px", -_LARGEST, _LARGEST, 0.0, "move downwards"),
    ("Flip", "", 0.0, 0.0, None, "mirror left and right"),
    ("Crop", "px", 0.0, _LARGEST, 0.0, "pad by this much, cut the old size out"),
    ("Cutout", "px", 0.0, _LARGEST, 0.0, "blank a square of this side"),
)
OPERATIONS = tuple(Operation(code, *row) for code, row in enumerate(_ROWS))
CODES = {operation.name: operation.code for operation in OPERATIONS}
POINT_CODES = range(CODES["Brightness"], CODES["Invert"] + 1)  # each pixel value on its own: these chain as tables

TWELVE = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness"),
    *("Color", "Contrast", "Sharpness", "Posterize", "Solarize", "Equalize"),
)


def find_operation(name: str) -> Operation:
    """By name, whatever its case and underscores: ``ShearX``, ``shear_x``; else :class:`OptionError` with the list."""
    wanted = name.replace("_", "").replace("-", "").lower()
    if operation := next((each for each in OPERATIONS if each.name.lower() == wanted), None):
        return operation
    raise OptionError("operation", expected=f"one of {', '.join(CODES)}", got=repr(name))


def check_magnitude(operation: Operation, magnitude: float) -> None:
    """Raise :class:`OptionError` unless the magnitude is a finite number within the operation's bounds."""
    in_range = math.isfinite(magnitude) and operation.lowest <= magnitude <= operation.highest
    if operation.takes_magnitude and not in_range:
        bounds = f"{operation.lowest:g}..{operation.highest:g} ({operation.unit})"
        raise OptionError(f"magnitude of {operation.name}", expected=bounds, got=f"{magnitude:g}")


def gallery_magnitudes(*, height: int, width: int) -> dict[str, float]:
    """The preset ``gallery``: each operation at a strength that shows what it does.

    A shift of 200 pixels suits a large photograph; a smaller image moves by the same share of 512 pixels.
    """
    return {
        **dict.fromkeys(("ShearX", "ShearY"), math.tan(math.radians(-10))),
        "TranslateX": float(min(200, round(200 * width / 512))),
        "TranslateY": float(min(200, round(200 * height / 512))),
        **{"Rotate": 20.0, "Brightness": 0.5, "Color": 0.0, "Hue": 0.3, "Contrast": 0.5},
        **{"Sharpness": 20.0, "Posterize": 3.0, "Solarize": 200.0, "Equalize": 0.0},
    }


# (low, high): the two directions of one strength; one-sided operations have the same number twice.
_SLOPES = ((-0.03, 0.03), (-0.1, 0.1), (-0.2, 0.2), (-0.3, 0.3), (-0.45, 0.45))
_SHARES = ((-1 / 32, 1 / 32), (-2 / 32, 2 / 32), (-4 / 32, 4 / 32), (-7 / 32, 7 / 32), (-10 / 32, 10 / 32))
_FACTORS = ((0.95, 1.05), (0.8, 1.25), (0.6, 1.6), (0.4, 2.2), (0.2, 3.0))
_LEVELS: dict[str, tuple[tuple[float, float], ...]] = {
    **dict.fromkeys(("ShearX", "ShearY"), _SLOPES),
    **dict.fromkeys(("TranslateX", "TranslateY"), _SHARES),
    "Rotate": ((-2.0, 2.0), (-7.0, 7.0), (-15.0, 15.0), (-22.0, 22.0), (-30.0, 30.0)),
    **dict.fromkeys(("Brightness", "Color", "Contrast"), _FACTORS),
    "Sharpness": ((0.8, 1.3), (0.5, 2.0), (0.2, 4.0), (0.0, 10.0), (0.0, 20.0)),
    "Posterize": ((6.0, 6.0), (5.0, 5.0), (4.0, 4.0), (3.0, 3.0), (2.0, 2.0)),
    "Solarize": ((252.0, 252.0), (224.0, 224.0), (192.0, 192.0), (160.0, 160.0), (128.0, 128.0)),
    "Hue": ((-0.02, 0.02), (-0.06, 0.06), (-0.12, 0.12), (-0.25, 0.25), (-0.5, 0.5)),
    "Cutout": ((1 / 16, 1 / 16), (1 / 8, 1 / 8), (1 / 4, 1 / 4), (3 / 8, 3 / 8), (1 / 2, 1 / 2)),
}


def levels_of(operation: Operation, *, height: int, width: int) -> tuple[tuple[float, float], ...]:
    """The magnitudes (low, high) of each level for images of this size; one level for operations without magnitude.

    Shifts and squares are shares of the side, at least one pixel.
    """
    if not operation.takes_magnitude:
        return ((0.0, 0.0),)
    pairs = _LEVELS[operation.name]
    if operation.unit != "px":
        return pairs
    side = width if operation.name == "TranslateX" else height
    pixels = [max(1.0, float(round(high * side))) for _, high in pairs]
    return tuple((-size if low < 0 else size, size) for size, (low, _) in zip(pixels, pairs, strict=True))
