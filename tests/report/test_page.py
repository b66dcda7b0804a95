"""The report: one file that loads nothing, shows the records' numbers, and keeps hostile texts texts."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="charts need the [report] extra")

from ares_eval import cli, report
from ares_eval.report import charts, charts_hwe, drawing, theme
from tests.report.planted import HOSTILE, LEVELS, QUESTIONS, planted_run


class Elements(HTMLParser):
    """Names, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    planted_run(folder / "a", model="first")
    planted_run(folder / "b", model="second <i>run</i>", flipped=["q00", "q01", "q03"])
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> str:
    return report.render(report.gather(list(runs), references=["ARES-7B"]))


def test_page_is_self_contained(page: str) -> None:
    found = Elements(page)
    assert not {"script", "iframe", "link", "object", "img"} & set(found.names)
    loading = [value for name, value in found.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert all(value.startswith("#") for value in loading)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_ids_are_unique_and_links_lead_somewhere(page: str) -> None:
    found = Elements(page)
    assert len(found.ids) == len(set(found.ids))
    targets = {value[1:] for name, value in found.attributes if name in ("href", "xlink:href")}
    assert targets <= set(found.ids)


def test_hostile_texts_stay_texts(page: str) -> None:
    found = Elements(page)
    assert not any(name.startswith("on") for name, _ in found.attributes)
    assert HOSTILE in found.text
    assert "second <i>run</i>" in found.text
    assert "i" not in found.names


def test_colours_of_charts_follow_the_theme(page: str) -> None:
    body = page[page.index("</style>") :]
    for colour in theme.ALL:
        assert colour.light not in body
    assert "var(--run-1)" in body
    assert "var(--run-2)" in body
    # Two colours of one value would be told apart by nothing.
    assert len({colour.light for colour in theme.ALL}) == len(theme.ALL)


def test_adaptivity_curve_shows_the_planted_lengths(runs: tuple[Path, Path]) -> None:
    from matplotlib.figure import Figure

    found = report.gather([runs[0]])
    chart = next(chart for chart in charts.adaptivity(found) if chart.name == "adaptivity-sums-length")
    axes = Figure().add_subplot()
    chart.draw(axes)
    line = max(axes.lines, key=lambda line: len(line.get_xdata()))
    assert list(line.get_ydata()) == [20 * level + 4 for level in range(1, LEVELS + 1)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "4"]
    assert axes.get_ylim()[0] == 0


def test_hwe_curve_rises_with_the_planted_windows(runs: tuple[Path, Path]) -> None:
    part = charts.analysis_of(report.gather([runs[0]]).runs[0], "sums")
    assert part is not None and part.adaptivity is not None
    counts = [point.hwe.value for point in part.adaptivity.rungs if point.hwe is not None]
    assert len(counts) == LEVELS
    # A stretch of eight high tokens holds five full windows of four.
    assert counts == [5 * level for level in range(1, LEVELS + 1)]


def test_summary_beside_published_numbers(tmp_path: Path) -> None:
    from ares_eval.records import RunWriter
    from tests.analysis.synthetic import Reply, record_of

    replies = [Reply(f"s{i}", task="math500", right=i % 2 == 0, level=str(i % 5 + 1)) for i in range(40)]
    with RunWriter(tmp_path / "run") as writer:
        writer.write("run.json", {"model": "m", "tasks": {"math500": {"planned": 40}}})
        for reply in replies:
            writer.append(record_of(reply))
    text = Elements(report.render(report.gather([tmp_path / "run"], references=["ARES-7B"]))).text
    assert "50.0" in text
    assert "95.2" in text
    assert "-45.2" in text


def test_runs_are_compared_and_flips_counted(runs: tuple[Path, Path]) -> None:
    (comparison,) = report.gather(list(runs)).comparisons
    task = next(task for task in comparison.tasks if task.task == "sums")
    assert len(task.lost) + len(task.gained) == 3


def test_failures_by_cause(runs: tuple[Path, Path]) -> None:
    counts = {(c.outcome, c.cause): c.count for c in report.gather([runs[0]]).runs[0].counts}
    assert counts[("not measured", "server")] == 1
    assert counts[("unverifiable", "unparsed")] == 1
    assert counts[("truncated", "token limit")] == 1


def test_command_writes_page_tables_and_charts(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    words = ["report", str(runs[0]), "--output", str(output), "--reference", "none"]
    folders = ["--csv", str(tmp_path / "csv"), "--png", str(tmp_path / "png"), "--svg", str(tmp_path / "svg")]
    assert cli.main([*words, *folders]) == 0
    assert output.read_text().startswith("<!doctype html>")
    with (tmp_path / "csv" / "draws.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["task"] == "sums" for row in rows) == QUESTIONS
    with (tmp_path / "csv" / "summary.csv").open() as file:
        by_task = {row["task"]: row for row in csv.DictReader(file)}
    right = sum(i % 3 > 0 for i in range(QUESTIONS))
    assert float(by_task["sums"]["score %"]) == pytest.approx(100 * right / QUESTIONS, abs=0.05)
    assert by_task["odd"]["not measured"] == "1"
    pngs = {path.stem for path in (tmp_path / "png").iterdir()}
    assert pngs == {path.stem for path in (tmp_path / "svg").iterdir()} >= {"accuracy", "budget-sums", "hwe-density"}
    assert (tmp_path / "png" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_same_records_same_bytes(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = report.gather([runs[0]])
    chart = charts_hwe.density(found)[0]
    drawing.write(chart, tmp_path / "a.svg")
    drawing.write(chart, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert drawing.inline(chart) == drawing.inline(chart)


def test_run_of_which_nothing_was_measured(tmp_path: Path) -> None:
    from tests.analysis.synthetic import Reply, run_of

    run_of(tmp_path / "run", [Reply("a", cause="timeout"), Reply("b", cause="timeout")])
    text = Elements(report.render(report.gather([tmp_path / "run"]))).text
    assert "no draw was measured" in text
    assert "timeout" in text


def test_stale_analysis_is_made_anew(tmp_path: Path) -> None:
    import os

    run = planted_run(tmp_path / "run")
    assert cli.main(["analyze", str(run.folder), "--window", "8"]) == 0
    kept = report.gather([run.folder]).runs[0].analysis
    assert kept is not None and kept.options.tokens.window == 8
    os.utime(run.folder / "analysis.json", (0, 0))
    anew = report.gather([run.folder]).runs[0].analysis
    assert anew is not None and anew.options.tokens.window != 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is no run"),
        (["RUN", "--reference", "ARES-8B"], "ARES-7B"),
        (["RUN"] * 9, "too many"),
    ],
)
def test_usage_errors(runs: tuple[Path, Path], words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", *(str(runs[0]) if word == "RUN" else word for word in words)]) == 2
    assert said in capsys.readouterr().err
