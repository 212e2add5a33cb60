"""What ``assay explain`` prints: the rules by category, or one of them with examples that pass and fail."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from assay.records.finding import Verdict
from assay.report.terminal.layout import print_facts, print_line, print_table


def print_rules(rules: Sequence[tuple[str, str, str]], console: Console) -> None:
    """Ids and claims of (id, category, claim), under their categories."""
    for category in dict.fromkeys(category for _, category, _ in rules):
        print_line(console, category, "bold")
        rows = [(f"  {rule_id}", claim) for rule_id, own, claim in rules if own == category]
        print_table(console, ("", ""), rows, header=False)


def print_rule(passing: Verdict, failing: Verdict, console: Console, *, limits: str, remedy: str = "") -> None:
    """One rule, from its verdicts on an example that passes and on one that does not."""
    print_line(console, f"{passing.rule} · {passing.category}", "bold")
    print_line(console, passing.claim, "bold")
    facts = (
        ("Passes when", passing.threshold),
        ("Why", passing.why),
        ("Fix", passing.fix),
        ("Applied by", f"assay check --apply-fixes ({remedy})" if remedy else ""),
        ("Known limits", limits),
        ("Example", f"{failing.status}: {_measured(failing)}"),
        ("", f"pass: {_measured(passing)}"),
        ("Reference", passing.reference),
        ("Judged from", ", ".join(passing.evidence)),
    )
    print_facts(console, facts)


def _measured(verdict: Verdict) -> str:
    return verdict.measured + (f" ({verdict.where})" if verdict.where else "")
