"""Predictions as people write them: which columns are what, and whether the numbers are logits or probabilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from assay.data.dataset import ImageDataset
from assay.data.keeping import write_predictions
from assay.data.predictions import PredictionTable, read_predictions
from assay.errors import DataError, OptionError

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25], [0.3, 0.3, 0.4]])
LABELS = [0, 2, 1, 0]

Read = Callable[..., PredictionTable]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a text, arrays or a table of arrow, and read it again."""

    def write_and_read(content: object, *, suffix: str = ".csv", encoding: str = "utf-8", **options) -> PredictionTable:
        path = tmp_path / f"p{suffix}"
        if isinstance(content, str):
            path.write_text(content, encoding=encoding)
        elif isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            np.savez(path, **content)
        return read_predictions(path, **options)

    return write_and_read


def rows(header: str, values: np.ndarray, *, labels: list | None = None) -> str:
    lines = [",".join(map(str, [*row, *([] if labels is None else [labels[i]])])) for i, row in enumerate(values)]
    return "\n".join([header, *lines]) + "\n"


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).double().softmax(dim=1).numpy()


@pytest.mark.parametrize(
    "header",
    ["prob_0,prob_1,prob_2,y", "0,1,2,target", "y_prob_0,y_prob_1,y_prob_2,y_true", "Prob 0,Prob 1,Prob 2,Label",
     "p(0),p(1),p(2),class", "probs.0,probs.1,probs.2,ground-truth", "class_0,class_1,class_2,labels",
     "prob0,prob1,prob2,label"],
)  # fmt: skip
def test_one_column_a_class_under_the_names_that_people_use(read: Read, header: str) -> None:
    table = read(rows(header, P, labels=LABELS))
    assert table.classes == ("0", "1", "2")
    assert table.kind == "probabilities"
    assert np.allclose(softmax(table.logits), P)
    assert [int(label) for label in table.labels] == LABELS


def test_columns_of_numbers_are_in_the_order_of_the_numbers(read: Read) -> None:
    header = ",".join(f"logit_{k}" for k in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9))
    values = np.arange(11)[None, :] * [[1.0], [2.0]]
    table = read(rows(f"{header},label", values, labels=[0, 1]))
    assert table.classes == tuple(map(str, range(11)))
    assert table.logits[0].tolist() == [2.0, 3.0, 1.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 0.0]


def test_columns_called_like_the_labels(read: Read) -> None:
    table = read(
        rows("cat,dog,bird,age,truth", np.column_stack([P, [30, 40, 50, 60]]), labels=["cat", "bird", "dog", "dog"])
    )
    assert (table.classes, table.kind) == (("cat", "dog", "bird"), "probabilities")
    assert any("age" in note for note in table.notes)


def test_an_index_without_a_name_is_not_a_class(read: Read) -> None:
    text = rows("0,1,2,y_true", P, labels=LABELS).splitlines()
    numbered = "\n".join([f",{text[0]}", *(f"{i},{line}" for i, line in enumerate(text[1:]))])
    table = read(numbered)
    assert table.logits.shape == (4, 3)
    assert any("index" in note for note in table.notes)


@pytest.mark.parametrize(
    ("values", "name", "kind", "said"),
    [
        (P, "probs", "probabilities", ""),
        (P, "logits", "probabilities", "taken as probabilities"),
        (P, "scores", "probabilities", "taken as probabilities"),
        (np.log(P), "log_probs", "log-probabilities", ""),
        (np.log(P), "probabilities", "log-probabilities", "logarithms"),
        (np.log(P), "logits", "logits", "logarithms"),
        (5 * np.log(P), "logits", "logits", ""),
        (5 * np.log(P), "outputs", "logits", "taken as logits"),
        (np.round(P * 3) / 3 + 0.0, "probs", None, "sum"),
    ],
)
def test_logits_or_probabilities_by_name_and_by_value(read: Read, values, name, kind, said) -> None:
    arrays = {name: values, "labels": np.array(LABELS)}
    if kind is None:
        with pytest.raises(DataError, match="expected numbers ≥ 0 that sum to 1"):
            read(arrays, suffix=".npz")
        return
    table = read(arrays, suffix=".npz")
    assert table.kind == kind
    expected = softmax(values) if np.array_equal(values, 5 * np.log(P)) else P
    assert np.allclose(softmax(table.logits), expected)
    assert bool(table.notes) == bool(said)
    assert said in " ".join(table.notes)


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (100 * P, "scores", "divide percentages by 100"),
        (100 * P, "probs", "percentages have to be divided by 100"),
        (0.5 * P, "scores", "call them logits"),
        (P - 0.2, "probs", "expected numbers ≥ 0 that sum to 1, got -0.1"),
        (np.array([["a", "b"]] * 4), "scores", "numbers|columns"),
        (P[:, :0], "logits", "at least two classes"),
        (P[:, :1] + 1, "probs", "probabilities of the second class"),
    ],
)
def test_numbers_that_contradict_themselves_are_refused(read: Read, values, name, message) -> None:
    with pytest.raises(DataError, match=message):
        read({name: values, "labels": np.array(LABELS)}, suffix=".npz")


