"""Multiple choice: letters, option texts, option values; one letter or, where the task says so, a set of them.

The letter wins over the text that follows it ("(E) 12" is E, whatever 12 is): that is how graders of the field read
it. Several letters where one is asked are wrong, not a guess. What names no option is unverifiable, unless it is an
explicit answer that cannot be any option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from ares_eval.verify.comparators.options import (
    Options,
    excluded,
    label,
    mentioned,
    named_exactly,
    named_verbatim,
    options_of,
    valued,
    without_pronoun,
)
from ares_eval.verify.comparators.statement import answered_by, told_apart
from ares_eval.verify.comparators.yesno import polarity
from ares_eval.verify.decision import Decision
from ares_eval.verify.extract import (
    Candidate,
    answer_range,
    bold,
    boxes,
    candidates,
    clause_end,
    cue_candidates,
    first_of,
    refuses,
)
from ares_eval.verify.normalise import ascii_maths, bare_maths, trimmed, unwrap
from ares_eval.verify.prose import is_prose
from ares_eval.verify.quantity import parse_quantity

_L = r"(?:\(\s*([A-Z])\s*\)|\[([A-Z])\]|([A-Z])(?![A-Za-z']))"
_SEVERAL = re.compile(
    r"^(?:both\s+)?[(\[]?([A-Z])[)\]]?(?:\s*(?:,|;|、|and|or|&|/|,\s*and|,\s*or)\s*[(\[]?([A-Z])[)\]]?(?![A-Za-z']))+",
    re.I,
)
_HEAD = re.compile(
    r"^(?:the\s+)?(?:(?:correct|right|final)\s+)?(?:option|choice|answer|letter|alternative|选项)?\s*(?:is\s+)?[:：]?\s*"
    r"(?:[(\[（{<]\s*([A-Za-z])\s*[)\]）}>]|([A-Z])\s*(?:[).:：,、\]]|-|$)|([A-Z])(?=\s)|([a-z])\s*[).]?\s*$)",
    re.I,
)
_DELIMITERS = re.compile(r"\$|\\[()\[\]]")
_LABELLED = re.compile(r"^(?:\(\s*([A-Z])\s*\)|([A-Z])[.:)])(?=\s|$)")
"""A letter marked as a label: it is one even where an option's text is a letter, too."""
_LABELS = re.compile(r"\(?[A-Z][.:)](?:[\s,]*\(?[A-Z][.:)])+[\s,]*")
"""Nothing but labels: the bare list of the options."""
_OPERATORS = re.compile(r"\^|\(.*[-+].*\)")
"""Signs of a formula: a number in it is not its value."""
_NONE = re.compile(
    r"^\W*(?:none|neither)(?:\s+(?:of|option|choice|is|are|correct|apply|applies|match(?:es)?)\b.{0,60})?\W*$|"
    r"^\W*not\s+(?:listed|given|provided|available|among|one of|in the)\b",
    re.I,
)
_ARTICLE_FOLLOWERS = re.compile(r"\s+(?:is|because|since|as|and|or|was|matches|\d|\$|\(|->|=|-)")
_PAREN_LETTER = re.compile(r"(?<![\w\\])\(\s*([A-Z])\s*\)(?!\s*\((?!\s*[A-Z]\s*\)))")
_NAMED_LETTER = re.compile(
    r"\b(?:option|choice|answer|statement|alternative|figure|set|box|选项)\s*[(\[\"'*]*([A-Z])\b(?!')", re.I
)
_CUES = re.compile(
    r"\b(?:option|choice|answer|alternative)s?\s*[(\[*\"']*([A-Z])[)\]*\"'.:]*(?:[^.\n]{0,80}?)"
    r"\s+(?:is|must be|would be|seems to be)\s+(?:the\s+|therefore\s+|thus\s+)*"
    r"(?:correct|right|best|answer|most|only|one)"
    r"|(?:\(([A-Z])\)|\b([A-HJ-Z]))[*\"']*\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b"
    r"|\b(?:choose|select|pick|go with|going with|chose)\s+(?:option|choice|answer|letter)?\s*[(\[*\"']*([A-Z])\b(?!')"
    r"|\b(?:matches|corresponds? to|match|matching|which is|belongs to)"
    r"\s+(?:with\s+)?(?:the\s+)?(?:option|choice|answer|set)\s*[(\[*\"']*([A-Z])\b(?!')"
    r"|\b(?:[Oo]ption|[Aa]nswer|[Cc]hoice)\s+letter[ \t]*(?:is\b)?[ \t]*[:：]?[ \t]*[(\[*\"']*([A-Z])\b(?!')",
)
_CUES_WORDS = (
    *("option", "choice", "answer", "alternative", "correct", "right", "best", "choose", "chose", "select", "pick"),
    *("go with", "going with", "match", "correspond", "which is", "belongs"),
)
_NEGATED_TAIL = re.compile(r"\b(?:not|isn't|never|no longer|incorrect|wrong|neither)\b[^.]{0,20}$", re.I)


