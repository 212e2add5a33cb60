"""For the API reference: the section ``Example:`` of docstrings, under the name that its tool knows."""

from __future__ import annotations

import re
from typing import Any

import griffe


class DocstringSections(griffe.Extension):
    """Examples are code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the heading in one docstring."""
        if obj.docstring:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = text

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Of a constrained option show its type; the text beside it states the constraint."""
        shown = attr.annotation
        if isinstance(shown, griffe.ExprSubscript) and str(shown.left) == "Annotated":
            attr.annotation = shown.slice.elements[0]
