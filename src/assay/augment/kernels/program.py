"""The compiled loop: every sample of a batch runs its own little program of operations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel
from assay.augment.kernels.filters import color, copy, cutout, flip, hue, sharpness
from assay.augment.kernels.points import extend_table, identity_table, look_up
from assay.augment.kernels.warps import inverse_map, shear, shift, turn, turn_bilinear
from assay.augment.operations import CODES, POINT_CODES

Array = Any  # numpy arrays; numba infers the exact types
SHEAR_X, ROTATE = CODES["ShearX"], CODES["Rotate"]
TRANSLATE_X, TRANSLATE_Y, FLIP, CROP, CUTOUT = (
    CODES[name] for name in ("TranslateX", "TranslateY", "Flip", "Crop", "Cutout")
)
COLOR, SHARPNESS, HUE = CODES["Color"], CODES["Sharpness"], CODES["Hue"]
FIRST_POINT, LAST_POINT = POINT_CODES[0], POINT_CODES[-1]


@kernel
def _run_one(
    code: int, magnitude: float, row: int, column: int, fill: Array, bilinear: bool, source: Array, target: Array
) -> None:
    """Any operation that is not a point operation."""
    if SHEAR_X <= code <= ROTATE:
        matrix = np.empty(6)
        inverse_map(code, magnitude, source.shape[1], source.shape[2], matrix)
        if bilinear:
            turn_bilinear(matrix, source, fill, target)
        elif code == ROTATE or abs(magnitude) * max(source.shape[1], source.shape[2]) > 16000.0:
            turn(matrix, source, fill, target)
        else:
            shear(code, magnitude, source, fill, target)
    elif code == TRANSLATE_X or code == TRANSLATE_Y or code == CROP:  # noqa: PLR1714, SIM109  # `in` builds a set
        size, down, right = np.int64(magnitude), np.int64(0), np.int64(0)
        if code != TRANSLATE_X:
            down = size - row
        if code != TRANSLATE_Y:
            right = size - column
        shift(source, down, right, fill, target)
    elif code == COLOR:
        color(magnitude, source, target)
    elif code == SHARPNESS:
        sharpness(magnitude, source, target)
    elif code == HUE:
        hue(magnitude, source, target)
    elif code == CUTOUT:
        cutout(magnitude, row, column, fill, source, target)
    elif code == FLIP:
        flip(source, target)


def build_runner() -> Callable[..., int]:
    """The compiled entry point, ``run(images, codes, magnitudes, places, fill, bilinear, output, start, stop)``.

    It fills ``output[start:stop]``. Its cache key holds the text of every file of kernels, through ``fingerprint``:
    numba by itself watches only the file of the function that it caches.
    """
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    fingerprint = int.from_bytes(hashlib.sha256(sources).digest()[:6], "big")

    def run(
        images: Array,
        codes: Array,
        magnitudes: Array,
        places: Array,
        fill: Array,
        bilinear: bool,
        output: Array,
        start: int,
        stop: int,
    ) -> int:
        channels, height, width = images.shape[1:]
        table = np.empty((channels, 256), np.uint8)
        spare = np.empty((channels, height, width), np.uint8)
        for sample in range(start, stop):
            current, free, own = images[sample], output[sample], True  # own: the free buffer is the sample's output
            pending = False
            for step in range(codes.shape[1]):
                code, magnitude = codes[sample, step], magnitudes[sample, step]
                if code == 0:
                    continue
                if FIRST_POINT <= code <= LAST_POINT:
                    if not pending:
                        identity_table(table)
                        pending = True
                    extend_table(code, magnitude, current, table)
                    continue
                if pending:
                    look_up(current, table, free)
                    current, free, own = free, spare if own else output[sample], not own
                    pending = False
                row, column = places[sample, step, 0], places[sample, step, 1]
                _run_one(code, magnitude, row, column, fill, bilinear, current, free)
                current, free, own = free, spare if own else output[sample], not own
            if pending:
                look_up(current, table, output[sample])
            elif own:
                copy(current, output[sample])
        return fingerprint

    try:
        return kernel(run, cached=True)
    except RuntimeError:  # no folder to cache in: neither beside this file nor in the user's cache
        return kernel(run)
