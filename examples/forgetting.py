"""A recurrence with a norm above 1 and a spectral radius below 1: its gradient grows first and vanishes in the end.

python examples/forgetting.py
"""

from assay.views import RecurrenceChoice, measure_recurrence

for radius, norm in ((0.9, 0.9), (0.9, 3.0), (1.05, 3.0)):
    found = measure_recurrence(RecurrenceChoice(radius=radius, norm=norm, hidden=8, length=80))
    norms = found.norms
    print(
        f"ρ = {radius}, ‖W‖ = {norm}: largest {max(norms):.3g} at k = {norms.index(max(norms))}, last {norms[-1]:.3g}"
    )
    print("   ", found.matrix.proves[-1])
