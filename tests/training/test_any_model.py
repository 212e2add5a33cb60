"""Models that we did not write are trained right, or refused in one line before anything is written or lost."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from assay.data.dataset import ImageDataset
from assay.errors import DataError, ModelError
from assay.training.averaging import refresh_batchnorm
from assay.training.classifier import train_classifier
from assay.training.loop import fit
from assay.training.recipes import Recipe, load_recipe

Logits = namedtuple("Logits", "logits aux")


class Net(nn.Module):
    """A small network; ``misbehave`` changes what the forward pass does in training mode."""

    def __init__(self, misbehave: Callable[[Net, Tensor], object] | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(40, 3)
        self.misbehave = misbehave

    def logits(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).mean(dim=3).flatten(1))

    def forward(self, x: Tensor) -> object:
        return self.misbehave(self, x) if self.training and self.misbehave else self.logits(x)


def fails(error: Exception) -> Callable[[Net, Tensor], object]:
    def misbehave(net: Net, x: Tensor) -> object:
        raise error

    return misbehave


def fails_in_backward(net: Net, x: Tensor) -> Tensor:
    hidden = torch.sigmoid(net.conv(x))
    result = net.fc(hidden.mean(dim=3).flatten(1))
    hidden.mul_(2)
    return result


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    **{
        f"raises {type(error).__name__}": (
            lambda error=error: Net(fails(error)),
            rf"^model\(images\): .*takes images \(20, 1, 12, 12\) alone in training mode, got {type(error).__name__}.*",
        )
        for error in (
            KeyError("labels"), NotImplementedError("training"), RecursionError("deep"), ZeroDivisionError("by zero"),
            StopIteration(), OSError("gone"), MemoryError("full"), UnicodeError("text"), AssertionError(),
        )
    },
    "a tuple": (lambda: Net(lambda net, x: (x, net.logits(x))), r"^model output: .*got tuple, of which '?1'? would"),
    "a dict": (lambda: Net(lambda net, x: {"out": net.logits(x)}), r"^model output: .*got dict, of which 'out' would"),
    "a named tuple": (lambda: Net(lambda net, x: Logits(x, net.logits(x))), r"^model output: .*got Logits, of which"),
    "logits of other classes": (lambda: Net(lambda net, x: net.logits(x)[:, :2]), r"^model output: .*\(20, 2\)"),
    "a column": (lambda: Net(lambda net, x: net.logits(x)[:, 0]), r"^model output: .*\(20,\)"),
    "backward": (lambda: Net(fails_in_backward), r"^model in training mode: .*modified by an inplace operation"),
    "cut off": (lambda: Net(lambda net, x: net.logits(x).detach()), r"^model: expected logits that depend on a train"),
    "half floats": (lambda: Net().half(), r"^model: conv\.weight: expected float32 parameters.*, got float16$"),
    "brain floats": (lambda: Net().bfloat16(), r"^model: conv\.weight: expected float32 parameters.*, got bfloat16$"),
    "nothing trainable": (lambda: Net().requires_grad_(False), r"^model: expected at least one trainable parameter"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path: Path, blobs: ImageDataset, recipe: Recipe, make: Callable[[], nn.Module], message: str
) -> None:
    model = make().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=message) as caught:
        fit(model, blobs, recipe=recipe, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Same(nn.Module):
    """One block called twice, so that its parameters are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(144, 144), nn.BatchNorm1d(144))
        self.fc = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(F.relu(self.block(x.flatten(1)))))


class KeepsMore(Net):
    """Keeps something beside tensors in its state dict."""

    def get_extra_state(self) -> object:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None:
        assert state == {"version": 3}


TRAINED: dict[str, Callable[[], nn.Module]] = {
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3)),
    "shared": Same,
    "weight norm": lambda: nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(144, 8)), nn.Tanh(), nn.Linear(8, 3)),
    "doubles": lambda: Net().double(),
    "no statistics": lambda: nn.Sequential(
        nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(144, 3)
    ),
    "extra state": KeepsMore,
}


