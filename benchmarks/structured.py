"""Models and data sets drawn at random, measured by assay and by a plain loop in float64, one image at a time.

``python benchmarks/fuzz.py --structured 2000`` draws combinations of layers, wrappers (``tests/awkward_zoo.py``), data,
forms on disk (``structured_data.py``) and measurements. Each ends in the number of the plain loop, in one line of
refusal, or in a fault. A fault is made smaller and printed; combination ``i`` of a seed is always the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import re
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
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from structured_data import FORMS

import assay
from assay.attacks import APGD, FGSM, PGD, Noise, Square
from assay.cli.main import main as run_command
from assay.data.dataset import ImageDataset
from assay.errors import AssayError
from assay.training.param_groups import measure_decay_groups
from awkward_zoo import WRAPPERS

SOURCES = ("memory", *FORMS)
LAYERS = ("conv", "strided conv", "grouped conv", "batch norm", "group norm", "relu", "relu in place", "tanh", "pool")


@dataclass(frozen=True)
class Combination:
    """What is drawn: everything that a run depends on."""

    layers: tuple[str, ...]
    wrappers: tuple[str, ...]
    n: int
    classes: int
    shape: tuple[int, int, int]
    one_class: bool
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
        n=dice.choice((1, 2, 3, 3, 4, 5, 5, 9, 9, 17, 17, 33)),
        classes=dice.choice((2, 3, 10, 10, 1000)),
        shape=(dice.choice((1, 3)), side, dice.choice((side, side + 3))),
        one_class=dice.random() < 0.05,
        sorted_by_class=dice.random() < 0.4,
        source=dice.choice(SOURCES),
        measurement=dice.choices(list(MEASUREMENTS), [RARER.get(name, 1) for name in MEASUREMENTS])[0],
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
    if drawn.one_class:
        labels[:] = labels[0]
    elif drawn.n > 1 and len(labels.unique()) == 1:
        labels[0] = (labels[0] + 1) % drawn.classes
    if drawn.sorted_by_class:
        order = labels.argsort(stable=True)
        images, labels = images[order], labels[order]
    return ImageDataset(images, labels, classes=tuple(f"c{i:04}" for i in range(drawn.classes)))


class UnexpectedRefusalError(Exception):
    """A set without anything wrong was refused."""


def store(data: ImageDataset, drawn: Combination, folder: Path) -> tuple[ImageDataset, Path | None]:
    """Write the set in the form ``drawn.source`` and read it again: what it shows must come back, and be told.

    Returns the set that was read, in the classes of ``data`` where it can be measured so, and where it lies.
    """
    if drawn.source == "memory":
        return data, None
    dice = random.Random(drawn.seed)
    pixels = data.images.permute(0, 2, 3, 1).contiguous().numpy()
    stored = FORMS[drawn.source](pixels, data.labels.numpy(), folder, dice)
    try:
        read = assay.load_dataset(str(stored.path))
    except AssayError as error:
        if stored.refusable:
            raise
        raise UnexpectedRefusalError(str(error)) from None
    found = [(read.classes[label], image) for label, image in zip(read.labels.tolist(), read.images, strict=True)]
    if stored.samples() != sorted((name, image.numpy().tobytes()) for name, image in found):
        raise AssertionError(f"{drawn.source}: pictures or labels came back changed")
    untold = [note for note in stored.notes if not any(note in told for told in read.notes)]
    if untold:
        raise AssertionError(f"{drawn.source}: not told: {untold[0]}")
    if read.shape != data.shape:
        return data, stored.path
    numbers = dict(zip(stored.names, data.labels.tolist(), strict=True))
    return replace(read, labels=torch.tensor([numbers[name] for name, _ in found]), classes=data.classes), stored.path


@dataclass(frozen=True)
class Twin:
    """What the plain loop found, image by image, and how far off a right number may be."""

    model: nn.Module
    right: list[bool]
    losses: list[float]
    norms: list[float]
    margins: list[float]
    tolerance: float

    @property
    def unsure(self) -> int:
        """Images of which rounding decides the class."""
        return sum(margin < self.tolerance for margin in self.margins)

    @property
    def median_norm(self) -> float:
        norms = [norm for norm, ok in zip(self.norms, self.right, strict=True) if ok]
        return math.nan if self.unsure or not norms else float(np.quantile(norms, 0.5))


def by_hand(drawn: Combination, data: ImageDataset) -> Twin:
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
    tolerance = 5e-2 if "first parameter in bfloat16" in drawn.wrappers else 2e-3
    return Twin(model, right, losses, norms, margins, tolerance)


@dataclass
class Case:
    """One combination at work; a measurement returns what is wrong about its number, or an empty text."""

    drawn: Combination
    data: ImageDataset
    path: Path | None
    model: nn.Module
    folder: Path

    def __post_init__(self) -> None:
        self.twin = by_hand(self.drawn, self.data)
        self.dice = random.Random(self.drawn.seed)

    def wrong_count(self, correct: int) -> str:
        ok = abs(correct - sum(self.twin.right)) <= self.twin.unsure
        return "" if ok else f"{correct} correct for {sum(self.twin.right)}"

    def wrong_number(self, name: str, ours: float, theirs: float) -> str:
        ok = math.isnan(theirs) or abs(ours - theirs) <= self.twin.tolerance * max(0.05, abs(theirs))
        return "" if ok else f"{name}: {ours} for {theirs}"

    def wrong_loss(self, loss: float) -> str:
        return self.wrong_number("loss", loss, math.fsum(self.twin.losses) / len(self.twin.losses))


def _accuracy(case: Case) -> str:
    record = assay.measure_clean_accuracy(case.model, case.data, batch_size=4)
    return case.wrong_count(record.correct) or case.wrong_loss(record.loss)


def _flow(case: Case) -> str:
    return case.wrong_loss(assay.measure_gradient_flow(case.model, case.data, batch_size=4).loss)


def _input_gradients(case: Case) -> str:
    record = assay.measure_input_gradients(case.model, case.data, batch_size=4, shown=0)
    norm = case.wrong_number("norm", record.median_norm_right or 0.0, case.twin.median_norm)
    return case.wrong_count(record.n_right) or norm


def _modes(case: Case) -> str:
    return case.wrong_number("gap", assay.audit_modes(case.model, case.data).repeat_gap, 0)


def _normalization(case: Case) -> str:
    return case.wrong_count(assay.audit_normalization(case.model, case.data, batch_size=4).before.correct)


ATTACKS = {
    "FGSM": FGSM(),
    "PGD": PGD(steps=3),
    "APGD-CE": APGD(steps=4),
    "Square": Square(queries=8),
    "noise": Noise(draws=3),
}
ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}


def _attack(case: Case, name: str) -> str:
    """Clean counts are those of the plain loop, every image lies in the ball, every broken one is misclassified."""
    norm, epsilon = case.dice.choice(list(ORDERS)), case.dice.choice((0, 0.02, 0.3, 1.5))
    data, twin = case.data, case.twin
    record, result = _measured(case, name, norm, epsilon)
    clean = (data.images.double() / 255).numpy()
    images = result.adversarial.double().numpy()
    lengths = np.array([np.linalg.norm((a - b).ravel(), ORDERS[norm]) for a, b in zip(images, clean, strict=True)])
    if images.min() < 0 or images.max() > 1:
        return "pixels outside of [0, 1]"
    slack = 1e-6 * clean[0].size if norm == "l1" else 1e-5
    if (lengths > epsilon + slack).any():
        return f"{norm}: a distance of {lengths.max()} for {epsilon}"
    if (result.broken & ~result.clean_correct).any() or (epsilon == 0 and result.broken.any()):
        return "a sample is broken that cannot be"
    if record.correct != int((result.clean_correct & ~result.broken).sum()):
        return f"{record.correct} correct after the attack, not what is correct before and unbroken"
    for row in result.broken.nonzero()[:, 0].tolist():
        with torch.no_grad():
            logits = twin.model(torch.from_numpy(images[row])[None])[0]
        others = torch.cat([logits[: data.labels[row]], logits[data.labels[row] + 1 :]])
        if logits[data.labels[row]] - others.max() > twin.tolerance * max(1, float(logits.abs().max())):
            return "a broken sample is classified rightly by the plain model"
    return case.wrong_count(record.clean_correct)


def _measured(case: Case, name: str, norm: Any, epsilon: float) -> Any:
    measured = assay.measure_robust_accuracy(
        case.model, case.data, attack=ATTACKS[name], norm=norm, epsilon=epsilon, batch_size=4
    )
    return measured.record, measured.result


def _curve(case: Case) -> str:
    curve = assay.measure_epsilon_curve(case.model, case.data, epsilons=(0.3, 0.05), attack="fgsm", batch_size=4)
    counts = [point.correct for point in curve.points]
    if counts != sorted(counts, reverse=True) or [point.epsilon for point in curve.points] != [0, 0.05, 0.3]:
        return f"the curve {counts} rises"
    return case.wrong_count(counts[0])


def _spectra(case: Case) -> str:
    """The singular values of every matrix of the plain model, by NumPy, with those of each group of a convolution."""
    wanted = []
    for module in case.twin.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            groups = getattr(module, "groups", 1)
            weight = module.weight.detach().numpy()
            blocks = weight.reshape(groups, weight.shape[0] // groups, -1)
            wanted.append(np.sort(np.concatenate([np.linalg.svd(block, compute_uv=False) for block in blocks]))[::-1])
    layers = assay.measure_spectra(case.model).layers
    if len(layers) != len(wanted):
        return f"{len(layers)} spectra for {len(wanted)}"
    for layer, sigmas in zip(layers, wanted, strict=True):
        ours = np.sort(layer.singular_values)[::-1]
        if len(ours) != len(sigmas) or np.abs(ours - sigmas).max() > case.twin.tolerance * sigmas[0]:
            return f"{layer.name}: {ours[:4]} for {sigmas[:4]}"
        stable = case.wrong_number("stable rank", layer.stable_rank, (sigmas**2).sum() / sigmas[0] ** 2)
        if stable:
            return stable
    return ""


def _groups(case: Case) -> str:
    """Every trainable parameter once, in the group of its kind."""
    norms = (nn.BatchNorm2d, nn.GroupNorm)
    kinds = {"weight": "weight", "bias": "bias"}  # whatever has another name is a number of a wrapper's own
    wanted = {
        f"{path}.{leaf}".lstrip("."): "norm" if isinstance(module, norms) else kinds.get(leaf, "other")
        for path, module in case.model.named_modules()
        for leaf, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }
    record = measure_decay_groups(case.model)
    found = [(name, group.role) for group in record.groups for name in group.names]
    numbers = sum(parameter.numel() for parameter in case.model.parameters() if parameter.requires_grad)
    if sorted(found) != sorted(wanted.items()) or sum(group.parameters for group in record.groups) != numbers:
        return f"groups {sorted(set(found) ^ set(wanted.items()))[:4]}"
    return ""


def _factors(case: Case) -> str:
    """Matrices with repeated singular values, against the best that there is by NumPy's decomposition."""
    dice, rng = case.dice, np.random.default_rng(case.drawn.seed)
    rows, columns = dice.choice((1, 5, 24, 60)), dice.choice((1, 7, 24, 50))
    k = min(rows, columns)
    sigmas = np.sort(rng.choice(dice.choice(((1.0,), (3, 1), (1, 1e-2), (2, 1, 0))), k))[::-1]
    left, right = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (rows, columns))
    matrix = ((left * sigmas) @ right.T).astype(dice.choice((np.float32, np.float64)))
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    squares, total = exact**2, float((exact**2).sum())
    lost = np.array([squares[r:].sum() for r in range(k + 1)])
    method = dice.choice(("auto", "exact", "gram", "krylov", "als", "descent", "single-pass"))
    rule = dice.choice(("rank", "tolerance", "energy"))
    value = dice.randint(1, k) if rule == "rank" else dice.choice((0.3, 0.9, 0.99))
    ridge = dice.choice((0.0, 0.0, 0.5)) if method in {"auto", "exact", "gram"} else 0.0
    options: dict[str, Any] = {rule: value, "method": method, "ridge": ridge}
    found = assay.factorize(matrix, **options)
    a, b = found.A.double().numpy(), found.B.double().numpy()
    error = float(((matrix - a @ b) ** 2).sum() + ridge * ((a**2).sum() + (b**2).sum()))
    slack = 1e-5 * total + 1e-9
    if abs(error - found.error) > slack:
        return f"error {found.error} for {error} ({options})"
    shrunk = np.maximum(exact[: found.rank] - ridge, 0)
    kept = np.where(shrunk > 0, 2 * ridge * shrunk + ridge**2, squares[: found.rank])
    least = float(kept.sum() + lost[found.rank])
    if error < least - slack:
        return f"error {error} below the least that there is, {least} ({options})"
    if found.missed or ridge:
        return ""
    if found.certificate.certified and error > least + 1e-4 * total:
        return f"certified, but the error is {error} for {least} ({options})"
    allowed = {"tolerance": value**2, "energy": 1 - value}.get(rule, 0) * total
    if rule == "rank" and found.rank != min(value, k):
        return f"rank {found.rank} ({options})"
    if rule != "rank" and (error > allowed + slack or (found.rank > 1 and lost[found.rank - 1] < allowed - slack)):
        return f"rank {found.rank} loses {error}, {allowed} are allowed ({options}, {exact})"
    return ""


