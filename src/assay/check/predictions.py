"""A check of predictions alone: everything that can be said of a classifier without running it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from assay.arguments import checked
from assay.check.matching import find_classes, identify_rows, match_columns, match_rows, number_classes
from assay.data.dataset import ImageDataset, identify_samples
from assay.data.labels import Values, note_absent
from assay.data.metadata import Column, take
from assay.data.pictures import png_base64, to_bytes
from assay.data.prediction_files import Table
from assay.data.predictions import PredictionTable, interpret
from assay.data.sample_records import keep_columns, measure_pixel_range
from assay.data.scores import LEAST
from assay.errors import DataError, OptionError
from assay.evaluate import Predictions, summarize, summarize_classes
from assay.models.classes import MatchBy, ScoreOver, name_all
from assay.records.accuracy import CleanAccuracy
from assay.records.checkup import Checkup, Stage, Subject
from assay.records.mistakes import ConfidentMistakes, PicturedMistake
from assay.records.samples import SampleBits, SampleSet
from assay.runtime import describe_environment
from assay.verdict import judge
from assay.wording import plural

ONLY = (
    "predictions only: no attacks, image operations, gradients, modes, preparation or weights were looked at, which "
    "need the model"
)
LARGEST = 128  # pixels along the longer side of a picture of a mistake


@dataclass(frozen=True, eq=False)
class Resolved:
    """Predictions with their true classes: N samples in the order of the data set, or of the file.

    ``samples`` identifies those of the file, ``available`` all there are, ``order`` their ascending order;
    ``metadata`` are columns (N,) of the file and of the data set.
    """

    logits: Tensor | None
    predicted: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    samples: SampleSet
    available: SampleSet
    order: Tensor
    metadata: Mapping[str, Column]
    dataset: ImageDataset | None
    notes: tuple[str, ...]


@checked
def check_predictions(
    predictions: object,
    labels: object = None,
    *,
    dataset: ImageDataset | None = None,
    classes: Sequence[str] | None = None,
    match_classes: MatchBy = "name",
    score_over: ScoreOver = "subset",
    name: str | None = None,
    shown: int = 24,
) -> Checkup:
    """Check a classifier by its predictions alone: accuracy, classes, confusion, calibration, confident mistakes.

    Args:
        predictions: what :func:`assay.read_predictions` returned; an array or tensor (N, K) of logits or probabilities,
            (N,) of predicted classes or of probabilities of the second of two classes; or a mapping of columns, such
            as a data frame.
        labels: the true class of each sample (N,), a number or a name, beside an array.
        dataset: the samples, in place of labels: rows are matched by file names or ids where there are some, else by
            their order. With it the most confident mistakes are shown.
        classes: the names of the classes, in the order of the columns.
        match_classes: ``name`` or ``position``: how columns and the classes of ``dataset`` belong together.
        score_over: of columns that are more than the classes of ``dataset``: ``subset`` takes predictions among these
            classes alone, ``all`` among all columns, where any other class is wrong.
        name: what the report calls the classifier.
        shown: most pictures of mistakes.
    Returns:
        The :class:`Checkup`: rules that need a model have the status "not run", and ``subject.notes`` say what was
        guessed. :func:`assay.compare` takes it beside any other checkup on the same samples.
    Raises:
        DataError: no labels, another number of rows, numbers that are neither logits nor probabilities, a row that is
            not a sample of the data set, or labels that contradict it.
    Example:
        >>> import assay
        >>> import numpy
        >>> probabilities = numpy.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
        >>> checkup = assay.check_predictions(probabilities, [0, 1, 1, 1], classes=["cat", "dog"])
        >>> checkup.first(assay.CleanAccuracy).accuracy
        0.75
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    table = _as_table(predictions, labels, classes=classes, name=name)
    if dataset is None:
        resolved = _resolve(table)
    else:
        resolved = _resolve_with(table, dataset, by=match_classes, score_over=score_over)
    notes = (*table.notes, *resolved.notes, *_note_differences(table))
    right = resolved.predicted == resolved.labels
    per_sample = SampleBits.of(resolved.samples, right[resolved.order].tolist())
    clean = _summarize(resolved, per_sample)
    records: list[Any] = [clean]
    if resolved.dataset is not None and resolved.logits is not None:
        records.append(_pick_mistakes(resolved, resolved.dataset, shown=shown))
    columns = keep_columns(resolved.metadata, samples=resolved.samples, order=resolved.order)
    records += [] if columns is None else [columns]
    records += [] if dataset is None else [measure_pixel_range(dataset)]
    stated = table.stated or {}
    subject = Subject(
        model=name or table.name,
        weights=None,
        data=dataset.name if dataset is not None else str(stated.get("data", "labels in the file")),
        split=dataset.split if dataset is not None else str(stated.get("split", "all")),
        n=resolved.samples.n,
        available=resolved.available.n,
        classes=resolved.classes,
        image_shape=None if dataset is None else dataset.shape,
        samples=resolved.available,
        notes=tuple(dict.fromkeys((ONLY, *notes, *_describe(table, resolved)))),
        source="predictions",
    )
    return Checkup(
        subject=subject,
        budget="predictions only",
        seed=0,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
        environment=describe_environment(torch.device("cpu")),
        stages=(Stage(name="clean accuracy", seconds=time.perf_counter() - clock),),
        records=tuple(records),
        verdicts=judge(records),
    )


