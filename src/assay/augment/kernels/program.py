"""The compiled loop: every sample of a batch runs a program of operations of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from assay.augment.kernels.filters import color, hue, sharpness
from assay.augment.kernels.geometry import copy, cutout, flip, shift, warp
from assay.augment.kernels.points import Array, change, extend_table, kernel, look_up, mean_luma
from assay.augment.operations import CODES, POINT_CODES

CONTRAST, EQUALIZE, AUTOCONTRAST = CODES["Contrast"], CODES["Equalize"], CODES["AutoContrast"]
SHEAR_X, ROTATE = CODES["ShearX"], CODES["Rotate"]
TRANSLATE_X, TRANSLATE_Y = CODES["TranslateX"], CODES["TranslateY"]
FLIP, CROP, CUTOUT = CODES["Flip"], CODES["Crop"], CODES["Cutout"]
COLOR, SHARPNESS, HUE = CODES["Color"], CODES["Sharpness"], CODES["Hue"]
FIRST_POINT, LAST_POINT = POINT_CODES[0], POINT_CODES[-1]


@kernel
def _run_one(
    code: int,
    magnitude: float,
    row: int,
    column: int,
    fill: Array,
    bilinear: bool,
    source: Array,
    words: Array,
    places: Array,
    target: Array,
) -> None:
    if FIRST_POINT <= code <= LAST_POINT:
        mean = mean_luma(source) if code == CONTRAST else 0.0
        change(code, magnitude, mean, source.reshape(source.size), target.reshape(target.size))
    elif SHEAR_X <= code <= ROTATE:
        warp(code, magnitude, fill, bilinear, source, words, places, target)
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
    """The compiled entry point, ``run(images, codes, magnitudes, corners, fill, bilinear, output, start, stop)``.

    It fills ``output[start:stop]``. Its cache key holds the text of every file of kernels, through ``fingerprint``:
    numba by itself watches only the file of the function that it caches.
    """
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    fingerprint = int.from_bytes(hashlib.sha256(sources).digest()[:6], "big")

    def run(
        images: Array,
        codes: Array,
        magnitudes: Array,
        corners: Array,
        fill: Array,
        bilinear: bool,
        output: Array,
        start: int,
        stop: int,
    ) -> int:
        channels, height, width = images.shape[1:]
        table, counts = np.empty((channels, 256), np.uint8), np.empty((3, 256), np.int32)
        words, places = np.empty(height * width + 1, np.uint32), np.empty(height * width, np.uint32)
        spare = np.empty((channels, height, width), np.uint8)
        for sample in range(start, stop):
            current, free, in_output = images[sample], output[sample], True  # in_output: `free` is the sample's output
            pending = False  # whether a table is to be looked up
            for step in range(codes.shape[1]):
                code, magnitude = codes[sample, step], magnitudes[sample, step]
                if code == 0:
                    continue
                if (pending and FIRST_POINT <= code <= LAST_POINT) or EQUALIZE <= code <= AUTOCONTRAST:
                    extend_table(code, magnitude, current, pending, table, counts)
                    pending = True
                    continue
                if pending:
                    look_up(current, table, free)
                    current, free, in_output = free, spare if in_output else output[sample], not in_output
                    pending = False
                row, column = corners[sample, step, 0], corners[sample, step, 1]
                _run_one(code, magnitude, row, column, fill, bilinear, current, words, places, free)
                current, free, in_output = free, spare if in_output else output[sample], not in_output
            if pending:
                look_up(current, table, output[sample])
            elif in_output:
                copy(current, output[sample])
        return fingerprint

    try:
        return kernel(run, cached=True)
    except RuntimeError:  # no folder to cache in: neither beside this file nor in the user's cache
        return kernel(run)
