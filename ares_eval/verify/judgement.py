"""One pair judged as far as rules in this process go: a verdict, or the questions of algebra that are left.

Pure: nothing here waits or starts anything. The declared type decides which comparator speaks; where none is declared
it is guessed from the reference, and the verdict says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ares_eval.types import AnswerSpec, Verdict
from ares_eval.verify.comparators.choice import judge_choice
from ares_eval.verify.comparators.date import compare_date
from ares_eval.verify.comparators.latex import compare_latex
from ares_eval.verify.comparators.listing import compare_list
from ares_eval.verify.comparators.multipart import compare_multipart
from ares_eval.verify.comparators.number import compare_number
from ares_eval.verify.comparators.structured import compare_structured
from ares_eval.verify.comparators.text import compare_text
from ares_eval.verify.comparators.yesno import compare_yesno, polarity
from ares_eval.verify.decision import Algebra, Decision, Outcome
from ares_eval.verify.extract import Candidate, answer_range, bold, candidates, has_answer_part
from ares_eval.verify.quantity import parse_quantity, quantities_in
from ares_eval.verify.reading import formula_readings, number_readings
from ares_eval.verify.sentences import answering_sentence


@dataclass(frozen=True, slots=True)
class Open:
    """An open question and its place among the outcomes."""

    index: int
    question: Algebra


@dataclass(frozen=True, slots=True)
class Judgement:
    """Outcomes for (reading, reference) pairs in order of trust, and where the answer was read."""

    type: str
    guessed: bool
    outcomes: tuple[Outcome, ...]
    places: tuple[Candidate | None, ...]

    @property
    def open(self) -> Open | None:
        """The next question, or None where the verdict stands."""
        for index, outcome in enumerate(self.outcomes):
            if isinstance(outcome, Algebra):
                return Open(index, outcome)
            if outcome.value is True:
                return None
        return None

    def answered(self, asked: Open, decision: Decision) -> Judgement:
        """The judgement with one question answered."""
        outcomes = list(self.outcomes)
        outcomes[asked.index] = decision
        return replace(self, outcomes=tuple(outcomes))

    def verdict(self) -> Verdict:
        """Correct where any outcome is; else unverifiable where any is; else incorrect."""
        decided = [(o, p) for o, p in zip(self.outcomes, self.places, strict=True) if isinstance(o, Decision)]
        order = sorted(decided, key=lambda pair: {True: 0, None: 1, False: 2}[pair[0].value])
        decision, place = order[0]
        value = "unverifiable" if decision.value is None else "correct" if decision.value else "incorrect"
        method = decision.method if place is None or ">" in decision.method else f"{place.rule}>{decision.method}"
        return Verdict(
            value,  # type: ignore[arg-type]
            method,
            reason=decision.reason,
            extracted=place.text[:500] if place else None,
            span=place.span if place else None,
            normalised=_short(decision.normalised),
            type=self.type,
            guessed=self.guessed,
        )


def _short(pair: tuple[str, str] | None) -> tuple[str, str] | None:
    return None if pair is None else (pair[0][:500], pair[1][:500])


Compare = Callable[[str, str, dict[str, Any]], Outcome]


def judge(response: str, references: tuple[str, ...], spec: AnswerSpec, question: str | None) -> Judgement:
    """Everything that can be said without algebra."""
    guessed = spec.type == "auto"
    kind = guess_type(references, spec) if guessed else spec.type
    policy = dict(spec.policy)
    if kind == "choice":
        decision, place = judge_choice(response, references, spec.choices, policy, question)
        return Judgement(kind, guessed, (decision,), (place,))
    if not has_answer_part(response):
        return Judgement(kind, guessed, (Decision(False, kind, "no_answer"),), (None,))
    if kind == "yesno":
        return _polar(response, references, guessed)
    if kind == "text" or kind == "date":
        return _text(response, references, policy, kind, guessed, question)
    if kind == "number" and question and re.search(r"percent|%|\bshare\b", question):
        policy.setdefault("percent", True)
    return _maths(response, references, policy, kind, guessed, question)


def _maths(
    response: str, references: tuple[str, ...], policy: dict[str, Any], kind: str, guessed: bool, question: str | None
) -> Judgement:
    compare = _COMPARATORS[kind]
    for place in _readings(response, kind, policy, question):
        outcomes = tuple(compare(place.text, reference, policy) for reference in references)
        return Judgement(kind, guessed, outcomes, (place,) * len(outcomes))
    return Judgement(kind, guessed, (Decision(False, kind, "no_answer"),), (None,))


def _readings(response: str, kind: str, policy: dict[str, Any], question: str | None) -> Iterator[Candidate]:
    several = kind in ("list", "structured", "multipart")
    places = candidates(response)
    if policy.get("form") == "answer-only" and not any(p.exact for p in places):
        yield Candidate(response.strip(), 0, "answer-only", True)
        return
    if kind == "multipart" and not any(p.exact for p in places):
        area = answer_range(response) or (0, len(response))
        yield Candidate(response[area[0] : area[1]].strip(), area[0], "whole", False)
        return
    if kind == "number" and places and places[0].rule == "last-line":
        area = answer_range(response) or (0, len(response))
        emphasised = {n for part in bold(response[area[0] : area[1]]) for n in quantities_in(part)}
        if len(emphasised) == 1:
            text = emphasised.pop()
            yield Candidate(text, response.find(text, area[0]), "bold", False)
            return
        sentence = answering_sentence(response[area[0] : area[1]], question)
        if sentence is not None:
            places.insert(0, Candidate(sentence, response.find(sentence, area[0]), "last-line", False))
    for place in places:
        yield from number_readings(place) if kind == "number" else formula_readings(place, response, several)


_COMPARATORS: dict[str, Compare] = {
    "number": compare_number,
    "latex": compare_latex,
    "structured": compare_structured,
    "list": compare_list,
    "multipart": compare_multipart,
}


def _polar(response: str, references: tuple[str, ...], guessed: bool) -> Judgement:
    places = candidates(response)
    for place in places:
        if polarity(place.text) is not None:
            outcomes = tuple(compare_yesno(place.text, reference) for reference in references)
            return Judgement("yesno", guessed, outcomes, (place,) * len(outcomes))
    return Judgement("yesno", guessed, (Decision(None, "yesno", "ambiguous"),), (places[0] if places else None,))


def _text(
    response: str, references: tuple[str, ...], policy: dict[str, Any], kind: str, guessed: bool, question: str | None
) -> Judgement:
    places = candidates(response)
    if not places:
        return Judgement(kind, guessed, (Decision(False, kind, "no_answer"),), (None,))
    place = places[0]
    if kind == "date":
        decision = compare_date(place.text, references, policy) or Decision(None, "date", "unparsed")
    else:
        area = answer_range(response) or (0, len(response))
        decision = compare_text(place, references, policy, question, response[area[0] : area[1]])
    return Judgement(kind, guessed, (decision,), (place,))


def guess_type(references: tuple[str, ...], spec: AnswerSpec) -> str:
    """The type that a reference looks like."""
    if spec.choices:
        return "choice"
    reference = references[0] if references else ""
    if polarity(reference) is not None and len(reference) < 8:
        return "yesno"
    if re.fullmatch(r"\s*\(?[A-J]\)?\s*", reference):
        return "choice"
    if parse_quantity(reference) is not None:
        return "number"
    if re.search(r"[\\^_=<>{}\[\]]|\d\s*[,;]\s*-?\d|\d[a-z]\b", reference):
        return (
            "structured"
            if re.search(r"[\[(].*,.*[\])]|[=<>]|\\begin|\\cup|\\in(?![a-z])|\\l?e", reference)
            else "latex"
        )
    return "text"
