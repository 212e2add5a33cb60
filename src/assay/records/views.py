"""Where a notebook's view of a record is drawn, which knows charts and pages: records know neither."""

from __future__ import annotations

# Class name → module:function, filled by the package above all layers.
VIEWS: dict[str, str] = {}
