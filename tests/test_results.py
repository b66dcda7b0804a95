"""results.json: the measured rule, bounds, draws, variants, suites, and independence of the records' order."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ares_eval import metrics
from ares_eval.analysis.statistics import wilson
from ares_eval.results import METRICS, TaskMeta, asked_and_measured, summarise
from ares_eval.table import results_table, write_table
from ares_eval.types import Json, Record, Usage, Verdict

SHARED = Path(os.environ.get("ARES_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def record(
    sample: str,
    outcome: str = "correct",
    *,
    task: str = "t",
    draw: int = 0,
    group: str | None = None,
    answer: str = "7",
    tokens: int | None = 10,
    truncated: bool = False,
) -> Record:
    """A measured record with that verdict, or with any other word as the cause of a record that is not measured."""
    common = Record(task=task, sample=sample, draw=draw, group=group or sample, key="k", prompt="p")
    if outcome not in ("correct", "incorrect", "unverifiable"):
        return replace(common, cause=outcome, message="m")
    reason = "unparsed" if outcome == "unverifiable" else None
    verdict = Verdict(outcome, "box>number", reason, extracted=answer, normalised=(answer, "7"))  # type: ignore[arg-type]
    return replace(common, text="x", usage=Usage(5, tokens, None), truncated=truncated, verdict=verdict)


def encode(results: dict[str, Json]) -> str:
    return json.dumps(results, allow_nan=False)


def task(results: dict[str, Json], name: str = "t") -> dict[str, Json]:
    entry: dict[str, Json] = results["tasks"][name]
    return entry


def test_what_was_not_measured_is_never_wrong() -> None:
    records = [record(f"r{i}") for i in range(6)] + [record(f"w{i}", "incorrect") for i in range(2)]
    records += [record("u", "unverifiable", truncated=True), record("a", "rate_limit"), record("b", "rate_limit")]
    records += [record("c", "timeout")]
    entry = task(summarise(records, {"t": TaskMeta("t", questions=15)}))
    assert {key: entry[key] for key in list(entry)[:6]} == {
        "n": 15,
        "correct": 6,
        "incorrect": 2,
        "unverifiable": 1,
        "not_measured": {"missing": 3, "rate_limit": 2, "timeout": 1},
        "truncated": 1,
    }
    values = entry["metrics"]
    assert values["accuracy"] == pytest.approx(6 / 9)
    assert values["accuracy_ci95"] == list(wilson(6, 9))
    assert values["accuracy_ci95_method"] == "wilson"
    assert (values["accuracy_worst"], values["accuracy_best"]) == (6 / 15, 13 / 15)
    assert asked_and_measured({"tasks": {"t": entry}}) == (15, 9)


def test_nothing_measured_has_no_accuracy_and_full_bounds() -> None:
    results = summarise(
        [record("a", "server")], {"t": TaskMeta("t", ("all",), questions=4), "empty": TaskMeta("empty")}
    )
    values = task(results)["metrics"]
    assert values["accuracy"] is None
    assert values["accuracy_ci95"] is None
    assert (values["accuracy_worst"], values["accuracy_best"]) == (0, 1)
    assert values["completion_tokens_mean"] is None
    assert task(results, "empty")["n"] == 0
    assert results["suites"]["all"]["metrics"]["macro"] is None
    assert results["suites"]["all"]["metrics"]["macro_missing"] == ["t"]
    assert encode(results)


def test_tokens_of_measured_replies() -> None:
    records = [record(f"q{i}", tokens=count) for i, count in enumerate([10, 30, 20, 100])] + [record("x", "network")]
    records += [record("unknown", tokens=None)]
    records[0] = replace(records[0], usage=Usage(7, 10, 4, estimated=True))
    values = task(summarise(records, {"t": TaskMeta("t")}))["metrics"]
    assert (values["completion_tokens_mean"], values["completion_tokens_median"]) == (40, 25)
    assert (values["reasoning_tokens_mean"], values["reasoning_tokens_median"]) == (4, 4)
    assert (values["completion_tokens_total"], values["prompt_tokens_total"]) == (160, 27)
    assert (values["tokens_estimated"], values["tokens_unknown"]) == (1, 1)


def test_draws() -> None:
    rows = {"a": "ccii", "b": "iiii", "c": "cccc"}
    outcome = {"c": "correct", "i": "incorrect"}
    records = [
        record(sample, outcome[letter], draw=i, answer="7" if letter == "c" else "8")
        for sample, letters in rows.items()
        for i, letter in enumerate(letters)
    ]
    values = task(summarise(records, {"t": TaskMeta("t", questions=3, draws=4)}))["metrics"]
    assert values["avg@4"] == values["accuracy"] == values["pass@1"] == pytest.approx(0.5)
    assert values["pass@2"] == pytest.approx((metrics.pass_at_k(4, 2, 2) + 0 + 1) / 3)
    assert values["pass@4"] == pytest.approx(2 / 3)
    assert values["maj@4"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert values["accuracy_ci95_method"] == "wilson-clustered"
    assert values["accuracy_stderr"] == pytest.approx(values["avg@4_stderr"])
    assert (values["questions"], values["questions_complete"]) == (3, 3)

    short = [r for r in records if (r.sample, r.draw) != ("c", 3)] + [record("c", "timeout", draw=3)]
    partial = task(summarise(short, {"t": TaskMeta("t", questions=3, draws=4)}))["metrics"]
    assert partial["avg@4"] == pytest.approx(0.5)
    assert partial["accuracy"] == pytest.approx(5 / 11)
    assert partial["pass@2"] == values["pass@2"]
    assert partial["pass@4"] == pytest.approx(1 / 2), "only questions with four measured draws have a pass@4"
    assert partial["questions_complete"] == 2


def test_a_single_draw_has_no_draw_metrics() -> None:
    assert not [key for key in task(summarise([record("a")], {"t": TaskMeta("t")}))["metrics"] if "@" in key]


def variants(group: str, outcomes: Sequence[str], draw: int = 0) -> list[Record]:
    return [record(f"{group}/{i}", outcome, group=group, draw=draw) for i, outcome in enumerate(outcomes)]


def test_worst_case_counts_a_group_only_when_all_variants_are_right() -> None:
    good, bad, unsure, lost = "correct", "incorrect", "unverifiable", "server"
    records = variants("all", [good] * 3) + variants("one_wrong", [good, bad, good])
    records += variants("unsure", [good, good, unsure]) + variants("half", [good, lost, good])
    records += variants("half_and_wrong", [bad, lost, good]) + variants("cut", [good])
    groups = dict.fromkeys(["all", "one_wrong", "unsure", "half", "half_and_wrong", "cut", "never"], 3)
    meta = TaskMeta("t", metrics=("worst_case",), questions=21, groups=groups)
    values = task(summarise(records, {"t": meta}))["metrics"]
    assert values["worst_case"] == pytest.approx(1 / 3)
    assert values["worst_case_worst"] == pytest.approx(1 / 7)
    assert values["worst_case_best"] == pytest.approx(5 / 7)
    assert values["worst_case_groups"] == 7
    assert values["worst_case_partial"] == ["cut", "half", "half_and_wrong", "never"]
    assert values["average_case"] == pytest.approx((1 + 2 / 3 + 2 / 3 + 1 + 1 / 2 + 1) / 6)
    assert values["accuracy_ci95_method"] == "wilson-clustered"


def test_worst_case_of_a_run_that_ended_before_all_groups_were_seen_is_open() -> None:
    meta = TaskMeta("t", metrics=("worst_case",), questions=8, groups={"a": 2})
    values = task(summarise(variants("a", ["correct", "correct"]), {"t": meta}))["metrics"]
    assert values["worst_case"] is None
    assert (values["worst_case_worst"], values["worst_case_best"], values["average_case"]) == (0, 1, 1)


def test_worst_case_over_draws_is_the_mean_over_draws() -> None:
    good, bad = "correct", "incorrect"
    records = variants("a", [good, good], 0) + variants("a", [good, bad], 1)
    records += variants("b", [good, good], 0) + variants("b", [good, good], 1)
    meta = TaskMeta("t", metrics=("worst_case",), questions=4, draws=2, groups={"a": 2, "b": 2})
    assert task(summarise(records, {"t": meta}))["metrics"]["worst_case"] == pytest.approx(3 / 4)


@pytest.mark.skipif(not (SHARED / "recorded" / "dynamath").is_dir(), reason="no recorded DynaMath verdicts here")
def test_worst_case_of_published_dynamath_verdicts() -> None:
    for path in sorted((SHARED / "recorded" / "dynamath").glob("*.csv")):
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if row and row[0].startswith("Q") and row[0][1:].isdigit()]
        assert len(rows) == 501, path.name
        words = {"correct": "correct", "fail": "incorrect"}
        records = [r for row in rows for r in variants(row[0], [words[word] for word in row[1:11]])]
        meta = TaskMeta("t", metrics=("worst_case",))
        values = task(summarise(records, {"t": meta}))["metrics"]
        assert values["worst_case"] == sum(row[11] == "10" for row in rows) / 501
        assert values["average_case"] == pytest.approx(sum(int(row[11]) for row in rows) / 5010)
        assert values["accuracy"] == pytest.approx(values["average_case"])


outcomes = st.sampled_from(["correct", "incorrect", "unverifiable", "timeout", None])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(outcomes, min_size=3, max_size=3), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_order_and_an_earlier_failed_attempt_change_no_byte(table: list[list[str | None]], rng: random.Random) -> None:
    records = [
        record(f"q{i}", outcome, draw=j, group=f"g{i // 2}", answer=outcome)
        for i, row in enumerate(table)
        for j, outcome in enumerate(row)
        if outcome is not None
    ]
    groups = Counter(f"g{i // 2}" for i in range(len(table)))
    meta = {"t": TaskMeta("t", ("s",), ("worst_case",), questions=len(table), draws=3, groups=groups)}
    expected = encode(summarise(records, meta))
    lucky = [r for r in records if r.measured and rng.random() < 0.5]
    again = [record(r.sample, "network", draw=r.draw, group=r.group) for r in lucky]
    mixed = records + again
    rng.shuffle(mixed)
    results = summarise(mixed, meta)
    assert encode(results) == expected

    values = results["tasks"]["t"]["metrics"]
    for name in ("accuracy", "worst_case"):
        assert 0 <= values[f"{name}_worst"] <= values[f"{name}_best"] <= 1
        if len(records) == 3 * len(table) and all(r.measured for r in records):
            assert values[f"{name}_worst"] - 1e-12 <= values[name] <= values[f"{name}_best"] + 1e-12


def test_a_later_record_of_the_same_draw_replaces_the_earlier() -> None:
    results = summarise([record("a", "incorrect"), record("a"), record("a", "server")], {"t": TaskMeta("t")})
    assert (task(results)["n"], task(results)["correct"]) == (1, 1)


def test_suites_average_the_primary_metric_and_pool_the_counts() -> None:
    records = [record(f"q{i}", "correct" if i < 3 else "incorrect", task="plain") for i in range(4)]
    records += [
        replace(r, task="dyn") for r in variants("a", ["correct", "correct"]) + variants("b", ["correct", "incorrect"])
    ]
    records += [record("z", "server", task="plain")]
    metas = {
        "plain": TaskMeta("plain", ("all", "text")),
        "dyn": TaskMeta("dyn", ("all",), ("worst_case",)),
    }
    suites = summarise(records, metas)["suites"]
    assert list(suites) == ["all", "text"]
    both = suites["all"]
    assert both["tasks"] == ["dyn", "plain"]
    assert (both["n"], both["correct"], both["not_measured"]) == (9, 6, {"server": 1})
    assert both["metrics"]["macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert both["metrics"]["macro_worst"] == pytest.approx((3 / 5 + 1 / 2) / 2)
    assert both["metrics"]["macro_best"] == pytest.approx((4 / 5 + 1 / 2) / 2)
    plain, dyn = (0.25 * 0.75 / 3) ** 0.5, 0.5
    assert both["metrics"]["macro_stderr"] == pytest.approx((plain**2 + dyn**2) ** 0.5 / 2)


def test_a_task_can_add_its_own_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "longest", lambda draws, meta: {"longest": max(len(d.sample) for d in draws)})
    values = task(summarise([record("aaa"), record("b")], {"t": TaskMeta("t", metrics=("accuracy", "longest"))}))[
        "metrics"
    ]
    assert values["longest"] == 3
    monkeypatch.setitem(METRICS, "greedy", lambda draws, meta: {"greedy": 1, "accuracy": 1})
    with pytest.raises(ValueError, match="greedy"):
        summarise([record("a")], {"t": TaskMeta("t", metrics=("greedy",))})


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="no metric 'worstcase'"):
        summarise([], {"t": TaskMeta("t", metrics=("worstcase",))})
    with pytest.raises(ValueError, match="no task of this run"):
        summarise([record("a", task="other")], {"t": TaskMeta("t")})
    with pytest.raises(ValueError, match="only 1 were asked for"):
        summarise([record("a"), record("b")], {"t": TaskMeta("t", questions=1)})


def test_the_table_says_the_same_in_both_drawings() -> None:
    records = [record(f"q{i}", "correct", task="plain", tokens=1200) for i in range(9)]
    records += [record("lost", "timeout", task="plain"), record("u", "unverifiable", task="plain", truncated=True)]
    pairs = variants("[red]", ["correct", "server"]) + variants("b", ["correct", "correct"])
    records += [replace(r, task="dyn") for r in pairs]
    metas = {
        "plain": TaskMeta("plain", ("all",), questions=12),
        "dyn": TaskMeta("dyn", ("all",), ("worst_case",), questions=4, groups={"[red]": 2, "b": 2}),
    }
    results = summarise(records, metas)
    plain = results_table(results)
    assert isinstance(plain, str)
    rows = {line.split()[0]: line for line in plain.splitlines() if not line.startswith("-")}
    for text in (" 12 ", "90.0 [59.6, 98.2]", "75.0 to 100.0", "1,081 (1,200)"):
        assert text in rows["plain"]
    assert "100.0 [20.7, 100.0]" in rows["dyn"], "the primary metric of the task: its worst case"
    assert "50.0 to 100.0" in rows["dyn"]
    assert rows["all"].split()[:3] == ["all", "16", "95.0"]
    assert "plain: not measured: missing 1, timeout 1" in plain
    assert "dyn: not every variant was measured in 1 groups: [red]" in plain
    assert "dyn: accuracy 100.0" in plain

    console = Console(width=200, file=io.StringIO())
    console.print(results_table(results, rich=True))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    for word in " ".join(line for line in plain.splitlines() if not line.startswith("-")).split():
        assert word in drawn

    pipe = io.StringIO()
    write_table(results, pipe)
    assert pipe.getvalue() == plain + "\n"


def test_a_table_without_losses_has_no_columns_for_them() -> None:
    plain = results_table(summarise([record("a")], {"t": TaskMeta("t")}))
    assert str(plain).splitlines()[0].split() == ["task", "n", "score", "%", "[95", "%]", "tokens", "(median)"]