@pytest.mark.parametrize("make", TRAINED.values(), ids=TRAINED)
def test_what_can_be_trained_learns(blobs: ImageDataset, recipe: Recipe, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    changed = Recipe.parse(
        {
            **recipe.model_dump(),
            "epochs": 8,
            "refresh_batchnorm": 50,
            "average": {"decay": 0.5},
            "optimizer": {"lr": 0.1},
        }
    )
    run = fit(model, blobs, recipe=changed, validation=blobs)
    assert run.epochs[-1].validation_accuracy > 0.9
    assert any("no running statistics" in note for note in run.notes) == (
        make in (TRAINED["weight norm"], TRAINED["no statistics"])
    )


def test_a_state_that_a_run_folder_cannot_hold_is_refused_where_there_is_one(
    tmp_path: Path, blobs: ImageDataset, recipe: Recipe
) -> None:
    with pytest.raises(
        ModelError, match=r"^model: _extra_state: expected a dense tensor, to be kept in a run folder, got dict$"
    ):
        fit(KeepsMore(), blobs, recipe=recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lazy_parameters_come_from_the_seed(blobs: ImageDataset, recipe: Recipe) -> None:
    models = [TRAINED["lazy"]() for _ in range(2)]
    for i, model in enumerate(models):
        torch.manual_seed(i)
        fit(model, blobs, recipe=recipe, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def some(n: int, *, classes: int = 3, present: int = 3, size: int = 12) -> ImageDataset:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=random)
    return ImageDataset(images, torch.arange(n) % present, tuple("abcde"[:classes]), split="train")


@pytest.mark.parametrize("n", [1, 2, 21, 41])
def test_a_rest_of_one_image_is_no_batch(n: int, recipe: Recipe) -> None:
    """Sets smaller than a batch, in micro-batches: a rest of one image would have no variance after pooling."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    changed = Recipe.parse({**recipe.model_dump(), "batch_size": 60, "micro_batch": 20, "refresh_batchnorm": 60})
    if n == 1:
        with pytest.raises(ModelError, match=r"^model\(images\): .*more than 1 value per channel.*\(in Sequential\)"):
            fit(model, some(n), recipe=changed)
        return
    run = fit(model, some(n), recipe=changed)
    assert f"batches of {n}: there are no more images than that" in run.notes
    assert math.isfinite(run.epochs[-1].loss)


def test_what_is_left_out_of_an_epoch_and_classes_without_images_are_noted(recipe: Recipe) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
    run = fit(model, some(47, classes=5, present=2), recipe=recipe)
    assert run.notes == (
        "no training image of 3 of 5 classes: c, d, e",
        "every epoch leaves out 7 images, others each time, that do not fill a batch",
    )


def test_validation_of_other_classes_is_refused(blobs: ImageDataset, recipe: Recipe) -> None:
    with pytest.raises(
        DataError, match=r"^validation: classes: expected \['top', 'middle', 'bottom'\], got \['a', 'b', 'c'\]$"
    ):
        fit(Net(), blobs, recipe=recipe, validation=some(9))


def test_every_stage_of_the_resolution_is_tried_out(tmp_path: Path, blobs: ImageDataset, recipe: Recipe) -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    changed = Recipe.parse({**recipe.model_dump(), "resolution": [[0.5, 8], [0.9, 12]]})
    with pytest.raises(ModelError, match=r"^model\(images\): expected .*\(20, 1, 8, 8\)"):
        fit(fixed, blobs, recipe=changed, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class FailsLater(Net):
    """Once it is broken, its normalisation layer runs in training mode only where the whole network does."""

    broken = False

    def logits(self, x: Tensor) -> Tensor:
        if self.broken and self.norm.training and not self.training:
            raise KeyError("labels")
        return super().logits(x)


def test_trained_weights_are_kept_where_statistics_cannot_be_measured_anew(
    tmp_path: Path, blobs: ImageDataset, recipe: Recipe
) -> None:
    model = FailsLater()
    changed = Recipe.parse({**recipe.model_dump(), "epochs": 1, "refresh_batchnorm": 50})
    model.broken = True
    run = fit(model, blobs, recipe=changed, out=tmp_path / "run")
    (note,) = run.notes
    assert note.startswith("running statistics are as training left them, not measured anew: model(images): expected")
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert float(model.norm.running_mean.abs().max()) > 0


def test_default_recipe_on_a_set_ordered_by_class(blobs: ImageDataset) -> None:
    """The recipe measures statistics on fewer images than there are: they are drawn from all classes."""
    ordered = blobs.subset(blobs.labels.argsort(stable=True))
    widths = "model_options.widths=[4, 4, 4]"
    recipe = load_recipe("default", overrides=["epochs=4", widths, "refresh_batchnorm=40", "batch_size=20"])
    trained = train_classifier(ordered, recipe=recipe)
    statistics = {name: buffer.clone() for name, buffer in trained.model.named_buffers() if "running_mean" in name}
    refresh_batchnorm(trained.model, ordered, samples=len(ordered))
    for name, buffer in trained.model.named_buffers():
        if name in statistics:
            spread = trained.model.get_buffer(name.replace("mean", "var")).sqrt()
            assert float(((statistics[name] - buffer) / spread).abs().max()) < 0.5
