"""One picture, whichever way it comes in: the same pixels from folders, tables, Parquet, shards, and single files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assay.cli.augment import read_picture as read_for_augment
from assay.data import decoding
from assay.data.decoding import Broken, decode_picture
from assay.data.sources import load_dataset
from assay.errors import DataError
from assay.lowrank.summary import read_channels
from assay.views.picture import read_picture as read_for_views

SIZE = (24, 16)  # height and width: upright after its orientation is applied


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(most: int, dtype: str = "u2") -> Image.Image:
    return Image.fromarray(np.rint(np.linspace(0, most, 24 * 16)).reshape(SIZE).astype(dtype))


def colours() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def transparent() -> Image.Image:
    picture = colours()
    picture.putalpha(ramp(255, "u1"))
    return picture


def turned() -> bytes:
    orientation = Image.Exif()
    orientation[0x0112] = 6
    return saved(colours().rotate(90, expand=True), "JPEG", exif=orientation, quality=95)


PICTURES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "16-bit grey": ("png", lambda: saved(ramp(65535), "PNG")),
    "12 bits in 16": ("png", lambda: saved(ramp(4095), "PNG")),
    "10 bits in 16": ("tif", lambda: saved(ramp(1023), "TIFF")),
    "transparent": ("png", lambda: saved(transparent(), "PNG")),
    "transparent palette": ("png", lambda: saved(colours().convert("P"), "PNG", transparency=bytes(range(256)))),
    "palette": ("gif", lambda: saved(colours().convert("P"), "GIF")),
    "cmyk": ("jpg", lambda: saved(colours().convert("CMYK"), "JPEG")),
    "turned by a camera": ("jpeg", turned),
    "jfif": ("jfif", lambda: saved(colours(), "JPEG")),
    "avif": ("avif", lambda: saved(colours(), "AVIF")),
    "animated": ("webp", lambda: saved(colours(), "WEBP", save_all=True, append_images=[ramp(9, "u1")], lossless=True)),
    "black and white": ("png", lambda: saved(ramp(1, "u1").point(lambda v: v * 255).convert("1"), "PNG")),
}
TOLD = {
    "12 bits in 16": "12 bits", "10 bits in 16": "10 bits", "transparent": "transparency", "animated": "first frame",
    "transparent palette": "transparency",
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_every_reader_gives_the_same_pixels_and_tells_the_same(name: str, tmp_path: Path) -> None:
    ending, make = PICTURES[name]
    if ending == "avif" and "AVIF" not in Image.OPEN:
        pytest.skip("this Pillow reads no AVIF")
    content = make()
    file = tmp_path / "folder" / "a" / f"x.{ending}"
    for label in "ab":
        (tmp_path / "folder" / label).mkdir(parents=True)
        (tmp_path / "folder" / label / f"x.{ending}").write_bytes(content)
    (tmp_path / "list.csv").write_text(f"path,label\nfolder/a/x.{ending},a\nfolder/b/x.{ending},b\n")
    pq.write_table(pa.table({"image": [content, content], "label": ["a", "b"]}), tmp_path / "x.parquet")
    with tarfile.open(tmp_path / "x.tar", "w") as shard:
        for label in "ab":
            for member_name, text in ((f"{label}.{ending}", content), (f"{label}.cls", label.encode())):
                member = tarfile.TarInfo(member_name)
                member.size = len(text)
                shard.addfile(member, io.BytesIO(text))
    sets = {each: load_dataset(tmp_path / each) for each in ("folder", "list.csv", "x.parquet", "x.tar")}
    first = sets["folder"].images[0]
    assert first.shape[1:] == SIZE
    assert int(first.max()) > 200  # not nearly black
    assert int(first.min()) < 100  # and not white
    for each in sets.values():
        assert each.images[0].equal(first)
        assert each.images[1].equal(first)
        assert any(TOLD.get(name, "") in note for note in each.notes) or name not in TOLD
    notes: list[str] = []
    assert read_for_augment(file, notes=notes).equal(first)
    channels = read_channels(file, notes=notes)
    assert channels.mul(255).round().byte().equal(first.expand(3, *SIZE))
    viewed = read_for_views(content, name="x", shape=tuple(first.shape))  # type: ignore[arg-type]
    assert viewed.image.equal(first)
    assert sum(TOLD.get(name, "?") in note for note in (*notes, *viewed.notes)) == (3 if name in TOLD else 0)


def test_what_no_decoder_is_installed_for_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_known_formats", lambda: ("PNG",))
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    for content, reason in (
        (heic, "HEIF pictures, which need the package pillow-heif (pip install pillow-heif)"),
        (heic.replace(b"ftypheic", b"ftypavif"), "AVIF pictures, which need a Pillow of version 11.3 or later"),
        (heic.replace(b"ftypheic", b"ftypmp42"), "not a picture in a known format"),
    ):
        assert decode_picture(content) == Broken(reason)
    (tmp_path / "x.heic").write_bytes(heic)
    with pytest.raises(DataError, match=r"expected a readable picture file, got HEIF pictures, which need the package"):
        read_for_augment(tmp_path / "x.heic")
