"""How much work a check may spend."""

from __future__ import annotations

from assay.options import Options


class Budget(Options):
    """Sample counts and iterations of the costly stages; None means all samples.

    ``clean``     samples for the accuracy on untouched images
    ``attacked``  samples for each attack and for the ε-curve
    ``probed``    samples for gradients and mode audits
    ``steps``     iterations of PGD;  ``restarts`` its random starts
    ``shown``     examples in each gallery
    """

    name: str
    clean: int | None
    attacked: int | None
    probed: int
    steps: int
    restarts: int
    shown: int = 12


BUDGETS: dict[str, Budget] = {
    "quick": Budget(name="quick", clean=2_000, attacked=200, probed=128, steps=10, restarts=1),
    "standard": Budget(name="standard", clean=None, attacked=1_000, probed=256, steps=20, restarts=1),
    "full": Budget(name="full", clean=None, attacked=None, probed=1_024, steps=50, restarts=5, shown=24),
}