def _as_table(
    predictions: object, labels: object, *, classes: Sequence[str] | None, name: str | None
) -> PredictionTable:
    if isinstance(predictions, PredictionTable):
        if labels is not None:
            raise OptionError("labels", expected="none beside a table of predictions, which has its own", got="some")
        if classes is None:
            return predictions
        if predictions.logits is not None and predictions.logits.shape[1] != len(classes):
            expected = f"a name for each of {predictions.logits.shape[1]} columns"
            raise OptionError("classes", expected=expected, got=plural(len(classes), "name"))
        return replace(predictions, classes=tuple(classes))
    called = name or "predictions"
    if isinstance(predictions, Mapping) or hasattr(predictions, "columns"):  # a data frame has columns by name, too
        frame: Any = predictions
        columns = {str(key): _array(frame[key], where=str(key)) for key in frame.keys()}  # noqa: SIM118
    else:
        array = _array(predictions, where="predictions")
        hard = array.ndim == 1 and (array.dtype.kind in "iu" or array.dtype == object)
        columns = {"prediction" if hard else "scores": array}
    if labels is not None:
        columns["label"] = _array(labels, where="labels")
    return interpret(Table(columns), name=called, where=called, classes=classes)


def _array(value: Any, *, where: str) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    try:
        array = np.asarray(value)
        if array.dtype == object and array.ndim == 1 and len(array) and isinstance(array[0], list | tuple | np.ndarray):
            array = np.array(array.tolist())
    except ValueError:
        raise DataError(where, expected="rows of one length", got="different ones") from None
    if array.dtype.kind not in "biufUSO" or array.ndim not in {1, 2}:
        raise DataError(
            where, expected="an array (N,) or (N, K) of numbers or names", got=f"{array.dtype} {array.shape}"
        )
    return array.astype(str).astype(object) if array.dtype.kind in "US" else array


def _resolve(table: PredictionTable) -> Resolved:
    """By the labels in the table itself."""
    if table.labels is None:
        raise DataError(table.name, expected="labels: a column such as label, target or y_true, or --data", got="none")
    classes, notes = find_classes(table, table.labels)
    together = [values for values in (table.labels, table.predicted) if values is not None]
    labels, of_labels = number_classes(table.labels, classes, where=f"{table.name}: labels", everything=together)
    logits, predicted = _predict(table, classes, columns=None, rows=None)
    samples, order = identify_rows(table, labels)
    notes += [*of_labels, *note_absent(labels.numpy(), classes, where=table.name)]
    if table.ids is None and table.filenames is None:
        notes.append(f"{table.name}: no column of ids or file names: samples are told apart by their rows")
    return Resolved(logits, predicted, labels, classes, samples, samples, order, table.metadata, None, tuple(notes))


