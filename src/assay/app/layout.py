"""The page of the app: the controls of each view and their layout. What is shown comes from the views."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from assay.app.panels import show_attack, show_error, show_factorization, show_prediction, show_recurrence
from assay.augment.gallery import sweep_magnitudes
from assay.augment.operations import TWELVE, find_operation
from assay.data.dataset import to_unit_range
from assay.errors import AssayError, DataError
from assay.lowrank.summary import read_channels
from assay.records.attack import Norm
from assay.views.attack import ATTACKS, AttackChoice, attack_picture, find_smallest_perturbation
from assay.views.context import LIMITS, Limits, ViewContext
from assay.views.factorization import factor_picture
from assay.views.picture import Picture, apply_operations, predict_picture, read_picture, sample_at
from assay.views.recurrence import CELLS, RecurrenceChoice, measure_recurrence
from assay.wording import norm

AS_IT_IS = "(as it is)"
_EXCLUSIVE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # one request at a time
_LIVE: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
_HINT = '<p class="assay note">Attack the picture above, or search for the smallest adversarial perturbation.</p>'
# norm: (largest, step, start) of the slider of ε; that of L∞ in levels of 255
_SIZES: dict[Norm, tuple[float, float, float]] = {"linf": (64, 0.5, 8), "l2": (10, 0.05, 0.5), "l1": (100, 0.5, 12)}
_SIGNS: dict[str, Norm] = {norm(name): name for name in _SIZES}
_DEFAULT_NORM = norm("linf")


def build_app(context: ViewContext, *, limits: Limits = LIMITS) -> gr.Blocks:
    """The three tabs. The server is stateless: each request carries all that its response depends on."""
    with gr.Blocks(title=f"assay: {context.name}", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# assay\n**{_plain(context.name)}** on **{_plain(context.dataset.name)}**")
        with gr.Tabs():
            with gr.Tab("Attack"):
                _build_attack(context, limits)
            with gr.Tab("Factorisation"):
                _build_factors(context, limits)
            with gr.Tab("Recurrence"):
                _build_recurrence(limits)
    page.queue(max_size=limits.queue, default_concurrency_limit=2)
    return page


def _build_attack(context: ViewContext, limits: Limits) -> None:
    def picture(index: float, upload: str | None, label: str, *magnitudes: float | bool) -> Picture:
        chosen = _choose(context, index, upload, label, limits)
        values = zip(TWELVE, magnitudes, strict=True)
        given = {name: float(value) for name, value in values if not (value is False or value is None)}
        return apply_operations(chosen, given)

    @_errors_shown
    def show(*inputs: Any) -> str:
        return show_prediction(context, predict_picture(context, picture(*inputs)))

    @_errors_shown
    def attack(name: str, norm: str, size: float, steps: float, *inputs: Any) -> str:
        epsilon = size / 255 if _SIGNS.get(norm) == "linf" else size
        values = {"attack": name, "norm": _SIGNS.get(norm, norm), "epsilon": epsilon, "steps": int(steps)}
        choice = AttackChoice.parse(values)
        return show_attack(context, attack_picture(context, picture(*inputs), choice, limits=limits))

    @_errors_shown
    def smallest(norm: str, *inputs: Any) -> str:
        chosen = AttackChoice.parse({"norm": _SIGNS.get(norm, norm)})
        nearest = find_smallest_perturbation(context, picture(*inputs), norm=chosen.norm, limits=limits)
        return show_attack(context, nearest)

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            index, upload = _picture_controls(context)
            info = "As it is: the sample's own, or the predicted class."
            label = gr.Dropdown([AS_IT_IS, *context.classes], value=AS_IT_IS, label="Label", info=info)
            with gr.Accordion("Twelve image operations", open=False):
                operations = [_magnitude_control(name, context) for name in TWELVE]
                reset = gr.Button("Undo all", size="sm")
        with gr.Column(scale=5, min_width=300):
            first = show(0, None, AS_IT_IS, *(each.value for each in operations))
            shown = gr.HTML(apply_default_css=False, value=first)
    gr.Markdown("## Attack it")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            name = gr.Dropdown(list(ATTACKS), value="pgd", label="Attack")
            norm = gr.Radio(list(_SIGNS), value=_DEFAULT_NORM, label="Norm")
            size = gr.Slider(0, 64, value=8, step=0.5, label="ε, in levels of 255")
            steps = gr.Slider(1, limits.steps, value=10, step=1, label="Steps")
            go = gr.Button("Attack", variant="primary")
            least = gr.Button("Find the smallest perturbation")
        with gr.Column(scale=5, min_width=300):
            result = gr.HTML(_HINT, apply_default_css=False)
    inputs = [index, upload, label, *operations]
    changed = gr.on([each.change for each in inputs], show, inputs, shown, api_name="look", **_EXCLUSIVE, **_LIVE)
    changed.then(lambda: _HINT, None, result, api_visibility="private", show_progress="hidden", queue=False)
    reset.click(lambda: [_identity(name) for name in TWELVE], None, operations, api_visibility="private", queue=False)
    norm.change(_resize, norm, size, api_visibility="private", queue=False)
    once: dict[str, Any] = {"show_progress": "minimal", **_EXCLUSIVE}
    go.click(attack, [name, norm, size, steps, *inputs], result, api_name="attack", **once)
    least.click(smallest, [norm, *inputs], result, api_name="smallest", **once)


def _build_factors(context: ViewContext, limits: Limits) -> None:
    largest = min(limits.longest, *context.dataset.shape[1:])

    @_errors_shown
    def show(index: float, upload: str | None, rank: float, scale: float) -> str:
        if upload is None:
            chosen = _choose(context, index, None, AS_IT_IS, limits)
            data = context.words[context.words.index("--data") :] if "--data" in context.words else ()
            channels, name, words = to_unit_range(chosen.image).double(), chosen.name, (*data, *chosen.words)
        else:
            content, name = _read(upload, limits)
            channels = read_channels(content, name=name, longest=limits.longest)
            words = (name, "--longest", str(limits.longest))
        most = min(channels.shape[1:])
        factored = factor_picture(channels, name=name, rank=min(int(rank), most), scale=scale, words=words)
        return show_factorization(factored)

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            index, upload = _picture_controls(context)
            rank = gr.Slider(1, largest, value=min(4, largest), step=1, label="Rank r")
            scale = gr.Slider(0.25, 4, value=1, step=0.05, label="Gauge: scale c of (cA, B/c)")
        with gr.Column(scale=5, min_width=300):
            shown = gr.HTML(apply_default_css=False, value=show(0, None, min(4, largest), 1.0))
    inputs = [index, upload, rank, scale]
    upload.change(
        lambda file: gr.Slider(maximum=limits.longest if file else largest), upload, rank, api_visibility="private",
        queue=False,
    )  # fmt: skip
    gr.on([each.change for each in inputs], show, inputs, shown, api_name="factor", **_LIVE)


def _build_recurrence(limits: Limits) -> None:
    @_errors_shown
    def show(radius: float, norm: float, hidden: float, length: float, cell: str) -> str:
        values = {"radius": radius, "norm": norm, "hidden": int(hidden), "length": int(length), "cell": cell}
        return show_recurrence(measure_recurrence(RecurrenceChoice.parse(values), limits=limits))

    start = RecurrenceChoice()
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            radius = gr.Slider(0, 1.5, value=start.radius, step=0.01, label="Spectral radius ρ(W)")
            norm = gr.Slider(0, 5, value=start.norm, step=0.05, label="Norm ‖W‖, at least ρ")
            hidden = gr.Slider(1, limits.hidden, value=start.hidden, step=1, label="Units")
            length = gr.Slider(2, limits.length, value=start.length, step=1, label="Steps of the sequence")
            cell = gr.Radio(list(CELLS), value=start.cell, label="Cell: linear, tanh or relu")
        with gr.Column(scale=5, min_width=300):
            inputs = [radius, norm, hidden, length, cell]
            shown = gr.HTML(apply_default_css=False, value=show(*(each.value for each in inputs)))
    gr.on([each.change for each in inputs], show, inputs, shown, api_name="recurrence", **_LIVE)


def _errors_shown(view: Callable[..., str]) -> Callable[..., str]:
    """The view, with bad input shown as its one line instead of raised."""

    @wraps(view)
    def run(*inputs: Any) -> str:
        try:
            return view(*inputs)
        except AssayError as error:
            return show_error(" ".join(str(error).split()))

    return run


def _picture_controls(context: ViewContext) -> tuple[gr.Slider, gr.Image]:
    last = len(context.dataset) - 1
    index = gr.Slider(0, last, value=0, step=1, label=f"Sample of {context.dataset.name}, 0 to {last:,}")
    upload = gr.Image(
        type="filepath", image_mode=None, sources=["upload"], label="Or a picture of your own", height=180, buttons=[]
    )
    return index, upload


def _magnitude_control(name: str, context: ViewContext) -> gr.Slider | gr.Checkbox:
    operation = find_operation(name)
    if not operation.takes_magnitude:
        return gr.Checkbox(value=False, label=name, info=operation.meaning)
    _, height, width = context.dataset.shape
    magnitudes = [*sweep_magnitudes(operation, count=2, height=height, width=width), _identity(name)]
    step = 1.0 if operation.unit in {"px", "bits", "threshold", "°"} else 0.05
    return gr.Slider(
        min(magnitudes), max(magnitudes), value=_identity(name), step=step, label=f"{name}, {operation.unit}"
    )


def _identity(name: str) -> float | bool:
    identity = find_operation(name).identity
    return False if identity is None else identity


def _choose(context: ViewContext, index: float, upload: str | None, label: str, limits: Limits) -> Picture:
    if label != AS_IT_IS and label not in context.classes:
        raise DataError("label", expected="a class of the data", got=repr(label)[:80])
    if upload is None:
        chosen = sample_at(context.dataset, int(index))
    else:
        content, name = _read(upload, limits)
        data = context.dataset
        chosen = read_picture(content, name=name, shape=data.shape, preparation=data.preparation, limits=limits)
    return chosen if label == AS_IT_IS else chosen.with_label(context.classes.index(label), name=label)


def _read(upload: str, limits: Limits) -> tuple[bytes, str]:
    """The bytes of an upload, at most one beyond the limit, and its file name."""
    path = Path(upload)
    with path.open("rb") as file:
        return file.read(limits.upload_bytes + 1), path.name


def _resize(norm: str) -> Any:
    most, step, start = _SIZES[_SIGNS[norm]]
    unit = "ε, in levels of 255" if _SIGNS[norm] == "linf" else "ε, in pixels of [0, 1]"
    return gr.Slider(minimum=0, maximum=most, step=step, value=start, label=unit)


def _plain(text: str) -> str:
    """A name inside Markdown, with every character that could be markup escaped."""
    return "".join(c if c.isalnum() or c in " ._-/:" else f"&#{ord(c)};" for c in text)
