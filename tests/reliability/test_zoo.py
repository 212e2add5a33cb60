"""Every probe on every awkward model: the number of a plain twin, or one line; and the model as it was found."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

import assay
from assay.attacks import list_attacks
from assay.attacks.options import REGISTRY
from assay.check.stages import BUDGETS, STAGES, CheckContext
from assay.compression.run import CompressionPlan
from assay.data.dataset import ImageDataset
from assay.diagnostics import measure_curvature
from assay.diagnostics.time import is_recurrent, measure_gradients_over_time
from assay.errors import AssayError, InputError
from assay.evaluate import predict
from assay.models.outputs import read_outputs
from assay.records.base import Record
from assay.records.failure import FailedMeasurement
from assay.training.param_groups import measure_decay_groups
from assay.views import attack_picture, predict_picture
from assay.views.attack import AttackChoice, find_smallest_perturbation
from assay.views.context import ViewContext
from assay.views.picture import sample_at
from awkward_zoo import BACKWARD, CASES, CLASSES, COPY, FINITE, FORWARD, LAYERS, LOGITS, TRAINING, WEIGHTS, pictures


@dataclass(frozen=True)
class Probe:
    """``run`` measures; ``needs`` what of the model it uses; a ``slow`` one runs on some models."""

    run: Callable[[nn.Module, ImageDataset], Any]
    needs: frozenset[str] = frozenset({FORWARD, LOGITS, CLASSES})
    slow: bool = False


def attacked(name: str, **options: Any) -> Callable[[nn.Module, ImageDataset], Any]:
    norm = "l2" if name in {"fab", "fab-t", "min-norm"} else "linf"

    def run(model: nn.Module, data: ImageDataset) -> Any:
        chosen = REGISTRY[name](**options)
        return assay.measure_robust_accuracy(
            model, data, attack=chosen, norm=norm, epsilon=0.11
        ).record  # 0.1 is half a byte

    return run


def attack_directly(model: nn.Module, data: ImageDataset) -> Any:
    result = assay.attack(model, data.images / 255, data.labels, attack="fgsm", epsilon=0.1)
    return {"broken": result.broken.tolist(), "clean": result.clean_correct.tolist()}


def logits(model: nn.Module, data: ImageDataset) -> Any:
    return {"logits": predict(model, data, batch_size=5).logits.tolist()}


def staged(name: str) -> Callable[[nn.Module, ImageDataset], Any]:
    stage = next(stage for stage in STAGES if stage.name == name)

    def run(model: nn.Module, data: ImageDataset) -> Any:
        context = CheckContext.of(model, data, budget=BUDGETS["quick"], limit=None, seed=0, name="model")
        records = list(stage.measure(context))
        if records and all(isinstance(record, FailedMeasurement) for record in records):
            return records[0].reason  # the check goes on, and tells it
        return {str(i): record for i, record in enumerate(records)}

    return run


def viewed(view: Callable[[ViewContext, Any], Any]) -> Callable[[nn.Module, ImageDataset], Any]:
    def run(model: nn.Module, data: ImageDataset) -> Any:
        return view(ViewContext(model, data), sample_at(data, 1))

    return run


def pictured(context: ViewContext, picture: Any) -> Any:
    prediction = predict_picture(context, picture)
    return {"p": prediction.probabilities, "loss": prediction.loss, "norm": prediction.gradient.gradient_norm}


def picture_attacked(context: ViewContext, picture: Any) -> Any:
    found = attack_picture(context, picture, AttackChoice(steps=3))
    return {"success": found.success, "losses": found.losses, "after": found.after}


def smallest(context: ViewContext, picture: Any) -> Any:
    found = find_smallest_perturbation(context, picture, steps=5)
    return {"success": found.success}


def over_time(model: nn.Module, data: ImageDataset) -> Any:
    return measure_gradients_over_time(model, data) if is_recurrent(model) else {}


def compressed(model: nn.Module, data: ImageDataset) -> Any:
    plan = CompressionPlan(max_drop=99, calibration=4, validation=4, attack=None, curve=(), batch=4)
    report = assay.compress(model, data, data, plan).report
    return {"before": report.before.clean.correct, "flops": report.before.flops}


def traced(model: nn.Module, data: ImageDataset) -> Any:
    return {record.kind: record for record in assay.trace(model, data, steps=2, every=1).records}


def checked(model: nn.Module, data: ImageDataset) -> Any:
    checkup = assay.run_check(model, data, budget="quick")
    return {record.kind: record for record in checkup.records if record.kind in {"clean_accuracy", "robust_accuracy"}}


RUN = frozenset({FORWARD, LOGITS, CLASSES})
DIFFERENTIATE = RUN | {BACKWARD}
UNRUN = frozenset({WEIGHTS})
_STAGE_NEEDS = {
    "anatomy": frozenset({FORWARD}), "pixel range": UNRUN, "weight-decay groups": UNRUN, "singular spectra": UNRUN,
    "gradient flow": DIFFERENTIATE | {LAYERS},
    **dict.fromkeys(("attacks", "accuracy against epsilon", "gradients over time"), DIFFERENTIATE),
    **dict.fromkeys(("input gradients", "saliency maps"), DIFFERENTIATE),
}  # fmt: skip
PROBES: dict[str, Probe] = {
    "measure_clean_accuracy": Probe(partial(assay.measure_clean_accuracy, batch_size=5)),
    "predict": Probe(logits),
    "audit_modes": Probe(assay.audit_modes),
    "audit_normalization": Probe(partial(assay.audit_normalization, batch_size=11)),
    "measure_gradient_flow": Probe(partial(assay.measure_gradient_flow, batch_size=11), DIFFERENTIATE | {LAYERS}),
    "measure_input_gradients": Probe(partial(assay.measure_input_gradients, batch_size=11), DIFFERENTIATE),
    "measure_saliency_maps": Probe(
        partial(assay.measure_saliency_maps, n=4, depths=2, n_randomized=2), DIFFERENTIATE, slow=True
    ),
    "measure_invariance": Probe(partial(assay.measure_invariance, operations=["Rotate", "Color"]), slow=True),
    "measure_curvature": Probe(
        partial(measure_curvature, iterations=3, probes=2, batch_size=11), DIFFERENTIATE | {LAYERS, TRAINING}, slow=True
    ),
    "measure_anatomy": Probe(
        lambda model, data: assay.measure_anatomy(model, image_shape=data.shape), frozenset({FORWARD})
    ),
    "measure_spectra": Probe(lambda model, data: assay.measure_spectra(model), UNRUN),
    "measure_decay_groups": Probe(lambda model, data: measure_decay_groups(model), UNRUN),
    "attack": Probe(attack_directly, DIFFERENTIATE - {CLASSES}),
    "measure_robust_accuracy": Probe(attacked("fgsm"), DIFFERENTIATE),
    "measure_epsilon_curve": Probe(
        lambda model, data: assay.measure_epsilon_curve(model, data, epsilons=[0, 0.1], steps=2),
        DIFFERENTIATE,
        slow=True,
    ),
    "measure_attack_sanity": Probe(partial(assay.measure_attack_sanity, n=6, queries=5), slow=True),
    "predict_picture": Probe(viewed(pictured), DIFFERENTIATE),
    "attack_picture": Probe(viewed(picture_attacked), DIFFERENTIATE, slow=True),
    "find_smallest_perturbation": Probe(viewed(smallest), DIFFERENTIATE, slow=True),
    "measure_gradients_over_time": Probe(over_time, DIFFERENTIATE),
    "trace": Probe(traced, DIFFERENTIATE | {TRAINING, COPY, LAYERS}, slow=True),
    "compress": Probe(compressed, RUN | {COPY, LAYERS}, slow=True),
    "run_check": Probe(checked, RUN | {FINITE}, slow=True),
    **{
        f"stage {stage.name}": Probe(staged(stage.name), _STAGE_NEEDS.get(stage.name, RUN), slow=True)
        for stage in STAGES
    },
}
_SHORT: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 2}, "signed-steps": {"steps": 2}, "apgd-ce": {"steps": 3}, "apgd-t": {"steps": 3},
    "fab-t": {"steps": 2}, "min-norm": {"steps": 3}, "square": {"queries": 3}, "noise": {"draws": 2},
    "standard": {"steps": 3, "queries": 3},
    "adaptive": {"steps": 3, "boundary_steps": 2, "queries": 3, "short_queries": 2},
}  # fmt: skip
WITHOUT_GRADIENTS = {"noise", "square", "transforms"}
PROBES |= {
    f"attack {name}": Probe(
        attacked(name, **_SHORT.get(name, {})), RUN if name in WITHOUT_GRADIENTS else DIFFERENTIATE, slow=True
    )
    for name in list_attacks()
    if name not in {"fgsm", "transfer"}  # the first is above, the second needs another model
}

# What two records of one model differ in: times and costs, and what names a wrapper adds.
_OWN = {"seconds", "images_per_second", "started", "forward_equivalents", "batch_gap", "batch_error", "train_eval_gap"}
_OWN |= {"train_mode_error", "calls", "modules_in_eval_mode", "modules_in_train_mode", "ids"}


def plain_values(value: Any, own: frozenset[str]) -> Any:
    """Numbers, truth values and their lists; without texts, and without the fields ``own``."""
    if isinstance(value, Record):
        value = json.loads(value.model_dump_json())
    if isinstance(value, dict):
        return {key: plain_values(item, own) for key, item in value.items() if key not in _OWN | own}
    if isinstance(value, (list, tuple)):
        return [plain_values(item, own) for item in value]
    if isinstance(value, str):
        return float(value) if value in {"NaN", "Infinity", "-Infinity"} else "text"
    return value


def difference(ours: Any, theirs: Any, *, tolerance: float, path: str = "") -> str | None:
    """Where two results differ by more than ``tolerance`` of the larger number; None where they agree."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(ours.get(key), theirs.get(key), f"{path}.{key}") for key in {**ours, **theirs}]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    elif isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        if ours == theirs or (math.isnan(ours) and math.isnan(theirs)):
            return None
        if tolerance > 1e-3 and isinstance(ours, int) and isinstance(theirs, int):
            return None if abs(ours - theirs) <= 1 else f"{path}: {ours} for {theirs}"  # rounding may turn a sample
        gap = abs(ours - theirs)
        return (
            None
            if gap <= tolerance * max(1.0 if tolerance > 1e-3 else 1e-2, abs(ours), abs(theirs))
            else f"{path}: {ours} for {theirs}"
        )
    else:
        return None if ours == theirs else f"{path}: {str(ours)[:80]} for {str(theirs)[:80]}"
    found = (difference(a, b, tolerance=tolerance, path=where) for a, b, where in pairs)
    return next((each for each in found if each), None)


