"""What is done with a check.json, without model and data: ``assay report``, ``accept`` and ``explain``."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.options import BaselineFile, CheckFile, argument, flag, option
from assay.errors import InputError, OptionError

# What a check.json can be turned into
Form = StrEnum(
    "Form",
    {
        "HTML": "html",
        "TEXT": "text",
        "MARKDOWN": "markdown",
        "MODEL_CARD": "model-card",
        "JUNIT": "junit",
        "SARIF": "sarif",
    },
)

_NAMES = {
    Form.HTML: "report.html",
    Form.MARKDOWN: "check.md",
    Form.MODEL_CARD: "model-card.md",
    Form.JUNIT: "check.junit.xml",
    Form.SARIF: "check.sarif",
}


def report(
    document: CheckFile,
    form: Annotated[
        Form,
        option(
            "Output",
            "What to write: html, text, markdown, model-card, junit or sarif.",
            "--format",
            metavar="FORMAT",
        ),
    ] = Form.HTML,
    out: Annotated[
        Path | None,
        option("Output", "The file to write; `-` writes to standard output. (default: beside CHECK)", metavar="FILE"),
    ] = None,
    baseline: BaselineFile = None,
) -> None:
    """Draw a report from a check.json: an offline page, a text, Markdown, a model card, JUnit XML or SARIF."""
    from rich.console import Console

    from assay.files import write_atomically
    from assay.records.reading import read_baseline, read_checkup
    from assay.report.check_page import render_page
    from assay.report.ci import render_junit, render_sarif
    from assay.report.markdown import render_markdown
    from assay.report.model_card import render_model_card
    from assay.report.terminal.check import print_summary
    from assay.verdict.baseline import apply_baseline

    path = document / "check.json" if document.is_dir() else document
    checkup = read_checkup(path)
    if baseline is not None:
        checkup = apply_baseline(checkup, read_baseline(baseline), today=datetime.now(UTC).date())
    if form is Form.TEXT and out is None:
        print_summary(checkup, Console())
        return
    if form is Form.TEXT:
        console = Console(file=StringIO(), width=80, no_color=True, record=True)
        print_summary(checkup, console)
        content = console.export_text()
    else:
        renderers = {
            Form.HTML: render_page,
            Form.MARKDOWN: render_markdown,
            Form.MODEL_CARD: render_model_card,
            Form.JUNIT: render_junit,
            Form.SARIF: render_sarif,
        }
        content = renderers[form](checkup)
    if str(out) == "-":
        typer.echo(content, nl=False)
        return
    target = out or path.with_name(_NAMES[form])
    write_atomically(target, content)
    typer.echo(f"Report: {target}")


def accept(
    document: CheckFile,
    rules: Annotated[list[str] | None, argument("Ids of rules, such as A202.", metavar="[RULE…]")] = None,
    reason: Annotated[str, option("Entry", "Why; it is shown wherever the finding is.", metavar="TEXT")] = "",
    expires: Annotated[str | None, option("Entry", "The last day it holds.", metavar="YYYY-MM-DD")] = None,
    every: Annotated[bool, flag("Entry", "Accept every finding of this check.", "--all")] = False,
    baseline: Annotated[Path, option("Output", "The file to write or to add to.", metavar="FILE")] = Path(
        "accepted.json"
    ),
) -> None:
    """Accept findings of a check: they are still shown but no longer fail it. Writes a baseline for `--baseline`.

    An accepted warning does not cover an error, an entry expires after its day, and entries whose rule passes again
    are named by the next check.
    """
    from assay.files import write_atomically
    from assay.records.finding import Baseline
    from assay.records.reading import read_baseline, read_checkup
    from assay.verdict.baseline import accept_findings

    checkup = read_checkup(document / "check.json" if document.is_dir() else document)
    if every == bool(rules):
        raise InputError("RULE", expected="rules such as A202, or --all", got="both" if every else "neither")
    findings = [verdict.rule for verdict in checkup.verdicts if verdict.status in {"warn", "error"}]
    before = read_baseline(baseline) if baseline.exists() else Baseline()
    chosen = findings if every else [rule.strip().upper() for rule in rules or ()]
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
    rule: Annotated[
        str | None, argument("A rule's id, such as A201; without one all are listed.", metavar="RULE")
    ] = None,
) -> None:
    """Explain a rule: its claim, threshold, reason, fix, known limits, examples that fail and pass, and reference."""
    from rich.console import Console

    from assay.report.terminal.check import print_rule, print_rules
    from assay.verdict import RULES, Evidence, find_rule

    if rule is None:
        print_rules([(each.id, each.category, each.claim) for each in RULES], Console())
        return
    chosen = find_rule(rule)
    examples = (chosen.examples.passing, chosen.examples.failing)
    passing, failing = (chosen.verdict(Evidence(records())) for records in examples)
    print_rule(passing, failing, Console(), limits=chosen.limits, remedy=chosen.remedy)
