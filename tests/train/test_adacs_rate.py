"""Rating: verdicts, lengths and pass rates against plain counting, and each edge case by its name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.analysis.words import find_words
from ares_train.adacs import ingest, rate, schemas, store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.counting import TokenCounter, thinking_span
from ares_train.adacs.errors import AdacsError, Incomplete
from ares_train.adacs.layout import Layout
from ares_train.adacs.rating import trigger_words
from ares_train.adacs.response import split, well_formed, whole
from ares_train.adacs.store import Stage
from tests.models import tiny_tokenizer
from tests.train.adacs_corpus import configured, sums, tree, write_jsonl


def silent(_line: str) -> None:
    return None


@pytest.fixture(scope="module")
def counter(tokenizer: Path) -> TokenCounter:
    return TokenCounter(str(tokenizer))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.build(2048).save_pretrained(folder)
    return folder


def sampled(config: AdacsConfig, work: Path, replies: Callable[[int, int], dict[str, Any]], **more: Any) -> None:
    """Ingest, and samples of the estimator as ``replies(question, draw)`` has them; ``more``: other sets likewise."""
    ingest.run(config, work, silent)
    questions = store.opened(work / "questions")
    for name, made in {"estimator": replies, **more}.items():
        stage = Stage(work / "samples" / name, "planted")
        for number in questions.numbers():
            rows = []
            for row in pq.read_table(questions.path(number)).to_pylist():
                own = int(json.loads(row["extra"])["id"][1:])
                for draw in range(config.sample.estimator.draws):
                    reply = {"finish_reason": "stop", "reasoning": "", **made(own, draw)}
                    rows.append({"qid": row["qid"], "source": row["source"], "draw": draw, **reply})
            stage.write(number, pa.Table.from_pylist(rows, schema=schemas.SAMPLES), schemas.SAMPLES)


def rated(work: Path) -> list[dict[str, Any]]:
    return [row for batch in store.batches(store.opened(work / "rated").parts()) for row in batch.to_pylist()]


def rates(work: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Layout(work).rates).to_pylist()
    return rows


def answer(n: int) -> str:
    return f"<think>wait, {n}</think>\\boxed{{{n + n * 7 % 50}}}"


# ---------------------------------------------------------------- responses


def test_a_response_is_made_whole() -> None:
    assert whole("The answer.", " So. ") == "<think>\nSo.\n</think>\n\nThe answer."
    assert whole("So.</think>The answer.") == "<think>\nSo.</think>The answer."
    assert whole("<think>So.</think>The answer.") == "<think>So.</think>The answer."
    assert whole("The answer.") == "The answer."
    assert split(whole("The answer.", "So.")) == ("So.", "The answer.")
    assert split("<think>never ends") == ("never ends", "")
    assert split("plain") == ("", "plain")


@pytest.mark.parametrize(
    ("response", "good", "boxed", "thought"),
    [
        ("<think>a</think>b", True, False, True),
        ("<think>a</think>\\boxed{b}", True, True, True),
        ("\\boxed{b}", True, True, False),
        ("<think>\\boxed{a}</think>b", True, False, True),
        ("<think>a", False, False, False),
        ("a</think>b", False, False, False),
        ("<think>a</think>", False, False, False),
        ("<think>a</think>b</think>c", False, False, False),
        ("<think>a<think>b</think>c", False, False, False),
        ("</think>a<think>b", False, False, False),
        ("<think> </think>b", True, False, False),
        ("", False, False, False),
    ],
)
def test_what_may_be_imitated(response: str, good: bool, boxed: bool, thought: bool) -> None:
    assert well_formed(response) == good
    assert well_formed(response, box=True) == boxed
    assert well_formed(response, think=True) == thought


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "wait ", "\n", "12", "é", "\\boxed{3}"]), max_size=8))
def test_lengths_are_the_tokenizers(counter: TokenCounter, words: list[str]) -> None:
    text = "".join(words)
    ((total, inside),) = counter.count([text])
    encoded = counter._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert total == len(encoded["input_ids"])
    span = thinking_span(text)
    starts = [start for start, _ in encoded["offset_mapping"]]
    assert inside == (0 if span is None else sum(span[0] <= start < span[1] for start in starts))


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AdacsError, match=r"rate\.tokenizer .*nowhere"):
        TokenCounter(str(tmp_path / "nowhere"))


# ---------------------------------------------------------------- the stage


def test_every_column_of_a_rated_row(tmp_path: Path, tokenizer: Path) -> None:
    def replies(n: int, draw: int) -> dict[str, Any]:
        return [
            {"text": answer(n)},
            {"text": "However, \\boxed{-1}", "reasoning": "hmm, wait"},
            {"text": "<think>cut", "finish_reason": "length"},
            {"text": None, "cause": "timeout", "finish_reason": None},
        ][draw]

    config = configured(write_jsonl(tmp_path / "a.jsonl", sums(20)), rate={"tokenizer": str(tokenizer)})
    sampled(config, tmp_path / "w", replies)
    rate.run(config, tmp_path / "w", silent)
    rows = rated(tmp_path / "w")
    assert len(rows) == 80
    right, wrong, _, lost = rows[:4]
    assert [row["correct"] for row in rows[:4]] == [1, 0, 0, -2]
    assert [row["reason"] for row in rows[:4]] == [None, None, "no_answer", "timeout"]
    assert [row["truncated"] for row in rows[:4]] == [False, False, True, False]
    assert [row["well_formed"] for row in rows[:4]] == [True, True, False, False]
    assert (lost["tokens"], lost["think_tokens"], lost["hwe"]) == (None, None, None)
    text = whole("However, \\boxed{-1}", "hmm, wait")
    assert (wrong["tokens"], wrong["think_tokens"]) == TokenCounter(str(tokenizer)).count([text])[0]
    assert wrong["triggers"] == len(find_words(text, trigger_words())) > 0
    assert (right["pool"], right["modality"], right["source"]) == ("estimator", "text", "sums")
    assert right["sample_part"] == "samples/estimator/part-00000.parquet"
    assert {(row["n_valid"], row["n_correct"], row["flags"]) for row in rates(tmp_path / "w")} == {(3, 1, "few_valid")}
    told = json.loads(Layout(tmp_path / "w").rate_report.read_text())
    assert told["verdicts"] == {"estimator": {"right": 20, "wrong": 40, "not_measured": 20}}
    assert told["reasons"] == {"no_answer": 20, "timeout": 20}
    assert told["tokenizer"] == str(tokenizer)
    assert told["tau"] == {"estimator": None}


VERDICTS = st.lists(st.lists(st.sampled_from([1, 0, -1, -2]), min_size=4, max_size=4), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None)
@given(verdicts=VERDICTS, min_valid=st.integers(1, 4))
def test_pass_rates_equal_counting(
    verdicts: list[list[int]], min_valid: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rates")
    source = write_jsonl(folder / "a.jsonl", sums(len(verdicts)))
    config = configured(source, ingest={"part_rows": 5}, rate={"min_valid": min_valid})
    sampled(config, folder / "w", lambda n, draw: {"text": "x", "correct": verdicts[n][draw], "tokens": 3})
    layout = Layout(folder / "w")
    counted = [(row.count(1), row.count(1) + row.count(0), row) for row in verdicts]
    rateable = [one for one in counted if one[1] >= min_valid]
    if not rateable:
        with pytest.raises(AdacsError, match="no question has a pass rate"):
            rate.run(config, folder / "w", silent)
        return
    rate.run(config, folder / "w", silent)
    found = rates(folder / "w")
    assert sorted((row["n_correct"], row["n_valid"]) for row in found) == sorted((c, v) for c, v, _ in rateable)
    for row in found:
        assert row["p"] == row["n_correct"] / row["n_valid"]
        assert row["tier"] == math.floor(8 * row["n_correct"] / row["n_valid"] + 0.5)
        assert row["flags"] == ("few_valid" if row["n_valid"] < 4 else "")
    reasons = sorted(row["reason"] for row in pq.read_table(layout.rate_drops).to_pylist())
    assert reasons == sorted(
        "few_valid" if valid else "unverifiable" if -1 in row else "not_measured"
        for _, valid, row in counted
        if valid < min_valid
    )


def test_tiers_of_every_ratio_round_half_up() -> None:
    pairs = [(right, valid) for valid in range(1, 41) for right in range(valid + 1)]
    right, valid = (np.array(column) for column in zip(*pairs, strict=True))
    names = pa.array([str(n) for n in range(len(pairs))])
    questions = pa.table({"qid": names, "source": names, "modality": names})
    table = rate.rates_table(questions, right, valid, np.ones(len(pairs), bool), 8)
    for (one, of), tier in zip(pairs, table["tier"].to_pylist(), strict=True):
        low = (16 * one) // of
        assert tier == (low + 1) // 2
    assert table["tier"].to_pylist()[:2] == [0, 8]


def test_unverifiable_answers_are_excluded_unless_the_source_is_trusted(tmp_path: Path) -> None:
    rows = [{**row, "set": "proofs" if n % 2 else "sums", "answer": None if n % 2 else row["answer"]}
            for n, row in enumerate(sums(8))]  # fmt: skip
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    teacher = {"traces": [{"path": "unused"}]}
    base: dict[str, Any] = {"sources": [{"name": "sums", "path": str(source), "fields": {"id": "id", "source": "set"}}]}
    config = configured(source, ingest=base, sample={"teacher": teacher}, rate={"trust_source": ["proofs"]})

    def replies(n: int, _draw: int) -> dict[str, Any]:
        return {"text": answer(n), "tokens": 5}

    sampled(config, tmp_path / "w", replies, teacher=replies)
    rate.run(config, tmp_path / "w", silent)
    found = {(row["pool"], row["source"], row["correct"], row["reason"]) for row in rated(tmp_path / "w")}
    assert found == {
        ("estimator", "sums", 1, None),
        ("estimator", "proofs", -1, "no_reference"),
        ("teacher", "sums", 1, None),
        ("teacher", "proofs", 1, "trusted"),
    }
    assert {row["source"] for row in rates(tmp_path / "w")} == {"sums"}
    assert {row["reason"] for row in pq.read_table(Layout(tmp_path / "w").rate_drops).to_pylist()} == {"unverifiable"}
    only = write_jsonl(tmp_path / "only.jsonl", [row for row in rows if row["set"] == "proofs"])
    base["sources"][0]["path"] = str(only)
    lone = configured(only, ingest=base, sample={"teacher": teacher}, rate={"trust_source": ["proofs"]})
    sampled(lone, tmp_path / "lone", replies, teacher=replies)
    with pytest.raises(AdacsError, match=r"4 unverifiable; rate\.trust_source gives none: .* recorded verdicts"):
        rate.run(lone, tmp_path / "lone", silent)
    base["sources"][0]["path"] = str(source)
    strict = configured(source, ingest=base, sample={"teacher": teacher})
    # Without trust those rows have no reference, so they are no questions, and what was sampled is of other parts.
    ingest.run(strict, tmp_path / "w", silent)
    with pytest.raises(AdacsError, match="sample anew"):
        rate.run(strict, tmp_path / "w", silent)


def test_a_teachers_replies_do_not_count_for_the_pass_rate(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(10))
    config = configured(source, sample={"teacher": {"traces": [{"path": "unused"}]}})
    sampled(
        config,
        tmp_path / "w",
        lambda n, draw: {"text": "\\boxed{-1}" if draw else answer(n), "tokens": 7},
        teacher=lambda n, _: {"text": answer(n), "tokens": 9},
    )
    rate.run(config, tmp_path / "w", silent)
    assert {(row["n_correct"], row["n_valid"]) for row in rates(tmp_path / "w")} == {(1, 4)}
    assert {row["tokens"] for row in rated(tmp_path / "w") if row["pool"] == "teacher"} == {9}


def test_recorded_verdicts_and_lengths_are_taken(tmp_path: Path) -> None:
    config = configured(write_jsonl(tmp_path / "a.jsonl", sums(10)))
    sampled(
        config,
        tmp_path / "w",
        lambda n, draw: {"text": "<think>abcd</think>efgh", "correct": draw % 2, "tokens": 1000 + n},
    )
    rate.run(config, tmp_path / "w", silent)
    rows = rated(tmp_path / "w")
    assert {(row["draw"] % 2, row["correct"], row["reason"]) for row in rows} == {(0, 0, "recorded"), (1, 1, None)}
    assert {row["tokens"] for row in rows} == set(range(1000, 1010))
    # 4 of 23 characters are thinking.
    assert {row["think_tokens"] for row in rows if row["tokens"] == 1000} == {round(1000 * 4 / 23)}


def test_lengths_need_a_tokenizer(tmp_path: Path) -> None:
    config = configured(write_jsonl(tmp_path / "a.jsonl", sums(4)))
    sampled(config, tmp_path / "w", lambda n, draw: {"text": answer(n)})
    with pytest.raises(AdacsError, match=r"rate\.tokenizer is not set, and samples have no recorded lengths"):
        rate.run(config, tmp_path / "w", silent)


def test_hostile_replies_end_in_a_verdict(tmp_path: Path, tokenizer: Path) -> None:
    hostile: Sequence[str] = (
        "\\boxed{9^{9^{9^{9}}}}",
        "\\boxed{" + "{" * 5000,
        "<think>" * 2000 + "\\boxed{1}",
        "\x00\ud7ff\u202e\\boxed{__import__('os').system('x')}",
    )
    rows = [{"question": "What is it?", "answer": "12345", "id": "s0"}]
    config = configured(write_jsonl(tmp_path / "a.jsonl", rows), rate={"tokenizer": str(tokenizer)})
    sampled(config, tmp_path / "w", lambda _, draw: {"text": hostile[draw]})
    rate.run(config, tmp_path / "w", silent)
    assert {row["correct"] for row in rated(tmp_path / "w")} <= {0, -1}


# ---------------------------------------------------------------- resuming


def test_processes_and_faults_change_nothing(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(20))

    def replies(n: int, draw: int) -> dict[str, Any]:
        return {"text": answer(n + draw % 2), "entropy": [0.1 * draw, 2.0, 0.1, n * 0.1] * 3, "tokens": 12}

    one = configured(source)
    two = configured(source, rate={"workers": 2})
    for name in ("one", "two", "torn"):
        sampled(one, tmp_path / name, replies)
    rate.run(one, tmp_path / "one", silent)
    rate.run(two, tmp_path / "two", silent)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    write = store.Stage.write
    asked: list[int] = []

    def torn(self: Any, part: int, content: Any, schema: Any, inputs: Any = ()) -> Any:
        asked.append(part)
        if len(asked) == 2:
            raise OSError("killed")
        return write(self, part, content, schema, inputs)

    monkeypatch.setattr(store.Stage, "write", torn)
    with pytest.raises(OSError, match="killed"):
        rate.run(one, tmp_path / "torn", silent)
    with pytest.raises(AdacsError, match="run `ares-train adacs rate`"):
        store.digest_or(Layout(tmp_path / "torn").rates, "rate")
    rate.run(one, tmp_path / "torn", silent)
    assert asked == [0, 1, 1, 2]
    assert tree(tmp_path / "torn") == tree(tmp_path / "one")
    notes: list[str] = []
    rate.run(two, tmp_path / "torn", notes.append)
    assert notes == ["rate: 3 parts are there already"]


def test_changed_samples_are_rated_anew_and_only_they(tmp_path: Path) -> None:
    config = configured(write_jsonl(tmp_path / "a.jsonl", sums(20)))
    sampled(config, tmp_path / "w", lambda n, draw: {"text": "x", "correct": 1, "tokens": 3})
    rate.run(config, tmp_path / "w", silent)
    before = {path.name: path.stat().st_mtime_ns for path in store.opened(tmp_path / "w/rated").parts()}
    stage = store.opened(tmp_path / "w" / "samples" / "estimator")
    table = pq.read_table(stage.path(1))
    table = table.set_column(table.schema.get_field_index("correct"), "correct", pa.array([0] * len(table), pa.int8()))
    stage.write(1, table, table.schema)
    rate.run(config, tmp_path / "w", silent)
    after = {path.name: path.stat().st_mtime_ns for path in store.opened(tmp_path / "w/rated").parts()}
    assert [name for name in before if before[name] != after[name]] == ["part-00001.parquet"]
    assert sorted({row["p"] for row in rates(tmp_path / "w")}) == [0.0, 1.0]


def test_what_is_sampled_so_far_may_be_rated(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(20))
    config = configured(source)
    sampled(config, tmp_path / "w", lambda n, draw: {"text": "x", "correct": 1, "tokens": 3})
    stage = store.opened(tmp_path / "w" / "samples" / "estimator")
    stage.keep_only([0, 2])
    with pytest.raises(Incomplete, match="1 of 3 parts are not sampled"):
        rate.run(config, tmp_path / "w", silent)
    rate.run(configured(source, rate={"partial": True}), tmp_path / "w", silent)
    assert len(rates(tmp_path / "w")) == 12
    told = json.loads(Layout(tmp_path / "w").rate_report.read_text())
    assert (told["parts"], told["parts_not_sampled"]) == (2, 1)
