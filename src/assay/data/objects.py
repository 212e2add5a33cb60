"""From a Python object that holds labelled images to a data set: :func:`as_dataset`, which every function calls."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.arguments import checked_except, describe, take_for
from assay.data.dataset import ImageDataset
from assay.data.decoding import trait_notes
from assay.data.gathering import Gathered
from assay.data.items import Read, plain_label, read_item, take_apart, values_of
from assay.data.labels import Labelling, Values, assign_classes
from assay.data.origins import Origin, Places, find_origin
from assay.data.pictures import PictureStore
from assay.data.preparing import prepare_all
from assay.data.reading import SPLIT_WORDS, listing
from assay.data.rounding import Normalization, Rounding
from assay.data.selection import choose_samples, is_grouped
from assay.errors import DataError, OptionError, UnusedOptionError
from assay.records.preparation import Preparation
from assay.runtime import generator

EXPECTED = "a torch Dataset or DataLoader, a Hugging Face Dataset, a list of (image, label), or arrays (images, labels)"
READ_TWICE = 8  # items whose second reading is compared with the first
FIRST_SPACE = 1024  # pictures of a stream, whose number is not known
STREAM = 0x0B1EC7  # separates the choice of samples from every other use of random numbers


class _Request(NamedTuple):
    """What is wanted of an object."""

    classes: tuple[str, ...] | None = None
    name: str | None = None
    split: str | None = None
    normalization: Normalization | None = None
    limit: int | None = None
    preparation: Preparation | None = None
    only: frozenset[int] | None = None


@checked_except("obj")
def as_dataset(
    obj: object,
    *,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    split: str | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    limit: int | None = None,
    image_size: int | None = None,
    prepare: str | Preparation | None = None,
) -> ImageDataset:
    """Make a data set of any Python object that holds labelled images; the functions of assay call it on their data.

    Args:
        obj: One of

            * an :class:`ImageDataset`, which is returned as it is;
            * a ``torch.utils.data.Dataset`` or any object with ``obj[i]`` and ``len(obj)``; an ``IterableDataset``;
            * a ``torch.utils.data.DataLoader``: the data set behind it is read, in its order where that is stable;
            * a Hugging Face ``datasets.Dataset``, also a streaming one, or a dict of them by split;
            * a list of (image, label), or of dicts; an image is of PIL, an array, a tensor, or an encoded file;
            * a pair (images, labels) of arrays or tensors, or a dict of them (``images``, ``labels``).

            Images are bytes, floating in [0, 1], or normalised; (H, W), (H, W, C) or (C, H, W). Labels are numbers,
            text or one-hot rows. Other scalars of a dict become ``metadata``.
        classes: the names of the classes in the order of the labels. None: those that the object states, else the
            labels themselves.
        name: what reports call the set. None: as its class is called.
        split: ``train``, ``test`` or ``validation``: which part of a dict of splits is read (default: ``test``), and
            what the result goes by. None: as the object says, else ``all``.
        mean: the mean by which floating images were normalised, one number or one for each channel, in units of
            [0, 1]. None: as a transform called ``Normalize`` in the data set says.
        std: the standard deviation, likewise.
        limit: at most this many samples, drawn fairly: see :func:`load_dataset`. Of a stream, the first.
        image_size: resize the short side to this many pixels and cut out the centre square.
        prepare: how pictures are resized and cropped, as for :func:`load_dataset`.

    Returns:
        The samples as bytes in memory (a set too large for that lies in a temporary file), with their places in the
        object for ``ids``. Its ``notes`` tell what was guessed, rounded or left out.

    Raises:
        DataError: no labelled images are there, or they cannot be taken without guessing: normalised by unknown
            numbers, different at each reading, of several sizes, repeated, without a label.
        OptionError: a mean without a std, or an option without an effect.

    Example:
        >>> import assay, torch
        >>> pixels = torch.arange(256).reshape(1, 1, 16, 16) / 255
        >>> data = assay.as_dataset((pixels.repeat(4, 3, 1, 1), [0, 1, 1, 0]), classes=("cat", "dog"))
        >>> len(data), data.shape, int(data.images.max())
        (4, (3, 16, 16), 255)
    """
    part = None if split is None else SPLIT_WORDS.get(split.lower(), split)
    if part not in {None, "all", *SPLIT_WORDS.values()}:
        raise OptionError("split", expected="train, test, validation or all", got=repr(split))
    if isinstance(obj, ImageDataset):
        given: dict[str, object] = {
            "classes": classes,
            "name": name,
            "split": split,
            "mean": mean,
            "std": std,
            "limit": limit,
        }
        given |= {"limit": limit, "image_size": image_size, "prepare": prepare}
        if option := next((option for option, value in given.items() if value is not None), None):
            raise UnusedOptionError(option, reason="no effect on an ImageDataset, which is returned as it is")
        return obj
    prepared = Preparation.parse(prepare, where="prepare") if isinstance(prepare, str) else prepare
    if image_size is not None:
        prepared = Preparation.square(image_size, source="image_size")
    geometric = prepared if prepared is not None and prepared.is_geometric else None
    names = None if classes is None else tuple(classes)
    if image_size is not None and prepare is not None:
        raise UnusedOptionError("prepare", reason="no effect beside image_size")
    request = _Request(names, name, part, _stated(mean, std), limit, geometric)
    origin = find_origin(obj, split=part)
    if origin is None:
        raise DataError("obj", expected=EXPECTED, got=describe(obj))
    if part is not None and origin.split not in {"all", part}:
        raise OptionError("split", expected=f"{origin.split}, as the object says", got=repr(split))
    return _read(origin, request)


def take(obj: Any, classes: tuple[str, ...] | None) -> ImageDataset | None:
    """What a public function makes of an object handed over for a data set; None for what is none.

    ``classes`` are those of a data set among the same arguments, for labels that come as numbers without names. Its
    notes are warnings, too.
    """
    if isinstance(obj, ImageDataset | str | os.PathLike | type | int | float | torch.nn.Module):
        return None
    origin = find_origin(obj, split=None)
    if origin is None:
        return None
    known = origin.labels
    numbered = origin.classes is None and known is not None and known.dtype != object and len(known) > 0
    fits = numbered and classes is not None and known is not None and 0 <= known.min() <= known.max() < len(classes)
    dataset = _read(origin, _Request(classes if fits else None))
    for note in dataset.notes:  # a record has no place for them
        warnings.warn(note, stacklevel=_frames_to_caller())
    return dataset


def _frames_to_caller() -> int:
    """How many frames lie between the function that asks and the first outside of assay, both included."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "assay":
        frame, level = frame.f_back, level + 1
    return level


