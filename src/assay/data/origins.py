"""What a Python object that holds labelled images offers: its items in a stable order, and what it tells of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from assay.data.items import (
    IMAGE_KEYS,
    LABEL_KEYS,
    find_key,
    is_array,
    take_apart,
    values_of,
)
from assay.data.labels import Values
from assay.data.reading import SPLIT_WORDS, choose_split
from assay.data.rounding import Normalization
from assay.errors import DataError, one_line

Places = NDArray[np.int64]
_END = object()


@dataclass(frozen=True)
class Origin:
    """Labelled items of an object.

    ``read`` gives items at ``places``, or those of a stream (``places`` None) from its beginning. ``labels`` and
    ``filenames`` are those at all places where they are known without the pictures. ``computed``: an item is the result
    of a program, which could give another one at the next reading.
    """

    name: str
    read: Callable[[Places | None], Iterator[Any]]
    places: Places | None
    labels: Values | None = None
    classes: tuple[str, ...] | None = None
    normalizations: tuple[Normalization, ...] = ()
    randomness: tuple[str, ...] = ()
    split: str = "all"
    notes: tuple[str, ...] = ()
    computed: bool = True
    repeatable: bool = True
    transformed: bool = False  # the pictures do not come as they are stored
    filenames: Sequence[str] | None = None

    def at(self, chosen: Places, *notes: str) -> Origin:
        """Only the items at the places ``chosen``, which stay their ids."""
        assert self.places is not None
        outside = (chosen < 0) | (chosen >= len(self.places))
        if outside.any():
            place = int(outside.argmax())
            expected = f"an index in 0..{len(self.places) - 1}"
            raise DataError(f"{self.name}: indices[{place}]", expected=expected, got=chosen[place])
        labels = None if self.labels is None else self.labels[chosen]
        places = self.places[chosen]
        distinct, counts = np.unique(places, return_counts=True)
        if len(distinct) < len(places):
            got = f"sample {distinct[counts > 1][0]} {counts.max()} times"
            raise DataError(self.name, expected="each sample once", got=got)
        filenames = None if self.filenames is None else [self.filenames[place] for place in chosen.tolist()]
        return replace(self, places=places, labels=labels, filenames=filenames, notes=(*self.notes, *notes))


def find_origin(obj: Any, *, split: str | None) -> Origin | None:
    """What holds labelled images in ``obj``; None for what does not.

    Raises :class:`DataError` for what does, but not in a way in which each sample is known and comes once.
    """
    find = next((find for applies, find in _FINDERS if applies(obj)), None)
    name = "data" if isinstance(obj, tuple | list | dict) else type(obj).__name__
    return None if find is None else find(obj, split=split, name=name)


def _of_loader(obj: Any, *, split: str | None, name: str) -> Origin | None:
    from assay.data.loaders import of_loader

    return of_loader(obj, split=split)


def _of_subset(obj: Subset[Any], *, split: str | None, name: str) -> Origin | None:
    base = find_origin(obj.dataset, split=split)
    return None if base is None or base.places is None else base.at(np.asarray(list(obj.indices), np.int64))


def _has_items(obj: Any) -> bool:
    """Whether it has items by their number, as a data set of nobody's class; columns by their name are none."""
    has = all(hasattr(type(obj), method) for method in ("__getitem__", "__len__"))
    return has and not (is_array(obj) or isinstance(obj, str | bytes | nn.Module) or hasattr(obj, "columns"))


def _of_map(obj: Any, *, name: str, split: str | None = None) -> Origin:
    with told(name, "a data set of known length"):
        count = len(obj)
    remapped = getattr(obj, "target_transform", None) is not None
    notes = (f"{name}: its target_transform changes the labels: its names of classes are not used",)
    named = None if remapped else _class_names(obj)
    return Origin(
        name,
        lambda places: (_item(obj, int(place), name) for place in (range(count) if places is None else places)),
        np.arange(count),
        None if remapped else _labels_of(obj, count),
        named,
        tuple(dict.fromkeys(_normalizations(obj))),
        tuple(dict.fromkeys(_random_names(obj))),
        _split_of(obj),
        notes if remapped and _class_names(obj) else (),
        computed=not isinstance(obj, TensorDataset),
        transformed=_is_transformed(obj),
        filenames=_filenames(obj, count),
    )


