"""Saliency maps by several methods, and what deletion and randomised weights say of each."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.pictures import LARGEST_THUMBNAIL, thumbnail_base64, to_bytes
from assay.data.selection import evenly_spaced
from assay.diagnostics.attribution import Pictured, attribute, choose_methods
from assay.diagnostics.batches import example
from assay.diagnostics.deletion import (
    area,
    fractions_of,
    measure_deletion,
    rank_regions,
    regions_of,
    shuffle_regions,
)
from assay.diagnostics.layers import layers_by_depth, recorded_calls
from assay.diagnostics.randomization import cascade, rank_correlations
from assay.errors import ModelError
from assay.models.calls import ModelCall, calling, copied
from assay.records.saliency import CheckedMap, MapMethod, MappedSample, RandomizedLayers, SaliencyMaps, UnmadeMap
from assay.runtime import uncompiled

METHODS: tuple[MapMethod, ...] = get_args(MapMethod)
ORDERS = 4  # random ones of each picture


@checked
def measure_saliency_maps(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    methods: tuple[MapMethod, ...] = METHODS,
    n: int = 32,
    depths: int = 3,
    n_randomized: int = 8,
    shown: int = 6,
    seed: int = 0,
    largest: int = LARGEST_THUMBNAIL,
) -> SaliencyMaps:
    """Maps of what the predicted class's logit rests on, each held against two checks that a map can fail.

    Deletion: the regions that a map marks most are blurred first; the probability of the answer should fall faster than
    for regions in random order. Randomised weights: with the weights permuted within each tensor, from the output down,
    the map should no longer be the same; this is done to a copy.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); run in evaluation mode, left as it was found.
        dataset: images and labels of K classes.
        methods: those to use. All but the plain gradient need the package captum (``pip install 'assay[maps]'``),
            Grad-CAM a convolutional network.
        n: most images, evenly spaced over the set.
        depths: places at which maps are made again while the layers are randomised: 2 for the last layer and for all
            of them, 0 for none.
        n_randomized: most images whose maps are made again.
        shown: pictures in the record.
        seed: of random orders, noise and weights.
        largest: pixels a side of the pictures, where images have more than 128.

    Returns:
        The record: for each method the deletion curve, the gain over random orders and the rank correlations with the
        maps of the randomised network; the methods that could not be used, and why; and the pictures.

    Raises:
        ModelError: the model cannot take the images, or its logits have no gradient with respect to them.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=16)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> record = assay.measure_saliency_maps(model, data, methods=("gradient", "grad-cam"), shown=2)
        >>> [each.method for each in record.maps], [each.reason for each in record.unmade]
        (['gradient'], ['no convolutional feature map'])

    Reference:
        Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292; Samek et al. 2017, Evaluating the
        visualization of what a deep neural network has learned, arXiv:1509.06321.
    """
    data = evenly_spaced(dataset, n)
    with uncompiled(), calling(model, example(data), classes=data.classes) as network:
        _freeze(model)
        logits, pictured, chosen = _predict(network, data)
        named, refused, layer = choose_methods(network, model, pictured.images[:1], wanted=methods)
        maps = {name: attribute(attribution, network, pictured) for name, attribution in named.items()}
        count = int(regions_of(data.shape[1:]).max()) + 1
        curves, random_curves = _delete(network, pictured, maps, count=count, seed=seed)
    fractions = fractions_of(count)
    try:
        some = torch.linspace(0, len(pictured) - 1, min(n_randomized, len(pictured))).round().long()
        again, theirs = pictured.only(some), {name: own[some] for name, own in maps.items()}
        randomized, layers = _randomize(model, data, again, theirs, depths=depths, seed=seed)
        reason = None if layers else "no layer with weights"
    except ModelError as error:
        randomized, layers, reason = dict.fromkeys(maps, ()), 0, str(error)
    gains = {name: area(random_curves, fractions) - area(curve, fractions) for name, curve in curves.items()}
    usable = {name: _has_differences(own) for name, own in maps.items()}
    places = torch.linspace(0, len(pictured) - 1, min(shown, len(pictured))).round().long().tolist()
    return SaliencyMaps(
        n=len(pictured),
        regions=count,
        orders=ORDERS,
        fractions=fractions,
        random=_mean(random_curves),
        maps=tuple(
            CheckedMap(
                method=name,
                blank=int((~usable[name]).sum()),
                deleted=_mean(curves[name][usable[name]]),
                gains=tuple(gains[name][usable[name]].tolist()),
                randomized=randomized[name],
            )
            for name in maps
        ),
        unmade=tuple(UnmadeMap(method=name, reason=why) for name, why in refused.items()),
        layer=layer,
        layers=layers,
        unrandomized=None if depths == 0 else reason,
        samples=tuple(
            _show(data, int(chosen[i]), logits[i], [own[i] for own in maps.values()], largest=largest) for i in places
        ),
    )


def _freeze(model: nn.Module) -> None:
    """Without weight gradients the backward pass costs half; the caller puts the flags back."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _predict(network: ModelCall, data: ImageDataset) -> tuple[Tensor, Pictured, Tensor]:
    """Logits, pictures with the predicted classes, and their places in ``data``: those of finite logits."""
    size = network.rows_that_fit(data.shape, most=64)
    with torch.no_grad():
        logits = torch.cat([network(to_unit_range(batch.images.to(network.device))) for batch in data.batches(size)])
    finite = logits.isfinite().all(dim=1).nonzero()[:, 0]
    if not len(finite):
        raise ModelError("model(images)", expected="finite logits", got="NaN or infinity for every image")
    logits, places = logits[finite], finite.cpu()
    images = to_unit_range(data.images[places].to(network.device))
    return logits, Pictured(images, logits.argmax(dim=1), tuple(data.ids[places].tolist())), places


