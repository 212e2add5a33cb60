"""A gallery as one PNG image."""

from __future__ import annotations

import io
import unicodedata

from PIL import Image, ImageDraw, ImageFont, ImageOps

from assay.augment.gallery import SMALL, Gallery, GalleryPanel, to_picture
from assay.report.theme import COLOURS

_WIDTH, _MARGIN, _GAP, _COLUMNS = 1680, 48, 18, 6
_PAPER, _INK, _SOFT, _LINE, _CARD = (COLOURS[name][0] for name in ("paper", "ink", "soft", "line", "card"))
_REPLACED = str.maketrans({"×": "x", "−": "-", "–": "-", "—": "-", "≥": "from", "’": "'"})  # not in the built-in font
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def render_sheet(gallery: Gallery) -> bytes:
    """A PNG file: the original large at the left, the operations in a grid beside it, the strips below."""
    sheet = _Sheet()
    sheet.write(gallery.title, size=40, colour=_INK)
    sheet.write(gallery.subtitle, size=20, colour=_SOFT)
    sheet.y += 22
    if gallery.original is not None:
        _draw_grid(sheet, gallery.original, gallery.panels)
        if gallery.strips:
            sheet.y += 20
            sheet.write("From one end to the other", size=26, colour=_INK)
            sheet.y += 8
    for strip in gallery.strips:
        sheet.write(strip.name, size=20, colour=_INK, detail=strip.detail)
        sheet.y += 6
        of_photographs = gallery.original is None and max(strip.panels[0].image.shape[1:]) > SMALL
        columns = 4 if of_photographs else max(7, len(strip.panels))  # a policy's photographs are shown larger
        for start in range(0, len(strip.panels), columns):
            sheet.row(strip.panels[start : start + columns], columns=columns, size=17)
        sheet.y += 14
    return sheet.png()


def _draw_grid(sheet: _Sheet, original: GalleryPanel, panels: tuple[GalleryPanel, ...]) -> None:
    beside, cell, top = 2 * (_COLUMNS - 2), sheet.cell_width(_COLUMNS), sheet.y
    ratio = original.image.shape[1] / original.image.shape[2]
    row_height = round(cell * ratio) + _caption_height(panels, cell, 20) + _GAP
    sheet.place(original, _MARGIN, top, 2 * cell + _GAP, size=20, height=2 * row_height - _GAP, fill=True)
    for number, panel in enumerate(panels[:beside]):
        row, column = divmod(number, _COLUMNS - 2)
        sheet.place(panel, _MARGIN + (column + 2) * (cell + _GAP), top + row * row_height, cell, size=20)
    sheet.y = top + 2 * row_height
    for start in range(beside, len(panels), _COLUMNS):
        sheet.row(panels[start : start + _COLUMNS], columns=_COLUMNS, size=20)


class _Sheet:
    """A canvas that grows downwards; the next row is drawn at ``y``."""

    def __init__(self) -> None:
        self._canvas = Image.new("RGB", (_WIDTH, 1600), _PAPER)
        self.y = _MARGIN

    def cell_width(self, columns: int) -> int:
        return (_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns

    def write(self, text: str, *, size: int, colour: str, detail: str = "") -> None:
        font = ImageFont.load_default(size)
        lines = _wrap(_plain(text), font, _WIDTH - 2 * _MARGIN)
        for line in lines:
            self._draw(self.y + size * 2).text((_MARGIN, self.y), line, fill=colour, font=font)
            self.y += round(size * 1.35)
        place = (_MARGIN + font.getlength(lines[-1]) + size // 2, self.y - round(size * 1.35))
        self._draw(self.y).text(place, _plain(detail), fill=_SOFT, font=font)

    def row(self, panels: tuple[GalleryPanel, ...], *, columns: int, size: int) -> None:
        width = self.cell_width(columns)
        heights = [round(width * panel.image.shape[1] / panel.image.shape[2]) for panel in panels]
        height = max(heights) + _caption_height(panels, width, size)
        for column, panel in enumerate(panels):
            self.place(panel, _MARGIN + column * (width + _GAP), self.y, width, size=size, height=height)
        self.y += height + _GAP

    def place(
        self, panel: GalleryPanel, x: int, y: int, width: int, *, size: int, height: int = 0, fill: bool = False
    ) -> None:
        """A card with an image of this width and its caption; ``height`` is the card's, which ``fill`` fills."""
        picture = to_picture(panel.image).convert("RGB")
        small = max(panel.image.shape[1:]) <= SMALL
        resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        caption = _caption_height((panel,), width, size)
        own_height = max(1, round(width * picture.height / picture.width))
        height = height or own_height + caption
        fitted = (width, height - caption if fill else own_height)
        picture = ImageOps.fit(picture, fitted, resampling) if fill else picture.resize(fitted, resampling)
        draw = self._draw(y + height + _MARGIN)
        draw.rectangle((x - 1, y - 1, x + width, y + height), fill=_CARD, outline=_LINE)
        self._canvas.paste(picture, (x, y))
        font = ImageFont.load_default(size)
        lines, left, top = _wrap(_caption(panel), font, width - 16), x + 8, y + picture.height + 5
        if len(lines) == 1 and panel.detail:
            lines, detail = [_plain(panel.name)], _plain(panel.detail)
            draw.text((x + width - 8 - font.getlength(detail), top), detail, fill=_SOFT, font=font)
        for line, text in enumerate(lines):
            draw.text((left, top + round(line * size * 1.3)), text, fill=_INK if line == 0 else _SOFT, font=font)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self._canvas.crop((0, 0, _WIDTH, self.y + _MARGIN - _GAP)).save(buffer, format="PNG")
        return buffer.getvalue()

    def _draw(self, bottom: int) -> ImageDraw.ImageDraw:
        """What draws on the canvas, which is made taller where ``bottom`` lies below it."""
        if bottom + _MARGIN > self._canvas.height:
            taller = Image.new("RGB", (_WIDTH, 2 * bottom), _PAPER)
            taller.paste(self._canvas, (0, 0))
            self._canvas = taller
        return ImageDraw.Draw(self._canvas)


def _plain(text: str) -> str:
    """Letters without their accents, and replacements for what the built-in font would show as a box."""
    parts = unicodedata.normalize("NFD", text.translate(_REPLACED))
    return "".join(part for part in parts if not unicodedata.combining(part))


def _caption(panel: GalleryPanel) -> str:
    """The name, and beside it what was done; below it where that is a program."""
    if " · " in panel.detail or panel.name.startswith("epoch"):
        return _plain("\n".join([panel.name, *panel.detail.split(" · ")]))
    return _plain(f"{panel.name}  {panel.detail}".strip())


def _caption_height(panels: tuple[GalleryPanel, ...], width: int, size: int) -> int:
    lines = [len(_wrap(_caption(panel), ImageFont.load_default(size), width - 16)) for panel in panels]
    return round(max(lines, default=1) * size * 1.3) + 14


def _wrap(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines.append("")
        for word in paragraph.split(" "):
            longer = f"{lines[-1]} {word}".lstrip() if word else lines[-1] + " "
            full = lines[-1].strip() and font.getlength(longer) > width
            lines[-1:] = [lines[-1], word] if full else [longer]
    return lines