def _check(case: Case) -> str:
    """The command, on the files: how it ends, what it writes, and the number of right answers in it."""
    if case.path is None:
        data, path = store(case.data, replace(case.drawn, source="npz"), case.folder)
        case = replace(case, data=data, path=path)  # its pixels may be others than those in memory
    source = case.folder / "net.py"
    source.write_text(f"import structured\ndef make():\n    return structured.build(structured.{case.drawn})\n")
    out, said = case.folder / "report", io.StringIO()
    arguments = ["check", f"{source}:make", "--data", str(case.path), "--budget", "quick", "--limit", "4"]
    before = sys.argv
    sys.argv = ["assay", *arguments, "--out", str(out)]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            run_command()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    if code not in {0, 1, 2, 4} or "Traceback" in said.getvalue():
        return f"exit code {code}: {said.getvalue()[-300:]}"
    written = out / "check.json"
    if code == 2:
        line = said.getvalue().strip().splitlines()[-1]
        return "half-written results" if written.exists() else _refuse(line)
    records = json.loads(written.read_text())["records"]
    correct = next(record["correct"] for record in records if record["kind"] == "clean_accuracy")
    return case.wrong_count(correct)


def _refuse(line: str) -> str:
    raise AssayError(line)


MEASUREMENTS: dict[str, Callable[[Case], str]] = {
    "clean accuracy": _accuracy,
    "gradient flow": _flow,
    "input gradients": _input_gradients,
    "mode audit": _modes,
    "normalisation audit": _normalization,
    **{f"attack ({name})": (lambda case, name=name: _attack(case, name)) for name in ATTACKS},
    "epsilon curve": _curve,
    "spectra": _spectra,
    "decay groups": _groups,
    "factorisation": _factors,
    "check (command)": _check,
}
RARER = {"check (command)": 0.3}  # takes seconds


