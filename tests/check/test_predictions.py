"""Predictions without a model: the numbers of scikit-learn and of our own checks, matched to data, and compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import nn

from assay.check import Budget, check_predictions, run_check
from assay.comparison import compare, trace_history
from assay.data.dataset import ImageDataset
from assay.data.predictions import read_predictions
from assay.errors import DataError, ModelError, OptionError
from assay.evaluate import Predictions, summarize
from assay.records.accuracy import CleanAccuracy
from assay.records.checkup import Checkup
from assay.records.failure import FailedMeasurement
from assay.records.mistakes import ConfidentMistakes
from assay.records.pixels import PixelRange
from assay.records.sample_table import SampleTable
from assay.report.check_page import render_page
from assay.report.ci import render_junit, render_sarif
from assay.report.comparison_page import render_comparison

TINY = Budget(name="tiny", clean=None, attacked=4, probed=4, steps=1, sanity_samples=2, sanity_queries=2, gallery=2)


def clean_of(checkup: Checkup) -> CleanAccuracy:
    clean = checkup.first(CleanAccuracy)
    assert clean is not None
    return clean


def without_times(clean: CleanAccuracy) -> dict:
    return clean.model_dump(exclude={"images_per_second": True, "per_sample": {"samples": {"pixels"}}})


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 12)) * 2


@pytest.fixture
def labels(logits: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(300) < 0.6, logits.argmax(1), np.arange(300) % 12)


@pytest.fixture
def data() -> ImageDataset:
    images = torch.randint(0, 256, (30, 3, 6, 6), dtype=torch.uint8)
    files = tuple(f"set/{'abc'[i % 3]}/{i}.png" for i in range(30))
    ids = torch.arange(30) * 2 + 5
    return ImageDataset(images, torch.arange(30) % 3, ("ant", "bee", "cat"), "zoo", "test", ids, files)


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval()


def test_the_numbers_are_those_of_scikit_learn(logits: np.ndarray, labels: np.ndarray) -> None:
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for given in (logits, probabilities, torch.from_numpy(probabilities), np.log(probabilities)):
        clean = clean_of(check_predictions(given, labels))
        assert clean.accuracy == accuracy_score(labels, logits.argmax(1))
        assert np.array_equal(clean.confusion, confusion_matrix(labels, logits.argmax(1), labels=range(12)))
        assert clean.loss == pytest.approx(log_loss(labels, probabilities, labels=range(12)), rel=1e-9)
        top5 = top_k_accuracy_score(labels, probabilities, k=5, labels=range(12))
        assert clean.top5_accuracy == pytest.approx(top5, abs=1e-12)
        ours = summarize(Predictions(torch.from_numpy(logits), torch.from_numpy(labels), 0.0), classes=("",) * 12)
        assert clean.expected_calibration_error == pytest.approx(ours.expected_calibration_error, abs=1e-9)
        assert [each.n for each in clean.calibration] == [each.n for each in ours.calibration]
        assert clean.mean_confidence == pytest.approx(probabilities.max(1).mean())


def test_nothing_that_needs_a_model_is_said_to_have_failed(logits: np.ndarray, labels: np.ndarray) -> None:
    checkup = check_predictions(logits, labels, name="net of mine")
    assert checkup.complete
    assert checkup.first(FailedMeasurement) is None
    judged = {verdict.rule for verdict in checkup.verdicts if verdict.status != "not run"}
    assert judged == {"A101", "A102", "A103", "A104", "A105", "A106"}
    assert any(note.startswith("predictions only: no attacks") for note in checkup.subject.notes)
    again = Checkup.model_validate_json(checkup.model_dump_json())
    assert again.model_dump_json() == checkup.model_dump_json()
    page = render_page(checkup)
    assert "net of mine" in page
    sections = re.findall(r'<section[^>]* id="([\w-]+)"', page)
    assert sections == ["lead", "verdicts", "accuracy", "measured"]
    assert "Predictions only, no model was run" in page
    assert "seed" not in page
    assert "A103" in render_junit(checkup, fail_on="error")
    assert json.loads(render_sarif(checkup))["runs"][0]["invocations"][0]["executionSuccessful"]


def test_rows_that_are_not_finite_are_wrong_and_counted(logits: np.ndarray, labels: np.ndarray) -> None:
    logits[3, 2], logits[7] = np.nan, np.inf
    checkup = check_predictions(logits, labels)
    ours = summarize(Predictions(torch.from_numpy(logits), torch.from_numpy(labels), 0.0), classes=("",) * 12)
    clean = clean_of(checkup)
    assert (clean.non_finite, clean.correct, clean.loss) == (2, ours.correct, ours.loss)
    assert any("2 of 300 rows with a NaN or an infinity count as wrong" in note for note in checkup.subject.notes)


def test_a_probability_of_zero_for_the_class_costs_a_stated_amount() -> None:
    checkup = check_predictions(np.array([[1.0, 0.0], [0.5, 0.5]]), [1, 0])
    assert clean_of(checkup).loss == pytest.approx((87.3365 + np.log(2)) / 2, rel=1e-5)
    assert any("1 of 2 samples have the probability 0" in note for note in checkup.subject.notes)


def test_predicted_classes_alone_give_no_calibration(labels: np.ndarray, logits: np.ndarray) -> None:
    predicted = logits.argmax(1)
    checkup = check_predictions(predicted, labels)
    clean = clean_of(checkup)
    assert np.array_equal(clean.confusion, confusion_matrix(labels, predicted))
    assert (clean.scored, clean.calibration, clean.top5_accuracy) == (False, (), None)
    assert np.isnan([clean.loss, clean.mean_confidence, clean.expected_calibration_error]).all()
    statuses = {verdict.rule: verdict.status for verdict in checkup.verdicts}
    assert (statuses["A103"], statuses["A104"]) == ("not run", "not run")
    page = render_page(checkup)
    assert "Only the predicted classes are known" in page
    assert not re.search(r"\bnan\b|nats|Reliability", page.partition('id="accuracy"')[2].partition('id="measured"')[0])


def test_names_and_gaps_of_predicted_classes() -> None:
    columns = {"label": ["x", "y", "y"], "prediction": ["x", None, "z"]}
    clean = clean_of(checkup := check_predictions({name: np.array(cells, object) for name, cells in columns.items()}))
    assert checkup.subject.classes == ("x", "y", "z")
    assert (clean.correct, clean.non_finite, clean.confusion[1]) == (1, 1, (0, 0, 1))
    assert any("1 of 3 rows without a prediction" in note for note in checkup.subject.notes)
    two = check_predictions({"y_true": np.array([1, 2, 2]), "y_pred": np.array([1, 2, 1])})
    assert (two.subject.classes, clean_of(two).correct) == (("1", "2"), 2)


def test_labels_that_count_from_one_are_told(logits: np.ndarray, labels: np.ndarray) -> None:
    checkup = check_predictions(logits, labels + 1)
    assert clean_of(checkup).accuracy == accuracy_score(labels, logits.argmax(1))
    assert any("count from 1" in note for note in checkup.subject.notes)
    with pytest.raises(DataError, match=r"labels\[\d+\]: expected 0\.\.11, got 12"):
        check_predictions(logits, np.where(labels == 3, 12, labels))


@pytest.mark.parametrize(
    ("classes", "given", "expected"),
    [
        (("1", "2", "3"), [1, 2, 3, 1], [0, 1, 2, 0]),
        (("1", "2", "3"), [1, 2, 1, 1], [0, 1, 0, 0]),
        (("0", "1", "2"), [1, 2, 1, 1], [1, 2, 1, 1]),
        (("7", "3", "5"), [3, 5, 7, 7], [1, 2, 0, 0]),
        (("ant", "bee", "cat"), [0, 2, 1, 1], [0, 2, 1, 1]),
        (("ant", "bee", "cat"), [1, 3, 2, 2], [0, 2, 1, 1]),
        (("ant", "bee", "cat"), ["bee", "ant", "cat", "cat"], [1, 0, 2, 2]),
    ],
)
def test_labels_are_matched_to_the_columns_by_name_where_they_have_one(classes, given, expected) -> None:
    clean = clean_of(check_predictions(5 * np.eye(3)[expected], np.array(given), classes=classes))
    assert clean.accuracy == 1


def test_a_number_that_names_no_column_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected one of 7, 3, 5, …, got 0"):
        check_predictions(5 * np.eye(3), np.array([0, 3, 5]), classes=("7", "3", "5"))


@pytest.mark.parametrize("by", ["ids", "files", "ends", "order"])
def test_rows_are_matched_to_the_data(data: ImageDataset, network: nn.Module, by: str) -> None:
    with torch.no_grad():
        logits = network(data.images / 255).numpy()
    mixed = np.random.default_rng(0).permutation(30) if by != "order" else np.arange(30)
    columns = {"logits": logits[mixed]}
    names = np.array(data.filenames, object)[mixed]
    columns |= {
        "ids": {"id": data.ids.numpy()[mixed]},
        "files": {"filename": names},
        "ends": {"path": np.array([f"/elsewhere/{name}" for name in names], object)},
        "order": {},
    }[by]
    checkup = check_predictions(columns, dataset=data)
    clean = clean_of(run_check(network, data, budget=TINY))
    assert without_times(clean_of(checkup)) == without_times(clean)
    assert clean_of(checkup).per_sample == clean.per_sample  # the same samples, by their pixels too
    assert any(f"matched by {'their order' if by == 'order' else 'id' if by == 'ids' else 'file name'}" in note
               for note in checkup.subject.notes)  # fmt: skip
    assert checkup.first(PixelRange) is not None
    mistakes = checkup.first(ConfidentMistakes)
    assert mistakes is not None
    wrong = clean.n - clean.correct
    assert (mistakes.wrong, len(mistakes.examples)) == (wrong, min(24, wrong))
    confidences = [each.confidence for each in mistakes.examples]
    assert confidences == sorted(confidences, reverse=True)
    assert "Confident mistakes" in render_page(checkup)


def test_a_part_of_the_data_is_told_and_what_does_not_fit_is_refused(data: ImageDataset) -> None:
    logits = np.random.default_rng(0).normal(size=(30, 3))
    part = check_predictions({"logits": logits[:20], "id": data.ids.numpy()[:20]}, dataset=data)
    assert (part.subject.n, part.subject.available, clean_of(part).n) == (20, 30, 20)
    assert any("10 of its 30 samples have no prediction and are left out" in note for note in part.subject.notes)
    with pytest.raises(DataError, match=r"expected 30 rows, one for each sample of zoo, .* got 29 rows"):
        check_predictions({"logits": logits[:29]}, dataset=data)
    with pytest.raises(DataError, match=r"predictions\[1\]: expected a sample of zoo, such as .* got '4'"):
        check_predictions({"logits": logits[:2], "id": np.array([5, 4])}, dataset=data)
    with pytest.raises(DataError, match=r"expected one row for each sample, got 2 for set/a/0.png"):
        names = np.array(["set/a/0.png", "a/0.png"], object)
        check_predictions({"logits": logits[:2], "file": names}, dataset=data)
    with pytest.raises(
        DataError, match=r"labels\[1\]: expected 'bee', as set/b/1.png of zoo is labelled, got 'ant' \(20 of"
    ):
        check_predictions({"logits": logits, "label": np.zeros(30, int)}, dataset=data)
    with pytest.raises(DataError, match="expected a column for each of the 3 classes of zoo"):
        check_predictions({"logits": np.zeros((30, 4))}, dataset=data)
    with pytest.raises(DataError, match="labels: a column such as label"):
        check_predictions({"logits": logits})
    with pytest.raises(ModelError, match="expected data of its classes"):
        check_predictions({"logits": logits}, dataset=data, classes=["x", "y", "z"])


def test_columns_are_matched_to_the_classes_of_the_data_by_name(data: ImageDataset) -> None:
    logits = 5 * np.eye(3)[data.labels.numpy()]
    order = [2, 0, 1]
    columns = {f"logit_{data.classes[k]}": logits[:, k] for k in order}
    columns["label"] = np.array(data.classes, object)[data.labels.numpy()]
    checkup = check_predictions(columns, dataset=data)
    assert clean_of(checkup).accuracy == 1
    assert any("in another order: matched by name" in note for note in checkup.subject.notes)
    more = {
        f"logit_{name}": values
        for name, values in zip(("x", *data.classes), [logits[:, 0] + 9, *logits.T], strict=True)
    }
    subset = check_predictions(more, dataset=data)
    assert clean_of(subset).accuracy == 1
    assert any("predictions are among these alone" in note for note in subset.subject.notes)
    over_all = check_predictions(more, dataset=data, score_over="all")
    assert (over_all.subject.classes, clean_of(over_all).correct) == (("x", "ant", "bee", "cat"), 0)
    outside = {"prediction": np.array(["x"] * 30, object)}
    with pytest.raises(DataError, match="30 of another class"):
        check_predictions(outside, dataset=data, classes=["x", *data.classes])
    wrong = check_predictions(outside, dataset=data, classes=["x", *data.classes], score_over="all")
    assert (clean_of(wrong).correct, clean_of(wrong).non_finite) == (0, 0)
    position = check_predictions(logits, dataset=data, classes=["x", "y", "z"], match_classes="position")
    assert clean_of(position).accuracy == 1
    named = np.array(["x", "y", "z"], object)[data.labels.numpy()]
    hard = check_predictions({"prediction": named}, dataset=data, classes=["x", "y", "z"], match_classes="position")
    assert clean_of(hard).accuracy == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_kept_predictions_give_the_clean_accuracy_of_the_check(
    data: ImageDataset, network: nn.Module, tmp_path: Path, suffix: str
) -> None:
    checked = run_check(network, data, budget=TINY, keep_predictions=tmp_path / f"kept{suffix}")
    alone = check_predictions(table := read_predictions(tmp_path / f"kept{suffix}"))
    assert without_times(clean_of(alone)) == without_times(clean_of(checked))
    assert alone.subject.data == ("labels in the file" if suffix == ".csv" else "zoo")
    assert clean_of(check_predictions(table, dataset=data)).per_sample == clean_of(checked).per_sample
    versus = compare([checked, alone], names=["model", "file"]).versus[0]
    (difference,) = versus.differences
    assert (difference.paired, difference.n, difference.lost, difference.gained) == (True, 30, 0, 0)
    assert "no pictures to compare" in difference.note
    assert versus.regressions == ()
    assert any("rules: predictions alone cannot be judged by them" in each for each in versus.left_out)


def test_a_resumed_check_keeps_predictions_too(data: ImageDataset, network: nn.Module, tmp_path: Path) -> None:
    def stop(name: str, place: int, total: int) -> None:
        if place == 5:
            raise KeyboardInterrupt

    options = {"budget": TINY, "folder": tmp_path, "keep_predictions": tmp_path / "kept.npz"}
    with pytest.raises(KeyboardInterrupt):
        run_check(network, data, on_stage=stop, **options)
    assert not (tmp_path / "kept.npz").exists()
    checked = run_check(network, data, resume=True, **options)
    assert clean_of(check_predictions(read_predictions(tmp_path / "kept.npz"))).correct == clean_of(checked).correct


def test_other_columns_stay_with_their_samples(data: ImageDataset) -> None:
    logits = np.random.default_rng(0).normal(size=(30, 3))
    mixed = np.random.default_rng(1).permutation(30)
    sites = np.array([f"site {i % 4}" for i in range(30)], object)
    columns = {"logits": logits, "label": np.arange(30) % 3, "id": data.ids.numpy(), "site": sites}
    columns = {name: cells[mixed] for name, cells in columns.items()} | {"embedding": np.zeros((30, 7))}
    for dataset in (None, data):
        checkup = check_predictions(columns, dataset=dataset)
        kept = checkup.first(SampleTable)
        assert kept is not None
        assert [column.name for column in kept.columns] == ["site"]
        assert kept.columns[0].unpack() == sites.tolist()  # in the order of the ids
        assert kept.samples == clean_of(checkup).per_sample.samples
        assert any("1 column kept as metadata: site" in note for note in checkup.subject.notes)
        assert any("not used: embedding" in note for note in checkup.subject.notes)


def test_two_files_are_paired_by_what_they_name_whatever_their_order(logits: np.ndarray, labels: np.ndarray) -> None:
    other = logits + np.random.default_rng(3).normal(size=logits.shape)
    names = np.array([f"{i}.png" for i in range(300)], object)
    mixed = np.random.default_rng(4).permutation(300)
    lost = int(((logits.argmax(1) == labels) & (other.argmax(1) != labels)).sum())
    for name, ids in (("filename", names), ("id", np.arange(300) + 7)):
        one = check_predictions({"logits": logits, name: ids, "label": labels})
        two = check_predictions({"logits": other[mixed], name: ids[mixed], "label": labels[mixed]})
        comparison = compare([one, two], names=["a", "b"])
        (difference,) = comparison.versus[0].differences
        assert (difference.paired, difference.lost) == (True, lost)
        assert render_comparison(comparison)
        elsewhere = ids + 1 if name == "id" else np.array([f"x{each}" for each in ids], object)
        strange = check_predictions({"logits": other, name: elsewhere, "label": labels})
        versus = compare([one, strange]).versus[0]
        assert not versus.differences[0].paired
        assert "other ids or labels" in versus.unpaired[0]
    shuffled = check_predictions({"logits": other[mixed], "label": labels[mixed]})  # rows alone, in another order
    assert not compare([check_predictions(logits, labels), shuffled]).versus[0].differences[0].paired


def test_predictions_for_other_samples_are_another_history(logits: np.ndarray, labels: np.ndarray) -> None:
    checkups = {
        name: check_predictions(scale * logits[:n], labels[:n], name=name)
        for name, n, scale in (("first", 300, 1.0), ("other", 200, 1.0), ("second", 300, 2.0))
    }
    history = trace_history(checkups, folder="checks")
    assert [[entry.model for entry in track.entries] for track in history.tracks] == [["first", "second"], ["other"]]


def test_predictions_beside_scores_are_compared_with_them(logits: np.ndarray, labels: np.ndarray) -> None:
    predicted = logits.argmax(1)
    columns = {"logits": logits, "label": labels, "y_pred": predicted}
    assert not any("largest score" in note for note in check_predictions(columns).subject.notes)
    few = np.where(np.arange(300) < 9, (predicted + 1) % 12, predicted)
    checkup = check_predictions(columns | {"y_pred": few})
    assert any("9 of 300 predictions are not the class of the largest score" in note for note in checkup.subject.notes)
    assert clean_of(checkup).accuracy == accuracy_score(labels, predicted)
    with pytest.raises(DataError, match="predictions: expected the class of the largest score, got another one in 300"):
        check_predictions(columns | {"y_pred": (predicted + 1) % 12})
    with pytest.raises(DataError, match=r"expected 0\.\.1, got"):  # two columns of something else
        check_predictions({"label": labels % 2, "pred": predicted, "score_f1": logits[:, 0], "score_iou": logits[:, 1]})


def test_data_frames_and_series_are_taken(logits: np.ndarray, labels: np.ndarray, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    expected = accuracy_score(labels, logits.argmax(1))
    lists = pandas.DataFrame({"image_id": [f"{i}.png" for i in range(300)], "target": labels, "logits": list(logits)})
    assert clean_of(check_predictions(lists)).accuracy == expected
    wide = pandas.DataFrame(logits, columns=[f"class {k}" for k in range(12)])
    assert clean_of(check_predictions(wide.add_prefix("logit_"), pandas.Series(labels))).accuracy == expected
    assert clean_of(check_predictions(pandas.Series(logits.argmax(1)), pandas.Series(labels))).accuracy == expected
    mixed = (
        pandas.DataFrame(logits)
        .add_prefix("logit_")
        .assign(y=pandas.Categorical(labels))
        .sample(frac=1, random_state=0)
    )
    mixed.to_parquet(tmp_path / "p.parquet")
    checkup = check_predictions(read_predictions(tmp_path / "p.parquet"))
    assert clean_of(checkup).accuracy == expected
    assert any("the index, which has no name, is not used" in note for note in checkup.subject.notes)
    with pytest.raises(DataError, match="logits: expected rows of one length"):
        check_predictions({"logits": [np.zeros(2), np.zeros(3)], "label": [0, 1]})


def test_wrong_arguments_are_named(logits: np.ndarray, labels: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", logits=logits, labels=labels)
    table = read_predictions(tmp_path / "p.npz")
    with pytest.raises(OptionError, match="labels: expected none beside a table"):
        check_predictions(table, labels)
    with pytest.raises(OptionError, match="classes: expected a name for each of 12 columns, got 2 names"):
        check_predictions(table, classes=["a", "b"])
    assert check_predictions(table, classes=[f"class {k}" for k in range(12)]).subject.classes[3] == "class 3"
    with pytest.raises(DataError, match="predictions: expected an array"):
        check_predictions(np.zeros((2, 2, 2)), [0, 1])
    with pytest.raises(DataError, match=r"label of 299|labels of 299"):
        check_predictions(logits, labels[:299])
