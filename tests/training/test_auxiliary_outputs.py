"""Auxiliary outputs of training mode: their losses are added with the usual weights, wherever a model trains."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import assay
from assay.compression import CompressionPlan
from assay.data import ImageDataset
from assay.models.classes import MatchedClasses
from assay.training import Recipe
from assay.training.adversaries import input_gradient
from assay.training.step import Distillation, Objective

K = 3
GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
InceptionOutputs = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
RECIPE = Recipe.parse({"name": "short", "epochs": 1, "batch_size": 8, "augment": {"name": "none"}})


class Branched(nn.Module):
    """A small network with classifiers at inner layers, which it returns in training mode as ``kind`` arranges them."""

    def __init__(self, kind: Callable[[Sequence[Tensor]], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.hidden = nn.Linear(8 * 36, 16)
        self.heads = nn.ModuleList([nn.Linear(16, K), nn.Linear(8 * 36, K), nn.Linear(8 * 36, K)])
        self.kind = kind

    def every(self, x: Tensor) -> list[Tensor]:
        flat = self.conv(x).relu().flatten(1)
        return [self.heads[0](self.hidden(flat).relu()), self.heads[1](flat), self.heads[2](flat)]

    def forward(self, x: Tensor) -> object:
        every = self.every(x)
        return self.kind(every) if self.training else every[0]


KINDS: dict[str, tuple[Callable[[Sequence[Tensor]], object], int, float]] = {
    "as GoogLeNet": (lambda z: GoogLeNetOutputs(*z), 2, 0.3),
    "as Inception v3": (lambda z: InceptionOutputs(z[0], z[1]), 1, 0.4),
    "tuple": (lambda z: (z[0], z[1]), 1, 0.4),
    "list": (lambda z: [z[0], None, z[1], z[2]], 2, 0.3),
    "dict": (lambda z: {"aux_logits": z[1], "logits": z[0]}, 1, 0.4),
    "other entries": (lambda z: {"logits": z[0], "second": z[1], "hidden": z[2][:, :2]}, 0, 0.0),
    "no auxiliary output": (lambda z: GoogLeNetOutputs(z[0], None, None), 0, 0.0),
}


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return ImageDataset(images, torch.arange(24) % K, ("a", "b", "c"), "made")


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_that_of_the_logits_and_a_share_of_the_others(name: str, data: ImageDataset) -> None:
    kind, number, weight = KINDS[name]
    model, images = Branched(kind).train(), data.images / 255
    loss, correct = Objective(K, label_smoothing=0.1)(model, images, data.labels)
    main, *others = model.every(images)
    wanted = F.cross_entropy(main, data.labels, label_smoothing=0.1, reduction="sum")
    for other in others[:number]:
        wanted = wanted + weight * F.cross_entropy(other, data.labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    assert int(correct) == int((main.argmax(1) == data.labels).sum())
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(each, parameters, allow_unused=True) for each in (loss, wanted))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_loss_of_ones_own_is_that_of_every_output(data: ImageDataset) -> None:
    model, teacher, images = Branched(KINDS["tuple"][0]).train(), Branched(KINDS["tuple"][0]).train(), data.images / 255
    own = Distillation(teacher, temperature=2.0)
    loss, _ = Objective(K, loss=own)(model, images, data.labels)
    main, other, _ = model.every(images)
    torch.testing.assert_close(loss, own(images, main, data.labels) + 0.4 * own(images, other, data.labels))


@pytest.mark.parametrize("name", KINDS)
def test_such_models_are_trained_and_the_run_says_so(name: str, data: ImageDataset) -> None:
    kind, number, weight = KINDS[name]
    model = Branched(kind)
    heads = [head.weight.detach().clone() for head in model.heads]  # type: ignore[union-attr]
    run = assay.fit(model, data, recipe=RECIPE, validation=data)
    moved = [not torch.equal(head.weight, before) for head, before in zip(model.heads, heads, strict=True)]  # type: ignore[arg-type]
    assert moved == [True, number > 0, number > 1]
    said = [note for note in run.notes if "auxiliary" in note]
    outputs = {1: "an auxiliary output", 2: "2 auxiliary outputs"}
    assert said == (
        [f"the model has {outputs[number]} in training mode, whose loss is added {weight:g} times"] if number else []
    )


def test_adversarial_training_reads_the_logits(data: ImageDataset) -> None:
    model, images = Branched(KINDS["as GoogLeNet"][0]).train(), (data.images / 255)[:4]
    gradient = input_gradient(model, images, data.labels[:4])
    images.requires_grad_()
    (wanted,) = torch.autograd.grad(F.cross_entropy(model.every(images)[0], data.labels[:4], reduction="sum"), images)
    torch.testing.assert_close(gradient, wanted)
    adversary = {"name": "n-fgsm", "epsilon": 0.01, "watch": 8}
    recipe = Recipe.parse({**RECIPE.model_dump(mode="json"), "adversary": adversary})
    assert assay.fit(model, data, recipe=recipe).epochs


def test_classes_in_another_order_train_all_outputs_in_that_order(data: ImageDataset) -> None:
    inner = Branched(KINDS["as GoogLeNet"][0]).train()
    matched = MatchedClasses(inner, (2, 0, 1), class_names=("b", "c", "a")).train()
    images = data.images / 255
    loss, _ = Objective(K)(matched, images, data.labels)
    wanted = sum(
        weight * F.cross_entropy(z[:, [2, 0, 1]], data.labels, reduction="sum")
        for weight, z in zip((1, 0.3, 0.3), inner.every(images), strict=True)
    )
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("name", ["as GoogLeNet", "tuple"])
def test_such_models_are_traced_and_compressed(name: str, data: ImageDataset) -> None:
    model = Branched(KINDS[name][0])
    report = assay.trace(model, data, steps=2, every=1)
    modes = next(record for record in report.records if record.kind == "mode_audit")
    assert modes.train_mode_error is None
    assert modes.train_eval_gap == 0
    plan = CompressionPlan(max_drop=99, calibration=8, validation=8, attack=None, curve=(), epochs=1)
    done = assay.compress(model, data, data, plan)
    assert done.report.after.clean.n == 24


@pytest.mark.full
@pytest.mark.parametrize(("name", "side"), [("googlenet", 48), ("inception_v3", 299)])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchvisions_networks_with_auxiliary_outputs_are_trained_and_traced(name: str, side: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    images = torch.randint(0, 256, (4, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = ImageDataset(images, torch.arange(4) % K, ("a", "b", "c"), "made")
    model = torchvision.models.get_model(name, num_classes=K, init_weights=False, aux_logits=True)
    run = assay.fit(model, data, recipe=RECIPE)
    assert any("auxiliary output" in note for note in run.notes)
    assert name != "googlenet" or assay.trace(model, data, steps=1, every=1).records
