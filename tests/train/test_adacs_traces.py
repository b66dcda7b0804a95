"""Ready-made traces: joined with their questions, their verdicts and lengths taken, what cannot be refused by name."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ares_train.adacs import finish, ingest, sample, store
from ares_train.adacs.config import AdacsConfig, from_dict
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from tests.train.adacs_corpus import configured, samples, silent, sums, tree, write_jsonl

QUESTIONS = 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "sums.jsonl", sums(QUESTIONS))


def taking(source: Path, traces: Path, draws: int = 3, **columns: Any) -> AdacsConfig:
    """The estimator's replies are those of a file."""
    settings = configured(source).settings()
    settings["sample"]["estimator"] = {"draws": draws, "traces": [{"path": str(traces), "id": "id", **columns}]}
    return from_dict(settings)


TRACES = {"response": "r", "finish_reason": "f"}


@pytest.mark.parametrize("by", ["id", "question", "qid"])
def test_ready_made_traces_find_their_questions(by: str, source: Path, tmp_path: Path) -> None:
    first = configured(source)
    ingest.run(first, tmp_path / "w", silent)
    rows = [r for b in store.batches(store.opened(tmp_path / "w" / "questions").parts()) for r in b.to_pylist()]
    traces: list[dict[str, Any]] = []
    for row in rows[:15]:
        own = json.loads(row["extra"])["id"]
        named = {"id": own, "question": row["messages"][0]["content"].upper(), "qid": row["qid"]}
        traces += [{by: named[by], "r": f"{own} says {n}", "f": "length" if n == 1 else "stop"} for n in range(3)]
    traces.append({by: "nobody", "r": "lost"})
    random.Random(0).shuffle(traces)
    write_jsonl(tmp_path / "t1.jsonl", traces[:20])
    write_jsonl(tmp_path / "t2.jsonl", traces[20:])
    teacher = {"draws": 2, "traces": [{"path": str(tmp_path / "t*.jsonl"), by: by, **TRACES}]}
    config = configured(source, sample={"teacher": teacher})
    notes: list[str] = []
    sample.run_set(config, Layout(tmp_path / "w"), "teacher", notes.append)
    assert notes[-1] == "sample teacher: traces: 45 taken, 1 without a question" or sorted(
        notes[-1].removeprefix("sample teacher: traces: ").split(", ")
    ) == ["1 without a question", "45 taken"]
    kept = samples(tmp_path / "w", "teacher")
    assert len(kept) == 30
    said = {
        row["qid"]: [t["r"] for t in traces if t["r"].startswith(json.loads(row["extra"])["id"] + " ")] for row in rows
    }
    for row in kept:
        assert row["text"] == said[row["qid"]][row["draw"]]
        assert row["finish_reason"] == ("length" if row["text"].endswith("1") else "stop")
    again: list[str] = []
    sample.run_set(config, Layout(tmp_path / "w"), "teacher", again.append)
    assert again == ["sample teacher: 3 parts are there already"]
    (tmp_path / "t1.jsonl").write_text("")
    (tmp_path / "t2.jsonl").write_text(json.dumps({by: "nobody", "r": "lost", "f": None}) + "\n")
    with pytest.raises(AdacsError, match="no trace belongs to a question"):
        sample.run_set(config, Layout(tmp_path / "w"), "teacher", silent)


def test_traces_bring_lists_verdicts_and_lengths(source: Path, tmp_path: Path) -> None:
    config = configured(source)
    ingest.run(config, tmp_path / "w", silent)
    rows = [
        {"id": f"s{n}", "response": ["a", "b", "c"], "ok": [True, False, None], "n": [5, 6, None]} for n in range(20)
    ]
    traces = {"path": str(write_jsonl(tmp_path / "t.jsonl", rows)), "id": "id", "correct": "ok", "tokens": "n"}
    settings = config.settings()
    settings["sample"]["estimator"] = {"draws": 3, "traces": [traces]}
    sample.run(from_dict(settings), tmp_path / "w", silent)
    kept = samples(tmp_path / "w")
    assert [(row["text"], row["correct"], row["tokens"]) for row in kept[:3]] == [
        ("a", 1, 5),
        ("b", 0, 6),
        ("c", None, None),
    ]


def test_a_fault_among_traces_and_a_second_run_give_the_same_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": f"s{n % QUESTIONS}", "response": f"trace {n}"} for n in range(3 * QUESTIONS)]
    settings = configured(source).settings()
    traces = {"path": str(write_jsonl(tmp_path / "t.jsonl", rows)), "id": "id"}
    settings["sample"]["estimator"] = {"draws": 3, "traces": [traces]}
    config = from_dict(settings)
    for name in ("whole", "torn"):
        ingest.run(config, tmp_path / name, silent)
    sample.run(config, tmp_path / "whole", silent)
    write = store.Stage.write
    written: list[int] = []

    def torn(self: Any, part: int, content: Any, schema: Any, inputs: Any = ()) -> Any:
        written.append(part)
        if len(written) == 2:
            raise OSError("killed")
        return write(self, part, content, schema, inputs)

    monkeypatch.setattr(store.Stage, "write", torn)
    with pytest.raises(OSError, match="killed"):
        sample.run(config, tmp_path / "torn", silent)
    sample.run(config, tmp_path / "torn", silent)
    assert written == [0, 1, 1, 2]
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")


