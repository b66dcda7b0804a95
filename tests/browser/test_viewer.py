"""The viewer in a real browser: filter, open a reply, read its heat strip against the trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("duckdb", reason="the viewer needs the [report] extra")

from ares_eval.records import load_run
from tests.report.planted import HOSTILE, QUESTIONS, planted_run
from tests.report.viewing import Viewer, viewing

pytestmark = pytest.mark.browser

FLIPPED = ["q00", "q01", "q03"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    planted_run(folder / "a", model="first", pictures=True)
    planted_run(folder / "b", model="second", flipped=FLIPPED)
    return folder


@pytest.fixture(scope="module")
def viewer(folder: Path) -> Iterator[Viewer]:
    with viewing(folder) as started:
        started.counted("a")
        started.counted("b")
        yield started


def sample(viewer: Viewer, name: str, task: str = "sums", **more: str) -> str:
    return f"{viewer.url}#/sample?{urlencode({'run': 'a', 'task': task, 'sample': name, 'draw': 0, **more})}"


def test_from_the_runs_to_a_filtered_list_to_a_reply(page: Any, viewer: Viewer) -> None:
    page.goto(viewer.url)
    page.get_by_role("link", name="first", exact=True).click()
    page.locator("[data-facet=task] button[data-value=sums]").click()
    page.locator("[data-facet=verdict] button[data-value=incorrect]").click()
    wrong = sum(i % 3 == 0 for i in range(QUESTIONS))
    page.locator("#total", has_text=str(wrong)).wait_for()
    assert page.locator("#records tbody tr").count() == wrong
    assert set(page.locator("#records .verdict").all_inner_texts()) == {"incorrect"}
    page.locator("[data-facet=tier] button[data-value=hard]").click()
    hard = [f"q{i:02d}" for i in range(QUESTIONS) if i % 3 == 0 and i % 4 == 3]
    page.locator("#total", has_text=str(len(hard))).wait_for()
    assert page.locator("#records tbody tr td:first-child a").all_inner_texts() == hard
    page.get_by_role("link", name=hard[0], exact=True).click()
    page.get_by_role("heading", name=f"sums / {hard[0]}").wait_for()
    page.keyboard.press("j")
    page.get_by_role("heading", name=f"sums / {hard[1]}").wait_for()
    page.go_back()
    page.get_by_role("heading", name=f"sums / {hard[0]}").wait_for()


def test_sorting_by_hwe(page: Any, viewer: Viewer) -> None:
    page.goto(f"{viewer.url}#/run?{urlencode({'run': 'a', 'task': 'sums'})}")
    page.get_by_role("button", name="HWE").click()
    page.locator("th[aria-sort=descending]").wait_for()
    column = page.locator("#records tbody tr td:nth-last-child(2)").all_inner_texts()
    assert [int(text) for text in column] == sorted((5 * (i % 4 + 1) for i in range(QUESTIONS)), reverse=True)


def test_heat_strip_reads_as_the_trace(page: Any, viewer: Viewer, folder: Path) -> None:
    run = load_run(folder / "a")
    record = next(r for r in run.records() if r.sample == "q02")
    trace = run.trace(record)
    assert trace is not None
    page.goto(sample(viewer, "q02"))
    tokens = page.locator(".tokens .t")
    tokens.first.wait_for()
    assert tokens.all_text_contents() == list(trace.tokens)
    readout = page.locator(".readout")
    for i in (0, 5, 6, 13, 14, 62):
        page.locator(f".tokens .t[data-i='{i}']").hover()
        page.locator(f".readout[data-token='{i}']").wait_for()
        assert readout.locator("[data-name=entropy] b").inner_text() == f"{trace.entropy_low[i]:.4f}"
        bounds = f"{trace.entropy_low[i]:.4f} to {trace.entropy_high[i]:.4f}"
        assert readout.locator("[data-name=bounds] b").inner_text() == bounds
        assert readout.locator("[data-name='log-prob'] b").inner_text() == f"{trace.logprob[i]:.4f}"
        assert readout.locator(".in").count() == (1 if 6 <= i < 14 else 0)
    marked = page.locator(".tokens .window, .tokens .confirmed").evaluate_all("all => all.map(t => +t.dataset.i)")
    assert marked == [*range(6, 14), *range(26, 34), *range(46, 54)]
    assert page.locator(".tokens .t.answer").all_text_contents() == ["7"]
    assert "15 HWE tokens in 3 windows" in page.locator(".facts").inner_text()
    strongest = page.locator(".tokens .t[data-i='8']").get_attribute("class")
    assert "h9" in strongest and "h9" not in page.locator(".tokens .t[data-i='3']").get_attribute("class")


def test_strip_by_keyboard(page: Any, viewer: Viewer) -> None:
    page.goto(sample(viewer, "q02"))
    page.locator(".tokens .t[data-i='3']").click()
    page.keyboard.press("ArrowRight")
    page.locator(".readout[data-token='4']").wait_for()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.locator(".readout[data-token='2']").wait_for()


def test_overview_has_ink_where_entropy_is(page: Any, viewer: Viewer) -> None:
    page.goto(sample(viewer, "q02"))
    page.locator(".overview").wait_for()
    page.wait_for_timeout(100)
    share = page.locator(".overview").evaluate(
        """node => { const d = node.getContext("2d").getImageData(0, 0, node.width, node.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (node.width * node.height); }"""
    )
    # Three eighths of the tokens reach the top; window marks and lines add a little.
    assert 0.25 < share < 0.55


def test_two_runs_side_by_side(page: Any, viewer: Viewer) -> None:
    page.goto(f"{viewer.url}#/run?run=a")
    page.locator("select[name=with]").select_option("b")
    page.locator("select[name=flip]").select_option("any")
    page.locator("#total", has_text=re.compile(rf"\b{len(FLIPPED)}\b")).wait_for()
    assert page.locator("#records tbody tr td:first-child a").all_inner_texts() == FLIPPED
    page.get_by_role("link", name="q00", exact=True).click()
    page.locator(".sides .reply").nth(1).wait_for()
    shown = page.locator(".sides .reply .judged > p .verdict").all_inner_texts()
    assert shown == ["incorrect", "correct"]


def test_hostile_texts_are_only_texts(page: Any, viewer: Viewer) -> None:
    page.goto(sample(viewer, "hostile", task="odd"))
    page.get_by_text("How it was judged").click()
    page.locator(".stages dl").wait_for()
    body = page.locator("body").inner_text()
    assert body.count(HOSTILE) >= 3
    assert "null" not in body
    # The command that KaTeX refuses stands on one line like the rest.
    assert page.locator(".plain .formula .mord").first.bounding_box()["height"] < 40
    assert page.locator("main img, main script").count() == 0
    assert page.locator("main a[href^='javascript']").count() == 0
    assert "owned" not in page.title()
    page.goto(sample(viewer, "failed", task="odd"))
    page.get_by_text("500 <img").wait_for()
    assert "owned" not in page.title()


def test_formulas_and_prices(page: Any, viewer: Viewer) -> None:
    page.goto(sample(viewer, "q02"))
    page.locator(".question .katex").wait_for()
    assert page.locator(".question .formula").get_attribute("title") == "$2 + 2$"
    texts = ["costs $5 and $7", r"\boxed{\frac{1}{2}} end", r"\[x^2", r"a $\unknown{$ b", "$$y$$ then $z$", r"\boxed{}"]
    nodes = page.evaluate(
        """async texts => {
        const { formulas } = await import("/static/formula.js");
        const drawn = node => node.querySelector(".katex") ? "F" : "?" + node.textContent;
        const kind = node => typeof node === "string" ? node : drawn(node);
        return texts.map(text => formulas(text).map(kind)); }""",
        texts,
    )
    assert nodes == [
        ["costs $5 and $7"],
        ["F", " end"],
        ["\\[x^2"],
        ["a ", "?$\\unknown{$", " b"],
        ["F", " then ", "F"],
        [r"\boxed{}"],
    ]


def test_picture_of_a_question(page: Any, viewer: Viewer, folder: Path) -> None:
    name = next(r.sample for r in load_run(folder / "a").records() if r.task == "smoke_pictures")
    page.goto(sample(viewer, name, task="smoke_pictures"))
    page.locator(".question img").wait_for()
    for _ in range(100):
        if page.locator(".question img").evaluate("image => image.complete && image.naturalWidth > 0"):
            break
        page.wait_for_timeout(50)
    assert page.locator(".question img").evaluate("image => image.naturalWidth") > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(chromium: Any, viewer: Viewer, scheme: str, width: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for address in (viewer.url, f"{viewer.url}#/run?run=a&with=b", sample(viewer, "q02", **{"with": "b"})):
        page.goto("about:blank")
        page.goto(address)
        page.locator("main[data-shown]").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
