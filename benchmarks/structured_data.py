"""Data sets of ``structured.py`` on disk, in every form that is read, each with the pixels and class names in it.

A writer gets pictures (N, H, W, C) of bytes, their class numbers and a generator of what is odd about the files. It
keeps the path to read and, by NumPy alone, what a right reader finds there.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


@dataclass
class Stored:
    """Where a set lies and what is in it: a picture (H, W) or (H, W, 3) and the name of its class for each sample.

    Each of ``notes`` must occur in the notes of the reader. ``refusable``: there is a reason to refuse this set.
    """

    path: Path
    pictures: list[Array]
    names: list[str]
    notes: list[str] = field(default_factory=list)
    refusable: bool = False

    def samples(self) -> list[tuple[str, bytes]]:
        """Class name and pixels (C, H, W) of each sample, sorted; grey beside colour becomes colour."""
        colour = any(picture.ndim == 3 for picture in self.pictures)
        return sorted(
            (name, planes(picture, colour=colour).tobytes())
            for name, picture in zip(self.names, self.pictures, strict=True)
        )


def planes(picture: Array, *, colour: bool) -> Array:
    if picture.ndim == 2:
        return np.repeat(picture[None], 3 if colour else 1, axis=0)
    return picture.transpose(2, 0, 1)


def from_16_bits(values: Array, brightest: int) -> Array:
    """Greys of 16 bits as bytes, by the smallest usual depth that holds the brightest of the set."""
    if brightest <= 1:
        return (values * 255).astype(np.uint8)
    bits = next(bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)
    return np.rint(values.astype(np.float64) / (2**bits - 1) * 255).astype(np.uint8)


# How a picture is encoded: the bytes of a file, what they show, and the ending of the file's name. Values of 16 bits
# are returned as they are, since their scale follows from the whole set.
Encoded = tuple[bytes, Array, str]


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def _png(picture: Array, dice: random.Random) -> Encoded:
    return _saved(Image.fromarray(picture), "PNG"), picture, dice.choice((".png", ".PNG", "", ".img"))


def _other_lossless(picture: Array, dice: random.Random) -> Encoded:
    form, ending = dice.choice((("BMP", ".bmp"), ("TIFF", ".tif"), ("PPM", ".ppm"), ("TIFF", ".TIFF"), ("BMP", "")))
    return _saved(Image.fromarray(picture), form), picture, ending


def _jpeg(picture: Array, dice: random.Random) -> Encoded:
    content = _saved(Image.fromarray(picture), "JPEG")
    with Image.open(io.BytesIO(content)) as image:
        return content, np.array(image), dice.choice((".jpg", ".jfif", ".JPEG", ".jpe", ""))


def _alpha(picture: Array, dice: random.Random) -> Encoded:
    """Each pixel shown or hidden; hidden ones are white, unless all are."""
    shown = np.random.default_rng(dice.randrange(2**32)).random(picture.shape[:2]) < dice.choice((0, 0.5, 1))
    layers = picture[..., None] if picture.ndim == 2 else picture
    content = _saved(Image.fromarray(np.dstack([layers, shown * np.uint8(255)])), "PNG")
    kept = shown if shown.any() else ~shown
    return content, np.where(kept if picture.ndim == 2 else kept[..., None], picture, np.uint8(255)), ".png"


def _palette(picture: Array, dice: random.Random) -> Encoded:
    """Indices of drawn colours, one of them hidden at times."""
    rng = np.random.default_rng(dice.randrange(2**32))
    colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    indices = picture if picture.ndim == 2 else picture[..., 0]
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    shown = colours[indices]
    form = dice.choice(("PNG", "GIF", "TIFF"))
    if form == "PNG" and dice.random() < 0.5:
        hidden = indices == indices[0, 0]
        content = _saved(image, form, transparency=int(indices[0, 0]))
        return content, shown if hidden.all() else np.where(hidden[..., None], np.uint8(255), shown), ".png"
    return _saved(image, form), shown, f".{form.lower()}"


def _turned(picture: Array, dice: random.Random) -> Encoded:
    """Stored as a camera held otherwise would, with the orientation that undoes it."""
    stored: dict[int, Callable[[Array], Array]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    orientation = dice.randint(1, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored[orientation](picture)))
    form = dice.choice(("PNG", "WEBP", "TIFF"))
    if form == "WEBP" and picture.ndim == 3:
        return _saved(image, form, lossless=True, exif=exif), picture, ".webp"
    form = "PNG" if form == "WEBP" else form
    return _saved(image, form, exif=exif), picture, ".png" if form == "PNG" else ".tif"


def _black_and_white(picture: Array, dice: random.Random) -> Encoded:
    bits = (picture if picture.ndim == 2 else picture[..., 0]) > 127
    return _saved(Image.fromarray(bits), dice.choice(("PNG", "TIFF"))), bits * np.uint8(255), ""


ENCODINGS = (_png, _other_lossless, _jpeg, _alpha, _palette, _turned, _black_and_white)


def encode_all(pictures: list[Array], dice: random.Random) -> tuple[list[bytes], list[Array], list[str]]:
    """Each picture in an encoding of its own; in some grey sets, some have 16 bits."""
    depth = dice.choice((10, 12, 14, 16)) if dice.random() < 0.3 else 0
    ways = dice.sample(ENCODINGS, dice.randint(1, 3))
    files, shown, endings, deep = [], [], [], []
    for picture in pictures:
        if depth and picture.ndim == 2 and dice.random() < 0.7:
            values = np.rint(picture / 255 * (2**depth - 1)).astype(np.uint16)
            files.append(_saved(Image.fromarray(values), dice.choice(("PNG", "TIFF"))))
            deep.append(len(shown))
            shown.append(values)
            endings.append("")
            continue
        content, pixels, ending = dice.choice(ways)(picture, dice)
        files.append(content)
        shown.append(pixels)
        endings.append(ending)
    if deep:
        brightest = max(int(shown[place].max()) for place in deep)
        for place in deep:
            shown[place] = from_16_bits(shown[place], brightest)
    return files, shown, endings


def _squeezed(pixels: Array) -> list[Array]:
    return list(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def write_folder(pixels: Array, labels: Array, folder: Path, dice: random.Random) -> Stored:
    """Class folders with files that are no pictures among them; at times in splits, at times nested."""
    root, odd = folder / "set", dice.random() < 0.5
    inside = root / dice.choice(("test", "val")) if odd else root
    names = [f"c{label}" for label in labels.tolist()]
    files, shown, endings = encode_all(_squeezed(pixels), dice)
    notes: set[str] = set()
    for i, (content, name, ending) in enumerate(zip(files, names, endings, strict=True)):
        place = inside / name
        if dice.random() < 0.1:
            place /= "more"
            notes.add("lie in folders inside of the class folders")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:05}{ending}").write_bytes(content)
    first = inside / names[0]
    if dice.random() < 0.5:
        (first / ".hidden.png").write_bytes(files[0])
        (first / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (first / "notes.txt").write_text("a note")
        notes |= {"hidden (", "without a picture ("}
    if odd:  # a class that only the other split has
        (root / "train" / "absent").mkdir(parents=True)
        (root / "train" / "absent" / "1.png").write_bytes(files[0])
        notes.add("no sample of 1 of the")
    return Stored(root, shown, names, sorted(notes), refusable=len(set(names)) < 2 and not odd)


def write_webdataset(pixels: Array, labels: Array, folder: Path, dice: random.Random) -> Stored:
    """One or two shards, gzipped or not, with masks, labels as numbers, text or JSON, and names beside them or not."""
    files, shown, _ = encode_all(_squeezed(pixels), dice)
    numbers, notes = [str(label) for label in labels.tolist()], set()
    named, textual = dice.random() < 0.4, dice.random() < 0.3
    classes = [f"class {i}" for i in range(int(labels.max()) + 1)]
    names = [classes[label] for label in labels.tolist()] if named or textual else numbers
    texts = names if textual else numbers
    if named:
        mark = b"\xef\xbb\xbf" if dice.random() < 0.5 else b""
        line = "\r\n" if dice.random() < 0.5 else "\n"
        (folder / "classnames.txt").write_bytes(mark + line.join(classes).encode())
    ending, masks, inner = dice.choice(("cls", "json", "label")), dice.random() < 0.3, dice.random() < 0.3
    gzipped, shards = dice.random() < 0.3, dice.choice((1, 2)) if len(files) > 1 else 1
    for shard in range(shards):
        path = folder / f"set-{shard:04}.tar{'.gz' if gzipped else ''}"
        with tarfile.open(path, "w:gz" if gzipped else "w") as archive:
            for i in range(shard, len(files), shards):
                key = f"deep/er/{i:05}" if inner else f"{i:05}"
                label = json.dumps({"label": texts[i] if textual else int(texts[i])}) if ending == "json" else texts[i]
                members = {f"{key}.png": files[i], f"{key}.{ending}": label.encode()}
                if masks:
                    members[f"{key}.mask.png"] = files[0]
                    notes.add("further pictures (")
                if i == 0 and dice.random() < 0.5:
                    members["._" + f"{i:05}.png"] = b"\x00\x05\x16\x07"
                    members["README.md"] = b"a note"
                    notes |= {"hidden (", "neither picture nor label ("}
                for name, content in members.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    path = folder if shards > 1 or dice.random() < 0.5 else folder / f"set-0000.tar{'.gz' if gzipped else ''}"
    return Stored(path, shown, names, sorted(notes), refusable=len(set(names)) < 2)


def write_parquet(pixels: Array, labels: Array, folder: Path, dice: random.Random) -> Stored:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files, shown, _ = encode_all(_squeezed(pixels), dice)
    textual = dice.random() < 0.3
    names = [f"class {label}" if textual else str(label) for label in labels.tolist()]
    column: list[Any] = [{"bytes": content, "path": None} for content in files] if dice.random() < 0.5 else files
    path = folder / "set.parquet"
    pq.write_table(pa.table({"image": column, "label": names if textual else labels}), path)
    return Stored(path, shown, names, refusable=len(set(names)) < 2)


def write_idx(pixels: Array, labels: Array, folder: Path, dice: random.Random) -> Stored:
    """A pair of files, gzipped or not, counting classes from 0 or from 1."""
    first = int(dice.random() < 0.3)
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    ambiguous = squeezed.ndim == 4 and squeezed.shape[1] <= 4
    gzipped = dice.random() < 0.5

    def write(name: str, array: Array) -> Path:
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        path = folder / (f"{name}.gz" if gzipped else name)
        content = header + array.astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(content) if gzipped else content)
        return path

    path = write(f"t10k-images-idx{squeezed.ndim}-ubyte", squeezed)
    kept = np.minimum(labels, 254) + first
    write("t10k-labels-idx1-ubyte", kept)
    names = [str(number) for number in kept.tolist()]
    refusable = ambiguous or len(set(names)) < 2
    return Stored(dice.choice((path, folder)), list(squeezed), names, refusable=refusable)


def write_npz(pixels: Array, labels: Array, folder: Path, dice: random.Random) -> Stored:
    """An archive in one of the layouts, types of numbers, forms of labels and names of arrays that are about."""
    shown, stored = _typed(pixels, dice)
    layout, grey = dice.choice(("NHWC", "NCHW", "squeezed", "rows")), pixels.shape[-1] == 1
    if layout == "NCHW":
        stored = np.ascontiguousarray(stored.transpose(0, 3, 1, 2))
    elif grey and layout == "squeezed":
        stored = stored[..., 0]
    elif grey and layout == "rows" and stored.shape[1] == stored.shape[2]:
        stored = stored.reshape(len(stored), -1)
    ambiguous = stored.ndim == 4 and stored.shape[1] <= 4 and stored.shape[3] <= 4
    k = int(labels.max()) + 1
    arrays: dict[str, Array] = {}
    names = [str(label) for label in labels.tolist()]
    named = dice.random() < 0.3
    form = dice.choice(
        ("numbers", "bytes of numbers", "from 1", "text", "bytes", "one-hot", "column", "floats", "digits")
    )
    written: Array = labels
    if form == "from 1":
        written, names = labels + 1, [str(label + 1) for label in labels.tolist()]
        named = False
    elif form in {"text", "bytes"}:
        names = [f"class {label}" for label in labels.tolist()]
        written = np.array(names) if form == "text" else np.array([name.encode() for name in names])
    elif form == "one-hot":
        written = np.eye(max(k, 2))[labels].astype(dice.choice(("f4", "i8", "?", "u1")))
    elif form == "column":
        written = labels[:, None]
    elif form == "floats":
        written = labels.astype(np.float32)
    elif form == "digits":
        written = np.array(names)
    elif form == "bytes of numbers":
        written = labels.astype(dice.choice((">i2", "<u4", ">i8")))
    if named:
        classes = [f"class {i}" for i in range(k)]
        arrays[dice.choice(("classes", "class_names", "label_names"))] = np.array(classes)
        names = [f"class {label}" for label in labels.tolist()]
    split = dice.random() < 0.5
    image_key, label_key = ("x_test", "y_test") if split else dice.choice((("images", "labels"), ("X", "Y")))
    arrays |= {image_key: stored, label_key: written}
    if split:
        arrays |= {"x_train": stored[:1], "y_train": written[:1]}
    notes = []
    if dice.random() < 0.3:
        arrays["scores"], notes = np.zeros(3), ["not used"]
    path = folder / "set.npz"
    dice.choice((np.savez, np.savez_compressed))(path, **arrays)
    pictures = list(shown[..., 0] if grey else shown)
    return Stored(path, pictures, names, notes, refusable=ambiguous or len(set(names)) < 2)


def _typed(pixels: Array, dice: random.Random) -> tuple[Array, Array]:
    """What is shown, and the numbers of another type that stand for it."""
    form = dice.choice(("bytes", "unit", "whole floats", "integers", "truth", "16 bits", "mask"))
    if form == "unit":
        return pixels, (pixels / 255).astype(dice.choice(("f2", "f4", "f8", ">f4")))
    if form == "whole floats":
        return pixels, pixels.astype(dice.choice(("f4", "f8")))
    if form == "integers":
        return pixels, pixels.astype(dice.choice(("i2", "i4", "i8", ">i4", "u4")))
    if form in {"truth", "mask"}:
        bits = pixels > 127
        return bits * np.uint8(255), bits if form == "truth" else bits.astype(dice.choice(("u2", "i4", ">i8")))
    if form == "16 bits":
        depth = dice.choice((10, 12, 14, 16))
        values = np.rint(pixels / 255 * (2**depth - 1)).astype(dice.choice(("<u2", ">u2")))
        return from_16_bits(values, int(values.max())), values
    return pixels, pixels


FORMS: dict[str, Callable[[Array, Array, Path, random.Random], Stored]] = {
    "IDX": write_idx,
    "npz": write_npz,
    "class folders": write_folder,
    "WebDataset": write_webdataset,
    "Parquet": write_parquet,
}
