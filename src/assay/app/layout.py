"""The page of the app: the controls of each view and their layout. What is shown comes from the views."""

from __future__ import annotations

from typing import Any

import gradio as gr

from assay.app.answers import ANY, AS_IT_IS, SIGNS, Answers
from assay.app.panels import show_header
from assay.augment.gallery import sweep_magnitudes
from assay.augment.operations import TWELVE, find_operation
from assay.diagnostics.maps import METHODS
from assay.records.attack import Norm
from assay.views.attack import ATTACKS
from assay.views.context import LIMITS, Limits, ViewContext
from assay.views.recurrence import CELLS, RecurrenceChoice
from assay.views.samples import WANTED
from assay.wording import norm as sign

_EXCLUSIVE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # one request at a time
_LIVE: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
_HINT = '<p class="assay note">Attack the picture above, or search for the smallest adversarial perturbation.</p>'
# norm: (largest, step, start) of the slider of ε; that of L∞ in levels of 255
_SIZES: dict[Norm, tuple[float, float, float]] = {"linf": (64, 0.5, 8), "l2": (10, 0.05, 0.5), "l1": (100, 0.5, 12)}
_DEFAULT_NORM = sign("linf")


def build_app(context: ViewContext, *, limits: Limits = LIMITS) -> gr.Blocks:
    """The three tabs. The server is stateless: each request carries all that its response depends on."""
    answers = Answers(context, limits)
    with gr.Blocks(title=f"assay: {context.name}", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(show_header(context), apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Attack"):
                _build_attack(answers)
            with gr.Tab("Factorisation"):
                _build_factors(answers)
            with gr.Tab("Recurrence"):
                _build_recurrence(answers)
    page.queue(max_size=limits.queue, default_concurrency_limit=2)
    return page


def _build_attack(answers: Answers) -> None:
    with gr.Row(elem_classes="workspace"):
        with gr.Column(scale=2, min_width=300, elem_classes="seen"):
            shown = gr.HTML(apply_default_css=False, elem_classes="now")
            details = gr.HTML(apply_default_css=False, elem_classes="details")
        with gr.Column(scale=5, min_width=300, elem_classes="work"):
            sample, upload, kind, start, tiles = _choice_controls(answers.context)
            label, operations, reset = _change_controls(answers.context)
            gr.Markdown("## Attack it")
            with gr.Row():
                name = gr.Dropdown(list(ATTACKS), value="pgd", label="Attack")
                norm = gr.Radio(list(SIGNS), value=_DEFAULT_NORM, label="Norm")
            with gr.Row():
                size = gr.Slider(0, 64, value=8, step=0.5, label="ε, in levels of 255")
                steps = gr.Slider(1, answers.limits.steps, value=10, step=1, label="Steps")
            with gr.Row():
                go = gr.Button("Attack", variant="primary")
                least = gr.Button("Find the smallest perturbation")
            result = gr.HTML(_HINT, apply_default_css=False)
            gr.Markdown("## See what the answer rests on")
            with gr.Row():
                method = gr.Dropdown(list(METHODS), value=METHODS[-1], label="Saliency map")
                see = gr.Button("Make the map")
            made = gr.HTML(apply_default_css=False)
    inputs, ball = [sample, upload, label, *operations], [name, norm, size, steps]
    shown.value, details.value = answers.look(*(each.value for each in inputs))
    tiles.value = answers.find(*(each.value for each in (*kind, start, *ball)))
    changed = gr.on(
        [each.change for each in inputs], answers.look, inputs, [shown, details], api_name="look", **_EXCLUSIVE, **_LIVE
    )
    changed.then(
        lambda: (_HINT, ""), None, [result, made], api_visibility="private", show_progress="hidden", queue=False
    )
    sample.change(lambda: None, None, upload, api_visibility="private", queue=False)  # what was chosen last is shown
    reset.click(lambda: [_identity(name) for name in TWELVE], None, operations, api_visibility="private", queue=False)
    norm.change(_resize, norm, size, api_visibility="private", queue=False)
    once: dict[str, Any] = {"show_progress": "minimal", **_EXCLUSIVE}
    start.input(answers.find, [*kind, start, *ball], tiles, api_name="samples", **once)
    again = gr.on([each.input for each in kind], lambda: "0", None, start, api_visibility="private", queue=False)
    again.then(answers.find, [*kind, start, *ball], tiles, api_visibility="private", **once)
    go.click(answers.attack, [*ball, *inputs], result, api_name="attack", **once)
    least.click(answers.smallest, [norm, *inputs], result, api_name="smallest", **once)
    see.click(answers.explain, [method, *inputs], made, api_name="map", **once)


def _choice_controls(context: ViewContext) -> tuple[gr.Textbox, gr.Image, list[Any], gr.Textbox, gr.HTML]:
    """A sample or a picture of one's own, and thumbnails of the samples; ``start`` is where those begin."""
    gr.Markdown("## Choose a sample")
    with gr.Row():
        with gr.Column(min_width=240):
            sample, upload = _picture_controls(context, elem_id="sample")
        with gr.Column(min_width=240):
            wanted = gr.Radio(list(WANTED), value="all", label="Show", info="Broken: by the attack that is set below.")
            only = gr.Dropdown([ANY, *context.classes], value=ANY, label="Of class")
    start = gr.Textbox("0", visible="hidden", elem_id="start")
    return sample, upload, [wanted, only], start, gr.HTML(apply_default_css=False)


def _change_controls(context: ViewContext) -> tuple[gr.Dropdown, list[gr.Slider | gr.Checkbox], gr.Button]:
    """Another label, and the twelve image operations."""
    gr.Markdown("## Change it")
    info = "As it is: the sample's own, or the predicted class."
    label = gr.Dropdown([AS_IT_IS, *context.classes], value=AS_IT_IS, label="Label", info=info)
    with gr.Accordion("Twelve image operations", open=False):
        with gr.Row():
            operations = [_magnitude_control(name, context) for name in TWELVE]
        reset = gr.Button("Undo all", size="sm")
    return label, operations, reset


def _build_factors(answers: Answers) -> None:
    limits = answers.limits
    largest = min(limits.longest, *answers.context.dataset.shape[1:])
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            sample, upload = _picture_controls(answers.context)
            rank = gr.Slider(1, largest, value=min(4, largest), step=1, label="Rank r")
            scale = gr.Slider(0.25, 4, value=1, step=0.05, label="Gauge: scale c of (cA, B/c)")
        with gr.Column(scale=5, min_width=300):
            inputs = [sample, upload, rank, scale]
            shown = gr.HTML(apply_default_css=False, value=answers.factor(*(each.value for each in inputs)))
    upload.change(
        lambda file: gr.Slider(maximum=limits.longest if file else largest), upload, rank, api_visibility="private",
        queue=False,
    )  # fmt: skip
    gr.on([each.change for each in inputs], answers.factor, inputs, shown, api_name="factor", **_LIVE)


def _build_recurrence(answers: Answers) -> None:
    limits, start = answers.limits, RecurrenceChoice()
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            radius = gr.Slider(0, 1.5, value=start.radius, step=0.01, label="Spectral radius ρ(W)")
            norm = gr.Slider(0, 5, value=start.norm, step=0.05, label="Norm ‖W‖, at least ρ")
            hidden = gr.Slider(1, limits.hidden, value=start.hidden, step=1, label="Units")
            length = gr.Slider(2, limits.length, value=start.length, step=1, label="Steps of the sequence")
            cell = gr.Radio(list(CELLS), value=start.cell, label="Cell: linear, tanh or relu")
        with gr.Column(scale=5, min_width=300):
            inputs = [radius, norm, hidden, length, cell]
            shown = gr.HTML(apply_default_css=False, value=answers.recurrence(*(each.value for each in inputs)))
    gr.on([each.change for each in inputs], answers.recurrence, inputs, shown, api_name="recurrence", **_LIVE)


def _picture_controls(context: ViewContext, *, elem_id: str | None = None) -> tuple[gr.Textbox, gr.Image]:
    """A field for a sample, by what ``--sample`` takes, and a place to drop a picture."""
    data = context.dataset
    first = str(int(data.ids[0]))
    sample = gr.Textbox(
        first, label=f"Sample of {data.name}", info="Its number or name, as --sample takes it.", elem_id=elem_id,
        max_lines=1, max_length=200,
    )  # fmt: skip
    upload = gr.Image(
        type="filepath", image_mode=None, sources=["upload"], label="Or a picture of your own", height=150, buttons=[]
    )
    return sample, upload


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


def _resize(norm: str) -> Any:
    most, step, start = _SIZES[SIGNS[norm]]
    unit = "ε, in levels of 255" if SIGNS[norm] == "linf" else "ε, in pixels of [0, 1]"
    return gr.Slider(minimum=0, maximum=most, step=step, value=start, label=unit)
