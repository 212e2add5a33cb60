"""What of a model's output is its logits: tensors, objects, dicts, tuples, and one output for two classes."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import assay
from assay.data import ImageDataset
from assay.errors import ModelError
from assay.models.calls import calling, copied
from assay.models.classes import MatchedClasses
from assay.models.outputs import read_outputs

IMAGES = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
GoogLeNetLike = namedtuple("GoogLeNetLike", ["logits", "aux_logits2", "aux_logits1"])


@dataclass
class Output:
    hidden: Tensor
    logits: Tensor


class Scores(NamedTuple):
    scores: Tensor
    embedding: Tensor


class Net(nn.Module):
    """A linear classifier of ``width`` outputs that returns what ``change`` makes of its logits."""

    def __init__(self, change: Callable[[Tensor], object] | None = None, width: int = 5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc = nn.Linear(48, width)
        self.change = change

    def forward(self, x: Tensor) -> object:
        z = self.fc(x.flatten(1))
        return z if self.change is None else self.change(z)


def call(model: nn.Module, classes: object = 5) -> tuple[Tensor, tuple[str, ...]]:
    with calling(model, IMAGES, classes=classes) as network, torch.no_grad():  # type: ignore[arg-type]
        return network(IMAGES), network.notes


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda z: {"h": z[:, :2], "logits": z}, None),
        (lambda z: OrderedDict(loss=z.mean(), logits=z), None),
        (lambda z: SimpleNamespace(logits=z), None),
        (lambda z: Output(z[:, :2], z), None),
        (lambda z: (z,), "returns a tuple: its first tensor is taken as the logits"),
        (lambda z: [z, z[:, :1]], "returns a list: its first tensor is taken as the logits"),
        (lambda z: (None, z, z * 2), "returns a tuple: its first tensor is taken as the logits"),
        (lambda z: Scores(z, z[:, :3]), "returns a Scores: its first tensor, scores, is taken as the logits"),
        (lambda z: GoogLeNetLike(z, None, None), None),
        (lambda z: z.half(), None),
    ],
)
def test_the_logits_are_found_in_what_a_model_returns(change: Callable[[Tensor], object], note: str | None) -> None:
    logits, notes = call(Net(change))
    torch.testing.assert_close(logits, call(Net())[0], rtol=0, atol=0 if logits is None else 1e-3)
    assert notes == (() if note is None else (f"the model {note}",))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda z: (z[:, :3], z), "tuple, of which 1 would fit: let forward return that alone"),
        (lambda z: (z.argmax(1), z), "tuple, of which 1 would fit: let forward return that alone"),
        (lambda z: {"out": z}, "dict, of which 'out' would fit: let forward return that alone"),
        (lambda z: {"a": z, "b": z}, "dict, of which 'a' and 'b' would fit: let forward return that alone"),
        (lambda z: {"logits": z[:, :3]}, r"dict, of which 'logits' is torch.float32 \(2, 3\) for 2 images"),
        (lambda z: SimpleNamespace(scores=z), "SimpleNamespace, of which 'scores' would fit: .*"),
        (lambda z: (), "tuple"),
        (lambda z: z.repeat(1, 2), r"torch.float32 \(2, 10\) for 2 images; where the data have some .* name all .*"),
        (lambda z: z[:, 0], r"torch.float32 \(2,\) for 2 images"),
        (lambda z: z[:, :, None, None], r"torch.float32 \(2, 5, 1, 1\) for 2 images"),
    ],
)
def test_what_could_be_something_else_is_refused_with_what_would_fit(
    change: Callable[[Tensor], object], got: str
) -> None:
    with pytest.raises(ModelError, match=rf"^model output: expected one tensor of logits \(N, 5\), .*, got {got}$"):
        call(Net(change))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["(N,)", "(N, 1)"])
@pytest.mark.parametrize(
    ("ending", "kind", "columns"),
    [
        (lambda z: z, "logit", lambda z: (0 * z, z)),
        (lambda z: z.half(), "logit", lambda z: (0 * z, z)),
        (torch.sigmoid, "probability", lambda z: (1 - z.sigmoid(), z.sigmoid())),
        (lambda z: z.sigmoid().clamp(1e-3, 0.999).float(), "probability", lambda z: (1 - z.sigmoid(), z.sigmoid())),
        (lambda z: torch.cat([0 * z, z], 1).softmax(1)[:, 1:], "probability", lambda z: (1 - z.sigmoid(), z.sigmoid())),
        (F.logsigmoid, "log-probability", lambda z: (F.logsigmoid(-z), F.logsigmoid(z))),
    ],
)
def test_one_output_of_two_classes_becomes_two_columns(
    shape: tuple[int, ...],
    ending: Callable[[Tensor], Tensor],
    kind: str,
    columns: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    logits, notes = call(Net(lambda z: ending(z).reshape(shape), width=1), classes=("cat", "dog"))
    z = Net(width=1)(IMAGES)[:, 0].detach()  # type: ignore[index]
    torch.testing.assert_close(logits, torch.stack(columns(z), dim=1), rtol=1e-3, atol=1e-3)
    assert logits.dtype == torch.float32
    assert notes[0].startswith(f"the model has one output, taken as the {kind} of class 1 (dog)")


def test_a_logit_that_looks_like_a_probability_is_said_to() -> None:
    _, (note,) = call(Net(lambda z: 1 / (1 + (-z).exp()), width=1), classes=2)
    assert note.endswith("the logit of class 1, though it lies between 0 and 1 as probabilities do")


def test_a_saturated_probability_leaves_both_classes_finite() -> None:
    parts = read_outputs(torch.tensor([0.0, -200.0]), n=2, classes=2, single="log-probability")
    assert bool(parts.logits.isfinite().all())
    assert parts.logits.argmax(1).tolist() == [1, 0]


def test_one_output_is_for_two_classes_only() -> None:
    for classes in (3, 10):
        with pytest.raises(ModelError, match=rf"logits \(N, {classes}\)"):
            call(Net(width=1), classes=classes)
    assert call(Net(width=1), classes=1)[0].shape == (9, 1)


def test_gradients_flow_through_the_columns_that_were_made() -> None:
    images = IMAGES.clone().requires_grad_()
    model = Net(lambda z: z.squeeze(1), width=1)
    with calling(model, images, classes=2) as network:
        F.cross_entropy(network(images), torch.ones(9, dtype=torch.int64), reduction="sum").backward()
    theirs = IMAGES.clone().requires_grad_()
    F.binary_cross_entropy_with_logits(model(theirs), torch.ones(9), reduction="sum").backward()  # type: ignore[arg-type]
    torch.testing.assert_close(images.grad, theirs.grad)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ending", [lambda z: z, torch.sigmoid, lambda z: (z, z)])
def test_one_output_is_matched_to_classes_by_name(order: tuple[int, int], ending: Callable[[Tensor], object]) -> None:
    names = ("cat", "dog")
    plain, _ = call(Net(ending, width=1), classes=names)
    matched = MatchedClasses(Net(ending, width=1), order, class_names=names)
    logits, notes = call(matched, classes=tuple(names[i] for i in order))
    torch.testing.assert_close(logits, plain[:, order])
    assert f"of class {order.index(1)} (dog)" in notes[-1]


def test_the_model_is_left_as_it_was_and_can_be_copied() -> None:
    model = Net(width=1)
    matched = MatchedClasses(model, (1, 0), class_names=("a", "b"))
    before = {name: id(value) for name, value in vars(matched).items()}, copy.deepcopy(matched.state_dict())
    expected, _ = call(matched, classes=2)
    assert {name: id(value) for name, value in vars(matched).items()} == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in matched.state_dict().items())
    for again in (copied(matched), pickle.loads(pickle.dumps(matched))):
        torch.testing.assert_close(call(again, classes=2)[0], expected)


@pytest.fixture(scope="module")
def two_classes() -> ImageDataset:
    """Pictures whose mean tells their class."""
    labels = torch.arange(40) % 2
    noise = torch.randint(0, 60, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    images = (noise + 120 * labels[:, None, None, None]).to(torch.uint8)
    return ImageDataset(images, labels, ("cat", "dog"), "pairs")


class Bright(nn.Module):
    """Says "dog" of bright pictures, in its own way of returning."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 1)
        self.change = change
        with torch.no_grad():
            self.fc.weight.fill_(20.0)
            self.fc.bias.fill_(-7.0)

    def forward(self, x: Tensor) -> object:
        return self.change(self.fc(x.mean((1, 2, 3))[:, None]))