def test_half_precision_and_the_probability_zero(read: Read) -> None:
    table = read({"probs": np.array([[1, 0], [0.5, 0.5]], np.float16), "label": np.array([1, 0])}, suffix=".npz")
    assert np.isfinite(table.logits).all()
    assert np.allclose(softmax(table.logits), [[1, 0], [0.5, 0.5]])
    single = read({"logits": np.array([[1.5, -3], [0.1, 0.2]], np.float16), "y": np.array([1, 0])}, suffix=".npz")
    assert single.logits.dtype == np.float32
    assert np.array_equal(single.logits, np.array([[1.5, -3], [0.1, 0.2]], np.float16))


def test_rounded_probabilities_are_normalised_and_that_is_said(read: Read) -> None:
    table = read(rows("prob_a,prob_b,label", np.array([[0.667, 0.329], [0.5, 0.5]]), labels=["a", "b"]))
    assert any("divided by its sum" in note for note in table.notes)
    assert np.allclose(softmax(table.logits)[0], [0.667 / 0.996, 0.329 / 0.996])


@pytest.mark.parametrize("kind", ["list", "large", "fixed", "half", "text"])
def test_lists_in_a_column(read: Read, kind: str) -> None:
    logits = (4 * np.log(P)).astype(np.float16 if kind == "half" else np.float64)
    if kind == "text":
        lines = [f'"{row.tolist()}",{label}' for row, label in zip(logits, LABELS, strict=True)]
        table = read("\n".join(["logits,label", *lines]))
    else:
        value = pa.float16() if kind == "half" else pa.float64()
        types = {
            "list": pa.list_(value),
            "large": pa.large_list(value),
            "fixed": pa.list_(value, 3),
            "half": pa.list_(value),
        }
        table = read(pa.table({"logits": pa.array(list(logits), types[kind]), "label": LABELS}), suffix=".parquet")
    assert np.array_equal(table.logits, logits)


def test_one_probability_of_the_second_class(read: Read) -> None:
    table = read("label,prob\nno,0.1\nyes,0.6\n")
    assert np.allclose(softmax(table.logits), [[0.9, 0.1], [0.4, 0.6]])
    column = read({"predictions": np.array([[0.1], [0.6]]), "y": np.array([0, 1])}, suffix=".npz")  # as Keras has it
    assert np.allclose(softmax(column.logits), [[0.9, 0.1], [0.4, 0.6]])
    score = read("label,decision,score\n0,x,-2.5\n1,y,3\n")
    assert score.logits.tolist() == [[0, -2.5], [0, 3]]
    with pytest.raises(DataError, match=r"0\.\.1, got 1\.5"):
        read("label,prob\n0,0.1\n1,1.5\n")


def test_a_confidence_beside_predictions_is_no_probability_of_the_second_class(read: Read) -> None:
    table = read("label,pred,prob\n0,0,0.9\n1,1,0.8\n0,1,0.7\n")
    assert table.logits is None
    assert any("not used" in note for note in table.notes)
    fitting = read("label,pred,prob\n0,0,0.1\n1,1,0.8\n0,1,0.7\n")
    assert fitting.logits is not None


def test_predicted_classes_alone(read: Read) -> None:
    table = read("filename,label,prediction\na,cat,cat\nb,dog,\nc,dog,cat\n")
    assert table.logits is None
    assert table.predicted.tolist() == ["cat", "", "cat"]
    numbers = read("y_true,y_pred\n0,1\n1,\n1,1\n")
    assert numbers.predicted.tolist() == [1, -1, 1]


