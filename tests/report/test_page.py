from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

from assay.records.attack import AdversarialGallery, SampleGallery
from assay.records.checkup import Checkup
from assay.records.compression import LayerSpectra
from assay.records.gradients import InputGradients
from assay.report.check_page import render_page
from assay.report.sections.samples import SHEET_BYTES

VOID = {"meta", "link", "img", "br", "input"}


@dataclass
class Page(HTMLParser):
    """What a browser would make of the markup: elements with their attributes, ids, and the text outside scripts."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    scripts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="session")
def page(checkup: Checkup) -> Page:
    return Page(render_page(checkup))


@pytest.fixture(scope="session")
def hostile_page(hostile: Checkup) -> Page:
    return Page(render_page(hostile))


def test_every_verdict_stands_on_the_page_under_its_rule(page: Page, checkup: Checkup) -> None:
    ids = page.values("id")
    for verdict in checkup.verdicts:
        assert ids.count(verdict.rule) == 1
        assert verdict.claim in page.text
        assert verdict.measured.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0") in page.text
        assert verdict.why.split("`")[0] in page.text


def test_errors_stand_first_and_passes_are_folded(page: Page, checkup: Checkup) -> None:
    shown = [attributes["class"] for tag, attributes in page.elements if tag == "article"]
    ranks = [["error", "warn", "undecided", "pass", "skipped"].index(name.removeprefix("verdict ")) for name in shown]
    assert ranks == sorted(ranks)
    assert len(shown) == len(checkup.verdicts)
    assert ("details", "folded pass") in [(tag, attributes.get("class")) for tag, attributes in page.elements]


def test_a_status_is_told_by_word_and_sign_beside_its_colour(page: Page) -> None:
    for sign, word in (("✕", "Fails"), ("!", "Warns"), ("✓", "Holds")):
        assert re.search(rf"{re.escape(sign)}\s*{word}", page.text)


def test_headline_is_plain_language(page: Page) -> None:
    text = page.text.replace("\u00a0", " ")
    assert (
        "91.7 % right on clean images (n = 1,000), 24.8 % after FGSM, one step of 8/255 (n = 1,000), "
        "0 % after PGD, 20 steps within 8/255 (n = 1,000)."
    ) in text


def test_every_record_kind_has_an_anchor_and_every_link_a_target(page: Page, checkup: Checkup) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {record.kind for record in checkup.records} <= set(ids)
    inner = {href[1:] for href in page.values("href") if href.startswith("#")}
    assert inner <= set(ids)


def test_scores_stand_on_top_with_their_formula_and_every_audit(page: Page, checkup: Checkup) -> None:
    text = " ".join(page.text.split())
    assert "score 4 of 100 Robustness" in text
    assert "score – none Invariance" in text
    assert "Score = 100 × (holds + ½ × warnings) ÷ audits that were decided" in text
    assert text.index("score 4 of 100") < text.index("required")
    links = page.values("href")
    assert all(links.count(f"#{verdict.rule}") >= 2 for verdict in checkup.verdicts if verdict.rule != "A999")


def test_every_rule_can_be_taken_along(page: Page, checkup: Checkup) -> None:
    copies = page.values("data-copy")
    for verdict in checkup.verdicts:
        assert {f"#{verdict.rule}", f"assay explain {verdict.rule}"} <= set(copies)


def test_evidence_leads_back_to_what_was_judged_from_it(page: Page) -> None:
    attacks = page.source[page.source.index('<section id="robustness"') :]
    head = attacks[: attacks.index('<div class="parts">')]
    assert set(re.findall(r'href="#(A\d+)"', head)) == {f"A20{i}" for i in range(1, 7)}


def test_what_was_not_measured_is_said(page: Page) -> None:
    text = " ".join(page.text.split())
    told = text[text.index("What was not measured") :]
    assert "Invariance: needs the budget standard" in told
    assert "A999 did not run" in told
    assert "9,000 of 10,000 samples" in told
    assert "attacks within L2 and L1 balls" in told


def test_evidence_that_was_not_measured_is_said_not_linked(page: Page) -> None:
    assert "Weather: not measured" in page.text


def test_nothing_is_fetched(page: Page) -> None:
    assert [value for value in page.values("src") if not value.startswith("data:image/png;base64,")] == []
    links = [attributes for tag, attributes in page.elements if tag == "link"]
    assert [attributes["href"] for attributes in links] == ["data:,"]
    assert "@import" not in page.source
    assert set(re.findall(r"url\((.{22})", page.source)) == {"data:image/png;base64,"}


def test_policy_allows_only_the_one_script_by_its_hash(page: Page) -> None:
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_charts_have_a_name_numbers_beside_them_and_tips(page: Page) -> None:
    charts = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(charts) >= 20  # each drawn for a wide column and for a phone
    assert all(len(attributes["aria-label"]) > 10 for attributes in charts)
    tips = page.values("data-tip")
    assert any("cat" in tip and "82.0\u00a0%" in tip for tip in tips)
    assert any(tip.startswith("ε = 8/255: 0\u00a0%") for tip in tips)
    assert page.text.count("The numbers") >= 7


def test_charts_take_their_colours_from_the_theme(page: Page) -> None:
    drawn = [
        a.get(name, "none")
        for tag, a in page.elements
        if tag in {"path", "rect", "line", "text"}
        for name in ("fill", "stroke")
    ]
    assert {colour for colour in drawn if not colour.startswith("var(--")} <= {"none", "currentColor", "transparent"}


def test_page_is_well_formed_and_small(page: Page) -> None:
    assert page.open == []
    assert len(page.source.encode()) < 1_000_000


def test_pictures_are_described_and_pixel_sharp(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == 9 * 3 + 12 * 2
    assert all(
        attributes["alt"] and attributes["width"] == "32" and attributes["class"] == "sharp" for attributes in pictures
    )


def test_hostile_names_stay_text(hostile_page: Page) -> None:
    assert [tag for tag, _ in hostile_page.elements].count("script") == 1
    for _, attributes in hostile_page.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in hostile_page.text
    assert "{{ 7 * 7 }}" in hostile_page.text
    assert not [tag for tag, attributes in hostile_page.elements if tag == "img" and attributes.get("src") == "x"]


def test_characters_that_act_are_spelt_out(hostile_page: Page) -> None:
    acting = {c for c in hostile_page.source if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c not in "\n\t"}
    assert acting == set()
    assert "⟨U+202E⟩" in hostile_page.text
    assert "⟨U+001B⟩" in hostile_page.text


def test_classes_of_the_same_name_keep_their_own_rows(hostile_page: Page) -> None:
    assert any(tip.startswith("cat (9): ") for tip in hostile_page.values("data-tip"))


def test_an_empty_checkup_is_a_page_too(bare: Checkup) -> None:
    page = Page(render_page(bare))
    assert "No rule was judged." in page.text
    assert "How this was measured" in page.text
    assert page.open == []


def test_a_second_record_of_a_kind_is_not_hidden(checkup: Checkup) -> None:
    first = checkup.first(LayerSpectra)
    assert first is not None
    twice = checkup.model_copy(update={"records": (first, first.model_copy(update={"redundancy": 0.123456}))})
    page = Page(render_page(twice))
    assert "Further records" in page.text
    assert '"redundancy": 0.123456' in page.text


def test_large_pictures_are_left_out_and_counted(checkup: Checkup) -> None:
    record = checkup.first(InputGradients)
    assert record is not None
    sample = record.samples[0]
    large_file = base64.b64encode(base64.b64decode(sample.image) + bytes(300_000)).decode()
    large = sample.model_copy(update={"image": large_file})
    heavy = checkup.model_copy(update={"records": (record.model_copy(update={"samples": (large,) * 20}),)})
    source = render_page(heavy)
    assert len(source) < 3_000_000
    assert "19 further pictures are in check.json" in source


def test_a_damaged_picture_does_not_reach_the_page(checkup: Checkup) -> None:
    record = checkup.first(InputGradients)
    assert record is not None
    sample = record.samples[0].model_copy(update={"image": '" onload="x', "gradient_map": "bm90IGEgcG5n"})
    broken = checkup.model_copy(update={"records": (record.model_copy(update={"samples": (sample,)}),)})
    page = Page(render_page(broken))
    assert page.text.count("not a picture") == 2


def test_same_checkup_gives_the_same_page(checkup: Checkup, page: Page) -> None:
    assert render_page(checkup) == page.source


def test_a_page_full_of_pictures_stays_below_three_megabytes(checkup: Checkup) -> None:
    def weighing(picture: str, size: int) -> str:
        return base64.b64encode(base64.b64decode(picture) + bytes(size)).decode()

    records = []
    for record in checkup.records:
        if isinstance(record, AdversarialGallery):
            fields = ("image", "perturbation", "adversarial")
            examples = tuple(
                each.model_copy(update={name: weighing(each.image, 60_000) for name in fields})
                for each in record.examples * 4
            )
            record = record.model_copy(update={"examples": examples})
        elif isinstance(record, InputGradients):
            samples = tuple(
                each.model_copy(update={"image": weighing(each.image, 60_000)}) for each in record.samples * 4
            )
            record = record.model_copy(update={"samples": samples})
        elif isinstance(record, SampleGallery):
            most = SHEET_BYTES * 3 // 4 - len(base64.b64decode(record.sheet)) - 10
            record = record.model_copy(update={"sheet": weighing(record.sheet, most), "samples": record.samples * 4})
        records.append(record)
    source = render_page(checkup.model_copy(update={"records": tuple(records)}))
    assert 2_000_000 < len(source.encode()) < 3_000_000
    assert "further pictures are in check.json" in source


def test_a_score_that_cannot_be_trusted_says_why(checkup: Checkup) -> None:
    doubt = next(verdict for verdict in checkup.verdicts if verdict.rule == "A204")
    failed = doubt.model_copy(update={"status": "error"})
    others = tuple(verdict for verdict in checkup.verdicts if verdict.rule != "A204")
    text = Page(render_page(checkup.model_copy(update={"verdicts": (*others, failed), "records": ()}))).text
    assert "In doubt while A204 does not hold: it judges the measurement." in " ".join(text.split())