def judge_choice(
    response: str,
    references: tuple[str, ...],
    choices: tuple[str, ...],
    policy: Mapping[str, Any],
    question: str | None = None,
) -> tuple[Decision, Candidate | None]:
    """The decision over a response, and the place that stated the answer."""
    options = options_of(choices)
    wanted = [letters for reference in references if (letters := wanted_letters(reference, options, policy))]
    if not wanted:
        return Decision(None, "choice", "unparsed"), None
    multi = bool(policy.get("multi")) or any(len(letters) > 1 for letters in wanted)
    stated, place = chosen(response, options, multi, question)
    if place is None:
        return Decision(False, "choice", "no_answer"), None
    if stated is None and refuses(place.text) and not _is_polar(options):
        return Decision(False, f"{place.rule}>choice:refusal", "no_answer"), place
    if stated is None and not choices and (truth := _truth(place.text)) and any(w <= {"A", "B"} for w in wanted):
        stated = frozenset(truth)
    if stated is None and any(frozenset(m[1]) in wanted for m in _DENIED.finditer(response, place.start)):
        return Decision(False, f"{place.rule}>choice:denied"), place
    if stated is None:
        return Decision(None, f"{place.rule}>choice", "needs_judge"), place
    shown = (", ".join(sorted(stated)) or "none of the options", " | ".join(", ".join(sorted(w)) for w in wanted))
    if not stated:
        return Decision(False, f"{place.rule}>choice:no-option", normalised=shown), place
    if multi:
        return Decision(stated in wanted, f"{place.rule}>choice:set", normalised=shown), place
    if len(stated) > 1 and not policy.get("duplicates"):
        same = len({options.keys[ord(x) - 65] for x in stated if ord(x) - 65 < len(options.keys)}) == 1
        if not same:
            return Decision(False, f"{place.rule}>choice:several", "ambiguous", shown), place
    return Decision(any(stated & w for w in wanted), f"{place.rule}>choice", normalised=shown), place


def _is_polar(options: Options) -> bool:
    return len(options.texts) == 2 and {polarity(text) for text in options.texts} == {True, False}


MAX_LONE = 160
"""Characters of a sentence whose only letter may be the answer."""
MAX_READ = 3000
"""Characters of a stretch of prose in which options are looked for."""
_DENIED = re.compile(r"\b(?:answer|option|choice)\s+is\s+(?:definitely |clearly )?not\s+[(*]*([A-Z])\b")
_TRUTH = re.compile(r"^\W*(?:(?:this|the|that) statement is |it is )?(true|false|yes|no)\b\W*(?=$|[.,;:!\n])", re.I)


def _truth(text: str) -> str | None:
    """True and yes as A, false and no as B where options are not known: the order such options are always given in."""
    match = _TRUTH.match(text)
    return None if match is None else "A" if polarity(match[1]) else "B"


