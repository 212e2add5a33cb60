"""Factorisations and compressions in words, the same on pages and on the terminal."""

from __future__ import annotations

from assay.records.compression import CompressionPoint, CompressionReport, LayerCompression
from assay.records.factorization import Certificate, FactorizationReport
from assay.records.finding import Status
from assay.wording import plural, points


def factor_headline(report: FactorizationReport) -> str:
    """The finding in one sentence."""
    energy = f"{100 * report.energy_kept:.4g} % of the energy"
    numbers = report.rank * (report.rows + report.columns) / (report.rows * report.columns)
    return f"Rank {report.rank} keeps {energy} in {100 * numbers:.3g} % of the numbers"


def state_badge(report: FactorizationReport) -> tuple[str, str]:
    """The tone, and in two or three words what is proved."""
    if report.missed:
        return "error", "not what was asked for"
    return ("pass", "certified optimal") if report.certificate.certified else ("warn", "not certified")


def state_miss(report: FactorizationReport) -> str:
    """What was asked for and is not kept, in a sentence; "" where it is."""
    return f"Asked for: {report.rule}. That is not met: {report.missed}." if report.missed else ""


def state_proof(c: Certificate) -> str:
    """What the certificate says, in a sentence."""
    if c.guarantee == "none":
        return f"No bound on the error was computed: {c.reason}."
    holds = "" if c.guarantee == "deterministic" else f", except with probability {c.failure_probability:.0e}"
    text = (
        f"No factorisation of this rank has an objective below {c.optimum_low:.10g}; this one has {c.error:.10g}. "
        f"It is at most {c.relative_gap:.1e} of ‖X‖² above the best{holds}."
    )
    return text if c.certified else f"{text} That is too wide for a proof: {c.reason}."


def compression_headline(report: CompressionReport) -> str:
    """The finding in one sentence: how much faster, for how much; or at once that nothing was replaced, and why."""
    before, after = report.before, report.after
    if not replaced_layers(report):
        slower = all(layer.reason.startswith("none of") for layer in report.layers)
        why = "No layer got faster" if slower else "The budget needs no change"
        return f"{why}: nothing was replaced"
    cost = (
        f"{100 * (1 - after.flops / before.flops):.0f} % fewer FLOPs for "
        f"{points(after.clean.accuracy - before.clean.accuracy)} points of accuracy"
    )
    if report.latency_ratio < 1:
        return f"{1 / report.latency_ratio:.2f} times as fast: {cost}"
    return f"Not faster, {report.latency_ratio:.2f} times the latency: {cost}"


def compression_badge(report: CompressionReport) -> tuple[Status, str]:
    """The tone, and in a few words whether it got faster."""
    n = len(replaced_layers(report))
    if not n:
        return "warn", "Unchanged"
    amount = f"{n} of {plural(len(report.layers), 'layer')} replaced"
    return ("pass", f"Faster, {amount}") if report.latency_ratio < 1 else ("warn", f"Not faster, {amount}")


def replaced_layers(report: CompressionReport) -> tuple[LayerCompression, ...]:
    """The layers that are thinner now."""
    return tuple(layer for layer in report.layers if layer.kind != "kept")


def find_wins(curve: tuple[CompressionPoint, ...]) -> tuple[int, int]:
    """At how many of how many ranks knowing the data was better than the weights alone."""
    aware = {point.share: point.accuracy for point in curve if point.method == "data-aware"}
    plain = {point.share: point.accuracy for point in curve if point.method == "weight SVD"}
    shared = aware.keys() & plain.keys()
    return sum(aware[share] > plain[share] for share in shared), len(shared)
