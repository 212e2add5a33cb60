"""How curved the loss is around the weights."""

from __future__ import annotations

from assay.records.checkup import Checkup
from assay.records.curvature import Curvature
from assay.report.parts import Facts, Section
from assay.report.wording import count, number, plural


def curvature_section(checkup: Checkup) -> Section | None:
    """The largest eigenvalues of the Hessian, its trace, and the learning rate they allow."""
    curvature = checkup.first(Curvature)
    if curvature is None:
        return None
    facts = (
        ("largest eigenvalue λ", f"{_first(curvature)} ± {number(curvature.residual)}"),
        ("largest stable learning rate, 2/λ", number(curvature.critical_learning_rate)),
        *(() if curvature.learning_rate is None else (("learning rate in use", number(curvature.learning_rate)),)),
        ("largest eigenvalues", ", ".join(number(value) for value in curvature.eigenvalues[:10])),
        ("smallest eigenvalue found", number(curvature.smallest)),
        ("trace", f"{number(curvature.trace)} ± {number(curvature.trace_error)} (standard error)"),
        ("measured on", f"{plural(curvature.n, 'sample')}, {count(curvature.parameters)} parameters, "
         f"{plural(curvature.iterations, 'Lanczos iteration')}"),
    )  # fmt: skip
    summary = "The Hessian of the mean loss, in evaluation mode. " + (
        "It has negative curvature: the loss is not convex here."
        if curvature.smallest < 0
        else "No direction of negative curvature was found."
    )
    return Section("curvature", "Curvature of the loss", summary, (Facts(facts),), records=(curvature,))


def _first(curvature: Curvature) -> str:
    return number(curvature.eigenvalues[0]) if curvature.eigenvalues else "–"
