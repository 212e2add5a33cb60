"""Which columns of a table of predictions are what, by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.data.labels import in_order
from assay.data.reading import listing
from assay.data.scores import Kind
from assay.errors import DataError

Array = NDArray[Any]

# The usual names of a role, the surest first; compared without case, with "_" for every other sign.
LABELS = (
    "label", "labels", "y_true", "true_label", "true_class", "target", "targets", "ground_truth", "gt", "truth", "true",
    "actual", "y", "label_id", "class_id", "category", "class",
)  # fmt: skip
PREDICTED = (
    "prediction", "predictions", "predicted", "pred", "preds", "y_pred", "predicted_class", "predicted_label",
    "pred_class", "pred_label", "prediction_class", "prediction_label", "y_hat", "yhat", "argmax", "top1",
)  # fmt: skip
IDS = ("id", "ids", "sample_id", "image_id", "sample", "idx", "index", "key")
FILES = (
    "filename", "file_name", "filenames", "file_names", "path", "paths", "filepath", "file_path", "image_path",
    "img_path", "image_file", "image_filename", "image_name", "img_name", "file", "files", "image", "img", "name",
)  # fmt: skip
SCORES: dict[str, Kind | None] = {
    **dict.fromkeys(("logits", "logit", "y_logits", "y_logit"), "logits"),
    **dict.fromkeys(("probabilities", "probability", "probs", "prob", "proba", "probas", "y_prob", "y_probs"),
                    "probabilities"),
    **dict.fromkeys(("y_proba", "y_probas", "predict_proba", "pred_prob", "pred_probs", "pred_proba", "softmax", "p"),
                    "probabilities"),
    **dict.fromkeys(("log_probabilities", "log_probs", "log_prob", "log_proba", "logprobs", "logprob", "log_softmax"),
                    "log-probabilities"),
    **dict.fromkeys(("scores", "score", "y_score", "y_scores", "outputs", "output", "class"), None),
    **dict.fromkeys(("pred", "preds", "prediction", "predictions", "y_pred", "y_hat"), None),
}  # fmt: skip
CLASS_NAMES = ("classes", "class_names", "label_names", "names")


@dataclass(frozen=True, eq=False)
class Roles:
    """What was found: columns by role, None where there is none; ``others`` are the names of the rest.

    ``scores`` is (N, K), or (N,) for one number a sample, stated to be of a ``kind`` by the column ``scores_name``;
    ``classes`` are the names of the classes that it is of, where the columns have names.
    """

    labels: tuple[str, Array] | None
    predicted: tuple[str, Array] | None
    ids: tuple[str, Array] | None
    files: tuple[str, Array] | None
    scores: Array | None
    scores_name: str
    kind: Kind | None
    classes: tuple[str, ...] | None
    others: tuple[str, ...]
    notes: tuple[str, ...]


def plain(name: str) -> str:
    """``Y-True `` as ``y_true``."""
    return re.sub(r"[\s\-.]+", "_", name.strip().lower()).strip("_")


def holds_text(name: str) -> bool:
    """Whether a column of this name is read as text: 001 is a name, and not the number 1."""
    return plain(name) in {*LABELS, *PREDICTED, *IDS, *FILES}


def holds_role(name: str) -> bool:
    """Whether a column of this name is read as something that belongs to predictions."""
    called, prefix = plain(name), re.match(r"[a-z]+(?=_)", plain(name))
    scores = called in SCORES or (prefix is not None and prefix[0] in SCORES)
    return _is_index(name) or holds_text(name) or scores or called in CLASS_NAMES


def find_roles(columns: Mapping[str, Array], *, known: Sequence[str], where: str) -> Roles:
    """The roles of ``columns``; ``known`` are the names of the classes, where they are known from elsewhere.

    Raises :class:`DataError` listing the columns where there are neither scores nor predicted classes.
    """
    notes: list[str] = []
    rest = {name: cells for name, cells in columns.items() if not _is_index(name)}
    if len(rest) < len(columns):
        notes.append(f"{where}: the column without a name, an index, is not used")
    lists = [name for name, cells in rest.items() if cells.ndim == 2]
    flat = {name: cells for name, cells in rest.items() if cells.ndim == 1}
    groups = _group(flat, where=where)
    in_groups = {column for group in groups.values() for column in group.values()}
    free = [name for name in flat if name not in in_groups]
    ids, files = _pick(free, IDS), _pick(free, FILES)
    labels = _pick(free, LABELS) or _one_hot(rest, lists)
    predicted = _pick([name for name in free if flat[name].dtype.kind != "f" or _whole(flat[name])], PREDICTED)
    taken = {ids, files, labels, predicted}
    free = [name for name in free if name not in taken]
    scores, of, kind, classes = _find_scores(
        {name: rest[name] for name in lists if name != labels}, groups, flat, free, known=_texts(known, flat, labels)
    )
    if scores is None and predicted is None:
        expected = "logits, probabilities (a list, or a column for each class) or a prediction"
        got = f"columns {listing([name or '(no name)' for name in columns], most=8)}"
        raise DataError(where, expected=expected, got=got)
    used = {*taken, *of}

    def named(name: str | None) -> tuple[str, Array] | None:
        return None if name is None else (name, rest[name])

    return Roles(
        labels=named(labels),
        predicted=named(predicted),
        ids=named(ids),
        files=named(files),
        scores=scores,
        scores_name=of[0] if of else "",
        kind=kind,
        classes=classes,
        others=tuple(name for name in rest if name not in used),
        notes=tuple(notes),
    )


def _is_index(name: str) -> bool:
    return not name.strip() or re.fullmatch(r"Unnamed: \d+(_level_\d+)?", name) is not None


def _pick(names: Iterable[str], usual: Sequence[str]) -> str | None:
    by_name = {plain(name): name for name in names}
    return next((by_name[name] for name in usual if name in by_name), None)


def _one_hot(columns: Mapping[str, Array], lists: Sequence[str]) -> str | None:
    """Labels as rows of zeros with a one, or as a column (N, 1)."""
    return _pick(lists, LABELS)


def _whole(cells: Array) -> bool:
    known = cells[np.isfinite(cells)]
    return bool((known == np.floor(known)).all())


def _group(flat: Mapping[str, Array], *, where: str) -> dict[str, dict[str, str]]:
    """Columns such as ``logit_cat``: by prefix, the class of each and its column.

    Raises :class:`DataError` for one of them that holds text: a class must not be missing for a cell.
    """
    prefixes = "|".join(sorted((re.escape(name).replace("_", "[_ .-]") for name in SCORES), key=len, reverse=True))
    pattern = re.compile(rf"({prefixes})(?:[\s_\-.:/(\[]+(.+?)[)\]]?|(\d+))", re.IGNORECASE)
    groups: dict[str, dict[str, str]] = {}
    for name, cells in flat.items():
        match = pattern.fullmatch(name.strip())
        if match is None or plain(name) in {*LABELS, *PREDICTED, *IDS, *FILES}:
            continue
        if cells.dtype.kind not in "iuf":
            if match[3] or match[2].isdecimal() or SCORES[plain(match[1])] is not None:
                raise _no_number(cells, where=f"{where}:{name}")
            continue
        groups.setdefault(plain(match[1]), {})[match[2] or match[3]] = name
    return {prefix: group for prefix, group in groups.items() if len(group) > 1}


def _no_number(cells: Array, *, where: str) -> DataError:
    """The first cell of a column that ought to hold numbers and does not."""
    for row, cell in enumerate(cells.tolist()):
        try:
            float("nan" if cell is None else cell)
        except ValueError:
            return DataError(f"{where}[{row}]", expected="a number", got=f"{cell!r:.60}")
    return DataError(
        where, expected="numbers", got="none" if cells.dtype == object else f"values of type {cells.dtype}"
    )


Found = tuple[Array | None, tuple[str, ...], Kind | None, tuple[str, ...] | None]


def _find_scores(
    lists: Mapping[str, Array],
    groups: Mapping[str, Mapping[str, str]],
    flat: Mapping[str, Array],
    free: Sequence[str],
    *,
    known: Sequence[str],
) -> Found:
    """Lists first, then columns with a prefix, columns called like the classes, and one number a sample."""
    order = list(SCORES)
    by_name = {plain(name): name for name in lists}
    usual = next((by_name[name] for name in order if name in by_name), None)
    numbers = [name for name, cells in lists.items() if cells.dtype.kind in "iuf"]
    usual = usual or (numbers[0] if len(numbers) == 1 and len(flat) <= 2 else None)
    if usual is not None:
        return lists[usual], (usual,), SCORES.get(plain(usual)), None
    prefix = next((name for name in order if name in groups), None)
    if prefix is not None:
        return (*_stack(groups[prefix], flat), SCORES[prefix], _names(groups[prefix]))
    columns = [name for name in free if flat[name].dtype.kind in "iuf" and plain(name) not in SCORES]
    chosen = _like_classes(columns, flat, known)
    if chosen:
        group = {name.strip(): name for name in chosen}
        return (*_stack(group, flat), None, _names(group))
    by_name = {plain(name): name for name in free if flat[name].dtype.kind in "iuf"}
    single = next((by_name[name] for name in order if name in by_name), None) or _one_of_second(by_name)
    if single is None:
        return None, (), None, None
    prefix = next(name for name in order if plain(single) == name or plain(single).startswith(f"{name}_"))
    return flat[single], (single,), SCORES[prefix], None


def _one_of_second(by_name: Mapping[str, str]) -> str | None:
    """A column such as ``prob_1`` or ``p_positive`` that stands alone."""
    endings = ("1", "pos", "positive", "true", "yes")
    return next((by_name[f"{name}_{end}"] for name in SCORES for end in endings if f"{name}_{end}" in by_name), None)


def _names(group: Mapping[str, str]) -> tuple[str, ...]:
    """The classes in the order of :func:`_stack`: by number where they are numbers, else as the columns are."""
    return in_order(group) if all(map(str.isdecimal, group)) else tuple(group)


def _stack(group: Mapping[str, str], flat: Mapping[str, Array]) -> tuple[Array, tuple[str, ...]]:
    names = tuple(group[name] for name in _names(group))
    return np.column_stack([flat[name] for name in names]), names


def _texts(known: Sequence[str], flat: Mapping[str, Array], labels: str | None) -> Sequence[str]:
    """The names of the classes as far as they are known: those given, else the texts of the labels."""
    if known or labels is None or labels not in flat or flat[labels].dtype != object:
        return known
    return sorted({text for text in flat[labels].tolist() if text is not None})


def _like_classes(columns: Sequence[str], flat: Mapping[str, Array], known: Sequence[str]) -> list[str]:
    """The columns called like the classes, or 0, 1, 2, …; with others only where all of them together sum to 1."""
    names = [name.strip() for name in columns]
    if len(columns) < 2:
        return []
    if known and set(known) == set(names):
        return list(columns)
    if all(map(str.isdecimal, names)) and sorted(map(int, names)) in (
        [*range(len(names))],
        [*range(1, len(names) + 1)],
    ):
        return list(columns)
    together = np.column_stack([flat[name] for name in columns])
    together = together[np.isfinite(together).all(axis=1)]
    sums = together.sum(axis=1)
    if len(together) and together.min() >= -1e-6 and np.abs(sums - 1).max() <= 0.01:
        return list(columns)
    inside = [name for name in columns if name.strip() in set(known)]
    return inside if len(inside) >= 2 and {name.strip() for name in inside} == set(known) else []
