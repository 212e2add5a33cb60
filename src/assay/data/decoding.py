"""One picture file (PNG, JPEG, …) to pixels: the only place where picture files are opened."""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from assay.data.preparing import prepare_picture
from assay.data.reading import UNREADABLE, listing
from assay.data.scale import judge_scale
from assay.errors import one_line
from assay.records.preparation import Preparation
from assay.wording import plural

# Only these decoders are tried: each is a plain raster format, and none starts another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MORE_FORMATS = ("AVIF", "JPEG2000", "HEIF")  # where Pillow was built with them, or a plug-in brought them
_BROUGHT_BY = {"AVIF": "a Pillow of version 11.3 or later", "HEIF": "the package pillow-heif (pip install pillow-heif)"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_ENDINGS = "png jpg jpeg jpe jfif bmp gif tif tiff webp ppm pgm pbm pnm avif jp2 j2k heic heif"
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
_TEXTS = frozenset((".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".html"))
UNKNOWN_FORMAT = "not a picture in a known format"
BACKGROUND = "white"  # what transparent pictures are laid over

BROKEN: tuple[type[Exception], ...] = (*UNREADABLE, Image.DecompressionBombError, Warning)
TRAITS = {  # what is told of a picture
    "transparent": f"transparency was laid over {BACKGROUND}",
    "hidden": "a transparency that hides everything was ignored",
    "frames": "only the first frame was used",
    "profile": "a colour profile other than sRGB was ignored",
}

_GREY = {"1", "L", "LA", "La"}  # modes of PIL, besides those of 16 bits
Pixels = NDArray[Any]  # (H, W) grey or (H, W, 3); uint8, or uint16 where greys have 16 bits and no scale yet


@dataclass(frozen=True)
class Broken:
    reason: str


class DecodedPicture(NamedTuple):
    """A decoded picture, and which of :data:`TRAITS` it has."""

    pixels: Pixels
    traits: tuple[str, ...] = ()


def decode(
    content: bytes | Path | None, *, image_size: int | None = None, most_pixels: int | None = None
) -> NDArray[np.uint8] | Broken:
    """One image file to bytes (H, W) or (H, W, 3), or the reason why not; its scale is judged by it alone."""
    preparation = None if image_size is None else Preparation.square(image_size)
    decoded = decode_alone(content, preparation=preparation, most_pixels=most_pixels)
    return decoded if isinstance(decoded, Broken) else decoded[0]


def decode_alone(
    content: bytes | Path | None, *, preparation: Preparation | None = None, most_pixels: int | None = None
) -> tuple[NDArray[np.uint8], tuple[str, ...]] | Broken:
    """One image file as :func:`decode` gives it, and the notes on how it was read."""
    picture = decode_picture(content, preparation=preparation, most_pixels=most_pixels)
    if isinstance(picture, Broken):
        return picture
    pixels, traits = picture
    factor, note = judge_scale(pixels.dtype, low=0, high=float(pixels.max()), whole=True, where="pixels")
    notes = (*((note,) if note else ()), *(TRAITS[trait] for trait in traits))
    return pixels if factor == 1 else np.rint(pixels * factor).astype(np.uint8), notes


def decode_picture(
    content: bytes | Path | None, *, preparation: Preparation | None = None, most_pixels: int | None = None
) -> DecodedPicture | Broken:
    """One image file to pixels, or the reason why not.

    One channel for grey, else three: palettes, CMYK and the like become RGB; transparent pixels are laid over white,
    unless the whole picture is transparent; an orientation written by a camera is applied; of several frames the first
    is taken. With a ``preparation`` it is resized and cropped.

    An image of more than ``most_pixels`` (default: PIL's bomb guard) is never decoded.
    """
    if content is None:
        return Broken("there are no bytes of a picture")
    missing = None
    try:
        encoded = content.read_bytes() if isinstance(content, Path) else content
        if not encoded:
            return Broken("the file is empty")
        missing = _missing_decoder(encoded)
        with Image.open(io.BytesIO(encoded), formats=_known_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS if most_pixels is None else most_pixels
            if limit is not None and image.width * image.height > limit:
                guard = " (PIL's bomb guard)" if most_pixels is None else ""
                return Broken(f"{image.width}x{image.height} pixels exceed the limit of {limit:,}{guard}")
            if not image.width * image.height:
                return Broken(f"{image.width}x{image.height} pixels")
            return read_picture(image, preparation=preparation)
    except BROKEN as error:
        return Broken(_reason(error) if missing is None else f"{missing} pictures, which need {_BROUGHT_BY[missing]}")


def read_picture(image: Image.Image, *, preparation: Preparation | None = None) -> DecodedPicture:
    """An opened picture as :func:`decode_picture` gives it; raises what PIL raises."""
    plain, transparency = _unify(ImageOps.exif_transpose(image))
    plain = plain if preparation is None else prepare_picture(plain, preparation)
    pixels = np.array(plain)
    if plain.mode == "F":
        pixels = np.rint(pixels).astype(np.uint16)
    has = {transparency: True, "frames": _has_frames(image), "profile": _has_profile(image)}
    return DecodedPicture(pixels, tuple(trait for trait in TRAITS if has.get(trait)))


def is_in_colour(content: bytes | Path | None) -> bool:
    """Whether a picture will have three channels, as its header tells; no for one that is broken there."""
    if content is None:
        return False
    file = content if isinstance(content, Path) else io.BytesIO(content)
    try:
        with Image.open(file, formats=_known_formats()) as image:
            return not (image.mode in _GREY or image.mode.startswith("I"))
    except BROKEN:
        return False


def is_picture(file: Path) -> bool:
    """Whether a file is a picture: by the ending of its name, or by its content where the ending tells nothing."""
    suffix = file.suffix.lower()
    return suffix in SUFFIXES or (suffix not in _TEXTS and begins_as_picture(file))


def begins_as_picture(file: Path) -> bool:
    """Whether a file, whatever its name, begins as a picture in a known format does."""
    try:
        with Image.open(file, formats=_known_formats()):
            return True
    except Image.DecompressionBombError:
        return True
    except BROKEN:
        return False


def trait_notes(traits: Iterable[tuple[str, str]]) -> list[str]:
    """A note for each of the traits in (trait, name of a picture), naming the first pictures that have it."""
    names: dict[str, list[str]] = {}
    for trait, name in traits:
        names.setdefault(trait, []).append(name)
    return [
        f"{text}: {plural(len(names[trait]), 'picture')} ({listing(names[trait])})"
        for trait, text in TRAITS.items()
        if trait in names
    ]


@functools.cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return (*FORMATS, *(name for name in MORE_FORMATS if name in Image.OPEN))


def _missing_decoder(encoded: bytes) -> str | None:
    """The format of a picture that begins as one does for which nothing is installed here, else None."""
    if encoded[4:8] != b"ftyp":
        return None
    kind = "AVIF" if encoded[8:12] in {b"avif", b"avis"} else "HEIF" if encoded[8:12] in _HEIF_BRANDS else None
    return kind if kind is not None and kind not in _known_formats() else None


def _unify(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Any mode of PIL to ``L``, ``RGB`` or, for 16 bits of grey, ``F``; and what was done about transparency."""
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        image.load()
        return image, None
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values {values.min()}..{values.max()} are not of 16 bits")
        return Image.fromarray(values.astype(np.float32)), None
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known scale")
    if not image.has_transparency_data:
        return image.convert("L" if image.mode == "1" else "RGB"), None
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = np.asarray(layer.getchannel("A"))
    # A picture that would be hidden entirely has an alpha channel that nobody filled in.
    trait = "hidden" if alpha.max() == 0 else "transparent" if alpha.min() < 255 else None
    if trait == "transparent":
        layer = Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer)
    return layer.getchannel("R") if image.mode in _GREY else layer.convert("RGB"), trait


def _has_frames(image: Image.Image) -> bool:
    """Whether there is more than one picture in the file; the smaller copies that cameras add (MPO) are none."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except BROKEN:
        return False


def _has_profile(image: Image.Image) -> bool:
    profile = image.info.get("icc_profile") or b""
    return bool(profile) and b"sRGB" not in profile and "sRGB".encode("utf-16-be") not in profile


def _reason(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
    return UNKNOWN_FORMAT if "cannot identify image file" in text else text or type(error).__name__
