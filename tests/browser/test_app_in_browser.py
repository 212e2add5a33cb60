from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser
SERIOUS = {"serious", "critical"}
TABS = ("Attack", "Factorisation", "Recurrence")


@pytest.fixture
def open_app(browser: Browser, app_address: str) -> Iterator[Callable[..., tuple[Page, list[str]]]]:
    """Open the app; the page, and the list of what it asked of other machines and of its complaints."""
    contexts = []

    def visit(*, width: int = 1280, scheme: str = "light") -> tuple[Page, list[str]]:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, wrong = context.new_page(), list[str]()

        def note_request(request: Any) -> None:
            if not request.url.startswith((app_address, "data:", "blob:")):
                wrong.append(request.url)

        def note_console(message: Any) -> None:
            wrong.append(f"{message.type}: {message.text}")

        page.on("request", note_request)
        page.on("console", note_console)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_default_timeout(60_000)
        page.goto(app_address)
        expect(page.get_by_role("button", name="Attack", exact=True)).to_be_visible(timeout=60_000)
        return page, wrong

    yield visit
    for context in contexts:
        context.close()


def photograph() -> dict[str, Any]:
    pixels = np.linspace(0, 255, 90 * 60 * 3).reshape(60, 90, 3).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"name": "my photo.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def command(page: Page, text: str) -> Any:
    """The visible command line that has this text in it."""
    return page.locator("code:visible", has_text=text)


def set_slider(page: Page, label: str, value: str) -> None:
    page.get_by_label(f"number input for {label}").locator("visible=true").fill(value)
    page.keyboard.press("Enter")


def drop(page: Page, file: dict[str, Any]) -> None:
    """Drop a file on the visible target, as a hand would."""
    data = page.evaluate_handle(
        """([name, type, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], name, { type }));
          return data;
        }""",
        [file["name"], file["mimeType"], list(file["buffer"])],
    )
    target = page.get_by_role("button", name="Drop an image file here to upload").locator("visible=true")
    target.dispatch_event("drop", {"dataTransfer": data})


def test_look_and_break(open_app: Callable[..., tuple[Page, list[str]]]) -> None:
    page, wrong = open_app()
    expect(command(page, "assay look net.py:build --data made.npz --sample 0")).to_be_visible()
    set_slider(page, "ε, in levels of 255", "32")
    page.get_by_role("button", name="Attack", exact=True).click()
    expect(command(page, "--sample 0 --attack pgd --norm linf --epsilon 32/255 --steps 10")).to_be_visible()
    expect(page.locator(".assay .bars.two tbody tr")).to_have_count(4)
    expect(page.get_by_role("img", name="Loss after each step")).to_be_visible()
    before = page.locator(".assay .picture img").first.get_attribute("src")
    page.get_by_role("button", name="Twelve image operations").click()
    expect(page.get_by_role("button", name="Undo all")).to_be_visible()
    page.wait_for_timeout(500)  # Gradio creates the controls on opening; one changed at once can fall back to its start
    set_slider(page, "Rotate, °", "20")
    expect(command(page, "--sample 0 --apply rotate=20")).to_be_visible(timeout=30_000)
    assert page.locator(".assay .picture img").first.get_attribute("src") != before
    expect(page.get_by_text("Attack the picture above")).to_be_visible()  # the old answer was about another picture
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_text("assay look net.py:build --data made.npz --sample 0", exact=True)).to_be_visible()
    drop(page, photograph())
    expect(command(page, "--image 'my photo.png'")).to_be_visible()
    page.get_by_label("L2").check()
    page.get_by_role("button", name="Find the smallest perturbation").click()
    expect(command(page, "--image 'my photo.png' --smallest --norm l2")).to_be_visible()
    expect(page.get_by_text("The smallest perturbation found is L2")).to_be_visible()
    assert wrong == []


