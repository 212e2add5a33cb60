"""When training produces numbers that are not finite: where it began."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from assay.errors import DivergedError
from assay.training.step import Lesson


def is_sane(loss: float, gradient_norm: float, *, ceiling: float) -> bool:
    """Finite, and the loss not above ``ceiling``."""
    return math.isfinite(loss) and math.isfinite(gradient_norm) and loss <= ceiling


def explain_divergence(
    model: nn.Module,
    lessons: Sequence[tuple[int, Lesson]],
    *,
    step: int,
    loss: float,
    gradient_norm: float,
    kept: str | None,
) -> DivergedError:
    """The error to raise: the step, the layer where it shows first, and where the last good checkpoint is.

    ``lessons`` are those the model was just given.
    """
    layer = None
    for _, lesson in lessons:
        layer = layer or first_bad_layer(model, lesson)
    where = f", first in {layer}" if layer else ""
    checkpoint = f"the last good checkpoint is {kept}" if kept else "no checkpoint was kept"
    return DivergedError(
        f"step {step}: the loss is {loss:.4g} and the gradient norm {gradient_norm:.4g}{where}; {checkpoint}; "
        "a lower learning rate or clipping may help"
    )


def first_bad_layer(model: nn.Module, lesson: Lesson) -> str | None:
    """The first module, in the order of the forward pass, whose parameters, output or gradient are not finite.

    Parameters come first (they spoil everything after them), then outputs, then gradients from the output backwards.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            return _describe(model, name.rpartition(".")[0], f"parameter {name}")
    bad: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, _: object, output: object) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        if any(isinstance(part, Tensor) and not bool(part.detach().isfinite().all()) for part in parts):
            bad.append(_describe(model, names[module], "output"))

    hooks = [module.register_forward_hook(look) for module in names if not list(module.children())]
    try:
        lesson(model)
    finally:
        for hook in hooks:
            hook.remove()
    if bad:
        return bad[0]
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return _describe(model, name.rpartition(".")[0], f"gradient of {name}")
    return None


def _describe(model: nn.Module, name: str, what: str) -> str:
    module = model.get_submodule(name)
    return f"layer {name or '(model)'!s} ({type(module).__name__}, {what})"