def run_one(drawn: Combination) -> tuple[str, str]:
    """``right``, ``refused`` or ``fault``, and the reason."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            data, path = store(make_data(drawn), drawn, Path(folder))
            model = build(drawn)
            before = {
                name: value.clone() for name, value in model.state_dict().items() if value.layout == torch.strided
            }
            flags = [(module, module.training) for module in model.modules()]
            wrong = MEASUREMENTS[drawn.measurement](Case(drawn, data, path, model, Path(folder)))
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
    for field in ("sorted_by_class", "one_class"):
        if getattr(drawn, field):
            yield replace(drawn, **{field: False})


def run(count: int, *, seed: int, start: int = 0) -> list[dict[str, Any]]:
    """Run ``count`` combinations; a row for each measurement, then one for each form on disk."""
    torch.set_num_threads(1)
    outcomes: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for index in range(start, start + count):
        drawn = draw(seed, index)
        outcome, reason = run_one(drawn)
        outcomes[drawn.measurement, outcome] += 1
        outcomes[drawn.source, outcome] += 1
        if outcome == "fault":
            print(f"--seed {seed} --start {index}: {reason}\n  smallest: {shrink(drawn)}", flush=True)
        elif outcome == "refused":
            reasons[re.sub(r"^(assay: )?\S*tmp.*?: (?=expected)", "", reason.split(", got")[0])[:90]] += 1
    for reason, number in sorted(reasons.items()):
        print(f"  {number:5} refused: {reason}")
    names = ("right", "refused", "fault")
    cases = (*MEASUREMENTS, *SOURCES)
    return [{"case": name, **{outcome: outcomes[name, outcome] for outcome in names}} for name in cases]
