"""The colours of the page, light and dark; every pair that carries text meets WCAG AA."""

from __future__ import annotations

# name: (light, dark). Charts name them as var(--name), so one drawing serves both.
COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#f7f6f3", "#12151a"),
    "card": ("#ffffff", "#1a1e25"),
    "sunken": ("#efede8", "#0d1014"),
    "ink": ("#1b1d22", "#eceae5"),
    "soft": ("#5b5f69", "#a4a9b4"),
    "line": ("#dcd9d2", "#2e343e"),
    "accent": ("#1f57c3", "#85aef9"),
    "error": ("#b3261e", "#ff8f85"),
    "error-tint": ("#fbeae8", "#381b1b"),
    "warn": ("#8a5300", "#f0b352"),
    "warn-tint": ("#fbf0dc", "#33260f"),
    "pass": ("#1c6b3c", "#6fcf97"),
    "pass-tint": ("#e5f3ea", "#142a1e"),
    "unmeasured": ("#7c3aad", "#cfa1f5"),
    "unmeasured-tint": ("#f3eafa", "#2a1d38"),
    "undecided": ("#0b6374", "#6cc7da"),
    "undecided-tint": ("#e0f1f4", "#12292f"),
    "skipped": ("#5b5f69", "#a4a9b4"),
    "skipped-tint": ("#eceae5", "#23272f"),
    "series-1": ("#1f57c3", "#85aef9"),
    "series-2": ("#c2410c", "#ff9d66"),
    "series-3": ("#0f766e", "#4fd1c5"),
    "series-4": ("#7c3aad", "#cfa1f5"),
    "series-5": ("#8a5300", "#f0b352"),
    "series-6": ("#5b5f69", "#a4a9b4"),
    "grid": ("#e9e6e0", "#272c35"),
}

STATUSES = ("error", "warn", "pass", "undecided", "unmeasured", "skipped")

# (text, ground) pairs the page uses; text needs 4.5:1
TEXT_PAIRS: tuple[tuple[str, str], ...] = (
    *((text, ground) for text in ("ink", "soft", "accent") for ground in ("paper", "card", "sunken")),
    *((status, ground) for status in STATUSES for ground in ("card", f"{status}-tint")),
    *(("ink", f"{status}-tint") for status in STATUSES),
    ("paper", "ink"),
    ("card", "accent"),
)
# marks of charts against their ground; graphics need 3:1
MARK_PAIRS: tuple[tuple[str, str], ...] = tuple((f"series-{i}", "card") for i in range(1, 7))


def contrast(one: str, other: str) -> float:
    """The WCAG 2 contrast ratio (L₁ + 0.05)/(L₂ + 0.05) of two ``#rrggbb`` colours, 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def custom_properties(*, dark: bool) -> str:
    """The colours as CSS custom properties, one a line."""
    return "\n".join(f"  --{name}: {pair[dark]};" for name, pair in COLOURS.items())
