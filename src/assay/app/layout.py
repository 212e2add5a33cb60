"""The page of the app: which controls a view has, and where they stand. Everything shown comes from the views."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from assay.app.panels import show_breakage, show_error, show_factored, show_look, show_recurrence
from assay.augment.gallery import sweep_magnitudes
from assay.augment.operations import TWELVE, find_operation
from assay.data.dataset import to_unit_range
from assay.errors import AssayError, DataError
from assay.lowrank.summary import read_channels
from assay.records.attack import Norm
from assay.views.breaking import OFFERED, AttackChoice, break_picture, find_smallest
from assay.views.factoring import factor_picture
from assay.views.looking import look
from assay.views.picture import Picture, alter, read_picture, sample_at
from assay.views.recurring import CELLS, RecurrenceChoice, measure_recurrence
from assay.views.subject import LIMITS, Limits, Subject
from assay.wording import norm

AS_IT_IS = "(as it is)"
_ALONE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # the model has one user at a time
_LIVE: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
_HINT = '<p class="assay note">Attack the picture above, or look for the smallest change that breaks it.</p>'
# norm: (largest, step, start) of its slider; L∞ counts in levels of 255
_SIZES: dict[Norm, tuple[float, float, float]] = {"linf": (64, 0.5, 8), "l2": (10, 0.05, 0.5), "l1": (100, 0.5, 12)}
_SIGNS: dict[str, Norm] = {norm(name): name for name in _SIZES}
_DEFAULT_NORM = norm("linf")


def build_app(subject: Subject, *, limits: Limits = LIMITS) -> gr.Blocks:
    """The three tabs. Nothing is kept between requests: each carries all that its answer depends on."""
    with gr.Blocks(title=f"assay: {subject.name}", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# assay\nLook at **{_plain(subject.name)}** on **{_plain(subject.dataset.name)}**, and break it.")
        with gr.Tabs():
            with gr.Tab("Look & break"):
                _build_look(subject, limits)
            with gr.Tab("Factorisation"):
                _build_factors(subject, limits)
            with gr.Tab("Recurrence"):
                _build_recurrence(limits)
    page.queue(max_size=limits.waiting, default_concurrency_limit=2)
    return page


def _build_look(subject: Subject, limits: Limits) -> None:
    def picture(place: float, upload: str | None, label: str, *magnitudes: float | bool) -> Picture:
        chosen = _choose(subject, place, upload, label, limits)
        wanted = dict(zip(TWELVE, magnitudes, strict=True))
        kept = {name: float(value) for name, value in wanted.items() if not (value is False or value is None)}
        return alter(chosen, kept)

    @_answered
    def show(*inputs: Any) -> str:
        return show_look(subject, look(subject, picture(*inputs)))

    @_answered
    def attack(name: str, norm: str, size: float, steps: float, *inputs: Any) -> str:
        epsilon = size / 255 if _SIGNS.get(norm) == "linf" else size
        values = {"attack": name, "norm": _SIGNS.get(norm, norm), "epsilon": epsilon, "steps": int(steps)}
        choice = AttackChoice.parse(values)
        return show_breakage(subject, break_picture(subject, picture(*inputs), choice, limits=limits))

    @_answered
    def smallest(norm: str, *inputs: Any) -> str:
        chosen = AttackChoice.parse({"norm": _SIGNS.get(norm, norm)})
        return show_breakage(subject, find_smallest(subject, picture(*inputs), norm=chosen.norm, limits=limits))

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            place, upload = _ask_for_picture(subject)
            label = gr.Dropdown(
                [AS_IT_IS, *subject.classes],
                value=AS_IT_IS,
                label="Label",
                info="As it is: the sample's own, or what the model says.",
            )
            with gr.Accordion("Twelve image operations", open=False):
                operations = [_ask_for_magnitude(name, subject) for name in TWELVE]
                reset = gr.Button("Undo all", size="sm")
        with gr.Column(scale=5, min_width=300):
            seen = gr.HTML(apply_default_css=False, value=show(0, None, AS_IT_IS, *(each.value for each in operations)))
    gr.Markdown("## Break it")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            name = gr.Dropdown(list(OFFERED), value="pgd", label="Attack")
            norm = gr.Radio(list(_SIGNS), value=_DEFAULT_NORM, label="Norm")
            size = gr.Slider(0, 64, value=8, step=0.5, label="ε, in levels of 255")
            steps = gr.Slider(1, limits.steps, value=10, step=1, label="Steps")
            go = gr.Button("Attack", variant="primary")
            least = gr.Button("Find the smallest ε that breaks it")
        with gr.Column(scale=5, min_width=300):
            broken = gr.HTML(_HINT, apply_default_css=False)
    inputs = [place, upload, label, *operations]
    shown = gr.on([each.change for each in inputs], show, inputs, seen, api_name="look", **_ALONE, **_LIVE)
    shown.then(lambda: _HINT, None, broken, api_visibility="private", show_progress="hidden", queue=False)
    reset.click(lambda: [_identity(name) for name in TWELVE], None, operations, api_visibility="private", queue=False)
    norm.change(_resize, norm, size, api_visibility="private", queue=False)
    go.click(attack, [name, norm, size, steps, *inputs], broken, api_name="attack", show_progress="minimal", **_ALONE)
    least.click(smallest, [norm, *inputs], broken, api_name="smallest", show_progress="minimal", **_ALONE)


def _build_factors(subject: Subject, limits: Limits) -> None:
    largest = min(limits.longest, *subject.dataset.shape[1:])

    @_answered
    def show(place: float, upload: str | None, rank: float, scale: float) -> str:
        if upload is None:
            chosen = _choose(subject, place, None, AS_IT_IS, limits)
            data = subject.words[subject.words.index("--data") :] if "--data" in subject.words else ()
            channels, name, words = to_unit_range(chosen.image).double(), chosen.name, (*data, *chosen.words)
        else:
            content, name = _read(upload, limits)
            channels, words = read_channels(content, name=name, longest=limits.longest), (name, *_shrunk(limits))
        most = min(channels.shape[1:])
        return show_factored(factor_picture(channels, name=name, rank=min(int(rank), most), scale=scale, words=words))

    def most(upload: str | None) -> Any:
        return gr.Slider(maximum=limits.longest if upload else largest)

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            place, upload = _ask_for_picture(subject)
            rank = gr.Slider(1, largest, value=min(4, largest), step=1, label="Rank r")
            scale = gr.Slider(0.25, 4, value=1, step=0.05, label="Gauge: scale c of (cA, B/c)")
        with gr.Column(scale=5, min_width=300):
            seen = gr.HTML(apply_default_css=False, value=show(0, None, min(4, largest), 1.0))
    inputs = [place, upload, rank, scale]
    upload.change(most, upload, rank, api_visibility="private", queue=False)
    gr.on([each.change for each in inputs], show, inputs, seen, api_name="factor", **_LIVE)


def _build_recurrence(limits: Limits) -> None:
    @_answered
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
            seen = gr.HTML(
                apply_default_css=False, value=show(start.radius, start.norm, start.hidden, start.length, start.cell)
            )
    inputs = [radius, norm, hidden, length, cell]
    gr.on([each.change for each in inputs], show, inputs, seen, api_name="recurrence", **_LIVE)


def _answered(view: Callable[..., str]) -> Callable[..., str]:
    """A view that answers bad input with its one line instead of failing."""

    @wraps(view)
    def answer(*inputs: Any) -> str:
        try:
            return view(*inputs)
        except AssayError as error:
            return show_error(" ".join(str(error).split()))

    return answer


def _ask_for_picture(subject: Subject) -> tuple[gr.Slider, gr.Image]:
    last = len(subject.dataset) - 1
    place = gr.Slider(0, last, value=0, step=1, label=f"Sample of {subject.dataset.name}, 0 to {last:,}")
    upload = gr.Image(
        type="filepath",
        image_mode=None,
        sources=["upload"],
        label="Or a picture of your own",
        height=180,
        buttons=[],
    )
    return place, upload


def _ask_for_magnitude(name: str, subject: Subject) -> gr.Slider | gr.Checkbox:
    operation = find_operation(name)
    if not operation.takes_magnitude:
        return gr.Checkbox(value=False, label=name, info=operation.meaning)
    low, high = _range(name, subject)
    step = 1.0 if operation.unit in {"px", "bits", "threshold", "°"} else 0.05
    return gr.Slider(low, high, value=_identity(name), step=step, label=f"{name}, {operation.unit}")


def _range(name: str, subject: Subject) -> tuple[float, float]:
    """The ends of an operation's sweep, its identity between them."""
    operation = find_operation(name)
    _, height, width = subject.dataset.shape
    values = sweep_magnitudes(operation, count=2, height=height, width=width)
    assert operation.identity is not None
    return min(*values, operation.identity), max(*values, operation.identity)