def frozen(value: Any) -> Any:
    """A value as it is now, to be compared later: tensors copied, containers through and through, else the object."""
    if isinstance(value, Tensor):
        if is_lazy(value):
            return "lazy"
        kept = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
        return (value.dtype, value.requires_grad, kept if kept.is_meta else kept.clone())
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(item) for item in value]
    return value if isinstance(value, (int, float, str, type(None))) else id(value)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor) and a.shape == b.shape and (a.is_meta or torch.equal(a.nan_to_num(), b.nan_to_num()))
        )
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model and of the global generators that a measurement must leave alone."""
    values: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    values["numpy"] = [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            values[f"{name} mode"] = module.training
            continue
        values |= {f"{name}.{key}": frozen(value) for key, value in vars(module).items()}
    for name, parameter in model.named_parameters():
        values[f"{name} gradient"] = frozen(parameter.grad)
        values[f"{name} identity"] = id(parameter)
    return values


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    before = state(model)
    yield
    after = state(model)
    changed = [key for key in {**before, **after} if not same(before.get(key, state), after.get(key, state))]
    assert not changed, f"left changed: {changed}"


def outcome(probe: Probe, model: nn.Module, data: ImageDataset) -> Any:
    """The numbers that were measured, or the text of the refusal."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="quantized::"
            )  # torch's own, of quantised layers in a backward pass
            return probe.run(model, data)
    except AssayError as error:
        text = str(error)
        assert isinstance(error, InputError), repr(error)
        assert "\n" not in text, text
        assert 10 < len(text) < 500, text
        return text