def test_text_keeps_its_zeros_and_files_may_be_in_any_encoding(read: Read) -> None:
    table = read("id\tlabel\tpred\n007\t001\t010\n8\t010\t001\n", suffix=".tsv", encoding="utf-16")
    assert table.labels.tolist() == ["001", "010"]
    assert table.ids.tolist() == [7, 8]
    marked = read("id;label;logit_ä;logit_b\r\n1;ä;0.5;2\r\n2;b;-1;3\r\n", encoding="utf-8-sig")
    assert marked.classes == ("ä", "b")
    assert marked.logits.tolist() == [[0.5, 2], [-1, 3]]


def test_whole_numbers_written_as_floats_are_class_numbers(read: Read) -> None:
    table = read("label,pred\n1.0,0.0\n0.0,\n1.0,1.0\n")
    assert (table.labels.tolist(), table.predicted.tolist()) == ([1, 0, 1], [0, -1, 1])
    assert read("label,1.5,2.5\n1.5,0.9,0.1\n2.5,0.2,0.8\n").labels.tolist() == ["1.5", "2.5"]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("label,pred\n-1,-1\n1,1\n1,-1\n-1,-1\n", ("-1", "1")),
        ("label,score\n-1.0,-0.3\n1.0,2.1\n1.0,-1\n-1.0,-1\n", ("-1", "1")),
        ("label,prob_no,prob_yes\n-1,.7,.3\n1,.2,.8\n1,.6,.4\n-1,.9,.1\n", ("no", "yes")),
    ],
)
def test_labels_of_minus_one_and_one_are_two_classes(read: Read, text: str, classes: tuple[str, str]) -> None:
    table = read(text)
    assert table.labels.tolist() == [0, 1, 1, 0]
    assert table.classes == classes
    predicted = table.predicted if table.logits is None else table.logits.argmax(axis=1)
    assert predicted.tolist() == [0, 1, 0, 0]
    assert any(f"the labels are -1 and 1: taken for the classes {' and '.join(classes)}" in n for n in table.notes)


@pytest.mark.parametrize(
    "text",
    [
        "label,pred\n-1,1\n1,\n1,-1\n",
        "label,pred\n-1,0\n1,1\n",
        "label,logit_0,logit_1,logit_2\n-1,1,2,3\n1,1,2,5\n",
        "label,pred\n-1,1\n-1,1\n",
    ],
    ids=["a missing prediction", "another number", "three columns", "no sample has a label"],
)
def test_minus_one_is_no_class_where_it_may_be_a_missing_label(read: Read, text: str) -> None:
    assert -1 in read(text).labels.tolist()


