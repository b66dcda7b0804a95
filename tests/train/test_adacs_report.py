"""Stage report: its numbers against planted ones, partial reports, a page that loads nothing, the same bytes again."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ares_train.adacs import findings, lengths, report, select
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from tests.train.adacs_pool import Draw, Planted, configured, plant

HOSTILE = "</style><script>alert(1)</script>|`x`"

CONFIG = configured(
    sample={"teacher": {"ask": {"model_name": "t", "openai_base_url": "http://localhost:1/v1"}}},
    select={"pool": "estimator"},
    report={"title": HOSTILE},
)


def pool() -> list[Planted]:
    """Twelve questions a tier. Right replies have 100, 200, ... tokens; wrong ones 1000, of which one is cut off."""
    return [
        Planted(
            f"q{k}-{i:02}",
            [
                *[Draw(100 * (place + 1), triggers=place + 1) for place in range(k)],
                *[Draw(1000, 0, triggers=20, truncated=place == 1) for place in range(8 - k)],
            ],
            teacher=[Draw(900), Draw(40)],
            source=HOSTILE,
        )
        for k in range(9)
        for i in range(12)
    ]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    plant(folder, pool())
    for stage in (lengths, select, report):
        stage.run(CONFIG, folder, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def values(work: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((work / "report/report.json").read_text())


def test_means_medians_and_densities_of_every_tier(values: dict) -> None:  # type: ignore[type-arg]
    everyone, adacs, vanilla = values["series"]
    assert [one["name"] for one in values["series"]] == ["all of the estimator", "adacs", "vanilla"]
    for k, tier in enumerate(everyone["tiers"]):
        replies = [100 * (place + 1) for place in range(k)] + [1000] * (8 - k - (k < 7))
        assert tier["responses"] == 12 * len(replies) and tier["questions"] == 12
        assert tier["length"]["value"] == pytest.approx(np.mean(replies))
        assert tier["median"] == np.median(replies)
        triggers = sum(place + 1 for place in range(k)) + 20 * (8 - k - (k < 7))
        assert tier["triggers"]["value"] == pytest.approx(1000 * triggers / sum(replies))
        assert tier["hwe"] is None
    # L(0) = 1000 and L(1) = 450: the nearest right reply of each tier.
    for k, tier in enumerate(adacs["tiers"]):
        target = 1000 - 550 * k / 8
        offered = [900, 40] if k == 0 else [100 * (place + 1) for place in range(k)]
        assert tier["length"]["value"] == min(offered, key=lambda x: (abs(x - target), x))
    assert vanilla["responses"] == adacs["responses"] == 108


def test_slopes_and_rank_correlations_are_those_of_the_rows(values: dict) -> None:  # type: ignore[type-arg]
    adacs = values["series"][1]
    lengths_of = [tier["length"]["value"] for tier in adacs["tiers"]]
    x = np.repeat(1 - np.arange(9) / 8, 12)
    y = np.repeat(lengths_of, 12)
    assert adacs["slope"]["value"] == pytest.approx(np.polyfit(x, y, 1)[0])
    target = np.repeat([1000 - 550 * k / 8 for k in range(9)], 12)
    assert adacs["away"]["value"] == pytest.approx(np.mean(np.abs(y - target) / target))
    assert adacs["tokens"] == y.sum()
    rank_x, rank_y = (np.array([np.mean(np.flatnonzero(np.sort(v) == one)) for one in v]) for v in (x, y))
    assert adacs["spearman"]["value"] == pytest.approx(np.corrcoef(rank_x, rank_y)[0, 1])


def test_counts_of_responses_and_of_what_was_left_out(values: dict) -> None:  # type: ignore[type-arg]
    estimator = values["pools"][0]
    assert (estimator["responses"], estimator["right"], estimator["truncated"]) == (864, 432, 84)
    assert values["left_out"] == []
    assert values["sources"][0]["cut off at p = 0"] == 12
    assert any("cut off" in line for line in values["remarks"])
    assert values["remarks"][0] == "unfinished: ingest, write not done yet"


class Page(HTMLParser):
    """Names, ids and links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_the_page_loads_nothing_runs_nothing_and_keeps_texts_texts(work: Path) -> None:
    text = (work / "report/report.html").read_text()
    page = Page(text)
    assert not {"script", "iframe", "link", "object", "img"} & page.names
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value for name, value in page.attributes if name in ("href", "xlink:href", "src")]
    assert len(ids) == len(set(ids)) and {link.removeprefix("#") for link in links} <= set(ids)
    assert not re.search(r"url\((?!#)", text) and text.count("<svg ") == 4
    markdown = (work / "report/report.md").read_text()
    assert "<script" not in markdown and "| 0/8 |" in markdown


def test_the_same_folder_gives_the_same_files_and_what_is_done_is_not_made_again(work: Path) -> None:
    folder = work / "report"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    notes: list[str] = []
    report.run(CONFIG, work, notes.append)
    assert notes == ["report: done before"]
    for name in before:
        (folder / name).unlink()
        report.run(CONFIG, work, notes.append)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_report_of_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(AdacsError, match="no finished stage"):
        report.run(CONFIG, tmp_path, print)
    plant(tmp_path, pool()[:30])
    report.run(CONFIG, tmp_path, lambda line: None)
    found = json.loads((tmp_path / "report/report.json").read_text())
    assert [one["name"] for one in found["series"]] == ["all of the estimator"]
    assert "sources" not in found and found["remarks"] == ["unfinished: ingest, lengths, select, write not done yet"]
    lengths.run(CONFIG, tmp_path, lambda line: None)
    report.run(CONFIG, tmp_path, lambda line: None)
    assert json.loads((tmp_path / "report/report.json").read_text())["sources"]


def test_a_selection_that_is_rated_no_more_is_not_counted(tmp_path: Path) -> None:
    plant(tmp_path, pool())
    for stage in (lengths, select):
        stage.run(CONFIG, tmp_path, lambda line: None)
    plant(tmp_path, pool()[:54], parts=1)
    (tmp_path / "rated/part-00001.json").unlink()
    read = findings.read(Layout(tmp_path))
    assert read is not None
    assert [one.responses for one in findings.series(CONFIG, Layout(tmp_path), *read)][1:] == [54, 54]


def test_the_papers_curve_is_the_printed_one() -> None:
    curve = findings.published()
    assert curve[0] == (0.0, 6237.5) and curve[-1] == (1.0, 28159.3) and len(curve) == 9
