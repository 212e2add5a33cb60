"""What the samples of somebody's data set hold beside their pixels, gathered while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from assay.data.items import Read, Sample, plain_label
from assay.data.metadata import make_column
from assay.data.origins import Origin
from assay.data.reading import listing
from assay.errors import DataError


class Gathered:
    """What the samples hold beside their pixels, in the order in which they were read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: list[Any] = []
        self.places: list[int] = []
        self.traits: list[tuple[str, str]] = []
        self.first: list[tuple[NDArray[Any], Any]] = []
        self.as_stored = True  # all pictures are of PIL, or encoded
        self._columns: dict[str, list[Any]] = {}
        self._left_out: set[str] = set()
        self._unused = 0
        self._size: tuple[int, ...] | None = None
        self._colours: set[int] = set()

    def add(self, sample: Sample, place: int, read: Read) -> None:
        self.traits += [(trait, f"{self.name}[{place}]") for trait in read.traits]
        self.as_stored = self.as_stored and read.encoded
        for key, value in sample.others.items():
            column = self._columns.setdefault(key, [None] * len(self.labels))
            column.append(plain_label(value))
        self.labels.append(plain_label(sample.label))
        self.places.append(place)
        self._unused = max(self._unused, sample.unused)
        for column in self._columns.values():
            column.extend([None] * (len(self.labels) - len(column)))

    def checked_size(self, planes: NDArray[Any], place: int) -> NDArray[Any]:
        """``planes`` (C, H, W), which fit the others. Raises :class:`DataError` naming the first that does not."""
        size = planes.shape[1:]
        self._size = self._size or size
        if size != self._size:
            first = f"{self._size[1]}x{self._size[0]} pixels as in {self.name}[{self.places[0]}]"
            expected = f"{first}, or a size to resize all to (assay.as_dataset(…, image_size=))"
            raise DataError(f"{self.name}[{place}]", expected=expected, got=f"{size[1]}x{size[0]} pixels")
        self._colours.add(len(planes))
        if len(self._colours) > 1 and self._colours != {1, 3}:
            got = " and ".join(map(str, sorted(self._colours)))
            raise DataError(f"{self.name}[{place}]", expected="pictures of as many channels", got=got)
        return planes

    def filenames(self, origin: Origin) -> tuple[str, ...] | None:
        if origin.filenames is None or origin.places is None:
            return None
        names = dict(zip(origin.places.tolist(), origin.filenames, strict=True))
        return tuple(names[place] for place in self.places)

    def metadata(self) -> Mapping[str, NDArray[Any]]:
        made = {key: make_column(values) for key, values in self._columns.items()}
        return {key: column for key, column in made.items() if column is not None}

    def notes(self) -> list[str]:
        columns = self.metadata()
        left = [key for key in self._columns if key not in columns]
        notes = [f"{self.name}: left out {listing(left)}, which holds more than one value a sample"] if left else []
        if self._unused:
            parts = "the third part" if self._unused == 1 else f"{self._unused} parts"
            notes.append(f"{self.name}: {parts} of each sample, after image and label, was left out")
        if any(trait == "row" for trait, _ in self.traits):
            notes.append(f"{self.name}: rows of numbers, taken as square grey pictures")
        if self._colours == {1, 3}:
            notes.append(f"{self.name}: grey pictures among those in colour: taken as three equal channels")
        return notes
