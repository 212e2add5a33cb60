"""Verdicts on claims in words: how they add up, and what an effect was held against."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from assay.records.claims import ClaimsReport, ClaimStatus, Effect
from assay.report.summary import Look
from assay.wording import listed, number, plural, seconds

LOOKS: Mapping[ClaimStatus, Look] = MappingProxyType(
    {
        "supported": Look("Supported", "✓", "pass"),
        "refuted": Look("Refuted", "✕", "error"),
        "undecided": Look("Undecided", "?", "warn"),
    }
)


def headline(report: ClaimsReport) -> str:
    """``Of 20 textbook statements, 11 hold, 6 do not and 3 stay undecided``."""
    counts = {outcome: sum(result.verdict == outcome for result in report.results) for outcome in LOOKS}
    words = {
        "supported": ("holds", "hold"),
        "refuted": ("does not", "do not"),
        "undecided": ("stays undecided", "stay undecided"),
    }
    parts = [f"{n} {words[outcome][n != 1]}" for outcome, n in counts.items() if n]
    if report.failed:
        parts.append(f"{len(report.failed)} could not be measured")
    total = len(report.results) + len(report.failed)
    return f"Of {plural(total, 'textbook statement')}, {listed(parts)}"


def circumstances(report: ClaimsReport) -> str:
    """``digits · budget quick · seed 0 · 9 min 12 s of work``."""
    work = sum(result.seconds for result in report.results)
    parts = [report.data, f"budget {report.budget}", f"seed {report.seed}", f"{seconds(work)} of work"]
    return " · ".join([*([report.model] if report.model else []), *parts])


def format_value(value: float, effect: Effect) -> str:
    """A value of the effect with its sign and unit."""
    shown = number(value).replace("-", "−")
    if effect.scale == "ratio":
        return f"×{shown}"
    sign = "+" if value > 0 and effect.expects != "same" and "minus" in effect.name else ""
    return f"{sign}{shown}"


def region(effect: Effect) -> str:
    """What the claim says of the mean: ``above 0.5``."""
    m = number(effect.margin)
    if effect.scale == "ratio":
        inverse = f"×1/{m}" if effect.margin != 1 else "×1"
        m = f"×{m}"
    else:
        inverse = f"−{m}" if effect.margin else "0"
    return {
        "increase": f"above {m}",
        "decrease": f"below {inverse}",
        "same": f"between {inverse} and {m}",
        "no decrease": f"above {inverse}",
        "no increase": f"below {m}",
    }[effect.expects]
