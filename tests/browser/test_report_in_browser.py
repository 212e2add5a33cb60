from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from assay.report.theme import COLOURS, contrast

pytestmark = pytest.mark.browser

# Every piece of text that can be seen, with its colour and the first opaque ground below it.
TEXTS = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const ground = (element) => {
    for (let node = element; node; node = node.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
      if (a === 1 && r !== undefined) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest("svg") ? style.fill : style.color).slice(0, 3);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    const text = walker.currentNode.data.trim().slice(0, 40);
    found.set(`${colour}|${ground(element)}|${large}`, { text, colour, ground: ground(element), large });
  }
  return [...found.values()];
}"""
INTERACTIVE = 'a[href], button, summary, select, input:checked, input[type="search"], [tabindex="0"]'


def hex_of(channels: list[float]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)


@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(name: str, open_report: Callable[..., Any]) -> None:
    visit = open_report(name)
    visit.page.mouse.wheel(0, 20_000)
    visit.page.wait_for_timeout(200)
    assert visit.requests == []
    assert visit.complaints == []


@pytest.mark.parametrize("width", [320, 360, 768, 1440])
@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_no_width_scrolls_sideways(name: str, width: int, open_report: Callable[..., Any]) -> None:
    page = open_report(name, width=width).page
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 1440])
def test_each_chart_is_drawn_once_and_has_a_size(width: int, open_report: Callable[..., Any]) -> None:
    page = open_report(width=width).page
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    figures = page.locator("figure.full, figure.half")
    assert figures.count() >= 11
    for figure in figures.all():
        drawn = [chart for chart in figure.locator("svg[role=img]").all() if chart.is_visible()]
        assert len(drawn) == 1
        box = drawn[0].bounding_box()
        assert box["width"] > 0.7 * figure.bounding_box()["width"]
        assert box["height"] > 60
        assert drawn[0].locator("path").count() > 0
        assert drawn[0].get_attribute("aria-label")


def test_pictures_are_shown_enlarged_and_sharp(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    picture = page.locator(".gallery img").first
    assert picture.evaluate("image => image.naturalWidth") == 32
    assert picture.bounding_box()["width"] > 48
    assert picture.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"


def test_tab_reaches_everything_that_can_be_used(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    page.evaluate(
        """(wanted) => {
          const usable = [...document.querySelectorAll(wanted)].filter((e) => e.checkVisibility());
          usable.forEach((element, index) => { element.dataset.number = index; });
          window.usable = usable.length;
        }""",
        INTERACTIVE,
    )
    total = page.evaluate("window.usable")
    assert total > 60
    reached: list[str | None] = []
    for _ in range(total + 5):
        page.keyboard.press("Tab")
        number = page.evaluate("document.activeElement.dataset.number ?? null")
        if number is None or number in reached:
            break
        reached.append(number)
        if len(reached) == 2:  # the skip link is first; a focus ring must show
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert len(reached) == total


def test_the_skip_link_appears_and_leads_to_the_verdicts(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#verdicts"


def test_folded_parts_open_by_keyboard(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    fold = page.locator("details.folded.pass")
    assert not fold.locator("article").first.is_visible()
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.locator("article").first.is_visible()


def test_a_link_to_a_folded_verdict_opens_it(open_report: Callable[..., Any]) -> None:
    page = open_report(anchor="#A101").page
    page.wait_for_timeout(100)
    assert page.locator("#A101").is_visible()
    page = open_report().page
    page.locator('.top-findings a[href="#A401"]').click()
    page.wait_for_timeout(100)
    assert page.locator("#A401").is_visible()


@pytest.mark.parametrize("width", [360, 390, 768])
def test_a_telephone_has_the_contents_behind_a_button(width: int, open_report: Callable[..., Any]) -> None:
    page = open_report(width=width).page
    contents = page.get_by_role("navigation", name="Contents")
    assert not contents.is_visible()
    page.get_by_role("button", name="Contents").click()
    assert contents.bounding_box()["x"] >= 0
    page.keyboard.press("Escape")
    assert not contents.is_visible()
    page.get_by_role("button", name="Contents").click()
    contents.get_by_role("link", name="Attacks", exact=True).click()
    assert page.evaluate("location.hash") == "#robustness"
    assert not contents.is_visible()


def test_a_wide_page_has_the_contents_beside_it(open_report: Callable[..., Any]) -> None:
    page = open_report(width=1440).page
    contents = page.get_by_role("navigation", name="Contents")
    assert contents.is_visible()
    assert not page.get_by_role("button", name="Contents").is_visible()
    page.locator("#robustness").scroll_into_view_if_needed()
    top = contents.bounding_box()["y"]
    page.mouse.wheel(0, 3000)
    page.wait_for_timeout(300)
    assert contents.bounding_box()["y"] <= top + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_the_colours_of_the_system(scheme: str, open_report: Callable[..., Any]) -> None:
    page = open_report(scheme=scheme).page
    shown = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert hex_of(shown) == COLOURS["paper"][scheme == "dark"]
    mark = page.locator("figure.full svg[role=img] [data-tip]").first
    assert (
        mark.evaluate("e => getComputedStyle(e).getPropertyValue('--series-1').trim()")
        == (COLOURS["series-1"][scheme == "dark"])
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_visible_text_meets_wcag_aa(scheme: str, open_report: Callable[..., Any]) -> None:
    page = open_report(scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    texts = page.evaluate(TEXTS)
    assert len(texts) > 10
    for text in texts:
        ratio = contrast(hex_of(text["colour"]), hex_of(text["ground"]))
        assert ratio >= (3 if text["large"] else 4.5), text


def test_the_choice_of_colours_is_kept(open_report: Callable[..., Any]) -> None:
    page = open_report(scheme="light").page
    button = page.get_by_role("button", name="Colours")
    button.click()
    button.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    shown = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert hex_of(shown) == COLOURS["paper"][1]


def test_a_mark_tells_its_value_under_the_pointer(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    figure = page.locator("figure", has_text="is hardest")
    mark = figure.locator(".wide [data-tip^='cat']").last
    mark.scroll_into_view_if_needed()
    mark.hover()
    tip = page.get_by_role("tooltip")
    assert tip.is_visible()
    assert tip.inner_text().replace("\u00a0", " ").startswith("cat: 82.0 %")
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_headings_form_an_outline_and_pictures_have_words(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((heading) => +heading.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("table:not(:has(th[scope]))").count() == 0


def test_print_shows_every_verdict_and_no_controls(open_report: Callable[..., Any]) -> None:
    page = open_report(scheme="dark").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#A101").is_visible()
    assert not page.locator("#theme").is_visible()
    assert not page.locator(".contents").is_visible()
    ink = page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")
    assert hex_of(ink) == COLOURS["ink"][0]


@pytest.mark.parametrize(("name", "scheme"), [("ordinary", "light"), ("ordinary", "dark"), ("hostile", "light")])
def test_axe_finds_no_fault(name: str, scheme: str, open_report: Callable[..., Any]) -> None:
    page = open_report(name, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    faults = Axe().run(page).response["violations"]
    assert [(fault["id"], fault["impact"], fault["nodes"][0]["html"][:200]) for fault in faults] == []


def samples_of(page: Any) -> Any:
    return page.locator(".tiles-of-samples li:visible")


def test_samples_are_filtered_by_fate_and_by_pair_of_classes(open_report: Callable[..., Any]) -> None:
    visit = open_report()
    page = visit.page
    box = page.locator(".samples")
    assert samples_of(page).count() == 60
    assert box.get_by_role("status").inner_text() == "90 samples, the first 60 shown"
    box.get_by_role("button", name="Show 30 more").click()
    assert samples_of(page).count() == 90
    box.get_by_role("group", name="under attack").get_by_label("broken").check()
    assert samples_of(page).count() == 30
    assert {tile.get_attribute("data-fate") for tile in samples_of(page).all()} == {"broken"}
    box.get_by_label("class", exact=True).select_option(label="bird (9)")
    assert samples_of(page).count() == 3
    box.get_by_label("taken for", exact=True).select_option(label="cat (6)")
    assert samples_of(page).count() == 3
    box.get_by_role("group", name="before the attack").get_by_label("wrong").check()
    assert box.get_by_role("status").inner_text() == "No sample is like that."
    box.get_by_role("button", name="Show all").click()
    assert box.get_by_role("status").inner_text() == "90 samples, the first 60 shown"
    assert visit.complaints == []


def test_filters_are_moved_by_keyboard(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    page.locator(".samples input[data-filter=before]").first.focus()
    page.keyboard.press("ArrowRight")
    assert {tile.get_attribute("data-before") for tile in samples_of(page).all()} == {"right"}


def test_a_sample_shows_its_own_part_of_the_sheet(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    picture = page.locator(".tiles-of-samples .picture").nth(21)
    assert picture.bounding_box()["width"] == 64
    look = picture.evaluate("e => { const s = getComputedStyle(e); return [s.backgroundPosition, s.backgroundSize]; }")
    assert look[0] == "-64px -64px"
    assert look[1] in {"1280px auto", "1280px"}  # browsers write the same size in two ways
    assert picture.evaluate("e => getComputedStyle(e).backgroundImage.startsWith('url(\"data:image/png')")


def test_arrow_keys_read_the_values_of_a_chart(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    chart = page.locator("figure", has_text="is hardest").locator(".wide")
    chart.focus()
    page.keyboard.press("ArrowRight")
    tip = page.get_by_role("tooltip")
    first = tip.inner_text()
    assert first.startswith("all classes")
    page.keyboard.press("ArrowRight")
    second = tip.inner_text()
    assert second != first
    assert page.locator("#announcement").inner_text() == second
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text() == first
    page.keyboard.press("Tab")
    assert not tip.is_visible()


def test_the_command_that_explains_a_rule_is_copied(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    page.evaluate("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    page.get_by_role("button", name="Copy the command assay explain A202").click()
    page.wait_for_function("window.copied === 'assay explain A202'")
    assert page.locator("#announcement").inner_text() == "Copied: assay explain A202"
    page.get_by_role("button", name="Copy a link to rule A202").click()
    page.wait_for_function("window.copied.endsWith('ordinary.html#A202')")


def test_a_link_to_a_rule_takes_the_focus_there(open_report: Callable[..., Any]) -> None:
    page = open_report(anchor="#A202").page
    page.wait_for_function("document.activeElement.id === 'A202'")
    assert page.locator("#A202").is_visible()
    page.locator("#A202").get_by_role("link", name="Evidence: Attacks").click()
    assert page.evaluate("location.hash") == "#robust_accuracy"


def test_a_score_opens_all_its_audits(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    card = page.locator("#category-robustness")
    card.locator("summary").click()
    assert card.locator(".audits a:visible").count() == 6
    card.locator('.audits a[href="#A206"]').click()
    page.wait_for_function("document.activeElement.id === 'A206'")


def test_print_holds_the_first_samples_and_says_of_how_many(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert samples_of(page).count() == 40
    assert page.locator(".samples [data-shown]").inner_text() == "90 samples, the first 40 shown"
    assert not page.locator(".filters").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert samples_of(page).count() == 60


def test_evidence_is_open_and_details_are_folded(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    assert page.locator("#accuracy .parts").is_visible()
    for folded in ("mode-audit", "anatomy", "measured"):
        assert not page.locator(f"#{folded} .parts").is_visible()
        assert page.locator(f"#{folded} .summary").is_visible()
    page.get_by_role("navigation", name="Contents").get_by_role("link", name="Anatomy").click()
    page.locator("#anatomy .parts").wait_for(state="visible")
    page = open_report(anchor="#mode_audit").page
    assert page.locator("#mode-audit .parts").is_visible()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_first_screen_answers(width: int, height: int, open_report: Callable[..., Any]) -> None:
    page = open_report(width=width).page
    page.set_viewport_size({"width": width, "height": height})
    for answer in ("h1", ".answers .key-figures", ".mends li >> nth=0", ".mends .command >> nth=0"):
        box = page.locator(answer).bounding_box()
        assert box["y"] + box["height"] <= height, answer
        assert box["x"] + box["width"] <= width, answer


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_numbers_and_buttons_stay_on_one_line(width: int, open_report: Callable[..., Any]) -> None:
    page = open_report(width=width).page
    broken = page.evaluate(
        """[...document.querySelectorAll('.key-figures .figure, .plain, td.number')].filter((element) => {
          const range = document.createRange();
          range.selectNodeContents(element);
          const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
          return lines.size > 1 || element.scrollWidth > element.clientWidth + 1;
        }).map((element) => element.textContent)"""
    )
    assert broken == []


def test_a_printed_report_takes_at_most_twelve_pages(open_report: Callable[..., Any]) -> None:
    document = open_report().page.pdf(format="A4", prefer_css_page_size=True)
    assert 3 <= document.count(b"/Type /Page\n") <= 12


def test_a_class_is_found_by_a_part_of_its_name(open_report: Callable[..., Any]) -> None:
    page = open_report("many classes").page
    figure = page.locator("#accuracy figure").first
    figure.locator("summary").click()
    field = figure.get_by_label("Find a class")
    field.fill("Thing 7")
    rows = figure.locator("tbody tr:visible")
    names = [row.locator("td").first.inner_text() for row in rows.all()]
    assert names and all("thing 7" in name for name in names)
    assert figure.get_by_role("status").inner_text() == f"{len(names)} of 90"
    field.fill("")
    assert rows.count() == 90


def test_samples_of_many_classes_are_found_by_a_part_of_the_name(open_report: Callable[..., Any]) -> None:
    page = open_report("many classes").page
    page.get_by_label("class", exact=True).fill("thing 8")
    assert {tile.locator("bdi").first.inner_text() for tile in samples_of(page).all()} == {
        f"thing {place}" for place in (8, *range(80, 90))
    }
    page.get_by_role("button", name="Show all").click()
    assert samples_of(page).count() == 60
    page.get_by_role("combobox", name="taken for").fill("thing")
    assert "held" not in {tile.get_attribute("data-fate") for tile in samples_of(page).all()}


def test_an_adversarial_example_opens_large_and_arrows_go_on(open_report: Callable[..., Any]) -> None:
    visit = open_report()
    page = visit.page
    first = page.locator("#gallery .enlarge").first
    small = page.locator("#gallery .pictures img").first.bounding_box()["width"]
    first.click()
    dialog = page.get_by_role("dialog")
    assert dialog.locator("img").count() == 3
    assert dialog.locator("img").first.bounding_box()["width"] > 2 * small
    assert dialog.locator("figcaption").nth(1).inner_text().startswith("change ×")
    chances = [" ".join(row.split()) for row in dialog.locator(".chances p").all_inner_texts()]
    assert chances[0].startswith("before") and chances[1].startswith("after")
    assert dialog.locator("[data-place]").inner_text().startswith("1 of ")
    page.keyboard.press("ArrowRight")
    assert dialog.locator("[data-place]").inner_text().startswith("2 of ")
    page.keyboard.press("End")
    assert not dialog.get_by_role("button", name="Next").is_enabled()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert first.evaluate("button => button === document.activeElement")
    assert visit.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_sample_opens_large_among_those_that_the_filters_leave(width: int, open_report: Callable[..., Any]) -> None:
    page = open_report(width=width).page
    box = page.locator(".samples")
    box.get_by_role("group", name="under attack").get_by_label("broken").check()
    left = samples_of(page).count()
    samples_of(page).nth(2).locator(".picture").click()
    dialog = page.get_by_role("dialog")
    assert dialog.locator("[data-place]").inner_text() == f"3 of {left}"
    assert dialog.locator(".picture, img").first.bounding_box()["width"] >= 128
    shown = dialog.bounding_box()
    assert shown["x"] >= 0 and shown["x"] + shown["width"] <= width
    assert dialog.locator(".chances p").count() == 2
    page.keyboard.press("Escape")
    page.locator(".tiles-of-samples").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert dialog.locator("[data-place]").inner_text() == f"1 of {left}"


def test_the_search_combines_with_the_other_filters(open_report: Callable[..., Any]) -> None:
    page = open_report().page
    box = page.locator(".samples")
    box.get_by_label("find").fill("BIRD")
    named = samples_of(page).count()
    assert 0 < named < 60
    assert box.locator("[data-shown]").inner_text() == f"{named} of 90 samples"
    box.get_by_role("group", name="under attack").get_by_label("held").check()
    held = samples_of(page).count()
    assert held < named
    assert all("bird" in tile.get_attribute("data-tip").lower() for tile in samples_of(page).all())


def test_no_option_of_a_command_loses_its_dash_at_the_end_of_a_line(open_report: Callable[..., Any]) -> None:
    page = open_report(width=360).page
    words = page.locator(".command .word")
    assert words.count() > 5
    broken = page.evaluate(
        """[...document.querySelectorAll('.command .word')].filter((word) => word.checkVisibility())
        .filter((word) => word.getBoundingClientRect().height > 1.8 * parseFloat(getComputedStyle(word).fontSize))
        .map((word) => word.textContent).filter((text) => text.length < 24)"""
    )
    assert broken == []


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("name", ["ordinary", "hostile", "many classes"])
def test_labels_of_charts_stay_inside_their_cards(name: str, width: int, open_report: Callable[..., Any]) -> None:
    page = open_report(name, width=width).page
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    outside = page.evaluate(
        """[...document.querySelectorAll('svg[role=img]')].filter((it) => it.checkVisibility()).flatMap((chart) => {
          const card = chart.closest('figure').getBoundingClientRect();
          return [...chart.querySelectorAll('text')].filter((label) => {
            const box = label.getBoundingClientRect();
            return box.width && (box.left < card.left || box.right > card.right);
          }).map((label) => label.textContent);
        })"""
    )
    assert outside == []