def _resolve_with(table: PredictionTable, dataset: ImageDataset, *, by: MatchBy, score_over: ScoreOver) -> Resolved:
    """By the labels of a data set; those of the table, where it has some, must be the same."""
    columns, notes = match_columns(table, dataset, by=by)
    own = table.classes or ()
    if score_over == "all" and columns is not None and len(columns) < len(own):
        dataset = dataset.renumbered(columns, classes=name_all(own, dataset.classes, columns))
        notes = [f"the data have {len(columns)} of the {len(own)} classes of {table.name}: predictions are among all"]
        columns = tuple(range(len(own)))
    matched = match_rows(table, dataset)
    part = dataset.subset(torch.from_numpy(matched.places))
    _compare_labels(table, part, matched.rows, columns=columns)
    logits, predicted = _predict(table, dataset.classes, columns=columns, rows=matched.rows)
    order = part.ids.argsort()
    samples, available = identify_samples(part), identify_samples(dataset)
    all_notes = (matched.note, *notes, *dataset.notes)
    metadata = {**take(table.metadata, matched.rows), **part.metadata}
    return Resolved(
        logits, predicted, part.labels, dataset.classes, samples, available, order, metadata, part, all_notes
    )  # fmt: skip


def _number(
    values: Values, table: PredictionTable, classes: tuple[str, ...], *, columns: tuple[int, ...] | None, what: str
) -> Tensor:
    """Labels or predictions of the table as places among ``classes``, of which ``columns`` are the table's own.

    A class of the table that is none of them is −1.
    """
    where = f"{table.name}: {what}"
    everything = [each for each in (table.labels, table.predicted) if each is not None]
    if columns is None or table.classes is None:
        return number_classes(values, classes, where=where, everything=everything)[0]
    places = torch.full((len(table.classes),), -1)
    places[list(columns)] = torch.arange(len(columns))
    return places[number_classes(values, table.classes, where=where, everything=everything)[0]]


def _compare_labels(
    table: PredictionTable, part: ImageDataset, rows: NDArray[np.int64], *, columns: tuple[int, ...] | None
) -> None:
    if table.labels is None:
        return
    classes = part.classes
    own = _number(table.labels, table, classes, columns=columns, what="labels")[torch.from_numpy(rows)]
    wrong = own != part.labels
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        named = repr(classes[int(own[first])]) if int(own[first]) >= 0 else "another class"
        got = f"{named} ({int(wrong.sum()):,} of {len(own):,} labels differ)"
        expected = f"{classes[int(part.labels[first])]!r}, as {part.sample_name(first)} of {part.name} is labelled"
        raise DataError(f"{table.name}: labels[{int(rows[first])}]", expected=expected, got=got)


def _predict(
    table: PredictionTable, classes: tuple[str, ...], *, columns: tuple[int, ...] | None, rows: NDArray[np.int64] | None
) -> tuple[Tensor | None, Tensor]:
    """The logits (M, K) of those rows and columns, if there are any, and the predicted class int64 (M,)."""
    if table.logits is not None:
        logits = table.logits if columns is None or columns == tuple(range(len(classes))) else table.logits[:, columns]
        chosen = torch.from_numpy(np.ascontiguousarray(logits if rows is None else logits[rows]))
        return chosen, Predictions(chosen, torch.empty(0), 0.0).classes
    assert table.predicted is not None
    predicted = _number_predicted(table.predicted, table, classes, columns=columns)
    return None, predicted if rows is None else predicted[torch.from_numpy(rows)]


def _number_predicted(
    values: Values, table: PredictionTable, classes: tuple[str, ...], *, columns: tuple[int, ...] | None
) -> Tensor:
    """int64 (N,), −1 where there is no prediction."""
    known = values != ("" if values.dtype == object else -1)
    predicted = torch.full((len(values),), -1)
    numbers = _number(values[known], table, classes, columns=columns, what="predictions")
    if bool((numbers < 0).any()):
        got = f"{int((numbers < 0).sum()):,} of another class (score over all classes to count them as wrong)"
        raise DataError(f"{table.name}: predictions", expected=f"the {len(classes)} classes of the data", got=got)
    predicted[torch.from_numpy(known)] = numbers
    return predicted


