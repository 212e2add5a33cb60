"""How much work a check may spend."""

from __future__ import annotations

from assay.options import Options


class Budget(Options):
    """Sample counts and iterations of the costly stages; None means all samples.

    ``clean``     samples for the accuracy on untouched images
    ``attacked``  samples for each attack and for the ε-curve
    ``probed``    samples for gradients and mode audits
    ``steps``     iterations of PGD;  ``restarts`` its random starts
    ``shown``     examples in each gallery;  ``pictured`` samples shown one by one
    ``doubted``   samples on which the attacks themselves are checked;  ``queries`` of the search without gradients
    """

    name: str
    clean: int | None
    attacked: int | None
    probed: int
    steps: int
    restarts: int
    shown: int = 12
    pictured: int = 300
    doubted: int = 64
    queries: int = 100


BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        name="quick", clean=2_000, attacked=200, probed=128, steps=10, restarts=1, pictured=200, doubted=32
    ),
    "standard": Budget(name="standard", clean=None, attacked=1_000, probed=256, steps=20, restarts=1),
    "full": Budget(
        name="full", clean=None, attacked=None, probed=1_024, steps=50, restarts=5, shown=24, doubted=200, queries=1_000
    ),
}
