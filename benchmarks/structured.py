"""Models and data sets drawn at random, measured by assay and by a plain loop in float64, one image at a time.

``python benchmarks/fuzz.py --structured 2000`` draws combinations of layers, wrappers of ``tests/zoo.py``, data sets,
forms on disk and measurements. Each ends in the number of the plain loop, in one line of refusal, or in a
fault. A fault is made smaller and printed; combination ``i`` of a seed is always the same.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import assay
from assay.data.dataset import ImageDataset
from assay.errors import AssayError
from zoo import WRAPPERS

SOURCES = ("memory", "npz", "folder", "parquet")
LAYERS = ("conv", "strided conv", "grouped conv", "batch norm", "group norm", "relu", "relu in place", "tanh", "pool")


@dataclass(frozen=True)
class Combination:
    """What is drawn: everything that a run depends on."""

    layers: tuple[str, ...]
    wrappers: tuple[str, ...]
    n: int
    classes: int
    shape: tuple[int, int, int]
    sorted_by_class: bool
    source: str
    measurement: str
    seed: int


def draw(seed: int, index: int) -> Combination:
    """Combination ``index`` of ``seed``."""
    dice = random.Random(f"{seed}/{index}")
    side = dice.choice((4, 6, 8, 11))
    return Combination(
        layers=tuple(dice.choice(LAYERS) for _ in range(dice.randint(0, 5))),
        wrappers=tuple(dice.choice(list(WRAPPERS)) for _ in range(dice.choice((0, 1, 1, 1, 2)))),
        n=dice.choice((1, 2, 3, 5, 9, 17, 33)),
        classes=dice.choice((2, 3, 10, 10, 1000)),
        shape=(dice.choice((1, 3)), side, dice.choice((side, side + 3))),
        sorted_by_class=dice.random() < 0.4,
        source=dice.choice(SOURCES),
        measurement=dice.choice(list(MEASUREMENTS)),
        seed=dice.randrange(2**31),
    )


def build(drawn: Combination, *, wrapped: bool = True) -> nn.Module:
    """The model; without its wrappers it is the plain twin."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn.seed)
        channels, modules = drawn.shape[0], []
        for name in drawn.layers:
            if "conv" in name:
                groups = 2 if name == "grouped conv" and channels % 2 == 0 else 1
                stride = 2 if name == "strided conv" else 1
                modules.append(nn.Conv2d(channels, 6, 3, padding=1, stride=stride, groups=groups))
                channels = 6
            else:
                made: dict[str, nn.Module] = {
                    "batch norm": nn.BatchNorm2d(channels),
                    "group norm": nn.GroupNorm(1, channels),
                    "relu": nn.ReLU(),
                    "relu in place": nn.ReLU(inplace=True),
                    "tanh": nn.Tanh(),
                    "pool": nn.MaxPool2d(3, stride=1, padding=1),
                }
                modules.append(made[name])
        body = nn.Sequential(*modules).eval()
        width = body(torch.rand(1, *drawn.shape)).numel()
        model: nn.Module = nn.Sequential(*modules, nn.Flatten(), nn.Linear(width, drawn.classes)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.2, 1.0)
    for name in drawn.wrappers if wrapped else ():
        model = WRAPPERS[name](model)
    return model


def make_data(drawn: Combination) -> ImageDataset:
    draws = torch.Generator().manual_seed(drawn.seed)
    images = torch.randint(0, 256, (drawn.n, *drawn.shape), generator=draws, dtype=torch.uint8)
    labels = torch.randint(0, drawn.classes, (drawn.n,), generator=draws)
    with torch.no_grad():  # about half are answered rightly
        answers = build(drawn, wrapped=False)(images / 255).argmax(dim=1)
    labels = torch.where(torch.rand(drawn.n, generator=draws) < 0.5, answers, labels)
    if drawn.sorted_by_class:
        order = labels.argsort(stable=True)
        images, labels = images[order], labels[order]
    return ImageDataset(images, labels, classes=tuple(f"c{i:04}" for i in range(drawn.classes)))


