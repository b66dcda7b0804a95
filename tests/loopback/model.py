"""The model: what is answered to a question, by rule, from a table, or as recorded.

`Model.plan` is a pure function of prompt, seed and draw. Where no table knows the question, the last sum, difference
or product in the prompt is worked out ("What is 17 + 25?"); else the answer is 0.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.loopback.options import Options
from tests.loopback.text import BLOCKS, filler, tokenise, unit

ARITHMETIC = re.compile(r"(-?\d+) ?([-+*×]) ?(-?\d+)")
ANCHOR = 24
"""Characters by which a known question is looked up in a prompt; shorter questions are searched one by one."""

_PLACEHOLDER = re.compile(r"<image ?\d*>")


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer before it is cut and sent: reasoning and text as tokens."""

    reasoning: tuple[bytes, ...]
    filler: tuple[bytes, ...]
    tail: tuple[bytes, ...]


def plain(text: str) -> str:
    """Text as questions are compared: no picture placeholders, white space as single spaces."""
    return " ".join(_PLACEHOLDER.sub(" ", text).split())


class Questions:
    """Which of the known questions does a prompt ask? The longest that occurs in it; of equals the last."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.anchors: dict[str, list[str]] = {}
        self.short: list[str] = []

    def add(self, question: str, value: Any) -> None:
        """Make a question known."""
        question = plain(question)
        if question in self.values or not question:
            return
        self.values[question] = value
        if len(question) < ANCHOR:
            self.short.append(question)
        else:
            self.anchors.setdefault(question[:ANCHOR], []).append(question)

    def find(self, prompt: str) -> str | None:
        """The question that the prompt asks."""
        if not self.values:
            return None
        prompt = plain(prompt)
        found = [question for question in self.short if question in prompt]
        for start in range(len(prompt) - ANCHOR + 1):
            for question in self.anchors.get(prompt[start : start + ANCHOR], ()):
                if prompt.startswith(question, start):
                    found.append(question)
        return max(found, key=lambda question: (len(question), prompt.rfind(question)), default=None)


class Model:
    """Answers questions as the options say."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.table = Questions()
        if options.answers:
            with Path(options.answers).open(encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    self.table.add(row["question"], str(row["answer"]))

    def answer(self, prompt: str, draw: int) -> str:
        """The right answer, or a wrong one at the rate asked for."""
        question = self.table.find(prompt)
        right = self.table.values[question] if question is not None else arithmetic(prompt)
        if self.options.wrong and unit(self.options.seed, "wrong", question or prompt, draw) < self.options.wrong:
            return wrong(right)
        return str(right)

    def plan(self, prompt: str, draw: int) -> Plan:
        """The reply to the prompt's ``draw``-th asking."""
        options = self.options
        if options.reply:
            tail = tokenise(options.reply)
            length = 0
        else:
            tail = tokenise(" " + options.answer_format.format(answer=self.answer(prompt, draw)))
            length = max(0, options.tokens - len(tail))
        variant = int(unit(options.seed, "filler", prompt, draw) * BLOCKS)
        thought = filler(options.reasoning_length, variant) if options.reasoning != "none" else ()
        if options.reasoning == "think":
            thought = (b"<think>", b"\n", *thought, b"\n", b"</think>", b"\n\n")
        return Plan(thought, filler(length, variant), tuple(tail))


def arithmetic(prompt: str) -> str:
    """The value of the last operation in the prompt; 0 where there is none."""
    found = ARITHMETIC.findall(prompt)
    if not found:
        return "0"
    left, sign, right = found[-1]
    a, b = int(left), int(right)
    return str({"+": a + b, "-": a - b}.get(sign, a * b))


def wrong(answer: str) -> str:
    """Another answer of the same kind."""
    if re.fullmatch(r"-?\d+", answer):
        return str(int(answer) + 1)
    if re.fullmatch(r"[A-Z]", answer):
        return "A" if answer != "A" else "B"
    return f"not {answer}"
