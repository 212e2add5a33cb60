"""``assay accept``: decide to live with findings, in a file that is reviewed like code."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from assay.errors import InputError, OptionError


def accept(
    document: Annotated[
        Path, typer.Argument(metavar="CHECK", help="A check.json, or the folder that holds one.", show_default=False)
    ],
    rules: Annotated[
        list[str] | None, typer.Argument(metavar="[RULE…]", help="Such as A202.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it is shown wherever the finding is.", show_default=False)] = "",
    expires: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The last day it holds.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Accept every finding of this check.")] = False,
    baseline: Annotated[Path, typer.Option(help="The file to write or to add to.")] = Path("accepted.json"),
) -> None:
    """Accept findings of a check: they stay in sight and no longer fail it. Writes a baseline for `--baseline`.

    An accepted warning does not cover an error, an entry ends with its day, and entries whose rule holds again are
    named by the next check.
    """
    from assay.files import write_atomically
    from assay.records.finding import Baseline
    from assay.records.reading import read_baseline, read_checkup
    from assay.verdict.baseline import accept_findings

    checkup = read_checkup(document / "check.json" if document.is_dir() else document)
    if every == bool(rules):
        raise InputError("RULE", expected="rules such as A202, or --all", got="both" if every else "neither")
    found = [verdict.rule for verdict in checkup.verdicts if verdict.status in {"warn", "error"}]
    before = read_baseline(baseline) if baseline.exists() else Baseline()
    chosen = found if every else [rule.strip().upper() for rule in rules or ()]
    after = accept_findings(
        checkup, before, rules=chosen, reason=reason, expires=_day(expires), today=datetime.now(UTC).date()
    )
    write_atomically(baseline, after.model_dump_json(indent=2) + "\n")
    typer.echo(f"Accepted: {', '.join(chosen) or 'nothing'}. Baseline: {baseline}, {len(after.accepted)} in all")


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise OptionError("--expires", expected="a day such as 2027-01-31", got=text) from None


def explain(
    rule: Annotated[str | None, typer.Argument(help="A rule's id, such as A201; without one all are listed.")] = None,
) -> None:
    """Explain a rule: its claim, threshold, reason, fix, known limits, examples that fail and pass, and reference."""
    from rich.console import Console

    from assay.report.terminal.rules import print_rule, print_rules
    from assay.verdict import RULES, Evidence, find_rule

    if rule is None:
        print_rules([(each.id, each.category, each.claim) for each in RULES], Console())
        return
    chosen = find_rule(rule)
    examples = (chosen.examples.passing, chosen.examples.failing)
    passing, failing = (chosen.verdict(Evidence(records())) for records in examples)
    print_rule(passing, failing, Console(), limits=chosen.limits, remedy=chosen.remedy)
