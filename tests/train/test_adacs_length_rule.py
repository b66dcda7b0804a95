"""L(0), L(1) and the target: against a plain loop over lists, and each fallback and policy by a hand-made pool."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.adacs import length_rule
from ares_train.adacs.length_rule import Ends, LengthTable, Questions, Responses


def table(
    pool: list[tuple[int, int, float, list[int | None]]], sources: int, **options: object
) -> tuple[LengthTable, Responses, Questions]:
    """``pool``: (source, modality, p, lengths of the responses, None for one that was cut off) a question."""
    rows = [(q, length) for q, (_, _, _, lengths) in enumerate(pool) for length in lengths]
    responses = Responses(
        question=np.array([q for q, _ in rows], dtype=np.int64),
        length=np.array([length or 9999 for _, length in rows], dtype=np.int32),
        usable=np.ones(len(rows), dtype=np.bool_),
        truncated=np.array([length is None for _, length in rows], dtype=np.bool_),
    )
    questions = Questions(
        source=np.array([source for source, *_ in pool]),
        modality=np.array([modality for _, modality, *_ in pool]),
        p=np.array([p for _, _, p, _ in pool], dtype=np.float64),
    )
    return length_rule.find(responses, questions, sources, **options), responses, questions  # type: ignore[arg-type]


def ends(pool: list[tuple[int, int, float, list[int | None]]], sources: int = 1, **options: object) -> Ends:
    options.setdefault("fewest", 1)
    return table(pool, sources, **options)[0].sources[0]


def test_medians_are_recovered_and_targets_lie_on_the_line_between() -> None:
    found, _, questions = table(
        [
            (0, 0, 0.0, [900, 1000, 1100]),
            (0, 0, 1.0, [90, 100, 110]),
            (0, 0, 0.5, [1, 1, 1]),
            (1, 0, 0.0, [50, 60]),
            (1, 0, 1.0, [10, 11]),
            (1, 0, 0.25, [1]),
        ],
        2,
        fewest=1,
    )
    assert [(e.l0, e.l1, e.l0_from, e.l1_from, e.flags) for e in found.sources] == [
        (1000, 100, "source", "source", ()),
        (55, 10.5, "source", "source", ()),
    ]
    assert length_rule.targets(found, questions.source, questions.p).tolist() == [
        1000, 100, 550, 55, 10.5, 0.75 * 55 + 0.25 * 10.5,
    ]  # fmt: skip
    assert found.sources[0].target(0.5) == 550


def test_cut_off_responses_are_counted_and_never_measured() -> None:
    found = ends([(0, 0, 0.0, [100, 200, None, None]), (0, 0, 1.0, [10])])
    assert (found.l0, found.hard.truncated, found.hard.responses) == (150, 2, 2)
    assert found.flags == ("l0_censored",)


def test_an_end_without_enough_questions_falls_back_to_modality_then_to_everything() -> None:
    pool = [
        (0, 0, 0.0, [500, 700]), (0, 0, 1.0, [10]), (0, 0, 1.0, [10]),
        (1, 0, 0.0, [1000]), (1, 0, 0.0, [1000]), (1, 0, 1.0, [30]), (1, 0, 1.0, [30]),
        (2, 1, 0.0, [4000]), (2, 1, 0.0, [4000]), (2, 1, 0.0, [4000]),
    ]  # fmt: skip
    found, *_ = table(pool, 3, fewest=2)
    first, second, third = found.sources
    assert (first.l0, first.l0_from, first.l1, first.l1_from) == (850, "modality", 10, "source")
    assert first.flags == ("l0_modality",) and first.hard.questions == 1
    assert (second.l0_from, second.l1_from) == ("source", "source")
    assert (third.l0, third.l1, third.l1_from, third.flags) == (4000, 20, "global", ("l1_global",))


def test_without_any_such_question_the_line_through_the_other_medians_gives_the_end() -> None:
    pool = [(0, 0, k / 8, [100 - 10 * k]) for k in range(1, 9)] + [(1, 0, 0.5, [7]), (1, 0, 1.0, [5])]
    found, *_ = table(pool, 2, fewest=1)
    assert found.sources[0].l0 == pytest.approx(100) and found.sources[0].l0_from == "fit_source"
    assert found.sources[1].l0 == pytest.approx(9) and found.sources[1].flags == ("l0_fit_source",)
    # A source with one bracket alone takes the line of everything.
    lone, *_ = table([*pool[:8], (1, 0, 1.0, [5])], 2, fewest=1)
    assert lone.sources[1].l0_from == "fit_global" and lone.sources[1].l0 == lone.whole.l0


def test_a_fitted_end_is_at_least_a_token() -> None:
    assert ends([(0, 0, 0.0, [100]), (0, 0, 0.25, [50]), (0, 0, 0.5, [1])]).l1 == 1.0


def test_no_rule_where_nothing_gives_an_end() -> None:
    found = ends([(0, 0, 1.0, [5, 6, 7])])
    assert (found.l0, found.l0_from, found.l1, found.rule) == (None, "none", 6, False)
    assert found.target(0.5) is None
    nothing, _, questions = table([(0, 0, 0.5, [None])], 1, fewest=1)
    assert np.isnan(length_rule.targets(nothing, questions.source, questions.p)).all()


def inverted(policy: str) -> tuple[Ends, Ends]:
    pool = [(0, 0, 0.0, [10]), (0, 0, 1.0, [40])] + 3 * [(1, 0, 0.0, [100]), (1, 0, 1.0, [20])]
    found, *_ = table(pool, 2, fewest=1, inverted=policy)
    return found.sources


def test_inverted_ends_follow_the_policy() -> None:
    skipped, other = inverted("skip_rule")
    assert (skipped.rule, skipped.target(0.5), skipped.flags) == (False, None, ("inverted", "no_rule"))
    assert other.flags == () and other.target(0.5) == 60
    replaced, _ = inverted("global")
    assert (replaced.l0, replaced.l1, replaced.l0_from, replaced.rule) == (100, 20, "global", True)
    assert replaced.flags == ("inverted",) and replaced.hard.median == 10
    kept, _ = inverted("keep")
    assert (kept.l0, kept.l1, kept.rule, kept.flags) == (10, 40, True, ("inverted",))


def test_equal_ends_are_inverted_and_a_global_pair_that_is_inverted_too_gives_no_rule() -> None:
    assert ends([(0, 0, 0.0, [10]), (0, 0, 1.0, [10])]).flags == ("inverted", "no_rule")
    assert not ends([(0, 0, 0.0, [10]), (0, 0, 1.0, [20])], inverted="global").rule


def test_pass_rates_near_an_end_are_not_the_end() -> None:
    """With many draws 1/32 rounds to tier 0, yet some answer was right."""
    found = ends([(0, 0, 1 / 32, [1]), (0, 0, 0.0, [9]), (0, 0, 31 / 32, [7]), (0, 0, 1.0, [3])])
    assert (found.l0, found.l1, found.hard.questions, found.easy.questions) == (9, 3, 1, 1)


lengths_or_cut = st.one_of(st.none(), st.integers(1, 200))
question = st.tuples(
    st.integers(0, 2), st.just(0), st.integers(0, 8).map(lambda k: k / 8), st.lists(lengths_or_cut, max_size=4)
)


@settings(deadline=None)
@given(st.lists(question, min_size=1, max_size=25), st.integers(1, 3), st.randoms(use_true_random=False))
def test_agrees_with_a_plain_loop_and_with_any_order_of_rows(pool, fewest, random) -> None:  # type: ignore[no-untyped-def]
    found, *_ = table(pool, 3, fewest=fewest, inverted="keep")
    for source in range(3):
        for end, origin, p in (
            (found.sources[source].l0, found.sources[source].l0_from, 0.0),
            (found.sources[source].l1, found.sources[source].l1_from, 1.0),
        ):
            for scope, members in (("source", {source}), ("modality", None), ("global", {0, 1, 2})):
                # A source without questions has no modality: nobody is like it.
                members = members or ({0, 1, 2} if any(s == source for s, *_ in pool) else set())
                groups = [
                    [x for x in lengths if x is not None] for s, _, at, lengths in pool if s in members and at == p
                ]
                known = [group for group in groups if group]
                if len(known) >= fewest:
                    assert (origin, end) == (scope, statistics.median([x for group in known for x in group]))
                    break
            else:
                assert origin in ("fit_source", "fit_global", "none")
    shuffled = list(pool)
    random.shuffle(shuffled)
    assert table(shuffled, 3, fewest=fewest, inverted="keep")[0] == found