def wanted_letters(reference: str, options: Options, policy: Mapping[str, Any]) -> frozenset[str]:
    """The reference as letters. It may be a letter, several, or an option's text (policy ``reference: text``)."""
    exact = named_exactly(reference, options)
    if policy.get("reference") == "text" and exact:
        return exact
    letter = label(trimmed(reference))
    if letter is not None and letter in options.letters:
        return frozenset(letter)
    several = re.fullmatch(
        r"[(\[]?[A-Z][)\]]?(?:\s*(?:,|;|and|&|\s)\s*[(\[]?[A-Z][)\]]?)+|[A-Z]{2,6}", reference.strip()
    )
    if several and not exact:
        letters = frozenset(re.findall(r"[A-Z]", reference.replace("and", "")))
        if letters <= set(options.letters):
            return letters
    if exact:
        return exact
    return frozenset(letter) if letter is not None and not options.texts else frozenset()


def chosen(
    response: str, options: Options, multi: bool, question: str | None = None
) -> tuple[frozenset[str] | None, Candidate | None]:
    """(letters, place): None where the place names no option, empty where its answer cannot be one of them."""
    area = answer_range(response)
    if area is None or not response[area[0] : area[1]].strip():
        return None, None
    ranked = candidates(response)
    closing = [c for c in ranked if c.rule in ("whole", "last-line", "first-line")]
    stated = [c for c in ranked if c not in closing]
    exact = [c for c in stated if c.exact]
    firm = [c for c in stated if not c.exact and exact] + exact
    if multi and (all_boxes := boxes(response, *area)) and len(all_boxes) > 1:
        each = [read_choice(box.text, options, True) or frozenset() for box in all_boxes]
        if all(each):
            return frozenset[str]().union(*each), all_boxes[-1]
    refused: Candidate | None = None
    for place in chain(firm, _cues(response, area)):
        letters = read_choice(place.text, options, place.exact)
        if letters is not None and (letters or refused is None):
            if letters:
                return letters, place
            refused = refused or place
    if refused is not None:
        return frozenset(), refused
    if exact:
        return None, firm[0]
    return _from_prose(response, area, options, closing, question)


def _cues(response: str, area: tuple[int, int]) -> Iterator[Candidate]:
    """Cue phrases, the last one first; looked for only when nothing firmer was read."""
    cues = [cue for cue in cue_candidates(response, *area) if not _opens_list(response, cue.start)]
    cues += _choice_cues(response, *area)
    yield from sorted(cues, key=lambda c: c.start, reverse=True)


_LIST = re.compile(r"\(?([A-Z])[.:)](?:[^\n]{0,300}\n\s*[*-]{0,2}\s*\(?(?!\1)[A-Z][.:)]\s)", re.S)


def _opens_list(response: str, start: int) -> bool:
    """Whether what stands after a heading is a list of several options or answers, one a line."""
    return response[:start].rstrip(" *_-").endswith("\n") and _LIST.match(response, start) is not None


def _choice_cues(response: str, start: int, end: int) -> list[Candidate]:
    found = []
    for match in _CUES.finditer(response, first_of(_CUES_WORDS, response, start, end), end):
        group = next(i for i in range(1, 7) if match[i])
        if not _NEGATED_TAIL.search(response[max(start, match.start() - 30) : match.start(group)]):
            found.append(Candidate(match[group], match.start(group), "choice-cue", False))
    return found


