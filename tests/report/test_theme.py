from __future__ import annotations

import pytest

from assay.report.theme import COLOURS, MARK_PAIRS, TEXT_PAIRS, contrast, custom_properties


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails AA
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("pair", TEXT_PAIRS, ids="-on-".join)
def test_text_meets_wcag_aa(pair: tuple[str, str], theme: int) -> None:
    assert contrast(COLOURS[pair[0]][theme], COLOURS[pair[1]][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("pair", MARK_PAIRS, ids="-on-".join)
def test_marks_meet_the_contrast_of_graphics(pair: tuple[str, str], theme: int) -> None:
    assert contrast(COLOURS[pair[0]][theme], COLOURS[pair[1]][theme]) >= 3


def test_custom_properties_name_every_colour() -> None:
    for dark in (False, True):
        text = custom_properties(dark=dark)
        assert all(f"--{name}: {pair[dark]};" in text for name, pair in COLOURS.items())
