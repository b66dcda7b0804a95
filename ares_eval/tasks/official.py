"""`--scoring official`: the verdicts of the benchmarks' own scorers, where they differ from sound scoring.

Ours is the default: what states no answer is wrong or unverifiable, and equal answers are equal. Some official scorers
guess at random, take the nearest option, or compare texts; published numbers hold that. Each rule here decides one
reply as its benchmark's script does, and the verdict's method names it. Two things are as in our own scoring: only
what follows the thinking is read, and where a script asks GPT to extract an answer, our extraction stands in. A box
counts as its content, since the prompt asks for one. Guesses come from the task, the question and the draw, not from
the order of the replies, so they repeat; the scripts' own sequence of guesses hangs on the order of their files.

The scripts were read for what they do; nothing of them is copied. Sources are named with each rule.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ares_eval.types import AnswerSpec, Verdict

MAX_CHARS = 20_000
"""Of a reply, its end: official scripts read it all, but no answer is longer than this."""

MAX_DISTANCE_CHARS = 500
"""Of a text whose edit distance is taken: the table of it is quadratic."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply as rules see it: what follows the thinking, what our own scoring made of it, and what was expected."""

    text: str
    verdict: Verdict
    references: tuple[str, ...]
    spec: AnswerSpec
    seed: str

    @property
    def stated(self) -> str:
        """The answer that we extracted: a letter where it names one option, else its text; empty where none is."""
        said, verdict = self.verdict.normalised, self.verdict
        if verdict.type == "choice" and said is not None and re.fullmatch("[A-Z]", said[0]):
            return said[0]
        return verdict.extracted or ""

    @property
    def letters(self) -> list[str]:
        """The letters of the options."""
        return [chr(65 + number) for number in range(len(self.spec.choices))]

    def guess(self, options: Sequence[str]) -> str:
        """One of the options, by the question and the draw."""
        return random.Random(f"42:{self.seed}").choice(options)


Rule = Callable[[Answered], tuple[bool, str]]
"""Whether the official scorer calls the reply right, and the prediction that it compared."""


def decide(
    rule: str, response: str, verdict: Verdict, references: str | tuple[str, ...], spec: AnswerSpec, seed: str
) -> Verdict:
    """The official verdict over a reply that we judged already; KeyError for a rule that does not exist."""
    from ares_eval.verify.extract import answer_range

    area = answer_range(response)
    text = "" if area is None else response[area[0] : area[1]]
    several = (references,) if isinstance(references, str) else references
    right, prediction = RULES[rule](Answered(unboxed(text[-MAX_CHARS:]), verdict, several, spec, seed))
    shown = (prediction[:500], " | ".join(several)[:500])
    value = "correct" if right else "incorrect"
    return replace(verdict, value=value, method=f"official:{rule}", reason=None, normalised=shown)  # type: ignore[arg-type]


def unboxed(text: str) -> str:
    """The text with each ``\\boxed{...}`` replaced by its content."""
    start, parts = 0, []
    while (at := text.find("\\boxed{", start)) >= 0:
        depth, end = 1, at + 7
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        parts.append(text[start:at] + text[at + 7 : end - (depth == 0)])
        start = end
    return "".join([*parts, text[start:]])


# ---------------------------------------------------------------- MathVista


def _mathvista(answered: Answered) -> tuple[bool, str]:
    """lupantech/MathVista, calculate_score.py: the nearest option by edit distance; whole numbers truncated, decimals
    rounded, texts compared."""
    spec, stated, reference = answered.spec, answered.stated.strip(), answered.references[0]
    if spec.type == "choice":
        letter = re.search(r"\(([a-zA-Z])\)", stated)
        named = letter[1].upper() if letter else stated
        if named in answered.letters:
            prediction = spec.choices[answered.letters.index(named)]
        else:
            prediction = min(spec.choices, key=lambda choice: edit_distance(stated, choice))
        return prediction == reference, prediction
    if spec.type != "number":
        return stated == reference, stated
    number = _number(answered)
    if number is None:
        return False, ""
    digits = spec.policy.get("digits")
    prediction = str(int(number)) if digits is None else str(round(number, int(digits)))
    return prediction == reference, prediction


