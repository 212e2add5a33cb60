"""What ``assay look`` prints of one picture: the probabilities, and an attack on it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from assay import wording
from assay.report.terminal.layout import bar, print_line, print_notes, print_table

SHOWN = 5


def print_prediction(title: str, probabilities: Sequence[tuple[str, float]], console: Console, *, note: str) -> None:
    """The likeliest classes of one picture."""
    print_line(console, title, "bold", wrap=False)
    largest = sorted(probabilities, key=lambda pair: -pair[1])[:SHOWN]
    rows = ((name, f"{100 * p:.2f} %", bar(p, "blue")) for name, p in largest)
    print_table(console, ("", ">", ""), rows, header=False)
    print_line(console, note, wrap=False)


def print_picture_attack(
    finding: str,
    console: Console,
    *,
    success: bool,
    norm: str,
    distance: float | None,
    survives_rounding: bool | None,
    losses: Sequence[float],
    notes: Sequence[str] = (),
) -> None:
    """The finding, the distance of the adversarial image, and the loss after each step of the attack."""
    print_line(console, finding, f"bold {'red' if success else 'green'}", wrap=False)
    print_notes(console, notes)
    if distance is not None:
        rounded = "still misclassified" if survives_rounding else "classified correctly again"
        size = f"{wording.norm(norm)} distance {wording.distance(distance, norm)}"
        print_line(console, f"{size}; as an 8-bit file {rounded}", wrap=False)
    if len(losses) > 1:
        last = len(losses) - 1
        steps = sorted({round(i * last / min(last, 10)) for i in range(min(last, 10) + 1)})
        print_table(console, (">step", ">loss"), ((str(step), f"{losses[step]:.4f}") for step in steps))