def _delete(
    network: ModelCall, pictured: Pictured, maps: dict[MapMethod, Tensor], *, count: int, seed: int
) -> tuple[dict[MapMethod, Tensor], Tensor]:
    """The curve of each image by each method, and its mean curve over the random orders."""

    def measure(orders: Tensor) -> Tensor:
        return measure_deletion(network, pictured.images, pictured.targets, orders)

    curves = {name: measure(rank_regions(own, ids=pictured.ids, seed=seed)) for name, own in maps.items()}
    draws = [measure(shuffle_regions(count, ids=pictured.ids, seed=seed, draw=k)) for k in range(ORDERS)]
    return curves, torch.stack(draws).mean(dim=0)


def _randomize(
    model: nn.Module,
    data: ImageDataset,
    pictured: Pictured,
    maps: dict[MapMethod, Tensor],
    *,
    depths: int,
    seed: int,
) -> tuple[dict[MapMethod, tuple[RandomizedLayers, ...]], int]:
    """The same maps of a copy whose layers are randomised one after another, and how many layers it has."""
    results: dict[MapMethod, tuple[RandomizedLayers, ...]] = dict.fromkeys(maps, ())
    twin = copied(model)
    with uncompiled(), calling(twin, example(data), classes=data.classes) as network:
        _freeze(twin)
        named, _, _ = choose_methods(network, twin, pictured.images[:1], wanted=tuple(maps))
        with torch.no_grad(), recorded_calls(twin) as calls:
            network(pictured.images[:1])
        layers = layers_by_depth(twin, calls)
        for layer, count in cascade(layers, depths=depths, seed=seed) if depths else ():
            for name, own in maps.items():
                usable = _has_differences(own)
                values = rank_correlations(own[usable], attribute(named[name], network, pictured)[usable])
                finite = tuple(value for value in values if math.isfinite(value))
                results[name] += (RandomizedLayers(layer=layer, layers=count, correlations=finite),)
    return results, len(layers)


def _has_differences(maps: Tensor) -> Tensor:
    """Which maps (N, H, W) are finite and not constant, bool (N,)."""
    flat = maps.flatten(1)
    return flat.isfinite().all(dim=1) & (flat.amax(dim=1) > flat.amin(dim=1))


def _mean(curves: Tensor) -> tuple[float, ...]:
    return tuple(curves.mean(dim=0).tolist()) if len(curves) else ()


def picture_of(own: Tensor, *, largest: int) -> str:
    """A map (H, W) as a picture in base64: black where it marks nothing or less, white at its maximum."""
    positive = own.nan_to_num().clamp_min(0)[None]
    peak = float(positive.max())
    return thumbnail_base64(to_bytes(positive / peak if peak > 0 else positive), largest=largest)


def _show(data: ImageDataset, i: int, logits: Tensor, maps: list[Tensor], *, largest: int) -> MappedSample:
    predicted = int(logits.argmax())
    return MappedSample(
        sample_id=data.sample_name(i),
        label=data.classes[int(data.labels[i])],
        prediction=data.classes[predicted],
        confidence=float(logits.softmax(dim=0)[predicted]),
        correct=predicted == int(data.labels[i]),
        image=thumbnail_base64(data.images[i], largest=largest),
        maps=tuple(picture_of(own, largest=largest) for own in maps),
    )