def test_a_sample_is_chosen_from_thumbnails_and_stays_in_view(open_app: Callable[..., tuple[Page, list[str]]]) -> None:
    page, wrong = open_app()
    expect(page.locator("[data-sample]")).to_have_count(40)
    page.locator('[data-sample="7"]').click()
    expect(command(page, "--sample 7")).to_be_visible()
    expect(page.get_by_label("Sample of made").locator("visible=true")).to_have_value("7")
    page.get_by_label("broken").check()
    expect(page.get_by_text("samples that pgd breaks within L∞ 8/255")).to_be_visible()
    first = page.locator("[data-sample]").first
    number = first.get_attribute("data-sample")
    first.press("Enter")
    expect(command(page, f"--sample {number}")).to_be_visible()
    page.get_by_role("button", name="Attack", exact=True).click()
    expect(page.get_by_text("The attack succeeded")).to_be_visible()
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.locator(".assay .command").locator("visible=true").last.scroll_into_view_if_needed()
        expect(page.locator(".now img").first).to_be_in_viewport(ratio=1)
    assert wrong == []


def test_commands_and_numbers_are_copied(open_app: Callable[..., tuple[Page, list[str]]]) -> None:
    page, wrong = open_app()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the command").locator("visible=true").click()
    expect(page.get_by_role("button", name="Copy the command").locator("visible=true")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "assay look net.py:build --data made.npz --sample 0"
    page.get_by_role("button", name="Copy the numbers").locator("visible=true").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("class\tprobability\n0\t0.")
    assert wrong == []


def test_colours_are_chosen(open_app: Callable[..., tuple[Page, list[str]]]) -> None:
    page, wrong = open_app()
    grounds = []
    for _ in range(2):
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.get_by_role("button", name="Light or dark colours").click()
        page.wait_for_timeout(400)
    assert grounds[0] != grounds[1]
    assert wrong == []


def test_factorisation(open_app: Callable[..., tuple[Page, list[str]]]) -> None:
    page, wrong = open_app()
    page.get_by_role("tab", name="Factorisation").click()
    expect(command(page, "assay factor --data made.npz --sample 0 --rank 4")).to_be_visible()
    set_slider(page, "Rank r", "9")
    expect(command(page, "--rank 9")).to_be_visible()
    set_slider(page, "Gauge: scale c of (cA, B/c)", "2")
    expect(command(page, "--rank 9 --scale 2")).to_be_visible()
    drop(page, photograph())
    expect(command(page, "assay factor 'my photo.png' --longest 384")).to_be_visible()
    set_slider(page, "Rank r", "50")  # more than the samples have
    expect(command(page, "--longest 384 --rank 50 --scale 2")).to_be_visible()
    assert wrong == []


def test_recurrence(open_app: Callable[..., tuple[Page, list[str]]]) -> None:
    page, wrong = open_app()
    page.get_by_role("tab", name="Recurrence").click()
    set_slider(page, "Spectral radius ρ(W)", "1.1")
    expect(page.get_by_text("the gradient grows to")).to_be_visible()
    set_slider(page, "Norm ‖W‖, at least ρ", "0.5")
    expect(page.get_by_role("alert").get_by_text("norm: expected at least the spectral radius, 1.1")).to_be_visible()
    set_slider(page, "Norm ‖W‖, at least ρ", "3")
    expect(command(page, "--radius 1.1 --norm 3")).to_be_visible()
    assert wrong == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_no_serious_fault_of_accessibility_and_nothing_scrolls_sideways(
    width: int, scheme: str, open_app: Callable[..., tuple[Page, list[str]]]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page, wrong = open_app(width=width, scheme=scheme)
    page.get_by_role("button", name="Twelve image operations").click()
    page.get_by_role("button", name="Attack", exact=True).click()
    expect(page.locator(".assay .bars.two")).to_be_visible()
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(".assay .command").locator("visible=true").first).to_be_visible()
        page.wait_for_timeout(400)  # colours fade in
        found = axe.Axe().run(page).response["violations"]
        serious = [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in SERIOUS]
        assert serious == [], tab
        for side in (768, width):
            page.set_viewport_size({"width": side, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= side, (tab, side)
    assert wrong == []
