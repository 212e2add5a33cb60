"""Maps of what an answer rests on, by several methods, and two checks of each."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record

MapMethod = Literal["gradient", "integrated-gradients", "smoothgrad", "grad-cam"]


class RandomizedLayers(Frozen):
    """The weights of the last ``layers`` layers drawn anew, down to the one called ``layer``.

    ``correlations`` are Spearman's, of the map with that of the network as it was, one for each image: 1 for the same
    order of places, 0 for an unrelated one or a map without any differences. An image whose map is no longer finite
    is left out.
    """

    layer: str
    layers: int
    correlations: tuple[float, ...]


class CheckedMap(Frozen):
    """One method on the images whose maps it could make; on ``blank`` others its map is constant or not finite.

    ``deleted`` is the mean probability of the answer where the regions that the map marks most are replaced first, at
    the record's ``fractions``. ``gains`` has one number for each image: the area under that curve for regions in random
    order, less the area for the map's order. ``randomized`` follows the layers from the output down.
    """

    method: MapMethod
    blank: int
    deleted: tuple[float, ...]
    gains: tuple[float, ...]
    randomized: tuple[RandomizedLayers, ...] = ()


class UnmadeMap(Frozen):
    """A method that could not be used, and why."""

    method: MapMethod
    reason: str


class MappedSample(Frozen):
    """One image and its maps, in the order of the record's ``maps``: pictures in base64, light where most is marked."""

    sample_id: str
    label: str
    prediction: str
    confidence: float
    correct: bool
    image: str
    maps: tuple[str, ...]


class SaliencyMaps(Record):
    """Maps of the predicted class's logit on ``n`` images, checked by deletion and by randomised weights.

    ``random`` is the curve of ``CheckedMap.deleted`` for regions in random order, the mean over ``orders`` orders of
    ``regions`` regions. ``layer`` names the feature map of Grad-CAM, ``layers`` counts all that have weights;
    ``unrandomized`` says why no weights were drawn anew.
    """

    kind: Literal["saliency_maps"] = "saliency_maps"
    n: int
    regions: int
    orders: int
    fractions: tuple[float, ...]
    random: tuple[float, ...]
    maps: tuple[CheckedMap, ...]
    unmade: tuple[UnmadeMap, ...] = ()
    layer: str | None = None
    layers: int = 0
    unrandomized: str | None = None
    samples: tuple[MappedSample, ...] = ()