_TWINS: dict[tuple[str, str], Any] = {}


def judge(case_name: str, probe_name: str) -> None:
    """Run the probe on the model and hold its outcome against what is expected of it."""
    case, probe = CASES[case_name], PROBES[probe_name]
    data, model = pictures(case.classes), case.build()
    lazy = any(is_lazy(parameter) for parameter in model.parameters())
    if lazy:
        measured = outcome(probe, model, data)
    else:
        with left_alone(model):
            measured = outcome(probe, model, data)
    refused = isinstance(measured, str)
    if measured == {}:  # the probe has nothing to say of such a model
        return
    if probe.needs & case.cannot:
        assert refused, f"measured what cannot be: {str(measured)[:300]}"
    elif refused:
        assert probe.needs & case.may_refuse, f"refused: {measured}"
    elif case.twin is not None:
        key = (case_name, probe_name)
        if key not in _TWINS:
            _TWINS[key] = outcome(probe, case.twin(), data)
        expected = plain_values(_TWINS[key], case.own)
        assert difference(plain_values(measured, case.own), expected, tolerance=case.tolerance) is None, difference(
            plain_values(measured, case.own), expected, tolerance=case.tolerance
        )


WITH_TWIN = [name for name, case in CASES.items() if case.twin and not case.cannot & {FORWARD, LOGITS}]


