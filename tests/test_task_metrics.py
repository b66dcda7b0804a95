"""Metrics that benchmarks ask for by name, against hand-made groups and the authors' own formulas."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from ares_eval.results import TaskMeta, summarise
from ares_eval.types import Record, Usage, Verdict, VerdictValue

RIGHT, WRONG, OPEN, LOST = "correct", "incorrect", "unverifiable", None


def record(group: str, step: str, value: Any, draw: int = 0, part: str | None = None) -> Record:
    judged: VerdictValue | None = value
    return Record(
        task="t",
        sample=f"{group}/{step}",
        draw=draw,
        group=group,
        key="k",
        prompt="p",
        fields={"step": step} if part is None else {"part": part},
        text=None if value is None else "said",
        cause="server" if value is None else None,
        usage=Usage(1, 1),
        verdict=None if judged is None else Verdict(judged, "m"),
    )


def problem(group: str, steps: Sequence[Any], whole: Any, draw: int = 0) -> list[Record]:
    count = len(steps)
    records = [record(group, f"{count}steps_{i}", value, draw) for i, value in enumerate(steps, 1)]
    return [*records, record(group, f"{count}steps_multi", whole, draw)]


def wemath(records: list[Record], groups: dict[str, int], draws: int = 1) -> dict[str, Any]:
    meta = TaskMeta("t", metrics=("wemath_strict",), questions=sum(groups.values()), draws=draws, groups=groups)
    values: dict[str, Any] = summarise(records, {"t": meta})["tasks"]["t"]["metrics"]
    return values


@pytest.mark.parametrize(
    ("steps", "whole", "strict", "loose"),
    [
        ((RIGHT, RIGHT), RIGHT, 1, 1),  # complete mastery
        ((RIGHT, WRONG), RIGHT, 0, 1),  # rote memorisation when strict, mastery when loose
        ((WRONG, WRONG), RIGHT, 0, 0),  # rote memorisation
        ((RIGHT, RIGHT), WRONG, 0.5, 0.5),  # inadequate generalisation
        ((RIGHT, WRONG), WRONG, 0, 0),  # insufficient knowledge
        ((WRONG, WRONG), WRONG, 0, 0),
        ((RIGHT, RIGHT, RIGHT), RIGHT, 1, 1),
        ((WRONG, WRONG, RIGHT), RIGHT, 0, 1),
        ((WRONG, WRONG, WRONG), RIGHT, 0, 0),
        ((RIGHT, RIGHT, RIGHT), WRONG, 0.5, 0.5),
        ((RIGHT, WRONG, RIGHT), WRONG, 0, 0),
    ],
)
def test_one_problem_of_wemath(steps: Sequence[Any], whole: Any, strict: float, loose: float) -> None:
    values = wemath(problem("a", steps, whole), {"a": len(steps) + 1})
    assert (values["wemath_strict"], values["wemath_loose"]) == (strict, loose)
    assert values["primary"] == "wemath_strict"
    for name in ("strict", "loose"):
        score = values[f"wemath_{name}"]
        assert values[f"wemath_{name}_worst"] == score == values[f"wemath_{name}_best"]


def test_the_whole_of_wemath_as_the_authors_compute_it() -> None:
    """360 problems of two steps and 165 of three; score = (525 - IG / 2 - RM - IK) / 525, RM over CM + RM."""
    dice = random.Random(4)
    records: list[Record] = []
    tally = {name: dict.fromkeys(("IK", "IG", "CM", "RM"), 0) for name in ("strict", "loose")}
    groups = {}
    for number in range(525):
        steps = [dice.random() < 0.6 for _ in range(2 if number < 360 else 3)]
        whole = dice.random() < 0.5
        groups[str(number)] = len(steps) + 1
        records += problem(str(number), [RIGHT if s else WRONG for s in steps], RIGHT if whole else WRONG)
        for name, mastered in (("strict", all(steps)), ("loose", any(steps))):
            if whole:
                tally[name]["CM" if mastered else "RM"] += 1
            else:
                tally[name]["IG" if all(steps) else "IK"] += 1
    dice.shuffle(records)
    values = wemath(records, groups)
    for name, counts in tally.items():
        score = (525 - 0.5 * counts["IG"] - counts["RM"] - counts["IK"]) / 525
        assert values[f"wemath_{name}"] == pytest.approx(score, abs=1e-12)
        assert values[f"wemath_{name}_rm"] == pytest.approx(counts["RM"] / (counts["CM"] + counts["RM"]))
        assert values[f"wemath_{name}_cm"] == pytest.approx(counts["CM"] / 525)
        assert values["wemath_ig"] == pytest.approx(counts["IG"] / 525)
        assert values["wemath_ik"] == pytest.approx(counts["IK"] / 525)
    assert values["wemath_groups"] == 525
    assert values["wemath_partial"] == []


def test_what_is_open_in_wemath_makes_bounds_and_is_never_wrong() -> None:
    """Every pattern of right, wrong, open and lost, against all ways to fill in the open ones."""
    points = {(True, True): 1.0, (True, False): 0.0, (False, True): 0.5, (False, False): 0.0}
    for pattern in itertools.product((RIGHT, WRONG, OPEN, LOST), repeat=3):
        values = wemath(problem("a", pattern[:2], pattern[2]), {"a": 3})
        filled = itertools.product(*[[v == RIGHT] if v in (RIGHT, WRONG) else [True, False] for v in pattern])
        scores = [points[whole, all(steps)] for *steps, whole in filled]
        assert values["wemath_strict_worst"] == min(scores)
        assert values["wemath_strict_best"] == max(scores)
        counted = points[pattern[2] == RIGHT, pattern[0] == pattern[1] == RIGHT]
        assert values["wemath_strict"] == (None if LOST in pattern else counted)
        assert values["wemath_partial"] == (["a"] if LOST in pattern else [])


def test_wemath_of_a_run_that_ended_early() -> None:
    records = problem("a", (RIGHT, RIGHT), RIGHT)[:2]
    values = wemath(records, {"a": 3})
    assert values["wemath_strict"] is None
    assert (values["wemath_strict_worst"], values["wemath_strict_best"]) == (0.5, 1.0)
    values = summarise(records, {"t": TaskMeta("t", metrics=("wemath_strict",), questions=7, groups={"a": 3})})
    metrics = values["tasks"]["t"]["metrics"]
    assert (metrics["wemath_strict"], metrics["wemath_strict_worst"], metrics["wemath_strict_best"]) == (None, 0, 1)


def test_wemath_over_draws_is_the_mean_over_draws() -> None:
    records = problem("a", (RIGHT, RIGHT), RIGHT) + problem("a", (RIGHT, RIGHT), WRONG, draw=1)
    assert wemath(records, {"a": 3}, draws=2)["wemath_strict"] == 0.75


def parts(records: list[Record], questions: int, *names: str) -> dict[str, Any]:
    meta = TaskMeta("t", metrics=names, questions=questions)
    values: dict[str, Any] = summarise(records, {"t": meta})["tasks"]["t"]["metrics"]
    return values


def test_the_mean_of_parts_weighs_parts_alike() -> None:
    records = [record(str(i), "x", RIGHT if i < 3 else WRONG, part="standard") for i in range(4)]
    records += [record(f"v{i}", "x", WRONG if i else OPEN, part="vision") for i in range(2)]
    values = parts(records, 6, "part_mean", "part_harmonic")
    assert values["part_mean"] == pytest.approx((0.75 + 0) / 2)
    assert values["parts"] == {"standard": 0.75, "vision": 0.0}
    assert (values["part_mean_worst"], values["part_mean_best"]) == (0.375, 0.625)
    assert values["part_mean_ci95"][0] < 0.375 < values["part_mean_ci95"][1]
    assert values["part_harmonic"] == pytest.approx(2 / (1 / 0.76 + 1 / 0.01))
    assert values["accuracy"] == 0.5


def test_a_part_of_which_nothing_was_measured_leaves_no_mean() -> None:
    records = [record("a", "x", RIGHT, part="one"), record("b", "x", LOST, part="two")]
    values = parts(records, 2, "part_mean", "part_harmonic")
    assert values["part_mean"] is None
    assert values["part_harmonic"] is None
    assert (values["part_mean_worst"], values["part_mean_best"]) == (0.5, 1.0)
    missing = parts(records[:1], 2, "part_mean")
    assert (missing["part_mean_worst"], missing["part_mean_best"]) == (0, 1)


def test_all_right_is_one() -> None:
    values = parts([record(str(i), "x", RIGHT, part=str(i % 3)) for i in range(9)], 9, "part_mean", "part_harmonic")
    assert math.isclose(values["part_mean"], 1)
    assert values["part_harmonic"] == 1
