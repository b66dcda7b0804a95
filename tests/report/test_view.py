"""The viewer's server: its lists agree with the records, it shows what the traces hold, and it keeps to itself."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("duckdb", reason="the viewer needs the [report] extra")

from ares_eval import cli
from ares_eval.records import Run, RunError, RunWriter, load_run
from ares_eval.types import Record
from ares_eval.view import index
from ares_eval.view.library import Library, UnknownRun
from ares_eval.view.query import Filters, Queries
from tests.analysis.synthetic import Reply, record_of, run_of
from tests.report.planted import HOSTILE, QUESTIONS, planted_run
from tests.report.viewing import Viewer, viewing

FLIPPED = ["q00", "q01", "q03"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    planted_run(folder / "a", pictures=True)
    planted_run(folder / "deeper" / "b", flipped=FLIPPED)
    return folder


@pytest.fixture(scope="module")
def viewer(folder: Path) -> Iterator[Viewer]:
    with viewing(folder) as started:
        started.counted("a")
        yield started


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder / "a")


def outcome(record: Record) -> str:
    if not record.measured:
        return "not measured"
    return "unverifiable" if record.verdict is None else record.verdict.value


# ---------------------------------------------------------------- lists


def test_runs_are_found_at_any_depth(viewer: Viewer) -> None:
    assert {run["name"] for run in viewer.ask("runs")["runs"]} == {"a", "deeper/b"}


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"task": "sums"},
        {"verdict": "incorrect"},
        {"task": "sums", "tier": "hard", "verdict": "correct"},
        {"level": "2"},
        {"verdict": "not measured"},
        {"search": "q1"},
        {"truncated": "1"},
        {"task": "'; DROP TABLE r; --"},
    ],
)
def test_filters_agree_with_the_records(viewer: Viewer, run: Run, filters: dict[str, str]) -> None:
    tiers = {"1": "easy", "2": "medium", "3": "medium", "4": "hard"}

    def fits(record: Record) -> bool:
        answer = None if record.verdict is None else record.verdict.extracted
        checks = {
            "task": lambda value: record.task == value,
            "verdict": lambda value: outcome(record) == value,
            "level": lambda value: record.level == value,
            "tier": lambda value: record.level is not None and tiers[record.level] == value,
            "search": lambda value: any(value in str(text) for text in (record.sample, answer, record.reference)),
            "truncated": lambda value: record.truncated,
        }
        return all(checks[name](value) for name, value in filters.items())

    wanted = {(r.task, r.sample) for r in run.records() if fits(r)}
    page = viewer.ask("records", run="a", size=500, **filters)
    assert page["total"] == len(page["rows"]) == len(wanted)
    assert {(row["task"], row["sample"]) for row in page["rows"]} == wanted


def test_pages_give_every_record_once_in_order(viewer: Viewer) -> None:
    seen = []
    for first in range(0, QUESTIONS + 10, 7):
        page = viewer.ask("records", run="a", task="sums", first=first, size=7, sort="tokens", order="desc")
        seen += [(row["tokens"], row["sample"]) for row in page["rows"]]
    assert len({sample for _, sample in seen}) == len(seen) == QUESTIONS
    assert [tokens for tokens, _ in seen] == sorted((tokens for tokens, _ in seen), reverse=True)


def test_facets_count_under_the_other_filters(viewer: Viewer, run: Run) -> None:
    facets = viewer.ask("facets", run="a", task="sums", verdict="correct")
    by_verdict = Counter(outcome(r) for r in run.records() if r.task == "sums")
    by_task = Counter(r.task for r in run.records() if outcome(r) == "correct")
    assert {f["value"]: f["n"] for f in facets["verdict"]} == by_verdict
    assert {f["value"]: f["n"] for f in facets["task"]} == by_task


def test_flips(viewer: Viewer, run: Run) -> None:
    right = {r.sample for r in run.records() if r.task == "sums" and outcome(r) == "correct"}

    def samples(flip: str) -> set[str]:
        rows = viewer.ask("records", run="a", with_="deeper/b", flip=flip)["rows"]
        assert all(row["verdict"] != row["other"] for row in rows)
        return {row["sample"] for row in rows}

    assert samples("any") == set(FLIPPED)
    assert samples("lost") == set(FLIPPED) & right
    assert samples("gained") == set(FLIPPED) - right


def test_bad_queries_are_refused(viewer: Viewer) -> None:
    for query in ({"sort": "1; DROP"}, {"flip": "any"}, {"flip": "all", "with": "a"}, {"first": "-1"}, {"size": "x"}):
        status, _, body = viewer.get("api/records", run="a", **query)
        assert status == 400, (query, body)
    assert viewer.get("api/records")[0] == 400
    assert viewer.get("api/record", run="a", task="sums", sample="none")[0] == 404


# ---------------------------------------------------------------- one record


def test_trace_is_the_recorded_one(viewer: Viewer, run: Run) -> None:
    record = next(r for r in run.records() if r.sample == "q02")
    trace = run.trace(record)
    assert trace is not None
    shown = viewer.ask("record", run="a", task="sums", sample="q02")["trace"]
    assert shown["tokens"] == list(trace.tokens)
    assert np.allclose(shown["low"], trace.entropy_low, atol=1e-4)
    assert np.allclose(shown["high"], trace.entropy_high, atol=1e-4)
    assert np.allclose(shown["logprob"], trace.logprob, atol=1e-4)
    # Level 3: a stretch of eight high tokens in each twenty, from the seventh on; a trigger word stands in none.
    assert [window[:2] for window in shown["windows"]] == [[6, 14], [26, 34], [46, 54]]
    assert shown["positions"] == 15
    assert shown["answer"] == [62, 63]
    listed = viewer.ask("records", run="a", search="q02")["rows"][0]
    assert listed["hwe"] == 15
    assert listed["mean"] == pytest.approx(float(trace.entropy_low.mean()), abs=1e-4)


def test_record_with_prompt_verdict_and_stages(viewer: Viewer) -> None:
    shown = viewer.ask("record", run="a", task="sums", sample="q01")
    assert shown["messages"] == [{"role": "user", "parts": ["What is $1 + 1$?"]}]
    assert shown["verdict"]["value"] == "correct"
    stages = viewer.ask("stages", run="a", task="sums", sample="q01")
    assert stages["candidates"][0]["text"] == "7"
    assert stages["verdict"]["value"] == "incorrect"
    assert stages["same"] is False


def test_failure_and_hostile_text_are_passed_on_as_data(viewer: Viewer) -> None:
    failed = viewer.ask("record", run="a", task="odd", sample="failed")
    assert failed["cause"] == "server" and HOSTILE in failed["message"]
    assert viewer.ask("record", run="a", task="odd", sample="hostile")["text"].startswith(HOSTILE)


def test_marked_answer_counts_as_browsers_do(viewer: Viewer) -> None:
    shown = viewer.ask("record", run="a", task="odd", sample="cut")
    units = shown["text"].encode("utf-16-le")
    first, last = shown["marked"]
    assert units[2 * first : 2 * last].decode("utf-16-le") == "12"


def test_pictures_are_found_again_by_digest(viewer: Viewer, run: Run) -> None:
    sample = next(r.sample for r in run.records() if r.task == "smoke_pictures")
    messages = viewer.ask("record", run="a", task="smoke_pictures", sample=sample)["messages"]
    digest = next(part["picture"] for part in messages[0]["parts"] if isinstance(part, dict))
    where = {"run": "a", "task": "smoke_pictures", "sample": sample}
    status, headers, body = viewer.get("api/picture", **where, digest=digest)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")
    status, _, body = viewer.get("api/picture", **where, digest="0" * 64)
    assert status == 404
    assert "other pictures" in json.loads(body)["error"]
    status, _, body = viewer.get("api/picture", run="a", task="mathvista", sample="1", digest=digest)
    assert status == 404
    assert "--dataset-dir" in json.loads(body)["error"]


# ---------------------------------------------------------------- keeping to itself


def test_answers_only_under_its_own_name_and_to_its_own_page(viewer: Viewer) -> None:
    for name in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert viewer.get("api/runs", headers={"Host": name})[0] == 403
    assert viewer.get("api/runs", headers={"Host": "localhost:1"})[0] == 200
    assert viewer.get("api/runs", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403


def test_every_answer_carries_the_policy(viewer: Viewer) -> None:
    for path in ("", "static/view.js", "api/runs", "api/records", "nowhere"):
        headers = viewer.get(path)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_outside_the_folder_is_read(viewer: Viewer, folder: Path, tmp_path: Path) -> None:
    planted_run(tmp_path / "outside")
    for name in (str(tmp_path / "outside"), f"../{tmp_path.name}/outside", "a/../../a", "", "nowhere", "a/traces"):
        assert viewer.get("api/records", run=name)[0] == 404
    library = Library(folder)
    with pytest.raises(UnknownRun):
        library.run("../" + folder.name + "/a")
    library.close()
    for path in ("static/../server.py", "static/%2e%2e/server.py", "static/..%2fserver.py"):
        assert viewer.get(path)[0] in (403, 404)


def test_page_loads_nothing_from_elsewhere() -> None:
    import ares_eval.view

    static = Path(ares_eval.view.__file__).parent / "static"
    for path in static.rglob("*"):
        if path.suffix in (".html", ".css", ".js") and "vendor" not in path.parts:
            assert "http://" not in path.read_text().replace("http://www.w3.org", "")
            assert "https://" not in path.read_text()
            assert "innerHTML" not in path.read_text()
            assert "insertAdjacentHTML" not in path.read_text()
    assert (static / "vendor" / "katex" / "LICENSE").read_text().startswith("The MIT License")


# ---------------------------------------------------------------- the index


def test_last_record_counts_but_never_a_failure_over_a_measured_one(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run",
        [
            Reply("x", right=False),
            Reply("y", cause="timeout"),
            Reply("x", right=True),
            Reply("y", right=True),
            Reply("x", cause="network"),
        ],
    )
    queries = Queries()
    rows = queries.page(index.make(run, tmp_path), Filters({}))["rows"]
    queries.close()
    assert {row["sample"]: row["verdict"] for row in rows} == {"x": "correct", "y": "correct"}


def test_index_follows_a_run_that_grows(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply("x")])
    before = index.make(run, tmp_path)
    with RunWriter(run.folder) as writer:
        writer.append(record_of(Reply("y")))
    with (run.folder / "samples.jsonl").open("ab") as file:
        file.write(b'{"torn')
    after = index.make(run, tmp_path)
    queries = Queries()
    assert queries.page(after, Filters({}))["total"] == 2
    place = queries.place(after, "planted", "y", 0)
    queries.close()
    assert place is not None
    assert index.read_record(run.folder, place["offset"], place["length"]).sample == "y"
    assert not before.records.exists()


def test_folder_that_cannot_be_written_is_read_all_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply("x")])
    (run.folder / index.FOLDER).write_text("in the way")
    files = index.make(run, tmp_path / "spare")
    assert files.records.is_relative_to(tmp_path / "spare")
    queries = Queries()
    assert queries.page(files, Filters({}))["total"] == 1
    queries.close()


def test_broken_line_is_an_error_with_its_number(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply("x")])
    with (run.folder / "samples.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(RunError, match="line 2"):
        index.make(run, tmp_path)


def test_tiers_by_own_pass_rate_where_there_are_no_levels(tmp_path: Path) -> None:
    replies = [Reply("x", draw=d, right=True) for d in range(4)] + [Reply("y", draw=d, right=False) for d in range(4)]
    queries = Queries()
    rows = queries.page(index.make(run_of(tmp_path / "run", replies), tmp_path), Filters({}))["rows"]
    queries.close()
    assert {(row["sample"], row["tier"]) for row in rows} == {("x", "easy"), ("y", "hard")}


def test_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["view", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_index_holds_no_texts(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "a", tmp_path / "run", ignore=shutil.ignore_patterns(".view"))
    files = index.make(load_run(tmp_path / "run"), tmp_path)
    from pyarrow import parquet

    table = parquet.read_table(files.records)
    for name in table.column_names:
        assert not any("w17 so" in str(value) or " w3 w4" in str(value) for value in table[name].to_pylist())
