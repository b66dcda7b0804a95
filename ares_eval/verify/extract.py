"""Where the answer stands in a response: candidates with their span and the rule that found them, best first.

A response is first split into reasoning and answer: only what follows the last closing think tag is read, and an
unclosed think block is no answer at all. In the rest, explicit places come first (the last non-empty box, answer
tags, ``####``, a JSON answer field), then cue phrases in several languages, then emphasis and the last line. Among
explicit places and cue phrases the later one wins: a corrected answer replaces the earlier one. Every scan is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ares_eval.verify.normalise import closing_braces, trimmed


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stretch of the response that may state the answer. ``exact`` marks places made for an answer alone."""

    text: str
    start: int
    rule: str
    exact: bool

    @property
    def span(self) -> tuple[int, int]:
        """Character range in the whole response."""
        return self.start, self.start + len(self.text)


_OPEN_THINK = re.compile(
    r"<(think|thinking|thought|reasoning|analysis|scratchpad)>|<\|begin_of_thought\|>|◁think▷", re.I
)
_CLOSE_THINK = re.compile(
    r"</(think|thinking|thought|reasoning|analysis|scratchpad)>|<\|end_of_thought\|>|◁/think▷", re.I
)
_END_OF_TURN = re.compile(
    r"<\|im_(?:end|start)\|>|<\|eot_id\|>|<\|end(?:oftext)?\|>|</s>|<end_of_turn>|<｜end▁of▁sentence｜>"
)


def answer_range(response: str) -> tuple[int, int] | None:
    """The range of the response that may hold the answer; None where thinking never ended."""
    start = 0
    if "<" in response or "◁" in response:
        for match in _CLOSE_THINK.finditer(response):
            start = match.end()
        if _OPEN_THINK.search(response, start):
            return None
        stop = _END_OF_TURN.search(response, start)
        if stop is not None and response[start : stop.start()].strip():
            return start, stop.start()
    return start, len(response)


# ---------------------------------------------------------------- explicit places

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
_TAG = re.compile(
    r"<(answer|final_answer|final|result)>(.*?)(?:</\1>|\Z)|<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)", re.I | re.S
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*)", re.M)
MAX_HASHES = 80
"""Characters after ``####`` that may be an answer; a longer line, or one with text below it, is a Markdown heading."""
_JSON_FIELD = re.compile(
    r"[\"'](?:final[_ ]?|short[_ ]?)?(?:answer|result|choice|option)[\"']\s*:\s*"
    r"(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|\[[^\]\n]*\]|[^,}\n]+)",
    re.I,
)


def boxes(response: str, start: int, end: int) -> list[Candidate]:
    """All non-empty boxes in order; one that is never closed reaches to the end of its line. Linear in the text."""
    found: list[Candidate] = []
    if "box" not in response:
        return found
    openings = [(match, match.end()) for match in _BOX.finditer(response, start, end)]
    braces = {opened for _, opened in openings if opened < end and response[opened] == "{"}
    closers = closing_braces(response, braces, end) if braces else {}
    position = start
    for match, opened in openings:
        if match.start() < position:
            continue
        rule = "box"
        if opened in braces:
            close = closers.get(opened, -1)
            if close < 0:
                line = response.find("\n", opened, end)
                close, rule = (line if line >= 0 else end), "unclosed-box"
            opened += 1
        else:
            close = opened
            while close < end and response[close].isalnum():
                close += 1
        content = response[opened:close]
        if content.strip(" \t\n$"):
            found.append(Candidate(content, opened, rule, True))
            position = close
    return found


_BETWEEN = re.compile(r"[\s$.,;\\()\[\]*]*(?:and|or|,|;|\\text\{\s*(?:and|or)\s*\}|\\quad|\\qquad)?[\s$,;\\()\[\]*]*")


def neighbouring_boxes(last: Candidate, response: str) -> Candidate | None:
    """Several boxes in one statement ("\\boxed{2} and \\boxed{3}") are one answer with several parts."""
    found = [box for box in boxes(response, 0, len(response)) if box.start <= last.start]
    group = [found[-1]] if found else []
    for box in reversed(found[:-1]):
        gap_start = box.span[1] + 1
        gap = response[gap_start : response.rfind("\\", gap_start, group[0].start)]
        if "\n" in gap.strip() or not _BETWEEN.fullmatch(gap):
            break
        group.insert(0, box)
    if len(group) < 2:
        return None
    return Candidate(", ".join(box.text for box in group), group[0].start, "boxes", True)


