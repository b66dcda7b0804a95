"""Sums of graded difficulty with worked traces of three lengths: what the cold-start example learns from and is asked.

``python corpus.py OUT --lessons N --pool N --held-out N`` writes lessons.jsonl (conversations to train the tiny model
on), pool.jsonl (questions and answers for AdaCS) and tasks/ (held-out questions as a task of `ares-eval`). No question
is in two of them, and the same seed gives the same files.

Eight levels run from a single digit to four terms of three digits; products of two digits, which no lesson teaches, are
a ninth. A trace is brief (the running sums), plain (the same in words) or careful (column by column, with
a check). How wordy a lesson is follows its level only loosely: careful ones are 30 % of the easiest and 70 % of the
hardest. So the model thinks too long about much that is easy and too briefly about much that is hard, and AdaCS has
responses of different lengths to choose from.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

LEVELS = ((1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (4, 3))
"""Terms and digits of each level of sums."""

PRODUCTS = len(LEVELS) + 1
"""The level of products."""

FEW = {1: 3, 2: 20, PRODUCTS: 20}
"""Most questions taken from levels that have a hundred or fewer in all; of sums the others are left to learn from."""

TASK = Path(__file__).with_name("arithmetic.yaml")


def question(level: int, terms: tuple[int, ...]) -> str:
    """As the model is asked."""
    return f"What is {('*' if level == PRODUCTS else '+').join(map(str, terms))}?"


def answer(level: int, terms: tuple[int, ...]) -> int:
    """The result."""
    return terms[0] * terms[1] if level == PRODUCTS else sum(terms)


def trace(terms: tuple[int, ...], style: str) -> str:
    """A right response to a sum: thinking in the style, then the boxed result."""
    total, running, steps = sum(terms), terms[0], []
    for term in terms[1:]:
        steps.append(_STEP[style](running, term))
        running += term
    thought = " ".join(steps) or f"It is={total}."
    if style == "careful":
        thought = f"Let me add step by step. {thought} Wait, check:{total}-{terms[-1]}={total - terms[-1]}. Right."
    return f"<think>\n{thought}\n</think>\n\n\\boxed{{{total}}}"


def _brief(a: int, b: int) -> str:
    return f"{a}+{b}={a + b}."


def _plain(a: int, b: int) -> str:
    return f"Then we have:{a}+{b}={a + b}."


def _careful(a: int, b: int) -> str:
    columns, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        columns.append(f"{x}+{y}+{carry}={x + y + carry}")
        carry = (x + y + carry) // 10
    return f"For:{a}+{b}:{','.join(columns)}. So:{a}+{b}={a + b}."


_STEP = {"brief": _brief, "plain": _plain, "careful": _careful}


def style_of(chance: random.Random, level: int) -> str:
    """Careful ones from 30 % to 70 %, 15 % plain, the rest brief."""
    careful = 0.3 + 0.4 * (level - 1) / (len(LEVELS) - 1)
    return chance.choices(("brief", "plain", "careful"), (0.85 - careful, 0.15, careful))[0]


def terms_of(chance: random.Random, level: int) -> tuple[int, ...]:
    """The terms of a question."""
    if level == PRODUCTS:
        return chance.randint(2, 9), chance.randint(2, 9)
    number, digits = LEVELS[level - 1]
    return tuple(chance.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1) for _ in range(number))


def questions(chance: random.Random, count: int, asked: int, taken: set[str]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """About ``count`` questions, as many of each of the first ``asked`` levels of sums, fewer of products; none that is
    ``taken``, to which they are added."""
    for level in (*range(1, asked + 1), PRODUCTS):
        wanted = min(count // (asked + 1) // (3 if level == PRODUCTS else 1), FEW.get(level, count))
        while wanted:
            terms = terms_of(chance, level)
            if question(level, terms) not in taken:
                taken.add(question(level, terms))
                wanted -= 1
                yield level, terms


def lessons(chance: random.Random, count: int, taught: int, taken: set[str]) -> Iterator[dict[str, object]]:
    """Conversations about sums of the first ``taught`` levels that are not ``taken``."""
    while count:
        level = chance.randint(1, taught)
        terms = terms_of(chance, level)
        if question(level, terms) in taken:
            continue
        count -= 1
        turns = (("user", question(level, terms)), ("assistant", trace(terms, style_of(chance, level))))
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def row(level: int, terms: tuple[int, ...]) -> dict[str, object]:
    """A question with its answer."""
    asked = question(level, terms)
    return {"id": asked[8:-1], "level": level, "question": asked, "answer": str(answer(level, terms))}


def write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lessons", type=int, default=40_000)
    parser.add_argument("--taught", type=int, default=len(LEVELS), help="levels that lessons are about")
    parser.add_argument("--asked", type=int, default=len(LEVELS), help="levels that questions are about")
    parser.add_argument("--pool", type=int, default=450)
    parser.add_argument("--held-out", type=int, default=225)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    taken: set[str] = set()
    write(
        asked.out / "tasks" / "held_out.jsonl",
        (row(*one) for one in questions(chance, asked.held_out, asked.asked, taken)),
    )
    write(asked.out / "pool.jsonl", (row(*one) for one in questions(chance, asked.pool, asked.asked, taken)))
    write(asked.out / "lessons.jsonl", lessons(chance, asked.lessons, asked.taught, taken))
    shutil.copyfile(TASK, asked.out / "tasks" / TASK.name)


if __name__ == "__main__":
    main()
