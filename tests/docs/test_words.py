"""Words that were replaced by the field's terms (docs/glossary.md) stay out of the sources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import assay

SOURCE = Path(assay.__file__).parent
VAGUE = "said|found|reached|kept|whole|worth|reach|lost|gain|asked|answer|lesson|told"
# Word or phrase → the term. Regular expressions, whatever the case; identifiers count as words.
REPLACED = {
    r"(?<!p)lanes?\b|lane_fields": "active batch",
    r"\bledgers?\b": "best so far",
    r"\bcurricul(um|a)\b": "training task",
    r"\blessons?\b": "micro-batch",
    r"\bleaflets?\b": "page",
    r"(?<!cvpr )\bworkshops?\b": "fix context",
    r"\bbench\b": "check context",
    r"\bpatient\b(?! and consistent)": "multi-step attack (PGD)",
    r"\blast word\b": "verified by the original model",
    r"\bdress(ed|es)?\b(?!, coat)": "page frame",
    r"\bhopeless(ly)?\b": "early stopping",
    r"\byielding\b|\bworth_probing\b": "success rate",
    r"\baim(ed|s|ing)?\b": "target class",
    r"\bstanding\b": "summary",
    r"\bforemost\b|\bdoubts\b": "top findings, failing",
    r"\bfruitless\b": "without success",
    r"\bjournals?\b(?! of)": "resumable store",
    r"\bbeliev(e|es|ed|able)\b": "calibrated",
    r"\bsurviv(e|es|ed|ing)\b(?! a fork| any epsilon)": "robust",
    r"\bside_by_side\b|\bnothing_around\b|\bremember\b|\brights\b": "what it is",
    rf"^\s*(?-i:{VAGUE})(: [^=]+)? = (?!None|True)": "what the variable holds",
}


def uses(pattern: str) -> list[str]:
    searched = re.compile(pattern, re.IGNORECASE)
    return [
        f"{path.relative_to(SOURCE).as_posix()}:{number}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if searched.search(line)
    ]


@pytest.mark.parametrize(("pattern", "term"), list(REPLACED.items()))
def test_a_replaced_word_is_not_used(pattern: str, term: str) -> None:
    assert uses(pattern) == [], f"the term is: {term}"
