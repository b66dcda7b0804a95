"""The report in a real browser: light, dark, on a phone, printed; nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="charts need the [report] extra")

from ares_eval import report
from tests.report.planted import HOSTILE, planted_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    planted_run(folder / "a", model="first")
    planted_run(folder / "b", model="second", flipped=["q00", "q01"])
    path: Path = folder / "report.html"
    path.write_text(report.render(report.gather([folder / "a", folder / "b"])), encoding="utf-8")
    return path.as_uri()


def contrast(page: Any, selector: str) -> float:
    """WCAG's contrast of an element's text with the page's ground."""
    ratio: float = page.evaluate(
        """selector => {
        const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = colour => {
          const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const node = document.querySelector(selector), style = getComputedStyle(node);
        const a = light(node instanceof SVGElement ? style.fill : style.color);
        const b = light(getComputedStyle(document.body).backgroundColor);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }""",
        selector,
    )
    return ratio


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_readable_in_both_themes_at_both_widths(chromium: Any, file: str, scheme: str, width: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: errors.append(said.text))
    page.goto(file)
    assert asked == [file]
    assert not errors
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg").count() >= 8
    for selector in ("body", ".note", "th", "nav a", "figure svg text"):
        assert contrast(page, selector) >= 4.5, selector
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(254, 254, 254)") == (scheme == "light")
    # A chart's smallest letters are not much smaller on a phone than on paper.
    size = page.locator("figure svg text").first.evaluate("text => text.getBoundingClientRect().height")
    assert size > 8
    context.close()


def test_labels_of_charts_do_not_leave_their_picture(page: Any, file: str) -> None:
    page.goto(file)
    outside = page.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
        const box = svg.getBoundingClientRect();
        const leaves = b => b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1
          || b.bottom > box.bottom + 1;
        return [...svg.querySelectorAll("text")].filter(text => leaves(text.getBoundingClientRect()))
          .map(text => text.textContent); })"""
    )
    assert outside == []


def test_hostile_texts_are_only_texts(page: Any, file: str) -> None:
    page.goto(file)
    assert HOSTILE in page.locator("body").inner_text() or HOSTILE in page.locator("#failures").inner_text()
    assert page.locator("img, script").count() == 0
    assert "owned" not in page.title()


def test_print_is_light_and_whole(chromium: Any, file: str) -> None:
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(file)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(254, 254, 254)"
    assert page.locator("nav").first.evaluate("nav => getComputedStyle(nav).display") == "none"
    assert page.pdf(format="A4").startswith(b"%PDF")
    closed = page.locator("#details details table").first
    assert closed.evaluate("table => table.getBoundingClientRect().height") > 20
    context.close()