def _item(obj: Any, place: int, name: str) -> Any:
    with told(f"{name}[{place}]", "a sample that can be read"):
        return obj[place]


@contextmanager
def told(where: str, expected: str) -> Iterator[None]:
    """Whatever somebody's code raises becomes one :class:`DataError`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(where, expected=expected, got=got) from error


def _of_stream(obj: Any, *, name: str, split: str | None = None, classes: tuple[str, ...] | None = None) -> Origin:
    again = iter(obj)
    once = again is iter(obj) or isinstance(obj, Iterator)

    def read(places: Places | None) -> Iterator[Any]:
        source = again if once else iter(obj)
        while True:
            with told(name, "samples that can be read"):
                item = next(source, _END)
            if item is _END:
                return
            yield item

    return Origin(
        name, read, None, None, classes or _class_names(obj), tuple(dict.fromkeys(_normalizations(obj))),
        tuple(dict.fromkeys(_random_names(obj))), split or "all", repeatable=not once, transformed=True,
    )  # fmt: skip


def _is_hugging_face(obj: Any) -> bool:
    """Told by its interface, so that the package need not be there."""
    return isinstance(getattr(obj, "features", None), Mapping) and hasattr(obj, "with_format")


def _of_hugging_face(obj: Any, *, split: str | None, name: str) -> Origin:
    name = str(getattr(getattr(obj, "info", None), "dataset_name", None) or name)
    split = SPLIT_WORDS.get(str(getattr(obj, "split", None) or "").lower(), "all")
    features = {str(key): type(feature).__name__ for key, feature in obj.features.items()}
    pictures = [key for key, kind in features.items() if kind == "Image"]
    label = find_key(obj.features, LABEL_KEYS)
    labels = [key for key, kind in features.items() if kind == "ClassLabel"]
    label = label if label in labels or not labels else labels[0] if len(labels) == 1 else label
    image = find_key(dict.fromkeys(pictures or features), IMAGE_KEYS) or (pictures[0] if len(pictures) == 1 else None)
    listed = ", ".join(f"{key} ({kind})" for key, kind in features.items())
    if image is None or label is None:
        missing = "an image" if image is None else "a label"
        expected = f"{missing} among the features (rename_column gives it a usual name)"
        raise DataError(name, expected=expected, got=listed[:200])
    names = getattr(obj.features[label], "names", None)
    classes = tuple(map(str, names)) if names and len(names) > 1 else None
    stream = not hasattr(type(obj), "__len__")
    custom = not stream and getattr(obj, "format", {}).get("type") == "custom"
    notes = [f"{name}: {label} is the label; {key} could be, too" for key in labels if key != label]
    notes += [f"{name}: {image} is the image; {key} is left out" for key in pictures if key != image]
    plain = obj if custom or stream else obj.with_format(None)

    def renamed(item: Mapping[str, Any]) -> dict[str, Any]:
        others = {key: value for key, value in item.items() if key not in {image, label, *pictures}}
        return {**others, "image": item[image], "label": item[label]}

    if stream:
        origin = _of_stream(plain, name=name, classes=classes, split=split)
        return replace(origin, read=lambda places: map(renamed, origin.read(places)), notes=tuple(notes))
    origin = _of_map(plain, name=name)
    if custom:
        return replace(origin, classes=classes, split=split, transformed=True)
    known, _ = values_of(list(plain[label]), where=f"{name}: {label}", names=classes)
    return replace(
        origin, read=lambda places: map(renamed, origin.read(places)), labels=known, classes=classes, split=split,
        notes=tuple(notes), computed=False, transformed=False,
    )  # fmt: skip


def _of_mapping(obj: Mapping[Any, Any], *, split: str | None, name: str) -> Origin | None:
    splits = {SPLIT_WORDS[str(key).lower()]: value for key, value in obj.items() if str(key).lower() in SPLIT_WORDS}
    if splits and len(splits) == len(obj):
        chosen, part = choose_split(splits, wanted=split or "test", where=name)
        origin = find_origin(part, split=split)
        return origin if origin is None or origin.split != "all" else replace(origin, split=chosen)
    image, label = find_key(obj, IMAGE_KEYS), find_key(obj, LABEL_KEYS)
    if image is None or label is None or not _is_many(obj[image]):
        return None
    names = next((obj[key] for key in ("classes", "class_names", "target_names", "label_names") if key in obj), None)
    classes = None if names is None else tuple(map(str, names))
    others = {
        str(key): value
        for key, value in obj.items()
        if key not in {image, label} and _is_many(value) and len(value) == len(obj[image]) and value is not names
    }
    return replace(_of_pair(obj[image], obj[label], name=name, others=others), classes=classes)


def _of_sequence(obj: Sequence[Any], *, split: str | None, name: str) -> Origin | None:
    if all(map(_is_sample, obj)):
        labels = [take_apart(item, name=f"{name}[{place}]").label for place, item in enumerate(obj)]
        known = values_of(labels, where=f"{name}: labels")[0] if labels else None
        return replace(_of_map(obj, name=name), labels=known, computed=False, transformed=False)
    if len(obj) == 2 and _is_many(obj[0]) and _is_many(obj[1]) and len(obj[0]):
        arrays = is_array(obj[0]) and obj[0].ndim >= 2 and getattr(obj[1], "ndim", 1) <= 2
        if arrays or _is_image(obj[0][0]):
            return _of_pair(obj[0], obj[1], name=name)
    return None


def _is_sample(item: Any) -> bool:
    if isinstance(item, Mapping):
        keys = find_key(item, IMAGE_KEYS), find_key(item, LABEL_KEYS)
        return None not in keys and not isinstance(item[keys[0]], str)
    return isinstance(item, tuple | list) and len(item) >= 2 and _is_image(item[0]) and not _is_image(item[1], least=2)


def _of_pair(images: Any, labels: Any, *, name: str, others: Mapping[str, Any] | None = None) -> Origin:
    if len(images) != len(labels):
        raise DataError(name, expected=f"a label for each of {len(images):,} images", got=f"{len(labels):,} labels")
    more = others or {}

    def read(places: Places | None) -> Iterator[Any]:
        for place in range(len(images)) if places is None else places.tolist():
            extra = {key: values[place] for key, values in more.items()}
            yield {**extra, "image": images[place], "label": labels[place]} if more else (images[place], labels[place])

    known, _ = values_of(list(labels), where=f"{name}: labels")
    return Origin(name, read, np.arange(len(images)), known, computed=False)


def _is_many(value: Any) -> bool:
    if is_array(value):
        return bool(value.ndim >= 1)
    return isinstance(value, Sized) and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _is_image(value: Any, *, least: int = 1) -> bool:
    """Whether this can be one picture; ``least`` is the fewest dimensions of an array that is one."""
    if is_array(value):
        return bool(least <= value.ndim <= 3)
    return isinstance(value, Image.Image | bytes | Path)


def _labels_of(obj: Any, count: int) -> Values | None:
    """The labels that a data set keeps beside its pictures; None where it does not, or they are none."""
    if isinstance(obj, TensorDataset):
        stored: Any = obj.tensors[1] if len(obj.tensors) > 1 else None
    elif isinstance(obj, ConcatDataset):
        parts = [find_origin(part, split=None) for part in obj.datasets]
        labels = [part.labels for part in parts if part is not None and part.labels is not None]
        same = len(labels) == len(parts) and len({part.dtype for part in labels}) == 1
        return np.concatenate(labels) if same else None
    else:
        stored = next((value for key in ("targets", "labels") if (value := getattr(obj, key, None)) is not None), None)
    if stored is None or not _is_many(stored) or len(stored) != count:
        return None
    try:
        return values_of(list(stored), where="labels")[0]
    except DataError:
        return None


def _class_names(obj: Any) -> tuple[str, ...] | None:
    """The names of classes as torchvision keeps them, or numbers where only their count is known."""
    if isinstance(obj, ConcatDataset):
        of_parts = {_class_names(part.dataset if isinstance(part, Subset) else part) for part in obj.datasets}
        return of_parts.pop() if len(of_parts) == 1 else None
    numbers = getattr(obj, "class_to_idx", None)
    if isinstance(numbers, Mapping) and sorted(map(str, numbers.values())) == sorted(map(str, range(len(numbers)))):
        return tuple(str(name) for name, _ in sorted(numbers.items(), key=lambda pair: pair[1]))
    names = getattr(obj, "classes", None)
    if isinstance(names, list | tuple) and len(names) > 1 and all(isinstance(name, str) for name in names):
        return tuple(names)
    count = getattr(obj, "num_classes", None)
    return tuple(map(str, range(count))) if isinstance(count, int) and count > 1 else None


def _filenames(obj: Any, count: int) -> list[str] | None:
    """The names of files as torchvision keeps them, from the folder of the set."""
    samples, root = getattr(obj, "samples", None), getattr(obj, "root", None)
    if not isinstance(samples, list) or len(samples) != count or not isinstance(root, str | os.PathLike):
        return None
    paths = [each[0] if isinstance(each, tuple) and each else None for each in samples]
    if not all(isinstance(path, str) for path in paths):
        return None
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths if path is not None]


def _split_of(obj: Any) -> str:
    split, train = getattr(obj, "split", None), getattr(obj, "train", None)
    if isinstance(split, str):
        return SPLIT_WORDS.get(split.lower(), "all")
    return ("train" if train else "test") if isinstance(train, bool) else "all"


def _transforms(obj: Any, *, depth: int = 5) -> Iterator[Any]:
    """The objects that transform items of a data set: its attributes, and those inside of them."""
    if isinstance(obj, Subset):
        yield from _transforms(obj.dataset, depth=depth)
    values = list(vars(obj).values()) if hasattr(obj, "__dict__") else []
    if isinstance(obj, nn.Module):
        values += list(obj.children())
    for value in values:
        parts = value[:50] if isinstance(value, list | tuple) else [value]
        for part in parts:
            if callable(part) and not isinstance(part, type) and depth and not is_array(part):
                yield part
                yield from _transforms(part, depth=depth - 1)
            elif isinstance(part, Dataset) and depth:
                yield from _transforms(part, depth=depth - 1)


def _normalizations(obj: Any) -> Iterator[Normalization]:
    for transform in _transforms(obj):
        if type(transform).__name__ != "Normalize" or getattr(transform, "normalization", "standard") != "standard":
            continue
        mean, std = (np.ravel(np.asarray(getattr(transform, key, ()), np.float64)) for key in ("mean", "std"))
        if 0 < len(mean) == len(std) and (std > 0).all():
            yield Normalization(tuple(mean.tolist()), tuple(std.tolist()))


RANDOM = ("Random", "Rand", "AutoAugment", "TrivialAugment", "AugMix", "ColorJitter", "MixUp", "CutMix", "Elastic")


def _random_names(obj: Any) -> Iterator[str]:
    names = (type(transform).__name__ for transform in _transforms(obj))
    return (name for name in names if name.startswith(RANDOM))


def _is_transformed(obj: Any) -> bool:
    return any(getattr(obj, key, None) is not None for key in ("transform", "transforms")) or not hasattr(obj, "loader")


# In the order in which they are tried.
_FINDERS: tuple[tuple[Callable[[Any], bool], Callable[..., Origin | None]], ...] = (
    (lambda obj: isinstance(obj, DataLoader), _of_loader),
    (_is_hugging_face, _of_hugging_face),
    (lambda obj: isinstance(obj, IterableDataset), _of_stream),
    (lambda obj: isinstance(obj, Subset), _of_subset),
    (lambda obj: isinstance(obj, Mapping), _of_mapping),
    (lambda obj: isinstance(obj, tuple | list), _of_sequence),
    (lambda obj: isinstance(obj, Dataset) or _has_items(obj), _of_map),
)
