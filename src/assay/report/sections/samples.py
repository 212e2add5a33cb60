"""Sample by sample: small pictures with the answers before and after the attack, to be filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from assay.records.checkup import Checkup
from assay.records.sample_gallery import PicturedSample, SampleGallery
from assay.report.parts import SampleGrid, Section, Tile, read_picture
from assay.report.wording import NORMS, clip, count, distinct, epsilon, percent, plural

SHEET_BYTES = 950_000  # of the three megabytes a report may have
LARGEST = 64  # pixels of the screen along a tile
_NAME = 24


def samples_section(checkup: Checkup) -> Section | None:
    """A few hundred samples of every attack that kept some; a check keeps those of one."""
    galleries = list(checkup.each(SampleGallery))
    if not galleries:
        return None
    size = SHEET_BYTES // len(galleries)
    parts = tuple(_grid(gallery, id=f"samples-{i}", size=size) for i, gallery in enumerate(galleries, 1))
    summary = " ".join(_told(gallery) for gallery in galleries)
    return Section("samples", "Sample by sample", summary, parts, records=tuple(galleries))


def _told(gallery: SampleGallery) -> str:
    shown = len(gallery.samples)
    which = (
        "all of them are here"
        if shown == gallery.n
        else f"{count(shown)} are here, with equal places for each kind, so that the rare can be seen"
    )
    return (
        f"Of {plural(gallery.n, 'sample')} {count(gallery.wrong)} were wrong before {gallery.attack}, "
        f"{count(gallery.broken)} were broken by it and {count(gallery.held)} held; {which}."
    )


def _grid(gallery: SampleGallery, *, id: str, size: int) -> SampleGrid:
    names = distinct(gallery.classes, length=_NAME)
    sheet = read_picture(gallery.sheet, text="") if len(gallery.sheet) <= size else None
    height, width = gallery.tile
    columns = max(1, gallery.columns)
    if sheet is not None and (sheet.width < columns * width or height < 1 or width < 1):
        sheet = None  # a damaged document must not break the page
    scale = max(1, LARGEST // max(1, height, width))
    tiles = tuple(
        _tile(sample, names, x=i % columns * width * scale, y=i // columns * height * scale)
        for i, sample in enumerate(gallery.samples)
    )
    return SampleGrid(
        id=id,
        finding=f"{gallery.attack}, {NORMS[gallery.norm]} within {epsilon(gallery.epsilon, gallery.norm)}",
        note="The picture is the untouched one. Below it: its class, and what the model took it for.",
        sheet=sheet,
        sheet_width=0 if sheet is None else sheet.width * scale,
        width=width * scale,
        height=height * scale,
        sharp=scale > 1,
        tiles=tiles,
        labels=_choices((tile.label for tile in tiles), names),
        takens=_choices((tile.taken for tile in tiles if tile.taken is not None), names),
    )


def _tile(sample: PicturedSample, names: list[str], *, x: int, y: int) -> Tile:
    label, before, after = (_name(names, place) for place in (sample.label, sample.before, sample.after))
    sure_before, sure_after = percent(sample.confidence_before), percent(sample.confidence_after)
    identity = clip(sample.sample_id, 60)
    if sample.before != sample.label:
        line, fate, taken = before, "wrong", sample.before
        told = f"taken for {before} ({sure_before}) before any attack"
    elif sample.after != sample.label:
        line, fate, taken = after, "broken", sample.after
        steps = f", broken after {plural(sample.steps, 'step')}" if sample.steps is not None else ""
        told = f"known as {before} ({sure_before}), then taken for {after} ({sure_after}){steps}"
    else:
        line, fate, taken = "held", "held", None
        told = f"known as {before} ({sure_before}), and after the attack ({sure_after})"
    return Tile(x, y, fate, sample.label, taken, (label, line), f"{label}, {identity}: {told}")


def _name(names: list[str], place: int) -> str:
    """The class's name; what is no place among them is an output that was not finite."""
    return names[place] if 0 <= place < len(names) else "no class"


def _choices(places: Iterable[int], names: list[str]) -> tuple[tuple[int, str, int], ...]:
    return tuple((place, _name(names, place), n) for place, n in sorted(Counter(places).items()))