def _explicit(response: str, start: int, end: int) -> Iterator[Candidate]:
    found = boxes(response, start, end)
    yield from found[-1:]
    if "<" in response:
        tags = [m for m in _TAG.finditer(response, start, end) if (m[2] or m[3] or "").strip()]
        for match in tags[-1:]:
            group = 2 if match[2] is not None else 3
            inner = [box for box in found if match.start(group) <= box.start < match.end(group)]
            if not inner:
                yield Candidate(match[group], match.start(group), "tag", True)
    if "####" in response:
        for match in list(_HASHES.finditer(response, start, end))[-1:]:
            if len(match[1]) <= MAX_HASHES and not response[match.end() : end].strip():
                yield Candidate(match[1], match.start(1), "hashes", True)
    if "{" in response and ("answer" in response or "Answer" in response):
        for match in list(_JSON_FIELD.finditer(response, start, end))[-1:]:
            quoted = match[1][:1] in "\"'"
            text = match[1][1:-1] if quoted else match[1]
            if text.strip():
                yield Candidate(text, match.start(1) + quoted, "json", True)


# ---------------------------------------------------------------- cue phrases

MAX_CUES = 16
"""Cue phrases that are looked at, from the end: earlier ones are superseded."""
MAX_CLAUSE = 4000
_COPULA = r"(?:\s*(?:is|are|was|were|will\s+be|would\s+be|should\s+be|must\s+be|=|equals|becomes)\b|\s*[:=])"
_NOUN = r"(?:answers?|results?|solutions?|options?|choices?|ans)"
_CUE = re.compile(
    r"(?:\b(?:final|correct|right|best|short|my|numerical)\s+" + _NOUN + r"|\b(?:answers?|ans))"
    r"(?:\s+(?:choice|option|to\s+(?:the|this|your)\s+[^.:\n]{1,60}?|(?:of|for|here)\b[^.:\n]{0,60}?|letter|value|in\s+[^.:\n]{1,30}?))?"
    r"[\"*_ \t)]*" + _COPULA + r"[\"*_ \t]*:?"
    r"|^[\s#>*_-]*(?:final\s+)?(?:answer|ans|solution|result)[\s*_]*(?:[:：]|\n)[\s*_]*"
    r"|^A\s*:\s*"
    r"|(?:最终答案|正确答案|正确选项|标准答案|答案|正解|结果|答え)[\s*_]*(?:应该是|应为|应是|就是|是|为|為|：|:|は)+[\s*_]*"
    r"|(?:故选|所以选|因此选|应选|选择|故答案为|选项应?[为是]|选(?=[：:\s]*[（(]?[A-Z]))[择]?[：:\s]*"
    r"|(?:정답|최종\s*답|답)\s*(?:은|는|:|：)+\s*"
    r"|\b(?:Ответ|Antwort|Réponse|Respuesta|Risposta|Resposta)(?:\s+(?:ist|est|es|è|é|lautet))?\s*[:：]?\s*",
    re.I | re.M,
)
_CUE_WORDS = (
    "answer",
    "ans",
    "solution",
    "option",
    "choice",
    "result",
    "答",
    "选",
    "结果",
    "正解",
    "답",
    "antwort",
    "respuesta",
    "réponse",
    "risposta",
    "resposta",
    "ответ",
)
_SHORT_CUE = re.compile(r"^[Aa]\s*:", re.M)
LEAD = 80
"""Characters before a cue's word in which its phrase begins."""


def first_of(words: tuple[str, ...], response: str, start: int, end: int) -> int:
    """Where a phrase around one of these words may begin at the earliest; ``end`` where there is none.

    Plain string search: many times faster than the patterns that it keeps from running over a long reasoning.
    """
    lowered = response.lower()
    if len(lowered) != len(response):
        return start
    found = [position for word in words if (position := lowered.find(word, start, end)) >= 0]
    return max(start, min(found) - LEAD) if found else end


_SENTENCE_END = re.compile(r"[.!?](?=\s+(?:[A-Z(*\"'\\]|$)|$)|。|\n")
_HEADING_END = re.compile(r"[\s*_#:]*\n\s*")
_NEGATED = re.compile(
    r"\s*(?:definitely |certainly |clearly )?(?:not\b(?! only)|neither\b|isn't|cannot be|can't be|不是|不为)", re.I
)
_OPENERS = ("$$", "\\[", "\\(", "$")
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}