WAYS = {
    "(N, 1)": lambda z: z,
    "(N,)": lambda z: z[:, 0],
    "squeezed": lambda z: z.squeeze(),
    "probability": lambda z: z.sigmoid(),
    "half": lambda z: z.half(),
    "dict": lambda z: {"logits": torch.cat([0 * z, z], 1), "h": z},
    "tuple": lambda z: (torch.cat([0 * z, z], 1), z),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_measurement_reads_the_same_logits(way: str, two_classes: ImageDataset) -> None:
    plain = Bright(lambda z: torch.cat([0 * z, z], 1))
    model = Bright(WAYS[way])
    assert assay.measure_clean_accuracy(model, two_classes).correct == 40
    options = {"attack": assay.PGD(steps=3), "epsilon": 0.2}
    ours, wanted = (
        assay.attack(each, two_classes.images / 255, two_classes.labels, **options) for each in (model, plain)
    )
    assert torch.equal(ours.broken, wanted.broken)
    assert any("one output" in note or "tuple" in note for note in ours.notes) == (way != "dict")


@pytest.mark.parametrize("way", ["(N,)", "tuple"])
def test_a_trace_says_how_the_output_was_read(way: str, two_classes: ImageDataset) -> None:
    report = assay.trace(Bright(WAYS[way]), two_classes, steps=0)
    assert any("one output" in note or "tuple" in note for note in report.subject.notes)
    assert report.subject.notes[0] in assay.render_page(report.record)


@pytest.mark.full
@pytest.mark.parametrize("way", ["(N,)", "tuple"])
def test_a_check_says_how_the_output_was_read(way: str, two_classes: ImageDataset) -> None:
    budget = assay.check.Budget(name="tiny", clean=40, attacked=4, probed=4, steps=1, sanity_samples=2)
    checkup = assay.run_check(Bright(WAYS[way]), two_classes, budget=budget)
    failed = [record.stage for record in checkup.records if record.kind == "failed_measurement"]
    assert failed == []
    assert any("one output" in note or "tuple" in note for note in checkup.subject.notes)
    assert checkup.subject.notes[0] in assay.render_page(checkup)
