"""``assay explain``: what a rule asks, why it matters, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    rule: Annotated[str | None, typer.Argument(help="A rule's id, such as A201; without one all are listed.")] = None,
) -> None:
    """Explain a rule: its claim, threshold, why it matters, the fix and the reference."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from assay.verdict import RULES, find_rule

    console = Console()
    if rule is None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("rule")
        table.add_column("category")
        table.add_column("claim")
        for each in RULES:
            table.add_row(each.id, each.category, each.claim)
        console.print(table)
        return
    found = find_rule(rule)
    console.print(Text.assemble((found.id, "bold"), " · ", found.category))
    console.print(Text(found.claim, style="bold"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in (
        ("Passes when", found.threshold),
        ("Why", found.why),
        ("Fix", found.fix),
        *((("Applied by", f"assay check --apply-fixes ({found.remedy})"),) if found.remedy else ()),
        ("Reference", found.reference),
        ("Judged from", ", ".join(need.__name__ for need in found.needs)),
    ):
        table.add_row(label, text)
    console.print(table)