def rows_of(count: int = QUESTIONS, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"s{n}", "response": f"r{n}", **more} for n in range(count)]


def test_verdicts_and_lengths_that_pandas_made_floats_are_taken(source: Path, tmp_path: Path) -> None:
    made = [{**row, "ok": float(n % 2), "n": float(10 + n)} for n, row in enumerate(rows_of())]
    made[0] |= {"ok": None, "n": math.nan}
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "t.parquet")
    config = taking(source, tmp_path / "t.parquet", correct="ok", tokens="n")
    ingest.run(config, tmp_path / "w", silent)
    notes: list[str] = []
    sample.run(config, tmp_path / "w", notes.append)
    found = {int(row["text"][1:]): (row["correct"], row["tokens"]) for row in samples(tmp_path / "w")}
    assert found == {0: (None, None), **{n: (n % 2, 10 + n) for n in range(1, QUESTIONS)}}
    assert notes[-1] == "sample estimator: traces: 20 taken, 19 with a recorded verdict, 19 with a recorded length"


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("ok", "yes", "column 'ok' \\(correct\\) holds 'yes', not true, false, 1, 0 or null"),
        ("ok", 2, "holds 2, not true"),
        ("ok", 0.5, "holds 0.5, not true"),
        ("n", "12", "column 'n' \\(tokens\\) holds '12', not a whole number"),
        ("n", 1.5, "holds 1.5, not a whole number"),
        ("n", True, "holds True, not a whole number"),
        ("n", -1, "holds -1, not a whole number"),
    ],
)
def test_other_verdicts_and_lengths_are_refused_each_time(
    column: str, value: Any, told: str, source: Path, tmp_path: Path
) -> None:
    made = [{"ok": True, "n": 1, **row} for row in rows_of()]
    made[-1][column] = value
    config = taking(source, write_jsonl(tmp_path / "t.jsonl", made), correct="ok", tokens="n")
    ingest.run(config, tmp_path / "w", silent)
    for _ in range(2):
        with pytest.raises(AdacsError, match=told):
            sample.run(config, tmp_path / "w", silent)
    assert not list((tmp_path / "w" / "samples").rglob("*.*"))


@pytest.mark.parametrize("setting", ["response", "reasoning", "id", "finish_reason", "correct", "tokens"])
def test_a_column_that_no_trace_has_is_refused(setting: str, source: Path, tmp_path: Path) -> None:
    config = taking(source, write_jsonl(tmp_path / "t.jsonl", rows_of()), **{setting: "mispelt"})
    ingest.run(config, tmp_path / "w", silent)
    for _ in range(2):
        with pytest.raises(AdacsError, match=f"{setting}: no row of .* has a column 'mispelt'; there are id, response"):
            sample.run(config, tmp_path / "w", silent)


def test_what_is_refused_is_refused_again(source: Path, tmp_path: Path) -> None:
    strange = write_jsonl(tmp_path / "t.jsonl", [{"id": "nobody", "response": "x"}])
    textless = write_jsonl(tmp_path / "u.jsonl", [{"id": "s1", "response": None}])
    for file, told in ((strange, "no trace belongs to a question"), (textless, "1 rows belong to questions, but")):
        config = taking(source, file)
        ingest.run(config, tmp_path / "w", silent)
        for _ in range(2):
            with pytest.raises(AdacsError, match=told):
                sample.run(config, tmp_path / "w", silent)


def test_ids_of_two_sources_need_the_source(source: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "o.jsonl", [{**row, "question": f"Other {row['question']}"} for row in sums(20)])
    values = taking(source, write_jsonl(tmp_path / "t.jsonl", rows_of())).settings()
    values["ingest"]["sources"].append({**values["ingest"]["sources"][0], "name": "other", "path": str(other)})
    config = from_dict(values)
    ingest.run(config, tmp_path / "w", silent)
    with pytest.raises(AdacsError, match="20 traces fit several questions each; name the column with"):
        sample.run(config, tmp_path / "w", silent)


def test_reasons_of_all_servers_are_known(source: Path, tmp_path: Path) -> None:
    for cut in ("length", "MAX_TOKENS", "max_output_tokens", "FinishReason.MAX_TOKENS", "max-tokens"):
        assert finish.cut_off(cut)
    for whole in (None, "", "stop", "STOP", "end_turn", "eos", "gone fishing"):
        assert not finish.cut_off(whole)
    assert not finish.known("gone fishing")
    made = rows_of(f="MAX_TOKENS")
    made[0]["f"] = "gone fishing"
    config = taking(source, write_jsonl(tmp_path / "t.jsonl", made), finish_reason="f")
    ingest.run(config, tmp_path / "w", silent)
    notes: list[str] = []
    sample.run(config, tmp_path / "w", notes.append)
    assert "1 with finish reason 'gone fishing', which is unknown and counts as whole" in notes[-1]


def test_a_file_that_is_broken_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    config = taking(source, tmp_path / "t.parquet")
    ingest.run(config, tmp_path / "w", silent)
    with pytest.raises(AdacsError, match=r"traces: .*t\.parquet: not a parquet file"):
        sample.run(config, tmp_path / "w", silent)