def read_choice(text: str, options: Options, exact: bool) -> frozenset[str] | None:
    """The letters that an answer text names; empty for an explicit answer that is no option; None for neither."""
    if len(text) > MAX_READ:
        text = text[:MAX_READ] if exact else text[-MAX_READ:]
    if verbatim := named_verbatim(text, options):
        return verbatim
    if "\\" in text or not text.isascii():
        text = _DELIMITERS.sub(" ", unwrap(ascii_maths(text)))
    if text.count("}") > text.count("{"):
        text = text.rstrip("} .")
    text = trimmed(text)
    text = trimmed(text.replace("*", "").replace("$", " ") if len(text) < 6 else text.replace("*", ""))
    if not text:
        return None
    if exact and not any(character.isalnum() for character in text):
        return frozenset()
    letters = options.letters
    if (
        len(text) == 1
        and text.upper() in letters
        and (text.isupper() or exact or len(options.texts) == 0 or text in "abcdefgh")
    ):
        return frozenset(text.upper())
    if _LABELS.fullmatch(text):
        return None
    labelled = _LABELLED.match(text)
    if labelled and (labelled[1] or labelled[2]) in letters and not _SEVERAL.match(text):
        return frozenset(labelled[1] or labelled[2])
    named = named_exactly(text, options)
    if named:
        return named
    head = _head(text, letters, options)
    if head:
        return head
    for pattern in (_PAREN_LETTER, _NAMED_LETTER):
        found = {m[1].upper() for m in pattern.finditer(text) if not _NEGATED_TAIL.search(text[: m.start()])} & set(
            letters
        )
        if len(found) == 1:
            return frozenset(found)
    words = {letter for _, letter in mentioned(text, options)}
    if len(words) == 1:
        return frozenset(words)
    if len(words) > 1 and len(text) < 60 and not exact:
        first = mentioned(text, options)[0]
        if first[0] == 0:
            return frozenset(first[1])
    values = [] if exact and _OPERATORS.search(text) and not is_prose(text) else valued(text, options)
    if values and (len(set(values)) == 1 or "=" in text):
        return frozenset(values[-1])
    if options.texts and (
        _NONE.match(text) or ((outside := _LABELLED.match(text)) and not set(outside[0]) & set(letters))
    ):
        return frozenset()
    bare = bare_maths(text)
    if options.texts and parse_quantity(bare) is not None:
        return frozenset()
    if exact and options.labels_only and len(bare) > 1:
        return frozenset()
    return frozenset() if excluded(bare, options) else None


