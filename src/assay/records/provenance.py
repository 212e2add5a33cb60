"""Where the weights of a checked model come from, and whether it was trained on the images of the check."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Record


class Provenance(Record):
    """What is known of a model before anything is measured.

    Attributes:
        random: which of its weights were drawn at random and neither trained nor loaded: all, the last layer, or none.
        trained_on: the data that it was trained on, by name; empty where that is not known.
        tested_on_training: whether the images of the check are those that it was trained on; None where that is not
            known.
    """

    kind: Literal["provenance"] = "provenance"
    random: Literal["all weights", "the last layer", "none", "unknown"]
    trained_on: str = ""
    tested_on_training: bool | None = None
