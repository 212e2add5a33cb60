from __future__ import annotations

import math

import pytest
import torch

from assay.data.dataset import ImageDataset
from assay.data.sequences import TEST, TRAIN, adding_problem, copy_memory, image_rows
from assay.errors import OptionError


@pytest.mark.parametrize("length", [2, 3, 50])
def test_adding_marks_one_value_in_each_half(length: int) -> None:
    x, y = adding_problem(length).draw(400, TEST, 0)
    marks = x[..., 1]
    assert x.shape == (400, length, 2)
    assert torch.equal(marks[:, : length // 2].sum(1), torch.ones(400))
    assert torch.equal(marks[:, length // 2 :].sum(1), torch.ones(400))
    torch.testing.assert_close((x[..., 0] * marks).sum(1), y)


def test_adding_baseline_is_the_loss_of_always_answering_one() -> None:
    task = adding_problem(20)
    _, y = task.draw(200_000, TEST, 0)
    assert float(task.loss(torch.ones(200_000, 1), y)) == pytest.approx(task.baseline, rel=0.02)
    assert task.baseline == 1 / 6


def test_copy_asks_for_what_came_first() -> None:
    task = copy_memory(5)
    x, y = task.draw(30, TRAIN, 3)
    tokens = x.argmax(2)
    assert x.shape == (30, 25, 10)
    assert task.length == 25
    assert torch.equal(y[:, -10:], tokens[:, :10])
    assert bool((tokens[:, :10] < 8).all())
    assert bool((y[:, :-10] == 8).all())
    assert torch.equal(tokens[:, 14], torch.full((30,), 9))  # the signal comes right before the answer is due


def test_copy_baseline_is_the_loss_of_guessing_the_symbols() -> None:
    task = copy_memory(30)
    _, y = task.draw(500, TEST, 0)
    logits = torch.full((500, task.length, 9), -40.0)
    logits[:, :-10, 8] = 0
    logits[:, -10:, :8] = 0
    assert float(task.loss(logits, y)) == pytest.approx(10 * math.log(8) / 50, rel=1e-5)
    assert task.baseline == pytest.approx(10 * math.log(8) / 50)


def test_batches_follow_from_seed_stream_and_step_alone() -> None:
    def draw(seed: int, stream: int, step: int) -> torch.Tensor:
        return adding_problem(10, seed=seed).draw(4, stream, step)[0]

    assert torch.equal(draw(0, TRAIN, 5), draw(0, TRAIN, 5))
    for other in ((1, TRAIN, 5), (0, TEST, 5), (0, TRAIN, 6)):
        assert not torch.equal(draw(0, TRAIN, 5), draw(*other))


@pytest.mark.parametrize(("by", "shape"), [("row", (4, 6)), ("pixel", (8, 3))])
def test_images_become_sequences_in_reading_order(by: str, shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (6, 3, 4, 2), dtype=torch.uint8)
    task = image_rows(ImageDataset(images, torch.arange(6) % 2, ("a", "b")), by=by)
    assert (task.length, task.features, task.outputs) == (*shape, 2)
    assert task.baseline == pytest.approx(math.log(2))
    x, _ = task.draw(50, TRAIN, 0)
    expected = (2 * images.float() / 255 - 1).permute(0, 2, 3, 1).reshape(6, *shape)
    assert all(any(torch.allclose(row, e) for e in expected) for row in x)
    smaller = image_rows(ImageDataset(images[:, :, :2], torch.arange(6) % 2, ("a", "b")), by="pixel", side=1)
    assert smaller.length == 1


def test_bad_input_is_one_line() -> None:
    with pytest.raises(OptionError, match="length: expected at least 2 steps, got 1"):
        adding_problem(1)
    with pytest.raises(OptionError, match="length: expected at least 1 steps, got 0"):
        copy_memory(0)