def _number(answered: Answered) -> float | None:
    """The number that the extraction states, as GPT would have written it."""
    said = answered.verdict.normalised
    for text in (said[0] if said is not None else "", answered.stated):
        try:
            return float(Fraction(text.replace(",", "").strip()))
        except (ValueError, ZeroDivisionError, OverflowError):
            continue
    return None


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance, of the first MAX_DISTANCE_CHARS of each."""
    one, other = one[:MAX_DISTANCE_CHARS], other[:MAX_DISTANCE_CHARS]
    row = list(range(len(other) + 1))
    for number, a in enumerate(one, 1):
        before, row[0] = row[0], number
        for at, b in enumerate(other, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (a != b))
    return row[-1]


# ---------------------------------------------------------------- MMMU, MMMU-Pro


def _mmmu(answered: Answered) -> tuple[bool, str]:
    """MMMU-Benchmark/MMMU, eval_utils.py: the last letter, or option text, named; else a guess. Open ones below."""
    if answered.spec.type != "choice":
        return _mmmu_open(answered)
    text = answered.text
    for mark in ",.!?;:'":
        text = text.strip(mark)
    prediction = _named(f" {text} ", answered, (" {} ",))
    return prediction in answered.references, prediction


def _mmmu_pro(answered: Answered) -> tuple[bool, str]:
    """mmmu-pro/evaluate.py: the one letter after the last "Answer:", else as MMMU, with ``A `` and ``A.`` as marks."""
    _, mark, tail = answered.text.rpartition("Answer:")
    after = [letter for letter in answered.letters if letter in tail]
    if mark and len(after) == 1:
        return after[0] in answered.references, after[0]
    text = answered.text
    for character in ",.!?;:'":
        text = text.strip(character)
    prediction = _named(f" {text} ", answered, ("{} ", "{}."))
    return prediction in answered.references, prediction


def _named(text: str, answered: Answered, marks: Sequence[str]) -> str:
    """The option named last: ``(A)``; else by each of ``marks``; else by its text in longer replies; else a guess."""
    for mark in ("({})", *marks):
        found = [letter for letter in answered.letters if mark.format(letter) in text]
        if found:
            # Among several bare letters the scripts always look for the one with blanks around it.
            shown = mark if mark == "({})" else " {} "
            return max(found, key=lambda letter: text.rfind(shown.format(letter)))
    if len(text.split()) > 5:
        lower = text.lower()
        texts = dict(zip(answered.letters, answered.spec.choices, strict=True))
        found = [letter for letter, option in texts.items() if option.lower() in lower]
        if found:
            return max(found, key=lambda letter: lower.rfind(texts[letter].lower()))
    return answered.guess(answered.letters) if answered.letters else ""


_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")


def _mmmu_open(answered: Answered) -> tuple[bool, str]:
    """A short answer is right where a closing phrase holds it, or one of its numbers equals it to two decimals."""
    whole = answered.text.strip().strip(".").lower()
    pieces = whole.split("\n")
    phrases = []
    for number, piece in enumerate(pieces):
        marks = (*_INDICATORS, "=") if number == len(pieces) - 1 else _INDICATORS
        tails = [piece.split(mark)[-1].strip() for mark in marks if mark in piece]
        shortest = min(tails, key=len, default="")
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            phrases.append(shortest)
    phrases = phrases or [whole]
    said = phrases + [match for phrase in phrases for pattern in _NUMBERS for match in pattern.findall(phrase)]
    predictions = [value for text in said for value in _plain(text)]
    wanted = [value for reference in answered.references for value in _plain(reference)]
    texts = [value for value in wanted if isinstance(value, str)]
    right = any(
        any(text in value for text in texts) if isinstance(value, str) else value in wanted for value in predictions
    )
    return right, str(phrases[-1])


def _plain(text: str) -> list[str | float]:
    """A number to two decimals, or the text in lower case; one letter only with a blank beside it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except (ValueError, OverflowError):
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


# ---------------------------------------------------------------- MMLU-Pro

_MMLU_PRO_GUESS = random.Random(12345).choice("ABCDEFGHIJ")
"""What compute_accuracy.py puts for every reply without an answer: it sets the same seed before each choice."""


def _mmlu_pro(answered: Answered) -> tuple[bool, str]:
    """TIGER-AI-Lab/MMLU-Pro, compute_accuracy.py: first "answer is (X)", "Answer: X", last capital A to J, else one
    and the same letter."""
    text = answered.text
    found = (
        re.search(r"answer is \(?([A-J])\)?", text)
        or re.search(r".*[aA]nswer:\s*([A-J])", text)
        or re.search(r"([A-J])(?=[^A-J]*$)", text)
    )
    prediction = found[1] if found else _MMLU_PRO_GUESS
    return prediction in answered.references, prediction


