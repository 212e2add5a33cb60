"""The report's colours for the app's controls, and the system's fonts, so that none is fetched."""

from __future__ import annotations

from typing import Any

from assay.report.theme import COLOURS

_PARTS = {
    "paper": "body_background_fill input_background_fill checkbox_label_background_fill",
    "ink": "body_text_color block_title_text_color checkbox_label_text_color button_secondary_text_color",
    "soft": (
        "body_text_color_subdued block_label_text_color block_info_text_color input_placeholder_color "
        "button_secondary_border_color"
    ),
    "card": (
        "background_fill_primary block_background_fill block_label_background_fill panel_background_fill "
        "button_primary_text_color button_primary_text_color_hover button_secondary_background_fill"
    ),
    "sunken": (
        "background_fill_secondary checkbox_label_background_fill_hover "
        "checkbox_label_background_fill_selected button_secondary_background_fill_hover"
    ),
    "line": "border_color_primary block_border_color input_border_color panel_border_color",
    "accent": (
        "border_color_accent link_text_color link_text_color_hover slider_color "
        "checkbox_background_color_selected checkbox_border_color_selected button_primary_background_fill "
        "button_primary_background_fill_hover"
    ),
}


def make_theme(gr: Any) -> Any:
    """A Gradio theme in :data:`assay.report.theme.COLOURS`."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
    mono = ["ui-monospace", "DejaVu Sans Mono", "Menlo", "Consolas", "monospace"]
    settings = {"button_border_width": "1px"}
    for colour, parts in _PARTS.items():
        for part in parts.split():
            settings[part], settings[f"{part}_dark"] = COLOURS[colour]
    return gr.themes.Base(font=fonts, font_mono=mono, primary_hue="blue", neutral_hue="stone").set(**settings)