def _stated(mean: Sequence[float] | float | None, std: Sequence[float] | float | None) -> Normalization | None:
    if (mean is None) != (std is None):
        absent = "mean" if mean is None else "std"
        raise OptionError(absent, expected="mean and std together, or neither", got=f"no {absent}")
    if mean is None or std is None:
        return None
    pair = [tuple(np.ravel(np.asarray(each, np.float64)).tolist()) for each in (mean, std)]
    if len(pair[0]) != len(pair[1]) or not np.isfinite(pair).all() or min(pair[1]) <= 0:
        raise OptionError("std", expected="as many numbers above 0 as mean has", got=f"mean={mean}, std={std}")
    return Normalization(pair[0], pair[1], stated=True)


def _read(origin: Origin, request: _Request) -> ImageDataset:
    """The samples of ``origin`` as ``request`` wants them."""
    name = request.name or origin.name
    origin = replace(origin, name=name)
    if origin.places is not None and not len(origin.places):
        raise DataError(name, expected="at least one sample", got="none")
    places, notes = _choose(origin, request)
    if places is not None and origin.computed and request.only is None:
        notes += _check_repeatable(origin, places)
    normalization = request.normalization or _found(origin)
    rounding = Rounding(where=name, normalization=normalization)
    store = PictureStore(count=FIRST_SPACE if places is None else len(places), where=name)
    gathered = Gathered(name)
    try:
        for order, place, item in _items(origin, places, request.limit):
            sample = take_apart(item, name=f"{name}[{place}]")
            read = read_item(sample.picture, name=f"{name}[{place}]", preparation=request.preparation)
            if places is None and order < READ_TWICE:
                gathered.first.append(_comparable(item, f"{name}[{place}]"))
            gathered.add(sample, place, read)
            planes = gathered.checked_size(_prepared(rounding, read, f"{name}[{place}]", request.preparation), place)
            store.append(planes.transpose(1, 2, 0))
    except RuntimeError as error:
        raise DataError(name, expected="samples that can be read", got=f"{error}"[:200]) from error
    if not gathered.labels:
        raise DataError(name, expected="at least one sample", got="none")
    if places is None and origin.repeatable:
        _check_stream(origin, gathered)
    images = rounding.finish(store.images(), resized=request.preparation is not None)
    ids = torch.tensor(gathered.places)
    labelling = _labelling(origin, request, gathered)
    scale = () if rounding.is_black_and_white else store.notes()
    traits = [f"{name}: {note}" for note in (*scale, *trait_notes(gathered.traits))]
    more = (*origin.notes, *notes, *labelling.notes, *rounding.notes(), *traits, *gathered.notes())
    again = partial(_read_again, origin, request) if gathered.as_stored and not origin.transformed else None
    return ImageDataset(
        images,
        labelling.numbers,
        labelling.classes,
        name=name,
        split=request.split or origin.split,
        ids=ids,
        filenames=gathered.filenames(origin),
        notes=tuple(dict.fromkeys(more)),
        preparation=request.preparation,
        read_again=again if origin.places is not None else None,
        metadata=gathered.metadata(),
    )


def _read_again(origin: Origin, request: _Request, preparation: Preparation, ids: Tensor) -> ImageDataset:
    only = request._replace(preparation=preparation, only=frozenset(ids.tolist()))
    return _read(origin, only).arranged(ids)


