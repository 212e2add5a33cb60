"""The evaluation loop, against counts made by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score
from torch import Tensor, nn

from assay import evaluate
from assay.data.dataset import Batch, ImageDataset
from assay.errors import ModelError
from assay.evaluate import Predictions, measure_clean_accuracy, predict, predict_shared, summarize
from threads_as_processes import run_in_threads


class Lookup(nn.Module):
    """Logits read off the first pixel: sample i carries i in its first byte."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.table[(images[:, 0, 0, 0] * 255).round().long()] + self.anchor


def numbered(labels: Tensor, classes: int) -> ImageDataset:
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(labels))
    return ImageDataset(images, labels, tuple(f"c{k}" for k in range(classes)))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 200), k=st.integers(2, 12), seed=st.integers(0, 99), batch=st.integers(1, 64))
def test_counts_agree_with_scikit_learn(n: int, k: int, seed: int, batch: int) -> None:
    torch.manual_seed(seed)
    table, labels = torch.randn(n, k) * 3, torch.randint(0, k, (n,))
    record = measure_clean_accuracy(Lookup(table), numbered(labels, k), batch_size=batch)
    predicted = table.argmax(dim=1)
    assert record.n == n
    assert record.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert np.array_equal(record.confusion, confusion_matrix(labels, predicted, labels=range(k)))
    assert record.loss == pytest.approx(log_loss(labels, table.double().softmax(1), labels=range(k)), rel=1e-4)
    recall = recall_score(labels, predicted, labels=range(k), average=None, zero_division=0.0)
    assert [group.accuracy for group in record.per_class] == pytest.approx(list(recall))


def test_calibration_error_by_hand() -> None:
    # Two bins: 4 samples at confidence 0.9 of which 2 are right, 1 sample at confidence 0.6, right.
    probabilities = torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
    predictions = Predictions(probabilities.log(), torch.tensor([0, 0, 1, 1, 0]), seconds=1.0)
    record = summarize(predictions, classes=("a", "b"))
    assert record.expected_calibration_error == pytest.approx(0.8 * 0.4 + 0.2 * 0.4, abs=1e-6)
    assert [b.n for b in record.calibration] == [1, 4]


def test_a_perfectly_calibrated_model_has_no_calibration_error() -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(100_000, 1) / 2 + 0.5
    table = torch.cat([probabilities, 1 - probabilities], dim=1)
    labels = (torch.rand(len(table)) > table[:, 0]).long()
    record = summarize(Predictions(table.log(), labels, 1.0), classes=("a", "b"))
    assert record.expected_calibration_error < 0.01


def test_samples_with_non_finite_logits_are_wrong_and_counted() -> None:
    table = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [float("inf"), 0.0]])
    record = measure_clean_accuracy(Lookup(table), numbered(torch.tensor([0, 0, 0]), 2))
    assert (record.correct, record.n, record.non_finite) == (1, 3, 2)
    assert np.isfinite(record.loss)


def test_batch_size_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3))
    data = ImageDataset(
        torch.randint(0, 256, (37, 1, 6, 6), dtype=torch.uint8), torch.randint(0, 3, (37,)), tuple("abc")
    )
    one = predict(model, data, batch_size=1).logits
    assert torch.allclose(one, predict(model, data, batch_size=16).logits, atol=1e-6)
    assert model.training


def test_a_model_that_views_rows_is_served_in_the_layout_it_can_take() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)
            self.head = nn.Linear(32, 2)

        def forward(self, images: Tensor) -> Tensor:
            images.view(len(images), -1)  # refuses channels_last
            return self.head(self.conv(images).flatten(1))

    data = ImageDataset(torch.zeros(4, 3, 6, 6, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    assert predict(Rows(), data).logits.shape == (4, 2)


def test_a_transform_sees_bytes_and_ids() -> None:
    seen: list[Batch] = []

    def invert(batch: Batch) -> Tensor:
        seen.append(batch)
        return 255 - batch.images

    data = numbered(torch.tensor([0, 1, 1]), 2)
    table = torch.zeros(256, 2)
    table[255, 0] = table[254, 1] = table[253, 1] = 1
    assert predict(Lookup(table), data, transform=invert).correct.all()
    assert seen[0].images.dtype == torch.uint8
    assert seen[0].ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), r"logits \(N, 2\).*got torch.float32 \(2, 5\)", id="width"
        ),
        pytest.param(nn.Identity(), r"got torch.float32 \(2, 1, 2, 2\)", id="shape"),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 2, 1)), r"takes images of shape \(N, 1, 2, 2\), got RuntimeError", id="refuses"
        ),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_one_line(model: nn.Module, message: str) -> None:
    data = ImageDataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("a", "b"))
    with pytest.raises(ModelError, match=message) as caught:
        predict(model, data)
    assert "\n" not in str(caught.value)


def test_a_model_that_loses_the_batch_dimension_of_one_image_is_given_more_rows() -> None:
    class Squeezes(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2].squeeze(0)

    images = torch.arange(20, dtype=torch.uint8).reshape(5, 1, 2, 2)
    data = ImageDataset(images, torch.zeros(5, dtype=torch.int64), ("a", "b"), name="made")
    for n, batch_size in ((5, 2), (1, 250), (5, 4)):
        logits = predict(Squeezes(), data.subset(torch.arange(n)), batch_size=batch_size).logits
        assert torch.equal(logits, images[:n].flatten(1)[:, :2] / 255)


@pytest.mark.parametrize("count", [2, 5])
def test_processes_share_the_batches_of_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "BATCH_SIZE", 7)
    seen: list[list[int]] = []

    class Network(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((images[:, 0, 0, 0] * 255).round().int().tolist())
            return images.flatten(1)[:, :3] + len(images)  # a network that tells how large its batch was

    images = torch.arange(25, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    data = ImageDataset(images, torch.arange(25) % 3, ("a", "b", "c"))
    expected = predict(Network(), data, batch_size=7)
    alone = {tuple(batch) for batch in seen if len(batch) > 2}
    seen.clear()
    for outputs in run_in_threads(count, lambda processes: predict_shared(Network(), data, processes)):
        assert torch.equal(outputs.logits, expected.logits)
        assert torch.equal(outputs.labels, data.labels)
    batches = [tuple(batch) for batch in seen if len(batch) > 2]
    assert set(batches) == alone
    assert len(batches) == 4, "each batch once"