def store(data: ImageDataset, source: str, folder: Path) -> ImageDataset:
    """Write the set in the form ``source`` and read it again: every picture must come back under its own class."""
    if source == "memory" or len(data.labels.unique()) < 2:  # files of one class are refused
        return data
    pixels = data.images.permute(0, 2, 3, 1).numpy()
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    names = [data.classes[int(label)] for label in data.labels]
    if source == "npz":
        path = folder / "set.npz"
        np.savez(path, images=pixels, labels=data.labels.numpy())
    elif source == "folder":
        path = folder / "set"
        for i, (picture, name) in enumerate(zip(squeezed, names, strict=True)):
            (path / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path / name / f"{i:05}.png")
    else:
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / "set.parquet"
        encoded = []
        for picture in squeezed:
            sink = io.BytesIO()
            Image.fromarray(picture).save(sink, "PNG")
            encoded.append(sink.getvalue())
        pq.write_table(pa.table({"image": encoded, "label": data.labels.tolist()}), path)
    read = assay.load_dataset(str(path))
    ours = sorted(zip(data.labels.tolist(), (image.numpy().tobytes() for image in data.images), strict=True))
    numbers = [int(read.classes[int(label)].strip("c")) for label in read.labels]
    theirs = sorted(zip(numbers, (image.numpy().tobytes() for image in read.images), strict=True))
    if ours != theirs:
        raise AssertionError(f"{source}: pictures or labels came back changed")
    return data


def by_hand(drawn: Combination, data: ImageDataset) -> tuple[list[bool], list[float], list[float], list[float]]:
    """Right or not, loss, norm of the input gradient and margin of each image, in float64, one at a time."""
    model = build(drawn, wrapped=False).double()
    right, losses, norms, margins = [], [], [], []
    for image, label in zip(data.images, data.labels, strict=True):
        pixels = (image.double() / 255)[None].requires_grad_(True)
        logits = model(pixels * 1)
        loss = F.cross_entropy(logits, label[None])
        try:
            norms.append(float(torch.autograd.grad(loss, pixels)[0].norm()))
        except RuntimeError:  # one rectifier in place after another: such a loss has no gradient
            norms.append(math.nan)
        two = logits.detach()[0].topk(2).values
        right.append(int(logits.argmax()) == int(label))
        losses.append(float(loss.detach()))
        margins.append(float(two[0] - two[1]))
    return right, losses, norms, margins


def near(ours: float, theirs: float, *, tolerance: float) -> bool:
    return abs(ours - theirs) <= tolerance * max(0.05, abs(theirs))


def check(drawn: Combination, data: ImageDataset, model: nn.Module) -> str:
    """An empty text where the measurement is right, else what is wrong."""
    tolerance = 5e-2 if "first parameter in bfloat16" in drawn.wrappers else 2e-3
    right, losses, norms, margins = by_hand(drawn, data)
    unsure = sum(margin < tolerance for margin in margins)  # rounding decides which class wins
    found = MEASUREMENTS[drawn.measurement](model, data)
    wanted = {"correct": sum(right), "loss": math.fsum(losses) / len(losses), "norm": math.nan}
    if any(right) and not unsure:
        wanted["norm"] = float(np.quantile([norm for norm, ok in zip(norms, right, strict=True) if ok], 0.5))
    for name, value in found.items():
        slack = unsure if name == "correct" else 0
        if name == "at most":
            ok = value <= sum(right) + unsure
        elif name == "zero":
            ok = abs(value) < 1e-3
        elif name == "correct":
            ok = abs(value - wanted[name]) <= slack
        elif math.isnan(wanted[name]):
            ok = name == "norm"
        else:
            ok = near(value, wanted[name], tolerance=tolerance)
        if not ok:
            return f"{name}: {value} for {wanted.get(name, 0)}"
    return ""


def _accuracy(model: nn.Module, data: ImageDataset) -> dict[str, float]:
    record = assay.measure_clean_accuracy(model, data, batch_size=4)
    return {"correct": record.correct, "loss": record.loss}