@pytest.mark.parametrize("name", WITH_TWIN)
def test_a_model_of_the_zoo_has_the_numbers_of_its_twin(name: str) -> None:
    """Called by hand, with batches that it takes; else what the probes are held against would be another network."""
    case = CASES[name]
    assert case.twin is not None
    images = pictures(case.classes).images[:8] / 255
    model, twin = case.build(), case.twin()
    model.eval()
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}.get(name, torch.float32)
    size = {"fixed batch of 1": 1, "traced for one image": 1, "takes at most five": 4}.get(name, 8)
    with torch.no_grad():
        parts = [(len(rows), model(rows.clone().to(kind))) for rows in images.split(size)]
        ours = torch.cat([read_outputs(part, n=n, classes=case.classes).logits for n, part in parts])
        torch.testing.assert_close(ours.float(), twin(images.clone()), rtol=case.tolerance, atol=case.tolerance)


def test_no_probe_is_forgotten() -> None:
    """What takes a model is public in ``assay`` under ``measure_``, ``audit_`` and a few names more, or is a stage."""
    others = {"attack", "compress", "trace", "run_check"}
    public = {name for name in assay.__all__ if name.startswith(("measure_", "audit_"))} | others
    assert public <= set(PROBES)
    assert {f"stage {stage.name}" for stage in STAGES} <= set(PROBES)
    assert {parameters.values[1] for parameters in WIDE + REST} == set(PROBES)
    assert set(list_attacks()) <= {name.removeprefix("attack ") for name in PROBES} | {"fgsm", "transfer"}


QUICK = ("measure_clean_accuracy", "measure_gradient_flow")  # of all models; the others of those that differ most
CENTRAL = (
    *("squeezes", "views rows", "fails on one image", "takes at most five", "mask of the first batch", "counts"),
    *("first parameter in float64", "changes its mode", "draws", "frozen", "special buffers", "KeyError in forward"),
    *("in-place rectifier", "dict always", "float16", "GRU over rows", "weight_norm, old", "shared modules"),
    *("fixed batch of 8", "overwrites its input", "no parameters", "on no device", "a thousand classes"),
)
MEASURED = (
    *("predict", "measure_clean_accuracy", "audit_modes", "audit_normalization", "measure_gradient_flow"),
    *("measure_input_gradients", "measure_anatomy", "measure_gradients_over_time", "predict_picture"),
)
WIDE = [
    pytest.param(case, probe, marks=() if case in CENTRAL else pytest.mark.full) for probe in MEASURED for case in CASES
]
FEW = ("squeezes", "KeyError in forward")
DRAWING = {("draws", "compress"), ("draws", "trace")}
REST = [
    pytest.param(
        case,
        probe,
        marks=() if (case in FEW and probe != "run_check") or (case, probe) in DRAWING else pytest.mark.full,
    )
    for probe in PROBES
    if probe not in MEASURED
    for case in CENTRAL
]
BOTH = [pytest.param(case, probe) for probe in QUICK for case in CASES if case not in CENTRAL]


@pytest.mark.parametrize(("case", "probe"), BOTH)
def test_a_model_is_measured_or_refused_and_left_as_found(case: str, probe: str) -> None:
    judge(case, probe)


@pytest.mark.parametrize(("case", "probe"), WIDE)
def test_every_probe_measures_or_refuses_and_leaves_the_model_as_found(case: str, probe: str) -> None:
    judge(case, probe)


@pytest.mark.parametrize(("case", "probe"), REST)
def test_attacks_stages_and_verbs_measure_or_refuse_and_leave_the_model_as_found(case: str, probe: str) -> None:
    judge(case, probe)