def cue_candidates(response: str, start: int, end: int) -> list[Candidate]:
    """What follows "the answer is", "Answer:", "答案是" and their kin, in order; negated statements are left out."""
    first = first_of(_CUE_WORDS, response, start, end)
    if first > start and (short := _SHORT_CUE.search(response, start, first)):
        first = short.start()
    if first >= end:
        return []
    found = []
    for match in list(_CUE.finditer(response, first, end))[-MAX_CUES:]:
        if match.end() >= end or _NEGATED.match(response, match.end(), end):
            continue
        stated = _stated(response, match.end(), end)
        if stated is not None:
            text, begin = stated
            found.append(Candidate(text, begin, "cue", False))
    return found


def _stated(response: str, begin: int, end: int) -> tuple[str, int] | None:
    """The clause that starts at ``begin``; where the line is empty, the next line that is not."""
    while begin < end and response[begin] in " \t\r\n:*_":
        begin += 1
    if begin >= end:
        return None
    stop = clause_end(response, begin, min(end, begin + MAX_CLAUSE))
    text = response[begin:stop]
    return (text, begin) if trimmed(text) else None


def clause_end(response: str, begin: int, end: int) -> int:
    """End of the sentence or line that starts at ``begin``; a sentence does not end inside mathematics."""
    position = begin
    while position < end:
        opener = next((o for o in _OPENERS if response.startswith(o, position)), None)
        if opener is not None:
            close = response.find(_CLOSERS[opener], position + len(opener), min(end, position + 2000))
            if close > 0 and (opener in ("$$", "\\[") or "\n\n" not in response[position:close]):
                position = close + len(_CLOSERS[opener])
                continue
        if response[position] in ".!?。\n" and _SENTENCE_END.match(response, position, end):
            return position
        position += 1
    return end


# ---------------------------------------------------------------- the rest

_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|sorry|oops|mistake|on second thought|let me correct|should be|instead)\b", re.I
)
_FAREWELL = re.compile(
    r"^(?:i hope (?:this|it|that)|let me know|do you have|feel free|please let|hope this|if you have|is there anything|"
    r"thank)",
    re.I,
)


def candidates(response: str) -> list[Candidate]:
    """Candidates, best first; empty where there is no answer to be read."""
    area = answer_range(response)
    if area is None:
        return []
    start, end = area
    explicit = sorted(_explicit(response, start, end), key=lambda c: c.start, reverse=True)
    if explicit:
        first = explicit[0]
        after = first.span[1]
        corrected = _CORRECTION.search(response, after, end)
        later = [c for c in cue_candidates(response, after, end) if c.start > corrected.start()] if corrected else []
        inside = [c for c in explicit[1:] if c.rule != "box" or first.rule in ("tag", "json")]
        return [*later[-1:], first, *inside]
    return [*reversed(cue_candidates(response, start, end)), *closing_candidates(response, start, end)]


def closing_candidates(response: str, start: int, end: int) -> list[Candidate]:
    """The last line that is no farewell, then the first one; the whole answer part when it is one line."""
    lines = []
    position = start
    for line in response[start:end].split("\n"):
        if line.strip() and not _FAREWELL.match(line.strip()):
            lines.append((position, line))
        position += len(line) + 1
    if not lines:
        return []
    begin, text = lines[-1]
    whole = len(lines) == 1
    found = [Candidate(text, begin, "whole" if whole else "last-line", False)]
    if not whole:
        found.append(Candidate(lines[0][1], lines[0][0], "first-line", False))
    return found


_REFUSAL = re.compile(
    r"\b(?:i'm sorry|i am sorry|i apologi[sz]e|(?:can't|cannot|can not|unable to|not able to|"
    r"(?:it is|it's|is)? ?impossible to|"
    r"not possible to|don't have (?:the )?(?:ability|access|enough)|do not have (?:the )?(?:ability|access|enough))\b"
    r"|cannot be determined|can't be determined|not enough information|insufficient information|"
    r"(?:does|do) not (?:provide|contain|give|include)|"
    r"(?:is|are|was|were) not (?:provided|given|shown|available)|please provide)",
    re.I,
)


def refuses(text: str) -> bool:
    """Whether a text says that it gives no answer."""
    return _REFUSAL.search(text.replace("\u2019", "'")) is not None


def bold(text: str) -> list[str]:
    """Emphasised stretches of a text, in order."""
    return [m[1] for m in _BOLD.finditer(text)]


def has_answer_part(response: str) -> bool:
    """Whether anything at all stands where an answer may stand."""
    area = answer_range(response)
    return area is not None and bool(response[area[0] : area[1]].strip())
