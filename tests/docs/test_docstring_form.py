"""Everything public is documented in one form: summary, Args, Returns, Raises, Example, Reference."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import assay

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example", "Reference")
RAISE_NOTHING = {"judge", "list_attacks", "measure_anatomy", "render_page"}
HAVE_A_SOURCE = {
    "APGD",
    "AdaptiveAttack",
    "CleanAccuracy",
    "FAB",
    "FGSM",
    "MinimumNorm",
    "PGD",
    "RobustAccuracy",
    "SignedSteps",
    "Square",
    "StandardAttack",
    "audit_normalization",
    "compare",
    "compare_models",
    "compress",
    "factorize",
    "measure_attack_sanity",
    "measure_clean_accuracy",
    "measure_epsilon_curve",
    "measure_gradient_flow",
    "measure_input_gradients",
    "measure_robust_accuracy",
    "measure_spectra",
    "trace",
}
FUNCTIONS = [name for name in assay.__all__ if inspect.isfunction(getattr(assay, name))]
CLASSES = [name for name in assay.__all__ if inspect.isclass(getattr(assay, name))]


def sections(value: Any) -> dict[str, str]:
    """Heading → text; the summary under the empty heading."""
    text = inspect.cleandoc(value.__doc__ or "")
    parts = re.split(rf"^({'|'.join(SECTIONS)}):[ ]*$", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(text: str) -> list[str]:
    """The names that a section describes."""
    listed = re.findall(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: \S", text, re.MULTILINE)
    return [name for names in listed for name in names.split(", ")]


def faults(name: str) -> list[str]:
    value = getattr(assay, name)
    told = sections(value)
    wrong = []
    summary = told[""].split("\n\n")[0].strip()
    if len(summary.split()) < 3 or not summary.endswith((".", ":")):
        wrong.append("the summary is a sentence")
    if list(told)[1:] != [section for section in SECTIONS if section in told]:
        wrong.append(f"sections in the order {SECTIONS}")
    if ">>> " not in told.get("Example", "") or "assay" not in told.get("Example", ""):
        wrong.append("Example: imports assay and runs")
    if name in HAVE_A_SOURCE and not re.search(r"\b(19|20)\d\d\b", told.get("Reference", "")):
        wrong.append("Reference: names a source with its year")
    if name in FUNCTIONS:
        signature = inspect.signature(value)
        missing = set(signature.parameters) - {entry.lstrip("*") for entry in entries(told.get("Args", ""))}
        unknown = {entry.lstrip("*") for entry in entries(told.get("Args", ""))} - set(signature.parameters)
        if missing or unknown:
            wrong.append(f"Args: missing {sorted(missing)}, unknown {sorted(unknown)}")
        if signature.return_annotation not in (None, "None") and not told.get("Returns", "").strip():
            wrong.append("Returns:")
        if name not in RAISE_NOTHING and not entries(told.get("Raises", "")):
            wrong.append("Raises: names the errors")
    else:
        fields = {field for base in value.__mro__ for field in vars(base).get("__annotations__", {})}
        if fields and not entries(told.get("Args", "")) + entries(told.get("Attributes", "")):
            wrong.append("Args: or Attributes:")
    return wrong


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_a_public_name_is_documented_in_the_form(name: str) -> None:
    assert faults(name) == []


def test_the_tables_name_public_names() -> None:
    assert set(assay.__all__) >= HAVE_A_SOURCE | RAISE_NOTHING
