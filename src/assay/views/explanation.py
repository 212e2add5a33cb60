"""A saliency map of one picture, and how the answer falls with what it marks."""

from __future__ import annotations

from dataclasses import dataclass

from assay.arguments import checked
from assay.diagnostics.maps import METHODS, measure_saliency_maps
from assay.errors import OptionError
from assay.records.saliency import MapMethod
from assay.views.context import ViewContext
from assay.views.picture import LARGEST_MAP, Picture, as_labelled
from assay.wording import percent


@dataclass(frozen=True, eq=False)
class PictureMap:
    """``map`` is a picture in base64, light where most speaks for the class ``explained``, the predicted one.

    ``marked`` and ``random`` are its probability with the first ``fractions`` of the regions blurred: those that the
    map marks most, and those of a random order (a mean). ``layer`` is that of Grad-CAM.
    """

    picture: Picture
    method: MapMethod
    explained: str
    map: str
    fractions: tuple[float, ...]
    marked: tuple[float, ...]
    random: tuple[float, ...]
    layer: str | None

    @property
    def words(self) -> tuple[str, ...]:
        """Its arguments on a command line."""
        return ("--map", self.method)

    @property
    def finding(self) -> str:
        """What blurring a quarter of the picture does, in one sentence."""
        place = min(range(len(self.fractions)), key=lambda i: abs(self.fractions[i] - 0.25))
        start, share = percent(self.marked[0]), percent(self.fractions[place])
        return (
            f"{self.method}, class {self.explained}: with the {share} blurred that it marks most, {start} becomes "
            f"{percent(self.marked[place])}; in random order {percent(self.random[place])}"
        )


@checked
def explain_picture(context: ViewContext, picture: Picture, method: MapMethod) -> PictureMap:
    """The map of the predicted class by ``method``.

    Raises :class:`OptionError` where the model or the installation does not allow it, or the map marks nothing.
    """
    with context.exclusive_model() as model:
        dataset = as_labelled(context, picture)
        record = measure_saliency_maps(model, dataset, methods=(method,), n=1, depths=0, shown=1, largest=LARGEST_MAP)
    expected = "a map that can be made of this model and picture"
    if record.unmade:
        raise OptionError("--map", expected=expected, got=f"{method}: {record.unmade[0].reason}")
    made = record.maps[0]
    if made.blank:
        raise OptionError("--map", expected=expected, got=f"{method}: it is constant or not finite")
    return PictureMap(
        picture=picture,
        method=method,
        explained=record.samples[0].prediction,
        map=record.samples[0].maps[0],
        fractions=record.fractions,
        marked=made.deleted,
        random=record.random,
        layer=record.layer,
    )


def parse_method(text: str) -> MapMethod:
    """The method of this name. Raises :class:`OptionError` with all names where there is none."""
    for method in METHODS:
        if method == text.strip().lower():
            return method
    raise OptionError("--map", expected=f"one of: {', '.join(METHODS)}", got=repr(text))
