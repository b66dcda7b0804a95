"""Stages lengths and select over planted work folders: exact recovery, every policy, determinism, resumption."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ares_train.adacs import lengths, select, store, write
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from tests.train.adacs_pool import Draw, Planted, configured, eight, plant


def test_a_killed_selection_leaves_nothing_that_write_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, graded(), texts=True)
    settings = {"pool": "estimator", "zero": "allow_incorrect"}
    selected(tmp_path, configured(select=settings))
    other = configured(select={**settings, "size": 9}, write={"check": 0.0})
    write_artifact = store.write_artifact
    for last in ("vanilla.parquet", "dropped.parquet", "selection.json", "selected.parquet"):

        def killed(path: Path, *words: Any, last: str = last, **more: Any) -> Any:
            if path.name == last:
                raise KeyboardInterrupt
            return write_artifact(path, *words, **more)

        monkeypatch.setattr(store, "write_artifact", killed)
        with pytest.raises(KeyboardInterrupt):
            select.run(other, tmp_path, lambda _: None)
        monkeypatch.setattr(store, "write_artifact", write_artifact)
        with pytest.raises(AdacsError, match="run `ares-train adacs select` to its end first"):
            write.run(other, tmp_path, lambda _: None)
    select.run(other, tmp_path, lambda _: None)
    assert len(write.read_chosen(Layout(tmp_path))) >= 9


def selected(work: Path, config: AdacsConfig, name: str = "selected") -> dict[str, dict[str, Any]]:
    """Rows by question after both stages."""
    notes: list[str] = []
    lengths.run(config, work, notes.append)
    select.run(config, work, notes.append)
    return {row["qid"]: row for row in pq.read_table(work / f"{name}.parquet").to_pylist()}


def reasons(work: Path) -> dict[str, str]:
    return {row["qid"]: row["reason"] for row in pq.read_table(work / "dropped.parquet").to_pylist()}


def graded(per_tier: int = 3, source: str = "s") -> list[Planted]:
    """Questions of every tier; wrong replies of 1000 tokens, right ones of 100, 200, ... so that choice is real."""
    return [
        Planted(
            f"{source}{k}-{i}",
            [Draw(1000, 0)] * (8 - k) + [Draw(100 * (1 + place)) for place in range(k)],
            [Draw(tokens) for tokens in (700, 960, 1300)],
            source=source,
        )
        for k in range(9)
        for i in range(per_tier)
    ]


TEACHER = {"sample": {"teacher": {"ask": {"model_name": "t", "openai_base_url": "http://localhost:1/v1"}}}}


def test_planted_lengths_and_rates_are_recovered_exactly(tmp_path: Path) -> None:
    config = configured(**TEACHER, select={"pool": "estimator"})
    plant(tmp_path, graded())
    rows = selected(tmp_path, config)
    found = json.loads((tmp_path / "lengths.json").read_text())
    # p = 1 questions have right replies of 100 .. 800 tokens, p = 0 ones wrong replies of 1000.
    assert (found["sources"]["s"]["l0"], found["sources"]["s"]["l1"]) == (1000, 450)
    assert found["tokenizer"] == "as recorded" and found["pool"] == "estimator" and found["warnings"] == []
    assert len(rows) == 27
    for k in range(9):
        for i in range(3):
            row = rows[f"s{k}-{i}"]
            target = (1 - k / 8) * 1000 + k / 8 * 450
            assert (row["tier"], row["p"], row["target"], row["set"]) == (k, k / 8, target, "adacs")
            offered = [960, 700, 1300] if k == 0 else [100 * (1 + place) for place in range(k)]
            assert row["tokens"] == min(offered, key=lambda x: (abs(x - target), x))
            assert row["pool"] == ("teacher" if k == 0 else "estimator")


def test_the_teacher_gives_candidates_and_lengths_where_there_is_one(tmp_path: Path) -> None:
    plant(tmp_path, graded())
    rows = selected(tmp_path, configured(**TEACHER))
    found = json.loads((tmp_path / "lengths.json").read_text())["sources"]["s"]
    assert (found["l0"], found["l1"], found["flags"]) == (960, 960, ["inverted", "no_rule"])
    assert {row["pool"] for row in rows.values()} == {"teacher"}
    assert {row["target"] for row in rows.values()} == {None}


def test_vanilla_is_the_same_questions_without_the_rule(tmp_path: Path) -> None:
    config = configured(**TEACHER, select={"pool": "estimator", "size": 90})
    plant(tmp_path, graded(20))
    rows, control = selected(tmp_path, config), selected(tmp_path, config, "vanilla")
    assert rows.keys() == control.keys()
    assert [rows[q]["tier"] for q in rows] == [control[q]["tier"] for q in rows]
    eighths = [control[q]["tokens"] for q in control if control[q]["tier"] == 8]
    assert len(set(eighths)) > 2 and {rows[q]["tokens"] for q in rows if rows[q]["tier"] == 8} == {400}


def test_tiers_are_uniform_and_short_ones_are_named(tmp_path: Path) -> None:
    pool = graded(6)
    pool = [one for one in pool if not one.qid.startswith("s3") or one.qid in ("s3-0", "s3-1")]
    plant(tmp_path, pool)
    rows = selected(tmp_path, configured(**TEACHER, select={"pool": "estimator", "size": 34}))
    counts = np.bincount([row["tier"] for row in rows.values()], minlength=9)
    assert counts.tolist() == [4, 4, 4, 2, 4, 4, 4, 4, 4]
    found = json.loads((tmp_path / "selection.json").read_text())
    assert found["shortfalls"] == ["tier 3/8 gives 2 of 2 questions, others up to 4"]
    assert found["tiers"][2] == {"tier": 2, "questions": 6, "possible": 6, "chosen": 4}
    assert sum(found["reasons"].values()) + len(rows) == len(pool)


def test_per_source_each_source_is_uniform(tmp_path: Path) -> None:
    plant(tmp_path, graded(6, "a") + graded(3, "b"))
    rows = selected(tmp_path, configured(**TEACHER, select={"pool": "estimator", "size": 54, "per": "source"}))
    for source, count in (("a", 4), ("b", 2)):
        tiers = [row["tier"] for row in rows.values() if row["source"] == source]
        assert np.bincount(tiers, minlength=9).tolist() == [count] * 9


ZERO = Planted("zero", eight(0, 900), teacher=[Draw(500), Draw(50, 0)], further=[Draw(70, 0), Draw(300), Draw(910)])
ONE = Planted("one", eight(8, 100))


@pytest.mark.parametrize(
    ("policy", "pool", "draw"),
    [
        ("teacher", "teacher", 0),
        ("resample", "estimator", 10),
        ("allow_incorrect", "estimator", 0),
        ("drop", None, None),
    ],
)
def test_policies_for_questions_that_are_never_answered(tmp_path: Path, policy: str, pool: str, draw: int) -> None:
    sample = {**TEACHER["sample"], "resample": 3 if policy == "resample" else 0}
    plant(tmp_path, [ZERO, ONE])
    rows = selected(tmp_path, configured(sample=sample, select={"pool": "estimator", "zero": policy}))
    # Whatever the policy: the estimator's first eight responses alone define L(0).
    assert json.loads((tmp_path / "lengths.json").read_text())["sources"]["s"]["l0"] == 900
    if pool is None:
        assert reasons(tmp_path)["zero"] == "zero_dropped" and set(rows) == {"one"}
    else:
        row = rows["zero"]
        assert (row["pool"], row["draw"], row["tier"], row["p"]) == (pool, draw, 0, 0.0)


def test_without_a_teacher_questions_of_tier_0_are_left_out_by_name(tmp_path: Path) -> None:
    plant(tmp_path, [ZERO, ONE])
    assert set(selected(tmp_path, configured())) == {"one"}
    assert reasons(tmp_path) == {"zero": "zero_without_teacher"}


def test_wrong_cut_off_ill_formed_unverifiable_and_lost_responses_are_never_chosen(tmp_path: Path) -> None:
    near = Draw(100)
    bad = [Draw(90, 0), Draw(90, -1), Draw(90, -2), Draw(90, 1, truncated=True), Draw(90, 1, well_formed=False)]
    pool = [
        Planted("good", [*bad, near]),
        Planted("wrong", [near, Draw(9, 0)], [Draw(9, 0), Draw(9, -1)]),
        Planted("lost", [near, Draw(9, 0)], [Draw(9, -2)]),
        Planted("cut", [near, Draw(9, 0)], [Draw(9, 1, truncated=True), Draw(9, 0)]),
        Planted("ill", [near, Draw(9, 0)], [Draw(9, 1, well_formed=False)]),
        Planted("all-cut", [near, Draw(9, 0)], [Draw(9, 1, truncated=True), Draw(9, 0, truncated=True)]),
        Planted("rating-cut", [Draw(9, 0, truncated=True)] * 2, [near]),
        Planted("unrated", [Draw(9, -1)] * 8, [near]),
    ]
    plant(tmp_path, pool)
    assert {q: (r["pool"], r["draw"]) for q, r in selected(tmp_path, configured(select={"pool": "estimator"})).items()}[
        "good"
    ] == ("estimator", 5)
    teacher = tmp_path / "teacher"
    plant(teacher, pool)
    with pytest.raises(AdacsError, match="nothing can be selected: 1 all_truncated, 2 no_response"):
        selected(teacher, configured(**TEACHER))
    pool.append(Planted("fine", [near], [near]))
    plant(teacher, pool)
    assert set(selected(teacher, configured(**TEACHER))) == {"fine"}
    assert reasons(teacher) == {
        "good": "no_response",
        "wrong": "none_right",
        "lost": "no_response",
        "cut": "none_complete",
        "ill": "none_well_formed",
        "all-cut": "none_complete",
        "rating-cut": "all_truncated",
        "unrated": "few_valid",
    }


def test_few_valid_draws_have_the_rounded_tier_and_are_counted(tmp_path: Path) -> None:
    plant(tmp_path, [Planted("q", [Draw(5), Draw(6, 0), Draw(7, 0), *[Draw(1, -2)] * 5])])
    rows = selected(tmp_path, configured())
    assert (rows["q"]["tier"], rows["q"]["p"]) == (3, 1 / 3)
    assert json.loads((tmp_path / "selection.json").read_text())["few_valid"] == 1


def test_thinking_alone_can_be_measured(tmp_path: Path) -> None:
    pool = [
        Planted("one", [Draw(10, think=9), Draw(500, think=2), *[Draw(10, think=9)] * 6]),
        Planted("zero", [Draw(5, 0, think=40)] * 8),
    ]
    plant(tmp_path, pool)
    rows = selected(tmp_path, configured(lengths={"measure": "think_tokens"}))
    assert rows["one"]["target"] == 9 and rows["one"]["tokens"] == 10
    assert selected(tmp_path, configured())["one"]["target"] is None  # whole responses are inverted here


def test_inverted_sources_are_warned_of(tmp_path: Path) -> None:
    plant(tmp_path, [Planted("zero", eight(0, 10)), ONE])
    notes: list[str] = []
    lengths.run(configured(), tmp_path, notes.append)
    assert any("s: L(0) <= L(1)" in note for note in notes)
    lengths.run(configured(lengths={"inverted": "keep"}), tmp_path, notes.append)
    assert json.loads((tmp_path / "lengths.json").read_text())["sources"]["s"]["rule"]


FILES = ("lengths.json", "selected.parquet", "vanilla.parquet", "dropped.parquet", "selection.json")


def test_neither_order_of_rows_nor_division_into_parts_changes_the_files(tmp_path: Path) -> None:
    config = configured(**TEACHER, select={"pool": "estimator", "size": 50})
    pool = graded(9)
    for name, parts in (("a", 1), ("b", 5)):
        plant(tmp_path / name, pool, parts=parts)
        selected(tmp_path / name, config)
        random.Random(0).shuffle(pool)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("lost", FILES)
def test_after_a_kill_the_same_command_makes_the_same_files(tmp_path: Path, lost: str) -> None:
    config = configured(**TEACHER, select={"pool": "estimator"})
    plant(tmp_path, graded())
    selected(tmp_path, config)
    before = {file: (tmp_path / file).read_bytes() for file in FILES}
    # What a kill between data and manifest leaves: data without a word on it, or nothing at all.
    (tmp_path / f"{lost}.manifest.json").unlink()
    (tmp_path / lost).write_bytes(b"half")
    selected(tmp_path, config)
    assert {file: (tmp_path / file).read_bytes() for file in FILES} == before


def test_what_is_done_is_not_made_again_and_other_settings_are(tmp_path: Path) -> None:
    layout = plant(tmp_path, graded())
    config = configured(select={"pool": "estimator"})
    selected(tmp_path, config)
    notes: list[str] = []
    lengths.run(config, tmp_path, notes.append)
    select.run(config, tmp_path, notes.append)
    assert notes == ["lengths: done before", "select: done before"]
    select.run(configured(select={"pool": "estimator", "seed": 1, "vanilla": False}), tmp_path, notes.append)
    assert len(notes) > 2 and not layout.vanilla.exists()


def test_missing_stages_are_named(tmp_path: Path) -> None:
    with pytest.raises(AdacsError, match="ares-train adacs rate"):
        lengths.run(configured(), tmp_path, print)
    plant(tmp_path, [ONE])
    with pytest.raises(AdacsError, match="ares-train adacs lengths"):
        select.run(configured(), tmp_path, print)
    with pytest.raises(AdacsError, match="no response of the teacher is rated"):
        lengths.run(configured(**TEACHER), tmp_path, print)
    assert Layout(tmp_path).lengths.exists() is False
