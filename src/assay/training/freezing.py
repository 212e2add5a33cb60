"""Early layers stop learning before the run ends, and their backward pass is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from assay.errors import OptionError


@contextmanager
def staged_freezing(model: nn.Module, stages: Sequence[tuple[float, str]]) -> Iterator[Callable[[float], None]]:
    """A function of the share of the run that is done: it freezes the modules whose ``stages`` (share, name) have come.

    Where nothing before a frozen module needs a gradient, none is computed up to its output (Brock et al. 2017,
    *FreezeOut*). Running statistics still follow the images. At the end all parameters may learn again.
    Raises :class:`OptionError` for a name that is no module of ``model``.
    """
    modules = dict(model.named_modules())
    for _, name in stages:
        if name not in modules:
            known = ", ".join(list(modules)[1:9])
            raise OptionError("freeze", expected=f"a module of the network, such as {known}", got=name)
    frozen: list[nn.Parameter] = []

    def freeze(progress: float) -> None:
        for start, name in stages:
            for parameter in modules[name].parameters() if start <= progress else ():
                if parameter.requires_grad:
                    parameter.requires_grad_(False).grad = None
                    frozen.append(parameter)

    try:
        yield freeze
    finally:
        for parameter in frozen:
            parameter.requires_grad_()