def _note_differences(table: PredictionTable) -> list[str]:
    """Predictions beside scores: of how many rows the predicted class is not that of the largest score.

    Raises :class:`DataError` where it hardly ever is: the scores are something else then, or of other classes.
    """
    if table.logits is None or table.predicted is None:
        return []
    if table.classes is None and table.predicted.dtype == object:
        return []  # of which class a column is cannot be told
    k = table.logits.shape[1]
    classes = table.classes or tuple(map(str, range(k)))
    predicted = _number_predicted(table.predicted, table, classes, columns=None)
    largest = Predictions(torch.from_numpy(table.logits), torch.empty(0), 0.0).classes
    both = (predicted >= 0) & (largest >= 0)
    n, differ = int(both.sum()), int((predicted != largest)[both].sum())
    if differ > n / 2:
        got = f"another one in {differ:,} of {plural(n, 'row')}"
        raise DataError(f"{table.name}: predictions", expected="the class of the largest score", got=got)
    return [f"{differ:,} of {plural(n, 'prediction')} are not the class of the largest score, which counts"] * (
        differ > 0
    )


def _summarize(resolved: Resolved, per_sample: SampleBits) -> CleanAccuracy:
    if resolved.logits is None:
        clean = summarize_classes(resolved.predicted, resolved.labels, classes=resolved.classes, per_sample=per_sample)
    else:
        outputs = Predictions(resolved.logits, resolved.labels, seconds=0.0)
        clean = summarize(outputs, classes=resolved.classes, per_sample=per_sample)
    return clean.model_copy(update={"images_per_second": math.nan})


def _describe(table: PredictionTable, resolved: Resolved) -> list[str]:
    """What of the numbers themselves has to be known."""
    notes, n = [], len(resolved.labels)
    missing = int((resolved.predicted < 0).sum())
    if resolved.logits is None:
        notes.append("only the predicted classes are known: no loss, confidence, calibration or top-5 accuracy")
        notes += [f"{missing:,} of {plural(n, 'row')} without a prediction count as wrong"] if missing else []
        return notes
    if missing:
        notes.append(f"{missing:,} of {plural(n, 'row')} with a NaN or an infinity count as wrong")
    if table.kind != "logits":
        of_label = resolved.logits.double().gather(1, resolved.labels[:, None])[:, 0]
        zeros = int((of_label <= math.log(LEAST) + 1e-6).sum())
        cost = f"{zeros:,} of {plural(n, 'sample')} have the probability 0 for their class"
        notes += [f"{cost}: {-math.log(LEAST):.1f} nats each in the mean loss, not infinitely many"] if zeros else []
    return notes


def _pick_mistakes(resolved: Resolved, dataset: ImageDataset, *, shown: int) -> ConfidentMistakes:
    assert resolved.logits is not None
    confidences = resolved.logits.softmax(dim=1).amax(dim=1)
    wrong = ((resolved.predicted != resolved.labels) & (resolved.predicted >= 0)).nonzero()[:, 0]
    worst = wrong[confidences[wrong].argsort(descending=True, stable=True)][:shown]
    examples = tuple(
        PicturedMistake(
            sample_id=dataset.sample_name(place),
            label=resolved.classes[int(resolved.labels[place])],
            predicted=resolved.classes[int(resolved.predicted[place])],
            confidence=float(confidences[place]),
            image=png_base64(_small(dataset.images[place])),
        )
        for place in worst.tolist()
    )
    return ConfidentMistakes(
        n=len(resolved.labels), wrong=int((resolved.predicted != resolved.labels).sum()), examples=examples
    )


def _small(image: Tensor) -> Tensor:
    """uint8 (C, H, W), made smaller where it is larger than :data:`LARGEST`."""
    longest = max(image.shape[1:])
    if longest <= LARGEST:
        return image
    size = [max(1, round(side * LARGEST / longest)) for side in image.shape[1:]]
    return to_bytes(F.interpolate(image[None].float() / 255, size=size, mode="bilinear", antialias=True))[0]