def test_other_files(read: Read, tmp_path: Path) -> None:
    lines = '{"label": "x", "logits": [1, 2.5]}\n{"label": "y", "logits": [-1, 2]}\n'
    assert read(lines, suffix=".jsonl").logits.tolist() == [[1, 2.5], [-1, 2]]
    lines = '{"label": "x", "probs": {"x": 0.25, "y": 0.75}}\n{"label": "y", "probs": {"x": 1.0, "y": 0.0}}\n'
    assert read(lines, suffix=".jsonl").classes == ("x", "y")
    assert read("# label,logit_0,logit_1\n0,1,2\n").labels.tolist() == ["0"]
    bare = read("\n".join(",".join(map(str, row)) for row in P))
    assert np.allclose(softmax(bare.logits), P)
    assert bare.labels is None
    assert any("no header" in note for note in bare.notes)
    np.save(tmp_path / "p.npy", P)
    assert np.allclose(softmax(read_predictions(tmp_path / "p.npy").logits), P)
    np.savez(tmp_path / "q.npz", 3 * P, np.array(LABELS))
    positional = read_predictions(tmp_path / "q.npz")
    assert positional.labels.tolist() == LABELS
    named = read({"logits": 3 * P, "labels": np.array(LABELS), "classes": np.array(["a", "b", "c"])}, suffix=".npz")
    assert named.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p\.csv: expected a header and rows, got an empty file"),
        ("label,logit_0,logit_1\n", "expected at least one row, got none"),
        ("label,age\n0,30\n", "expected logits, probabilities .* got columns label, age"),
        ("label,logit_0,logit_0\n0,1,2\n", "expected distinct names, got 'logit_0' twice"),
        (
            "id,label,logit_0,logit_1\n5,0,1,2\n5,1,2,1\n",
            r"id\[1\]: expected a different one in every row, got '5' again",
        ),
        ("id,label,logit_0,logit_1\n5,0,1,2\n,1,2,1\n", r"id\[1\]: expected the id of a sample, got none"),
        ("label,logit_0,logit_1\n0,1,2\n,2,1\n", r"label\[1\]: expected a label, got none"),
        ("label,logit_0,logit_1\n0,1\n", "CSV parse error"),
        ("label,logit_0,logit_1\n0.5,1,2\n1.0,1,2\n", r"label\[0\]: expected a class number or a class name, got 0\.5"),
        ("label,logit_0,logit_1\n1.0,1,2\n,1,2\n", r"label\[1\]: expected a class number or a class name, got nan"),
        ('label,logits\n0,"[1 2 ... 3 4]"\n', "cut off"),
        ("label,logit_0,logit_1,logit_2\n0,1,2,3\n1,1,x,2\n", r"logit_1\[1\]: expected a number, got 'x'"),
        ("label,logit_0,logit_1,logit_2\n0,1,,3\n1,1,,2\n", r"logit_1: expected numbers, got none"),
        ('label,logits\n0,"[1, 2]"\n1,"[1, 2, 3]"\n', "expected lists of one length"),
    ],
)
def test_bad_text_is_refused_in_one_line(read: Read, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        read(text)
    assert "\n" not in str(refused.value)


def test_bad_files_are_refused_in_one_line(read: Read, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a pickle is not read"):
        read_predictions(tmp_path / "p.pt")
    with pytest.raises(DataError, match="got nothing"):
        read_predictions(tmp_path / "absent.csv")
    for suffix in (".parquet", ".npz", ".jsonl"):
        with pytest.raises(DataError):
            read("not what it says", suffix=suffix)
    with pytest.raises(DataError, match=r"labels of 2"):
        read({"logits": P, "labels": np.array([0, 1])}, suffix=".npz")
    with pytest.raises(DataError, match="2 names for 3 columns"):
        read({"logits": 3 * P, "labels": np.array(LABELS)}, suffix=".npz", classes=["a", "b"])
    with pytest.raises(DataError, match="only unpickling can read"):
        read({"logits": np.array([[1, None]], object)}, suffix=".npz")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    classes = ("a b", 'ü,"x"', "c")
    data = ImageDataset(images, torch.tensor([0, 1, 2, 2, 0]), classes, ids=torch.tensor([9, 3, 5, 4, 1]),
                        filenames=("z.png", "y/ä.png", "x", "w", "v"))  # fmt: skip
    logits = torch.randn(5, 3) * 1e-3
    logits[1, 0] = float("nan")
    write_predictions(tmp_path / f"p{suffix}", logits, data, model="net")
    table = read_predictions(tmp_path / f"p{suffix}")
    assert table.logits.dtype == np.float32
    assert np.array_equal(table.logits, logits.numpy(), equal_nan=True)
    assert (table.classes, table.filenames, table.kind) == (classes, data.filenames, "logits")
    assert table.ids.tolist() == data.ids.tolist()
    labels = [classes.index(label) if isinstance(label, str) else label for label in table.labels.tolist()]
    assert labels == data.labels.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [f"p{suffix}"]


def test_a_file_that_cannot_be_written_is_refused_before(tmp_path: Path) -> None:
    data = ImageDataset(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    for name, message in (("p.txt", r"\.csv, \.parquet or \.npz"), ("none/p.csv", "no folder")):
        with pytest.raises(OptionError, match=message):
            write_predictions(tmp_path / name, torch.zeros(2, 2), data, model="net")


def test_names_of_classes_that_repeat_are_numbers_in_a_csv(tmp_path: Path) -> None:
    data = ImageDataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2]), ("crane", "dog", "crane"))
    write_predictions(tmp_path / "p.csv", torch.eye(3), data, model="net")
    table = read_predictions(tmp_path / "p.csv")
    assert (table.classes, table.labels.tolist()) == (("0", "1", "2"), ["0", "1", "2"])
