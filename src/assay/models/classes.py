"""A model's outputs and a data set's classes belong together by their names, not by their places."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from assay.errors import ModelError, OptionError, one_line
from assay.models.outputs import Outputs, Single, kind_of_single_output, read_outputs

Names = tuple[str, ...]
MatchBy = Literal["name", "position"]
ScoreOver = Literal["subset", "all"]


class ClassMatch(NamedTuple):
    """``columns``: for each class of the data, the output of the model for it; ``note``: what to know about that.

    ``titles`` are words for the classes of data that have nothing but ids of synsets, where the model has the same ids
    beside its names.
    """

    columns: tuple[int, ...]
    note: str | None = None
    titles: Names | None = None


class MatchedClasses(nn.Module):
    """The outputs of ``model`` in the order of a data set's classes, or those of its classes alone.

    ``class_names`` are those of all outputs of ``model``, ``notes`` say what is to be known of the match.
    """

    columns: Tensor

    def __init__(
        self, model: nn.Module, columns: Sequence[int], *, class_names: Names, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.model = model
        self.class_names = class_names
        self.notes = notes
        self.single: Single | None = None  # what the one output of the model is, once that is known
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor | Outputs:
        """Logits; with what else there is to know of them where the model does not return a tensor (N, K) alone."""
        outputs = self.model(images)
        n, classes = len(images), len(self.class_names)
        read = read_outputs(outputs, n=n, classes=classes, single=self.single or "logit")
        if read.single and self.single is None:
            self.single = kind_of_single_output(self.model, images)
            read = read_outputs(outputs, n=n, classes=classes, single=self.single)
        logits, *auxiliary = (part.index_select(1, self.columns) for part in (read.logits, *read.auxiliary))
        if read.logits is outputs:
            return logits
        chosen = self.columns.tolist()
        positive = chosen.index(read.positive) if read.positive in chosen else -1
        return read._replace(logits=logits, auxiliary=tuple(auxiliary), positive=positive)

    def extra_repr(self) -> str:
        return f"{len(self.columns)} of {len(self.class_names)} outputs"


def match_classes(own: Sequence[Names], data: Names, *, where: str, by: MatchBy = "name") -> ClassMatch:
    """Find the output for each class of the data by its name: in the same order, another one, or a subset.

    Names are also the same when only case and punctuation differ. Where the names of one side are nothing but numbers
    (or the ids of ImageNet's synsets), as many classes are matched by position, and that is noted as a guess.

    Args:
        own: the names of the model's outputs; further tuples are other names of the same outputs.
        data: the names of the data's classes.
        where: the model, for messages.
        by: ``"position"`` matches outputs and classes in their order, whatever they are called.

    Raises:
        ModelError: the data have classes that the model does not have.
    """
    names, in_order = own[0], tuple(range(len(data)))
    if by == "name":
        for known in own:
            for spelled, called in ((known, data), (_plain_all(known), _plain_all(data)), (known, _synsets(data))):
                columns = _find(spelled, called)
                if columns is not None:
                    note = _describe(columns, known, data, where=where)
                    return ClassMatch(columns, note, _find_titles(own, data, columns))
        for known in own:
            if (columns := _find_aliases(known, data)) is not None:
                return ClassMatch(columns, _describe(columns, known, data, where=where))
        if are_numbers(names) == are_numbers(data):
            raise _strangers(names, data, where=where)
    if len(names) != len(data):
        raise ModelError(where, expected=f"{len(data)} classes, as the data has", got=f"a model of {len(names)}")
    if names == data:
        return ClassMatch(in_order)
    note = (
        f"the data have the classes of {where} under other names: outputs and labels are matched by position, a guess"
    )
    return ClassMatch(in_order, note)


def name_all(own: Names, data: Names, columns: Sequence[int]) -> Names:
    """Distinct names of all outputs, the data's own for its classes, which have the ``columns``.

    A name that several outputs have gets their numbers.
    """
    times = Counter(own)
    names = [name if times[name] == 1 else f"{name} ({number})" for number, name in enumerate(own)]
    for number, name in zip(columns, data, strict=True):
        names[number] = name
    return tuple(names)


def read_class_names(path: Path) -> tuple[Names, ...]:
    """The names of a model's outputs, in their order, from a file; further tuples are other names of the same.

    A text file has one name a line (or, as ImageNet's lists have it, a synset and its names). JSON is a list of names,
    of lists such as ["n01440764", "tench"], or an object from number to name, or from name to number, from 0.
    Raises :class:`OptionError`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        got = error.strerror or one_line(error)
        raise OptionError(str(path), expected="a file with the names of the model's outputs", got=got) from None
    except ValueError:
        raise OptionError(str(path), expected="text in UTF-8", got="other bytes") from None
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in {"[", "{"}:
        rows = _rows_of_json(text, where=str(path))
    else:
        lines = text.rstrip().splitlines()
        rows = [[line.strip()] for line in lines]
        if all(re.match(r"n\d{8}\s+\S", line) for line in lines):
            rows = [line.split(maxsplit=1) for line in lines]
    for number, row in enumerate(rows):
        if not all(row) or len(row) != len(rows[0]):
            got = "an empty one" if not all(row) else f"{len(row)} names instead of {len(rows[0])}"
            raise OptionError(f"{path}[{number}]", expected="the name of a class", got=got)
    if len(rows) < 2:
        raise OptionError(str(path), expected="the names of at least two classes", got=len(rows))
    kinds = tuple(zip(*rows, strict=True))
    return tuple(sorted(kinds, key=are_numbers))  # those that say something first


def _rows_of_json(text: str, *, where: str) -> list[list[str]]:
    """For each class its names, in the order of the classes."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise OptionError(where, expected="JSON", got=one_line(error)) from None
    if isinstance(content, dict) and isinstance(content.get("id2label"), dict):
        content = content["id2label"]  # a config.json of transformers
    if isinstance(content, dict):
        to_numbers = bool(content) and all(isinstance(value, int) for value in content.values())
        pairs = [(str(b), a) if to_numbers else (str(a), b) for a, b in content.items()]
        pairs.sort(key=lambda pair: (len(pair[0]), pair[0]))
        if [number for number, _ in pairs] != list(map(str, range(len(pairs)))):
            got = few([number for number, _ in pairs])
            raise OptionError(where, expected=f"numbers of classes 0..{len(pairs) - 1}, each once", got=got)
        content = [name for _, name in pairs]
    rows = [row if isinstance(row, list) else [row] for row in content] if isinstance(content, list) else []
    if not rows or not all(isinstance(name, str) for row in rows for name in row):
        expected = "a list of names, or an object from number to name"
        raise OptionError(where, expected=expected, got=one_line(text, limit=60) or "nothing")
    return [[name.strip() for name in row] for row in rows]


def are_numbers(names: Names) -> bool:
    """Names that only number the classes: 0, 1, 2, … or ids of synsets such as n01440764."""
    return all(re.fullmatch(r"n?\d+", name) for name in names)


def _find(known: Names, data: Names) -> tuple[int, ...] | None:
    """Where the names of the data are among the ``known``; None unless each is there, and there once."""
    if known == data:
        return tuple(range(len(data)))
    counts, places = Counter(known), {name: place for place, name in enumerate(known)}
    if len(set(data)) < len(data) or any(counts[name] != 1 for name in data):
        return None
    return tuple(places[name] for name in data)


def _find_aliases(known: Names, data: Names) -> tuple[int, ...] | None:
    """The same for names that are several, as in ``tench, Tinca tinca``: each of the data leads to one output only."""
    places: dict[str, set[int]] = {}
    for place, name in enumerate(known):
        for alias in _aliases(name):
            places.setdefault(alias, set()).add(place)
    columns = [set().union(*(places.get(alias, set()) for alias in _aliases(name))) for name in data]
    chosen = tuple(min(each) for each in columns if len(each) == 1)
    return chosen if len(set(chosen)) == len(data) else None


def _aliases(name: str) -> set[str]:
    return {_plain(part) for part in name.split(",") if part.strip()}


def _plain_all(names: Names) -> Names:
    return tuple(map(_plain, names))


def _synsets(names: Names) -> Names:
    """The ids that folders such as ``n01440764-tench`` are called by, where all are; else the names."""
    ids = [re.match(r"n\d{8}(?=[\W_]|$)", name) for name in names]
    return tuple(each[0] for each in ids if each) if all(ids) else names


def _find_titles(own: Sequence[Names], data: Names, columns: Sequence[int]) -> Names | None:
    """The model's words for the classes of the data; what is called alike keeps its id beside it."""
    words = next((known for known in own if not are_numbers(known)), None)
    if words is None or not all(re.fullmatch(r"n\d{8}", name) for name in data):
        return None
    titles = [words[column] for column in columns]
    times = Counter(titles)
    return tuple(title if times[title] == 1 else f"{title} ({name})" for title, name in zip(titles, data, strict=True))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold()) or name


def _describe(columns: tuple[int, ...], known: Names, data: Names, *, where: str) -> str | None:
    guess = " (they are numbers: a guess)" if all(map(str.isdecimal, data)) and data != known else ""
    if len(columns) < len(known):
        few = f"the data have {len(data)} of the {len(known)} classes of {where}"
        return f"{few}, matched by name{guess}: predictions are among these alone"
    if columns != tuple(range(len(data))):
        return f"the data have the classes of {where} in another order: matched by name{guess}"
    return None


def _strangers(names: Names, data: Names, *, where: str) -> ModelError:
    counts = Counter(map(_plain, names))
    unknown = [name for name in data if counts[_plain(name)] != 1] or list(data)
    got = few(unknown)
    if len(unknown) < len(data):
        got += f" besides {len(data) - len(unknown)} of them"
    if several := [name for name in unknown if counts[_plain(name)] > 1]:
        got += f" ({few(several)}: the name of several outputs)"
    if len(names) == len(data):
        got += "; where they are the same classes in the same order, match classes by position"
    return ModelError(where, expected=f"data of its classes, {few(names)}", got=got)


def few(names: Sequence[str], *, most: int = 5) -> str:
    """``a, b, c, … (1,000)``: the first names, and how many there are."""
    return ", ".join(names[:most]) + (f", … ({len(names):,})" if len(names) > most else "")
