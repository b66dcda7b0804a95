"""The trail of answers inside a reply: which answers it states on its way, where, and whether they are right.

No judge: an answer is *stated* where the verifier's own extraction would see one (a box, an answer tag, "the answer
is ..."), and *computed* where an equation ends in a number ("= 42"), which is how a solution usually reaches its result
before it is announced. Each is verified against the reference as if the reply had ended there. A computed number may
equal the reference by chance, so changes of mind are counted over stated answers only.

Cost is bounded: at most MOST answers a reply (the first and the last ones), each different text of a question once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.types import Record, Verdict
from ares_eval.verify.extract import boxes, cue_candidates

if TYPE_CHECKING:
    import numpy as np

    from ares_eval.verify import Verifier

MOST = 32
"""Answers looked at in one reply: half from its beginning, half from its end."""

LONGEST = 400
"""Characters of an answer that is looked at; longer ones are prose."""

_COMPUTED = re.compile(r"(?:=|\\approx|≈)\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)(?!\s*[-+*/^×·\\\d=(a-zA-Z]|[.,]\d)")
_WITH_NUMBERS = ("number", "latex", "auto")
"""Answer types for which the end of an equation can be an answer."""


@dataclass(frozen=True, slots=True)
class Statement:
    """An answer in a reply: its text, the character behind it, and the response that the verifier is shown."""

    text: str
    stop: int
    computed: bool
    response: str


@dataclass(frozen=True, slots=True)
class Trail:
    """The S verified answers of one reply, in order; arrays (S,).

    ``place``: tokens generated when the answer was complete, at most ``length``. ``right``: whether it is correct;
    answers that could not be verified are left out. ``computed``: found at an equation's end only. ``length``: tokens
    of the reply (characters where no token count is known). ``final``: the reply's own verdict.
    """

    place: np.ndarray
    right: np.ndarray
    computed: np.ndarray
    length: float
    final: bool


def statements(text: str, answer_type: str) -> list[Statement]:
    """The answers in ``text``, in order; one that repeats its predecessor is left out."""
    found = [(box.start, box.span[1], box.text, False) for box in boxes(text, 0, len(text))]
    taken = [start for start, *_ in found]
    for cue in cue_candidates(text, 0, len(text)):
        begin, stop = cue.span
        if not any(begin <= start < stop for start in taken):
            found.append((begin, stop, cue.text, False))
    if answer_type in _WITH_NUMBERS:
        ranges = [(start, stop) for start, stop, *_ in found]
        for match in _COMPUTED.finditer(text):
            if not any(start <= match.start(1) < stop for start, stop in ranges):
                found.append((match.start(1), match.end(1), match[1], True))
    found = sorted(item for item in found if len(item[2]) <= LONGEST)
    if len(found) > MOST:
        found = found[: MOST // 2] + found[-MOST // 2 :]
    kept: list[Statement] = []
    starts = set(taken)
    for start, stop, answer, computed in found:
        exact = computed or start in starts
        response = f"\\boxed{{{answer.strip()}}}" if exact else f"The answer is {answer.strip()}"
        if kept and kept[-1].response == response and kept[-1].computed <= computed:
            continue
        kept.append(Statement(answer, stop, computed, response))
    return kept


def whole_text(record: Record, tokens: Sequence[str] | None) -> str:
    """A reply as it was generated: the joined tokens where they are recorded, else reasoning and text."""
    if tokens is not None:
        return "".join(tokens)
    return f"{record.reasoning}\n{record.text or ''}" if record.reasoning else record.text or ""


class TrailReader:
    """Verifies the answers inside replies; each different answer of a question once. Used from one thread."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: dict[tuple[str, str, str], Future[Verdict]] = {}

    def submit(self, record: Record, tokens: Sequence[str] | None, length: float) -> Callable[[], Trail]:
        """Begin with one reply; call what is returned for its trail. ``length``: its tokens (or characters)."""
        text = whole_text(record, tokens)
        found = statements(text, record.answer.type)
        futures = [self._verdict(record, statement) for statement in found]
        right = record.verdict is not None and record.verdict.value == "correct"

        def collect() -> Trail:
            import numpy as np

            verdicts = [future.result().value for future in futures]
            decided = [i for i, value in enumerate(verdicts) if value != "unverifiable"]
            stops = np.array([found[i].stop for i in decided], dtype=np.int64)
            return Trail(
                place=np.minimum(_places(stops, text, tokens, length), length),
                right=np.array([verdicts[i] == "correct" for i in decided], dtype=np.bool_),
                computed=np.array([found[i].computed for i in decided], dtype=np.bool_),
                length=length,
                final=right,
            )

        return collect

    def _verdict(self, record: Record, statement: Statement) -> Future[Verdict]:
        key = (record.task, record.sample, statement.response)
        future = self._known.get(key)
        if future is None:
            future = self._verifier.submit(statement.response, record.reference, record.answer)
            self._known[key] = future
        return future


def _places(stops: np.ndarray, text: str, tokens: Sequence[str] | None, length: float) -> np.ndarray:
    """Tokens generated when each character range was complete; without tokens, in proportion to characters."""
    import numpy as np

    if tokens is None:
        return np.asarray(stops * (length / max(len(text), 1)))
    from ares_eval.analysis.words import token_ends

    return np.searchsorted(token_ends(tokens), stops, side="left") + 1.0