# ---------------------------------------------------------------- DynaMath


def _dynamath(answered: Answered) -> tuple[bool, str]:
    """DynaMath/DynaMath, evaluation/: the JSON's "short answer" where there is one, within 0.001, or by containment."""
    reference = answered.references[0]
    answer = _short_answer(answered.text)
    answer = answered.stated if answer is None else answer
    if answered.spec.type == "number":
        first = answer.split(" ")[0]
        try:
            value = float(first.split("π")[0]) * 3.141592653589793 if "π" in first else float(first)
            return abs(value - float(reference)) <= 0.001, first
        except ValueError:
            return False, first
    if answered.spec.type == "choice":
        return (answer == reference if len(answer) == 1 else reference in answer[:3]), answer
    return reference in answer, answer


def _short_answer(text: str) -> str | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        found = json.loads(text[start : end + 1].replace("\\", ""), strict=False)
    except (ValueError, RecursionError):
        return None
    return str(found["short answer"]) if isinstance(found, dict) and "short answer" in found else None


# ---------------------------------------------------------------- OlympiadBench, BBH, BBEH


def _olympiadbench(answered: Answered) -> tuple[bool, str]:
    """OpenBMB/OlympiadBench, auto_scoring_judge.py: a number is also right as a hundredth or hundredfold of itself."""
    stated, tolerance = answered.stated, float(answered.spec.policy.get("tolerance", 1e-8)) * 1.01
    if answered.spec.type not in ("number", "list"):
        return answered.verdict.value == "correct", stated
    try:
        values = [float(part.strip(" $%")) for part in stated.split(",")]
        wanted = [float(part.strip(" $%")) for part in answered.references[0].split(",")]
    except ValueError:
        return answered.verdict.value == "correct", stated
    for number in wanted:
        near = [v for v in values if any(abs(number * scale - v) <= tolerance for scale in (0.01, 1, 100))]
        if not near:
            return False, stated
        values.remove(near[0])
    return not values, stated


def _bbh(answered: Answered) -> tuple[bool, str]:
    """suzgunmirac/BIG-Bench-Hard: what follows the last "the answer is", without its full stop, equal to the target."""
    tail = re.split(r"\b[Tt]he answer is", answered.text)
    boxed = answered.verdict.method.startswith("box")
    said = tail[-1].split("\n")[0] if len(tail) > 1 else answered.verdict.extracted if boxed else answered.text
    prediction = (said or "").strip().rstrip(".").strip()
    return prediction in answered.references, prediction


def _bbeh(answered: Answered) -> tuple[bool, str]:
    """google-deepmind/bbeh, evaluate.py: what follows "the answer is:", equal up to brackets, quotes, number format."""
    tails = [answered.text.partition(mark)[2] for mark in _BBEH_MARKS if mark in answered.text]
    prediction = min(tails, key=len, default=answered.stated or answered.text)
    prediction = prediction.split("\n")[0].replace("**", "").strip().rstrip(".").lower().replace(", ", ",")
    wanted = [reference.strip().lower().replace(", ", ",") for reference in answered.references]
    return any(_bbeh_equal(prediction, reference) for reference in wanted), prediction


_BBEH_MARKS = ("The answer is:", "The final answer is ", "The final answer is: ", "The answer is ")


def _bbeh_equal(prediction: str, reference: str) -> bool:
    bare = [re.sub(r"^\((.)\)$", r"\1", text) for text in (prediction, reference)]
    if bare[0] == bare[1] or prediction.replace("'", "") == reference.replace("'", ""):
        return True
    try:
        if float(prediction) == float(reference):
            return True
    except ValueError:
        pass
    return f"[{reference}]" == prediction or f"[{prediction}]" == reference or prediction == f"{reference}?"


RULES: dict[str, Rule] = {
    "mathvista": _mathvista,
    "mmmu": _mmmu,
    "mmmu_pro": _mmmu_pro,
    "mmlu_pro": _mmlu_pro,
    "dynamath": _dynamath,
    "olympiadbench": _olympiadbench,
    "bbh": _bbh,
    "bbeh": _bbeh,
}
"""By the name that a task gives under ``metadata.official.rule``; a task without one is scored as ever."""