def _identity(name: str) -> float | bool:
    identity = find_operation(name).identity
    return False if identity is None else identity


def _choose(subject: Subject, place: float, upload: str | None, label: str, limits: Limits) -> Picture:
    if label != AS_IT_IS and label not in subject.classes:
        raise DataError("label", expected="a class of the data", got=repr(label)[:80])
    said = None if label == AS_IT_IS else subject.classes.index(label)
    if upload is None:
        chosen = sample_at(subject.dataset, int(place))
        return chosen if said is None else chosen.under(said, name=label)
    content, name = _read(upload, limits)
    chosen = read_picture(content, name=name, shape=subject.dataset.shape, limits=limits)
    return chosen if said is None else chosen.under(said, name=label)


def _read(upload: str, limits: Limits) -> tuple[bytes, str]:
    """The bytes of an upload, never more than the limit, and the name that its owner knows it by."""
    path = Path(upload)
    with path.open("rb") as file:
        return file.read(limits.upload_bytes + 1), path.name


def _shrunk(limits: Limits) -> tuple[str, str]:
    return ("--longest", str(limits.longest))


def _resize(norm: str) -> Any:
    most, step, start = _SIZES[_SIGNS[norm]]
    unit = "ε, in levels of 255" if _SIGNS[norm] == "linf" else "ε, in pixels of [0, 1]"
    return gr.Slider(minimum=0, maximum=most, step=step, value=start, label=unit)


def _plain(text: str) -> str:
    """A name inside Markdown: no sign of it may be read as markup."""
    return "".join(c if c.isalnum() or c in " ._-/:" else f"&#{ord(c)};" for c in text)
