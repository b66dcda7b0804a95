"""Answers inside replies, changes of mind, loops, budgets: hand-labelled replies and plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.analysis.budgets import Budgets, accuracy_at_spending, budgets, equal_spending, right_share, right_spans
from ares_eval.analysis.loops import loop_share
from ares_eval.analysis.thinking import REFLECTION, after_first_right, text_figures, thinking, turns
from ares_eval.analysis.trail import MOST, Trail, TrailReader, statements
from ares_eval.analysis.words import find_words
from ares_eval.verify import Verifier
from tests.analysis.synthetic import Reply, record_of


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(1) as pool:
        yield pool


def trail(*said: tuple[float, bool], length: float, final: bool, computed: tuple[bool, ...] = ()) -> Trail:
    return Trail(
        place=np.array([place for place, _ in said]),
        right=np.array([right for _, right in said], dtype=bool),
        computed=np.array(computed or [False] * len(said), dtype=bool),
        length=length,
        final=final,
    )


# ---------------------------------------------------------------- answers inside replies


def test_stated_and_computed_answers_in_order() -> None:
    text = "So 3 + 4 = 7, then 7 * 6 = 42. The answer is 41. Wait, no: \\boxed{42}."
    found = statements(text, "number")
    assert [(item.text, item.computed) for item in found] == [("7", True), ("42", True), ("41", False), ("42", False)]
    assert [text[item.stop - len(item.text) : item.stop] for item in found] == ["7", "42", "41", "42"]
    assert [item.text for item in statements(text, "choice")] == ["41", "42"]


def test_a_box_inside_a_cue_is_one_answer() -> None:
    assert len(statements("The final answer is \\boxed{5}.", "number")) == 1


def test_an_equation_that_goes_on_is_no_result() -> None:
    assert [item.text for item in statements("x = 3 + 4, y = 2x, z = 1,250.5, f = 2(3)", "number")] == ["1,250.5"]


def test_endless_answers_are_bounded() -> None:
    found = statements(" ".join(f"\\boxed{{{i}}}" for i in range(5000)), "number")
    assert len(found) == MOST
    assert found[0].text == "0" and found[-1].text == "4999"


def test_places_are_tokens_where_tokens_are_recorded(verifier: Verifier) -> None:
    tokens = ("The", " answer", " is", " 4", "2", ".", " But", " is", " it", "?", " \\boxed", "{", "41", "}")
    record = record_of(Reply("q", text="".join(tokens), reference="42", right=False))
    found = TrailReader(verifier).submit(record, tokens, float(len(tokens)))()
    assert found.place.tolist() == [5, 13]
    assert found.right.tolist() == [True, False]
    assert turns(found) == (1, 0, True, False)


def test_places_are_in_proportion_where_they_are_not(verifier: Verifier) -> None:
    text = "\\boxed{42}" + " and so on" * 9
    record = record_of(Reply("q", text=text, reference="42", right=True))
    found = TrailReader(verifier).submit(record, None, 200.0)()
    assert found.place.tolist() == [pytest.approx(200 * 9 / len(text))]
    assert found.right.tolist() == [True]


# ---------------------------------------------------------------- hand-labelled trails

FLIPS = [
    (trail((10, False), (20, True), length=30, final=True), (0, 1, False, True)),
    (trail((10, True), (20, False), length=30, final=False), (1, 0, True, False)),
    (trail((10, True), (20, False), length=30, final=True), (1, 1, False, True)),
    (trail((10, True), length=30, final=True), (0, 0, False, False)),
    (trail(length=30, final=False), (0, 0, False, False)),
    (trail((5, True), (9, False), computed=(True, False), length=30, final=False), (0, 0, False, False)),
]


@pytest.mark.parametrize(("made", "wanted"), FLIPS)
def test_changes_of_mind(made: Trail, wanted: tuple[int, int, bool, bool]) -> None:
    assert turns(made) == wanted


def test_tokens_after_the_first_right_answer() -> None:
    trails = [
        trail((40, False), (60, True), length=100, final=True),  # 40 tokens after
        trail((10, True), (90, True), computed=(True, False), length=100, final=True),  # 10 stated, 90 computed
        trail((10, True), length=100, final=False),  # wrong in the end: not counted
        trail((10, False), length=100, final=True),  # never stated before its end
    ]
    found = after_first_right(trails, np.arange(4))
    assert found.tokens is not None and found.tokens.value == pytest.approx(25)
    assert found.share is not None and found.share.value == pytest.approx(0.25)
    assert found.tokens_with_computed is not None and found.tokens_with_computed.value == pytest.approx(65)
    assert found.found is not None and found.found.value == pytest.approx(2 / 3)


def test_excess_and_shortfall_follow_the_tiers() -> None:
    length = np.array([100.0, 100.0, 100.0, 400.0, 50.0, 300.0, 300.0, 50.0])
    tier = np.array([0, 0, 0, 0, 2, 2, 2, 2])
    right = np.array([True] * 4 + [False, True, True, False])
    truncated = np.zeros(8, dtype=bool)
    truncated[7] = True
    found = thinking(text_figures([""] * 8), length, right, ~right, truncated, tier, np.arange(8), None)
    assert found.easy_excess is not None and found.easy_excess.value == pytest.approx(300 / 100 / 4)
    assert found.easy_long is not None and found.easy_long.value == 0.25
    # One of four hard replies is wrong, short and whole; the truncated one was cut, not short.
    assert found.hard_wrong_short is not None and found.hard_wrong_short.value == 0.25
    assert found.after_first_right is None and found.changes is None


def test_reflection_markers() -> None:
    text = "Wait, let me check. Actually it holds. So the mistake was mine; alternatively, go on."
    assert [item.entry for item in find_words(text, REFLECTION)] == [
        *["wait", "let me check", "actually", "mistake", "alternatively"]
    ]


# ---------------------------------------------------------------- loops


def prose(words: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(f"{chr(97 + a)}{chr(97 + b)}{n}x" for a, b, n in rng.integers(0, 26, size=(words, 3)))


@pytest.mark.parametrize(
    ("unit", "turns_", "lead"),
    [("so the answer is seven .", 40, 100), ("no ,", 60, 300), (prose(150, 3), 4, 50), ("0" * 3000, 1, 100)],
)
def test_loops_are_found(unit: str, turns_: int, lead: int) -> None:
    share = loop_share(prose(lead) + " " + " ".join([unit] * turns_))
    loop = len(unit.split()) * turns_
    wanted = loop / (loop + lead) if "0" not in unit[:2] else 3000 / (3000 + lead)
    assert share == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "",
        prose(3000),
        " ".join(f"Step {i} : we add {i} and {i + 1} ." for i in range(300)),
        "so the answer is seven . " * 40 + prose(60, 5),  # left the loop again
        "yes yes yes",
    ],
)
def test_ordinary_text_is_no_loop(text: str) -> None:
    assert loop_share(text) == 0


# ---------------------------------------------------------------- budgets


@st.composite
def trails_of(draw: st.DrawFn) -> list[Trail]:
    made = []
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 60))
        places = sorted(draw(st.lists(st.integers(1, length), max_size=4)))
        rights = draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
        made.append(trail(*zip(map(float, places), rights, strict=True), length=length, final=draw(st.booleans())))
    return made


def right_when_stopped(made: Trail, budget: int) -> bool:
    """By the definition: the verdict once it has ended, else the last answer stated by then."""
    if made.length <= budget:
        return made.final
    said = [right for place, right in zip(made.place, made.right, strict=True) if place <= budget]
    return bool(said) and bool(said[-1])


@given(trails_of())
@settings(max_examples=80, deadline=None)
def test_budget_curve_is_that_of_the_definition(trails: list[Trail]) -> None:
    lengths = np.array([made.length for made in trails])
    final = np.array([made.final for made in trails])
    curve = budgets(lengths, final, np.arange(len(trails)), trails)
    assert curve is not None
    for point in curve.points:
        budget = int(point.budget)
        assert point.reached is not None and point.finished is not None
        assert point.reached.value == pytest.approx(np.mean([right_when_stopped(made, budget) for made in trails]))
        assert point.finished.value == pytest.approx(np.mean((lengths <= budget) & final))
        assert point.spent == pytest.approx(np.minimum(lengths, budget).mean())
    # Areas are integrals of step functions of whole numbers: sums over [L, L + 1).
    end = int(curve.largest)
    steps = [[right_when_stopped(made, budget) for budget in range(end)] for made in trails]
    assert curve.area_reached is not None
    assert curve.area_reached.value == pytest.approx(np.mean(steps))
    assert right_share(right_spans(trails), len(trails), end).tolist() == pytest.approx(np.mean(steps, axis=1).tolist())


def test_golden_area() -> None:
    """Right from 20 of 100 on, ended at 50: (100 - 20) / 100 reached, (100 - 50) / 100 finished."""
    curve = budgets(
        np.array([50.0]), np.array([True]), np.zeros(1), [trail((20, True), length=50, final=True)], largest=100
    )
    assert curve is not None and curve.area_reached is not None and curve.area_finished is not None
    assert curve.area_reached.value == pytest.approx(0.8)
    assert curve.area_finished.value == pytest.approx(0.5)


def line(unit: str = "tokens", slope: float = 1.0) -> Budgets:
    lengths = np.full(50, 1000.0)
    right = np.arange(50) < 50 * 0.8
    trails = [trail((slope * 20 * (i + 1), True), length=1000, final=bool(r)) for i, r in enumerate(right)]
    found = budgets(lengths, right, np.arange(50), trails, unit=unit)
    assert found is not None
    return found


def test_accuracy_at_equal_mean_tokens() -> None:
    quick, slow = line(slope=0.5), line(slope=0.9)
    at = accuracy_at_spending(quick, 400.0)
    assert at is not None and at == pytest.approx(0.8, abs=0.03)
    assert accuracy_at_spending(quick, 5000.0) is None
    met = equal_spending(quick, slow)
    assert met is not None and met[0] == pytest.approx(1000)
    assert equal_spending(quick, line(unit="characters")) is None


def test_no_length_no_curve() -> None:
    assert budgets(np.array([math.nan]), np.array([True]), np.zeros(1), None) is None