def _head(text: str, letters: str, options: Options) -> frozenset[str] | None:
    several = _SEVERAL.match(text)
    if several and (several[0][0].isupper() or several[0][0] in "([b"):
        found = frozenset(x for x in re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", several[0].upper())) & set(letters)
        if len(found) > 1:
            return frozenset(found)
    if re.fullmatch(r"[A-Z]{2,10}", text) and len(set(text)) == len(text) and set(text) <= set(letters):
        return frozenset(text)
    match = _HEAD.match(text)
    if match is None:
        return None
    letter = (match[1] or match[2] or match[3] or match[4]).upper()
    if letter not in letters:
        return None
    if match[3]:
        if match[3].islower():
            return None
        rest = text[match.end() :]
        index = ord(letter) - 65
        follows = index < len(options.texts) and named_exactly(rest, options) == frozenset(letter)
        if letter in "AI" and not follows and not _ARTICLE_FOLLOWERS.match(rest):
            return None
    if match[2] and match[2].islower():
        return None
    rest = text[match.end() :].strip()
    if match[1] and match[1].islower() and rest and named_exactly(rest, options) != frozenset(letter):
        return None
    return frozenset(letter)


_STRICT_HEAD = re.compile(
    r"^[\s*>#_-]*(?:\d{1,2}[.)]\s+(?=\(?[A-Z]\)))?(?:\(\s*([A-Z])\s*\)|\*\*\(?([A-Z])\)?[.:)]?\*\*|([A-Z])\s*[.):](?!\w)|([A-Z])\s*$)",
    re.M,
)
_TAIL_LETTER = re.compile(r"(?:\bis|\bbe|:|=)\s*[*\"(]*([B-HJ-Z])[)*\"]*\s*\.?\s*$")


def _from_prose(
    response: str,
    area: tuple[int, int],
    options: Options,
    closing: list[Candidate],
    question: str | None,
) -> tuple[frozenset[str] | None, Candidate | None]:
    """No explicit answer and no cue phrase: the whole text, its first line, its last line, in that order of trust."""
    start, end = area
    text = response[start:end]
    whole = Candidate(text.strip(), start + len(text) - len(text.lstrip()), "whole", False)
    if len(whole.text) < 400:
        letters = read_choice(whole.text, options, False)
        if letters or (letters is not None and len(whole.text) < 60 and not _STRICT_HEAD.match(whole.text)):
            return letters, whole
    separate = re.fullmatch(r"\W*([A-J])(?:[\s,]+([A-J]))+\W*", text)
    if separate:
        return frozenset(re.findall(r"[A-J]", text)), whole
    listed = _STRICT_HEAD.findall(text)
    heads = {next(x for x in group if x) for group in listed} & set(options.letters)
    for place in closing:
        match = _STRICT_HEAD.match(place.text)
        if match and len(heads) == 1:
            return frozenset(heads), place
    if closing and (own := _labelled_option(response, closing[0], options)):
        return own, closing[0]
    if len(heads) > 1:
        closing = [place for place in closing if not _STRICT_HEAD.match(place.text)]
    for place in closing:
        line = place.text[-MAX_READ:]
        for part in [*reversed(bold(line)[-4:]), line, _sentences(line)[-1]]:
            match = _TAIL_LETTER.search(part) if part is line else None
            letters = (
                frozenset(match[1]) if match and match[1] in options.letters else read_choice(part, options, False)
            )
            if letters:
                return letters, place
    inferred = _polar(text, options)
    if inferred is not None:
        return inferred, whole
    for place in closing:
        for sentence in reversed(_sentences(place.text)):
            if meant := answered_by(sentence, question, options):
                return meant, place
    for place in closing:
        tail = _TAIL_VALUE.match(_sentences(place.text)[-1])
        if tail and (meant := named_exactly(tail[1], options)):
            return meant, place
    for place in closing:
        if meant := _lone_letter(_sentences(place.text)[-1], options):
            return meant, place
    for place in closing:
        if meant := told_apart(_sentences(place.text)[-1], options):
            return meant, place
    return None, whole


_TAIL_VALUE = re.compile(
    r".*(?:\b(?:is|be|are|was|equals|equal to)\s|=)\s*(?:about\s|approximately\s)?([^=\n]{1,40}?)\W?\s*$"
)


def _labelled_option(response: str, line: Candidate, options: Options) -> frozenset[str]:
    """The option that a line of its own gives in full with its label, whatever else in the text looks like labels."""
    text = trimmed(line.text.replace("*", ""))
    match = _LABELLED.match(text)
    before = response[: line.start].rstrip().rpartition("\n")[2]
    if match is None or _STRICT_HEAD.match(before):
        return frozenset()
    letter = frozenset(match[1] or match[2])
    return letter if named_exactly(trimmed(text[match.end() :]), options) == letter else frozenset()


_LONE_LETTER = re.compile(r"(?<=[a-z\"'] )[\"'(]?\b([A-Z])\b(?!['’\w]|\s*[-+=*/^<>])")
_LONE_LETTERS = re.compile(r"(?<![\w$\\])[A-Z](?![\w$])")


def _lone_letter(sentence: str, options: Options) -> frozenset[str]:
    """The only letter that a sentence names ("region B"), where options are pictures or unknown."""
    if (options.texts and not options.labels_only) or len(sentence) > MAX_LONE:
        return frozenset()
    sentence = re.sub(r"^\W*A(?= [a-z])", "", without_pronoun(sentence))
    found = set(_LONE_LETTERS.findall(sentence))
    match = _LONE_LETTER.search(sentence)
    if len(found) != 1 or match is None or match[1] not in options.letters or _NEGATED_TAIL.search(sentence):
        return frozenset()
    return frozenset(match[1])


def _sentences(line: str) -> list[str]:
    position, found = 0, []
    line = line[-MAX_READ:]
    while position < len(line):
        stop = clause_end(line, position, len(line))
        if line[position:stop].strip():
            found.append(line[position:stop])
        position = stop + 1
    return found or [line]


def _polar(text: str, options: Options) -> frozenset[str] | None:
    """Options that are yes and no: what the text begins with says which."""
    if len(options.texts) != 2:
        return None
    meanings = [polarity(t) for t in options.texts]
    if sorted(map(str, meanings)) != ["False", "True"]:
        return None
    match = re.match(r"\W*(yes|no|true|false)\b", text, re.I)
    if match is None:
        return None
    return frozenset("AB"[meanings.index(polarity(match[1]))])
