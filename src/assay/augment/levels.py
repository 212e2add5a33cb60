"""Five rising strengths of each operation, from hardly visible to strong, for measuring what a model can take."""

from __future__ import annotations

from assay.augment.operations import Operation

# (low, high): the two directions of one strength; one-sided operations have the same number twice.
_SLOPES = ((-0.03, 0.03), (-0.1, 0.1), (-0.2, 0.2), (-0.3, 0.3), (-0.45, 0.45))
_SHARES = ((-1 / 32, 1 / 32), (-2 / 32, 2 / 32), (-4 / 32, 4 / 32), (-7 / 32, 7 / 32), (-10 / 32, 10 / 32))
_FACTORS = ((0.95, 1.05), (0.8, 1.25), (0.6, 1.6), (0.4, 2.2), (0.2, 3.0))
_LEVELS: dict[str, tuple[tuple[float, float], ...]] = {
    "ShearX": _SLOPES,
    "ShearY": _SLOPES,
    "TranslateX": _SHARES,
    "TranslateY": _SHARES,
    "Rotate": ((-2.0, 2.0), (-7.0, 7.0), (-15.0, 15.0), (-22.0, 22.0), (-30.0, 30.0)),
    "Brightness": _FACTORS,
    "Color": _FACTORS,
    "Contrast": _FACTORS,
    "Sharpness": ((0.8, 1.3), (0.5, 2.0), (0.2, 4.0), (0.0, 10.0), (0.0, 20.0)),
    "Posterize": ((6.0, 6.0), (5.0, 5.0), (4.0, 4.0), (3.0, 3.0), (2.0, 2.0)),
    "Solarize": ((252.0, 252.0), (224.0, 224.0), (192.0, 192.0), (160.0, 160.0), (128.0, 128.0)),
    "Hue": ((-0.02, 0.02), (-0.06, 0.06), (-0.12, 0.12), (-0.25, 0.25), (-0.5, 0.5)),
    "Cutout": ((1 / 16, 1 / 16), (1 / 8, 1 / 8), (1 / 4, 1 / 4), (3 / 8, 3 / 8), (1 / 2, 1 / 2)),
}


def levels_of(operation: Operation, *, height: int, width: int) -> tuple[tuple[float, float], ...]:
    """The magnitudes (low, high) of each level for pictures of this size; one level for operations without magnitude.

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
