"""A check as GitHub-flavoured Markdown, for job summaries and comments: result, findings, commands, and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from assay.records.checkup import Checkup
from assay.records.failure import FailedMeasurement
from assay.records.finding import Verdict
from assay.report.answers import answer, conclude
from assay.report.summary import (
    LOOKS,
    SEVERITY,
    circumstances,
    describe_uses,
    headline,
    in_order,
    states,
    subject_line,
    tally_sentence,
    warning,
)
from assay.wording import inert

_MARKS = re.compile(r"([\\`*_\[\]<>#|~$&])|^([-+=])|(?<=^\d)([.)])")
# what the pages of a forge make of plain text: people, issues, addresses, emoji
_LINKS = re.compile(r"(?<=@)(?=\w)|(?<=#)(?=\d)|(?<=:)(?=//|[a-z+-][\w+-]*:)|(?<=www)(?=\.)", re.IGNORECASE)
_BREAK = "<!-- -->"  # not shown, and no link goes over it


def render_markdown(checkup: Checkup) -> str:
    """The result, the key figures, the findings with what they measured and require, and what mends them.

    What holds is folded. Every text of the checkup is escaped: a class called ``|`` or ``@name`` stays a text.
    """
    conclusion = conclude(checkup)
    lines = [f"## {escape(conclusion)}", "", escape(subject_line(checkup)), ""]
    if (banner := warning(checkup.verdicts)) is not None:
        lines += [f"> **{escape(banner[1])}**", ""]
    if (measured := headline(checkup)) != conclusion:
        lines += [escape(measured), ""]
    lines += [f"- {LOOKS[status].sign} {escape(sentence)}" for status, sentence in describe_uses(checkup.fitness)]
    lines += ["", *_figures(checkup), *_mends(checkup), *_failures(checkup), *_verdicts(checkup), *_scores(checkup)]
    version = checkup.environment.assay
    lines.append(escape(f"{circumstances(checkup)} on {checkup.environment.device}, assay {version}."))
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """The text on one line, with everything that Markdown or a forge would act on made harmless."""
    plain = " ".join(inert(text).split())
    return _LINKS.sub(_BREAK, _MARKS.sub(lambda match: f"\\{match[0]}", plain))


def prose(text: str) -> str:
    """A text of a rule, in which `` `code` `` is code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return "".join(f"`{inert(piece)}`" if index % 2 else _escape_piece(piece) for index, piece in enumerate(pieces))


def _escape_piece(piece: str) -> str:
    """Spaces at its ends separate it from the code beside it."""
    start, end = (" " if piece[:1] == " " else ""), (" " if piece[-1:] == " " else "")
    return f"{start}{escape(piece)}{end}" if piece.strip() else piece


def fence(command: str) -> list[str]:
    """The command as a block of code that nothing in it can end."""
    code = inert(command)
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return [f"{marks}sh" if code.startswith("assay ") else f"{marks}python", *code.splitlines(), marks]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of cells that are escaped already, a blank line after it; nothing where there is no row."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}", *body, ""] if body else []


def _figures(checkup: Checkup) -> list[str]:
    answers = answer(checkup)
    rows = (
        [(each.name, f"**{escape(each.number)}**", escape(each.detail)) for each in answers.figures] if answers else []
    )
    return table(("", "", ""), ((escape(name), number, detail) for name, number, detail in rows))


def _mends(checkup: Checkup) -> Iterator[str]:
    answers = answer(checkup)
    if answers is None or not answers.mends:
        return
    yield from ("### What to do", "")
    for mend in answers.mends:
        rules = f" ({', '.join(escape(rule) for rule in mend.rules)})" if mend.rules else ""
        yield f"{LOOKS[mend.status].sign} {prose(mend.text)}{rules}"
        yield ""
        if mend.command:
            yield from (*fence(mend.command), "")
    if answers.further:
        yield from (f"{answers.further} more below.", "")


def _failures(checkup: Checkup) -> list[str]:
    rows = ((escape(each.place), escape(each.reason), escape(each.way_out)) for each in checkup.each(FailedMeasurement))
    lines = table(("could not run", "reason", "way out"), rows)
    return ["### Could not run", "", *lines] if lines else []


def _verdicts(checkup: Checkup) -> Iterator[str]:
    ordered = in_order(checkup.verdicts)
    open_ones = [verdict for verdict in ordered if verdict.status not in {"pass", "not run"}]
    yield from ("### Verdicts", "", escape(tally_sentence(checkup.verdicts)), "")
    yield from _listing(open_ones)
    for verdict in open_ones:
        if verdict.accepted is not None:
            yield from (f"{escape(verdict.rule)} is accepted: {escape(verdict.accepted.reason)}", "")
    folded = [verdict for verdict in ordered if verdict.status in {"pass", "not run"}]
    if folded:
        yield from (f"<details><summary>What holds, and what did not run: {len(folded)}</summary>", "")
        yield from (*_listing(folded), "</details>", "")


def _listing(verdicts: Sequence[Verdict]) -> list[str]:
    rows = (
        (
            f"{LOOKS[verdict.status].sign} {LOOKS[verdict.status].word}",
            escape(verdict.rule),
            escape(verdict.statement),
            escape(verdict.measured) + (f" ({escape(verdict.where)})" if verdict.where else ""),
            escape(verdict.threshold),
        )
        for status in SEVERITY
        for verdict in verdicts
        if verdict.status == status
    )
    return table(("", "rule", "finding", "measured", "required"), rows)


def _scores(checkup: Checkup) -> list[str]:
    rows = (
        (escape(state.title), "–" if state.score is None else str(state.score), escape(state.summary))
        for state in states(checkup.verdicts)
    )
    return table(("score", "of 100", "rules"), rows)