def _found(origin: Origin) -> Normalization | None:
    """The normalisation in the transforms of a data set, where there is one and no other."""
    return origin.normalizations[0] if len(origin.normalizations) == 1 else None


def _choose(origin: Origin, request: _Request) -> tuple[Places | None, list[str]]:
    """The places in ``origin.places`` to read, in order, and what to tell of the choice."""
    if origin.places is None:
        return None, []
    n, limit, notes = len(origin.places), request.limit, []
    if limit is None or limit >= n:
        chosen = np.arange(n)
    elif origin.labels is not None:
        chosen = choose_samples(origin.labels, limit=limit)
    else:
        drawn = torch.randperm(n, generator=generator(0, STREAM))[:limit]
        chosen = np.sort(drawn.numpy())
        what = "its labels are known only by reading its pictures"
        notes = [f"{origin.name}: {what}: {limit:,} of {n:,} samples were drawn at random, by a fixed seed"]
    places = origin.places[chosen]
    return (places if request.only is None else places[np.isin(places, list(request.only))]), notes


def _items(origin: Origin, places: Places | None, limit: int | None) -> Iterator[tuple[int, int, Any]]:
    """Items with their order and their place."""
    if places is None:
        for order, item in zip(count(), islice(origin.read(None), limit)):
            yield order, order, item
        return
    for order, (place, item) in enumerate(zip(places.tolist(), origin.read(places), strict=True)):
        yield order, place, item


def _prepared(rounding: Rounding, read: Read, name: str, preparation: Preparation | None) -> NDArray[Any]:
    planes = rounding.to_bytes(read.pixels, name)
    if preparation is None or read.encoded:
        return planes
    if planes.dtype != np.uint8:
        raise DataError(name, expected="pictures of 8 bits, to be resized", got=f"an array of {planes.dtype}")
    return prepare_all(torch.from_numpy(np.ascontiguousarray(planes))[None], preparation)[0].numpy()


def _labelling(origin: Origin, request: _Request, gathered: Gathered) -> Labelling:
    """Numbers and names of the classes: by the labels as read, and those of the whole object where it tells them."""
    where = f"{origin.name}: labels"
    names = request.classes or origin.classes
    read, width = values_of(gathered.labels, where=where, names=names)
    everything: list[Values] = []
    if origin.labels is not None and origin.places is not None:
        index = {place: order for order, place in enumerate(origin.places.tolist())}
        stated = origin.labels[[index[place] for place in gathered.places]]
        if stated.dtype == read.dtype and (stated == read).all():
            everything = [origin.labels]
    if names is None and width is not None:
        names = tuple(map(str, range(width)))
    labelling = assign_classes(read, names=names, where=where, others=everything)
    partly = request.limit is not None and not everything and names is None
    notes = [f"{where}: the classes are those of the {len(read):,} samples that were read"] if partly else []
    if request.limit is not None and origin.places is None and is_grouped(read):
        notes.append(f"{where}: the stream is ordered by class, of which the first {request.limit:,} samples were read")
    return labelling._replace(notes=(*labelling.notes, *notes))


def _check_repeatable(origin: Origin, places: Places) -> list[str]:
    """Read some items twice. Raises :class:`DataError` where the second differs; notes transforms that could."""
    chosen = places[np.unique(np.linspace(0, len(places) - 1, READ_TWICE).astype(np.int64))]
    names = [f"{origin.name}[{place}]" for place in chosen]
    first, second = (list(map(_comparable, origin.read(chosen), names)) for _ in range(2))
    for name, one, other in zip(names, first, second, strict=True):
        _compare(origin, one, other, name)
    if origin.randomness:
        what = f"transforms that may be random: {listing(origin.randomness)}"
        return [f"{origin.name}: {what}; two readings of {len(chosen)} samples were equal"]
    return []


def _check_stream(origin: Origin, gathered: Gathered) -> None:
    """Read the beginning of a stream again, as :func:`_check_repeatable` does."""
    names = [f"{origin.name}[{place}]" for place in range(len(gathered.first))]
    again = map(_comparable, islice(origin.read(None), len(names)), names)
    for name, one, other in zip(names, gathered.first, again, strict=False):
        _compare(origin, one, other, name)


def _comparable(item: Any, name: str) -> tuple[NDArray[Any], Any]:
    sample = take_apart(item, name=name)
    return read_item(sample.picture, name=name, preparation=None).pixels.planes, plain_label(sample.label)


def _compare(origin: Origin, one: tuple[NDArray[Any], Any], other: tuple[NDArray[Any], Any], name: str) -> None:
    if np.array_equal(one[0], other[0], equal_nan=one[0].dtype.kind == "f") and one[1] == other[1]:
        return
    named = f" ({listing(origin.randomness)})" if origin.randomness else ""
    got = f"another one at the second reading{named}: hand over the set without random transforms, in a fixed order"
    raise DataError(name, expected="the same sample at each reading", got=got)


take_for("ImageDataset", take)
