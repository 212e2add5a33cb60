"""The quality of a data set: duplicates and leaks, the state of its pictures, and accuracy without what leaked."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record

DuplicateKind = Literal["exact", "near", "similar"]


class Relation(Frozen):
    """What makes the second picture of the first.

    It is ``mirrored`` first, then enlarged by ``scale_down`` and ``scale_across`` about its middle, moved by
    ``shift_down`` and ``shift_across`` (shares of a side), and its grey levels become ``contrast`` times as large plus
    ``offset``, of 255. ``noise`` is the standard deviation, in grey levels, of what then still differs where both
    overlap, which is a share ``overlap`` of the first.
    """

    mirrored: bool = False
    scale_down: float = 1.0
    scale_across: float = 1.0
    shift_down: float = 0.0
    shift_across: float = 0.0
    contrast: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    overlap: float = 1.0


class DuplicatePair(Frozen):
    """Two pictures by place in their sets (``first``, ``second``) and by name, with their labels.

    ``score`` is the correlation of both once one is laid over the other, over three bands of detail; 1 for equal
    pixels. ``first_image`` and ``second_image`` are PNG or JPEG files in base64, of pairs that a page shows.
    """

    first: int
    second: int
    first_name: str
    second_name: str
    first_label: str
    second_label: str
    match: DuplicateKind
    score: float
    relation: Relation
    first_image: str = ""
    second_image: str = ""

    @property
    def is_duplicate(self) -> bool:
        """Whether one shot explains both; similar pictures are listed apart."""
        return self.match != "similar"


class Duplicates(Record):
    """Duplicates within the pictures of a set, or with those of a set that it is held ``against``.

    Attributes:
        data: the set, with its split; ``against`` the other one, empty for pairs within the set.
        n: pictures of the set; ``n_against`` those of the other.
        exact, near, similar: how many pictures of the set have such a relative, each counted by its closest.
        threshold: the score from which pictures are near duplicates: higher where all pictures of a set look alike.
        plain: pictures with so little contrast that only equal pixels would tell.
        contradictory: pairs of duplicates, exact or near, with different labels.
        pairs: the closest first; ``left_out`` counts those beyond the most that a document holds.
        related: places, ascending, of the pictures of the set with an exact or near relative.
        scores: of each picture the best score of all that it was compared with, to rank pictures by; 0 where none was
            at all alike.
        seconds: wall-clock time.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=100)
        >>> assay.find_duplicates(data).exact
        0
    """

    kind: Literal["duplicates"] = "duplicates"
    data: str
    against: str = ""
    n: int
    n_against: int
    exact: int
    near: int
    similar: int
    threshold: float
    plain: int = 0
    contradictory: int = 0
    pairs: tuple[DuplicatePair, ...]
    left_out: int = 0
    related: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    seconds: float

    @property
    def duplicates(self) -> int:
        """Pictures of the set with an exact or a near duplicate."""
        return self.exact + self.near


class OddPictures(Frozen):
    """Pictures of one ``oddity``, such as "dark": how many, what they have in common, and the names of a few."""

    oddity: str
    meaning: str
    n: int
    examples: tuple[str, ...]


class ClassSize(Frozen):
    """A class and how many pictures of a set show it."""

    name: str
    n: int


class PictureSurvey(Record):
    """The state of a set's pictures: those that could not be read, odd ones, and how many each class has.

    ``unreadable`` has a line for each picture that was left out. ``n_odd`` counts pictures with any oddity once.
    """

    kind: Literal["picture_survey"] = "picture_survey"
    data: str
    n: int
    channels: int
    height: int
    width: int
    unreadable: tuple[str, ...]
    odd: tuple[OddPictures, ...]
    n_odd: int
    classes: tuple[ClassSize, ...]


class RelatedAccuracy(Record):
    """Accuracy on the pictures with and without a duplicate in the training images.

    ``attack`` is empty for clean images. ``low`` and ``high`` are the 95 % interval of the accuracy on pictures with a
    duplicate minus that on the others (Newcombe).
    """

    kind: Literal["related_accuracy"] = "related_accuracy"
    against: str
    attack: str = ""
    every: Proportion
    with_duplicate: Proportion
    without_duplicate: Proportion
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Accuracy with a duplicate minus accuracy without one."""
        return self.with_duplicate.accuracy - self.without_duplicate.accuracy
