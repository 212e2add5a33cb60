"""What ``assay factor`` and ``assay compress`` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from assay.records.compression import CompressionReport
from assay.records.factorization import FactorizationReport
from assay.report.lowrank_wording import (
    compression_headline,
    factor_headline,
    state_badge,
    state_miss,
    state_proof,
)
from assay.report.terminal.layout import STYLES, print_line, print_table
from assay.wording import plural, points

_UNIQUENESS = {"tied": "σ_r = σ_{r+1}: other factors are as good", "undecided": "σ_r and σ_{r+1} are not told apart"}


def print_factorization(
    record: FactorizationReport, console: Console, *, page: Path, out: Path | None = None, scales: Sequence[float] = ()
) -> None:
    """The error, its certificate, the spectrum, and the gauge at ``scales``."""
    c = record.certificate
    tone, badge = state_badge(record)
    print_line(console, Text.assemble((factor_headline(record), "bold"), "  ", (badge, STYLES[tone])), wrap=False)
    size = f"{record.source}: {record.rows:,} × {record.columns:,}"
    lines = [f"{size}, by {record.method} in {record.seconds:.2g} s", state_proof(c)]
    lines += [state_miss(record)] if record.missed else []
    if c.guarantee != "none":
        lines.append(f"error      in [{c.error_low:.12g}, {c.error_high:.12g}]")
        lines.append(f"optimum    in [{c.optimum_low:.12g}, {c.optimum_high:.12g}]")
    lines.append(f"uniqueness {_UNIQUENESS.get(c.uniqueness, c.uniqueness)}")
    values = ", ".join(f"{value:.5g}" for value in record.singular_values[: min(8, record.rank)])
    lines.append(f"singular values {values}{' …' if record.rank > 8 else ''}")
    lines += [
        f"rank {picture.rank:>3}   {picture.psnr:5.1f} dB   {100 * picture.energy_kept:.4g} % of the energy"
        for picture in record.pictures[1:]
    ]
    lines += [
        f"c = {point.scale:g}    loss {point.loss:.8g}, sharpness {point.sharpness:.4g}, "
        f"steps below {2 / point.sharpness:.3g}"
        for point in record.gauge
        if point.scale in scales
    ]
    lines += [f"factors    {out}"] if out is not None else []
    for line in (*lines, f"page       {page}"):
        print_line(console, line, wrap=False)


def print_compression(report: CompressionReport, console: Console, *, out: Path) -> None:
    """Size, FLOPs, latency and accuracy before and after, every layer, and the accuracy against rank."""
    before, after = report.before, report.after
    print_line(console, compression_headline(report), "bold", wrap=False)
    rows = [
        _ratio("parameters", before.parameters, after.parameters, ","),
        _ratio("FLOPs an image", before.flops, after.flops, ","),
        _ratio(f"ms for {plural(before.batch, 'image')}", 1e3 * before.latency, 1e3 * after.latency, ".2f"),
        (
            "accuracy",
            f"{100 * before.clean.accuracy:.2f} %",
            f"{100 * after.clean.accuracy:.2f} %",
            f"{points(after.clean.accuracy - before.clean.accuracy)} points",
        ),
    ]
    if before.robust is not None and after.robust is not None:
        was, now = (f"{100 * one.accuracy:.1f} %" for one in (before.robust, after.robust))
        rows.append((f"under {before.robust.attack}", was, now, f"n = {before.robust.n}"))
    print_table(console, ("", ">before", ">after", ""), rows)
    print_table(
        console,
        ("layer", "form", "rank", ">FLOPs", ">latency", "κ", ">error"),
        (
            (layer.name, layer.reason, "", "", "", f"{layer.condition_before:.3g}", "")
            if layer.kind == "kept"
            else (
                layer.name,
                layer.kind,
                f"{layer.rank} of {layer.full_rank}",
                f"{layer.flops_after / layer.flops_before:.2f}×",
                f"{layer.latency_after / layer.latency_before:.2f}×",
                f"{layer.condition_before:.3g} → {layer.condition_after:.3g}",
                f"{100 * layer.relative_error:.2g} %",
            )
            for layer in report.layers
        ),
    )
    for point in report.curve:
        accuracy = f"{100 * point.accuracy:.2f} %"
        print_line(console, f"{point.method:>10} at {100 * point.share:.0f} % of the rank: {accuracy}", wrap=False)
    if report.fine_tuning_epochs:
        accuracy = f"{100 * report.compressed.accuracy:.2f} %"
        print_line(console, f"{report.fine_tuning_seconds:.0f} s of fine-tuning; before it {accuracy}", wrap=False)
    for line in (*report.notes, *(f"left out   {name}: {reason}" for name, reason in report.left_out)):
        print_line(console, line, wrap=False)
    print_line(console, f"page       {out / 'compression.html'}", wrap=False)
    named = (out / "config.json").is_file()  # a program in a file and code of the user's are opened with the weights
    opened = str(out) if named else f"{report.model} --weights {out / 'model.safetensors'}"
    print_line(console, f"network    {out}: assay check {opened}", wrap=False)


def _ratio(name: str, before: float, after: float, form: str) -> tuple[str, str, str, str]:
    return name, format(before, form), format(after, form), f"{after / before:.2f}×" if before else ""