def _flow(model: nn.Module, data: ImageDataset) -> dict[str, float]:
    return {"loss": assay.measure_gradient_flow(model, data, batch_size=4).loss}


def _input_gradients(model: nn.Module, data: ImageDataset) -> dict[str, float]:
    record = assay.measure_input_gradients(model, data, batch_size=4, shown=0)
    return {"correct": record.n_right, "norm": record.median_norm_right or 0.0}


def _modes(model: nn.Module, data: ImageDataset) -> dict[str, float]:
    return {"zero": assay.audit_modes(model, data).repeat_gap}


def _normalization(model: nn.Module, data: ImageDataset) -> dict[str, float]:
    return {"correct": assay.audit_normalization(model, data, batch_size=4).before.correct}


def _attack(model: nn.Module, data: ImageDataset) -> dict[str, float]:
    record = assay.measure_robust_accuracy(model, data, attack="fgsm", batch_size=4).record
    return {"correct": record.clean_correct, "at most": record.correct}


MEASUREMENTS: dict[str, Callable[[nn.Module, ImageDataset], dict[str, float]]] = {
    "clean accuracy": _accuracy,
    "gradient flow": _flow,
    "input gradients": _input_gradients,
    "mode audit": _modes,
    "normalisation audit": _normalization,
    "attack (FGSM)": _attack,
}


def run_one(drawn: Combination) -> tuple[str, str]:
    """``right``, ``refused`` or ``fault``, and the reason."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            data = store(make_data(drawn), drawn.source, Path(folder))
            model = build(drawn)
            before = {
                name: value.clone() for name, value in model.state_dict().items() if value.layout == torch.strided
            }
            flags = [(module, module.training) for module in model.modules()]
            wrong = check(drawn, data, model)
            after = model.state_dict()
            if not wrong and any(not _same(value, after[name]) for name, value in before.items()):
                wrong = "the model was left changed"
            if not wrong and any(module.training != flag for module, flag in flags):
                wrong = "a mode was left changed"
        except AssayError as error:
            text = str(error)
            return ("refused", text) if "\n" not in text else ("fault", f"several lines: {text}")
        except Exception as error:
            return "fault", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ("fault", wrong) if wrong else ("right", "")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def shrink(drawn: Combination) -> Combination:
    """The smallest combination of this kind that is a fault still."""
    smaller = True
    while smaller:
        smaller = False
        for other in _smaller(drawn):
            if run_one(other)[0] == "fault":
                drawn, smaller = other, True
                break
    return drawn


def _smaller(drawn: Combination) -> Iterator[Combination]:
    for field in ("layers", "wrappers"):
        values = getattr(drawn, field)
        for i in range(len(values)):
            yield replace(drawn, **{field: values[:i] + values[i + 1 :]})
    if drawn.source != "memory":
        yield replace(drawn, source="memory")
    for n in (1, 2, 3, 5, 9):
        if n < drawn.n:
            yield replace(drawn, n=n)
    if drawn.classes > 2:
        yield replace(drawn, classes=2)
    if drawn.sorted_by_class:
        yield replace(drawn, sorted_by_class=False)


def run(count: int, *, seed: int, start: int = 0) -> list[dict[str, Any]]:
    """Run ``count`` combinations; a row for each measurement."""
    torch.set_num_threads(1)
    outcomes: Counter[tuple[str, str]] = Counter()
    for index in range(start, start + count):
        drawn = draw(seed, index)
        outcome, reason = run_one(drawn)
        outcomes[drawn.measurement, outcome] += 1
        if outcome == "fault":
            print(f"--seed {seed} --start {index}: {reason}\n  smallest: {shrink(drawn)}", flush=True)
        elif outcome == "refused":
            outcomes["refused because", reason.split(", got")[0][:90]] += 1
    for (kind, reason), number in sorted(outcomes.items()):
        if kind == "refused because":
            print(f"  {number:5} refused: {reason}")
    names = ("right", "refused", "fault")
    return [{"case": name, **{outcome: outcomes[name, outcome] for outcome in names}} for name in MEASUREMENTS]
