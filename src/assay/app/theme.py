"""The report's colours for the app's controls; the fonts are the system's, so none is fetched."""

from __future__ import annotations

from typing import Any

from assay.report.theme import COLOURS

_PARTS: dict[str, str] = {
    "body_background_fill": "paper",
    "body_text_color": "ink",
    "body_text_color_subdued": "soft",
    "background_fill_primary": "card",
    "background_fill_secondary": "sunken",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "block_background_fill": "card",
    "block_border_color": "line",
    "block_label_background_fill": "card",
    "block_label_text_color": "soft",
    "block_title_text_color": "ink",
    "block_info_text_color": "soft",
    "input_background_fill": "paper",
    "input_border_color": "line",
    "input_placeholder_color": "soft",
    "panel_background_fill": "card",
    "panel_border_color": "line",
    "link_text_color": "accent",
    "link_text_color_hover": "accent",
    "slider_color": "accent",
    "checkbox_label_background_fill": "paper",
    "checkbox_label_background_fill_hover": "sunken",
    "checkbox_label_background_fill_selected": "sunken",
    "checkbox_label_text_color": "ink",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color_selected": "accent",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent",
    "button_primary_text_color": "card",
    "button_primary_text_color_hover": "card",
    "button_secondary_background_fill": "card",
    "button_secondary_background_fill_hover": "sunken",
    "button_secondary_text_color": "ink",
    "button_secondary_border_color": "soft",
}


def make_theme(gr: Any) -> Any:
    """A theme of Gradio's, wearing :data:`assay.report.theme.COLOURS`."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
    mono = ["ui-monospace", "DejaVu Sans Mono", "Menlo", "Consolas", "monospace"]
    colours = {"button_border_width": "1px"}
    for part, name in _PARTS.items():
        colours[part], colours[f"{part}_dark"] = COLOURS[name]
    return gr.themes.Base(font=fonts, font_mono=mono, primary_hue="blue", neutral_hue="stone").set(**colours)
