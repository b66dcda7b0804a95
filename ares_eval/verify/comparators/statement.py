"""What a sentence says without naming an option: an answer to a yes/no question, or the words that only one option has.

Used last, when no letter, text or value was found; a sentence that fits more than one option fits none.
"""

from __future__ import annotations

import re

from ares_eval.verify.comparators.options import LETTERS, Options, without_pronoun
from ares_eval.verify.comparators.yesno import polarity
from ares_eval.verify.normalise import words_key

_ASKED = re.compile(r"Question:\s*(.*?)(?:\n|Choices:|\Z)", re.S)
_OPENERS = frozenset(
    ["is", "are", "was", "were", "does", "do", "did", "can", "could", "will", "would", "has", "have", "should"]
)
_EMPTY = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "does",
        "do",
        "did",
        "the",
        "a",
        "an",
        "of",
        "in",
        "on",
        "to",
        "for",
        "and",
        "or",
        "that",
        "this",
        "than",
        "it",
        "its",
        "there",
        "have",
        "has",
        "had",
        "with",
        "by",
        "as",
        "at",
        "from",
        "will",
        "would",
        "can",
        "could",
        "also",
        "so",
        "very",
        "only",
        "any",
        "all",
        "therefore",
        "thus",
        "image",
        "picture",
        "figure",
        "shown",
        "based",
    ]
)
_NEGATIONS = frozenset(
    ["not", "no", "never", "isn't", "aren't", "doesn't", "don't", "isnt", "cannot", "none", "neither", "without"]
)
_MORE = "greater more larger higher bigger older longer taller above"
_LESS = "less fewer smaller lower younger shorter below"
_OPPOSITES = {**dict.fromkeys(_MORE.split(), "down"), **dict.fromkeys(_LESS.split(), "up")}
COVERED = 0.8
"""Share of the question's content words that a statement must repeat to count as its answer."""


def answered_by(sentence: str, question: str | None, options: Options) -> frozenset[str]:
    """The letter of the yes or no that a sentence gives to the question; empty where it gives none."""
    meanings = [polarity(text) for text in options.texts]
    if question is None or sorted(map(str, meanings)) != ["False", "True"]:
        return frozenset()
    stated = _statement(sentence, _question_of(question))
    return frozenset() if stated is None else frozenset("AB"[meanings.index(stated)])


def _question_of(prompt: str) -> str:
    match = _ASKED.search(prompt)
    text = match[1] if match else prompt
    questions = re.findall(r"[^.?!\n]*\?", text)
    return questions[-1] if questions else text


def _statement(sentence: str, question: str) -> bool | None:
    asked = words_key(question, articles=True).split()
    if not asked or asked[0] not in _OPENERS:
        return None
    main = _SUBORDINATE.split(sentence.replace("n't", " not"), maxsplit=1)[0]
    said = words_key(main, articles=True).split()
    content = [word for word in asked if word not in _EMPTY and word not in _NEGATIONS]
    if not content or any(word in _NEGATIONS for word in asked):
        return None
    spoken = [word for word in said if word not in _EMPTY and word not in _NEGATIONS]
    negative = sum(word in _NEGATIONS for word in said) % 2 == 1
    flipped = False
    wanted, given = [_OPPOSITES.get(w) for w in content], [_OPPOSITES.get(w) for w in spoken]
    directions = [d for d in wanted if d]
    if directions:
        answers = [d for d in given if d]
        if len(directions) != 1 or len(answers) != 1:
            return None
        flipped = answers[0] != directions[0]
    stems = [_stem(word) for word in content if word not in _OPPOSITES]
    matched = _in_order(stems, [_stem(word) for word in spoken if word not in _OPPOSITES])
    if not stems or matched < COVERED * len(stems):
        return None
    return not (negative ^ flipped)


_SUBORDINATE = re.compile(r",? (?:because|since|as|which|so|whereas|while|but)\b")


def _stem(word: str) -> str:
    for ending in ("ing", "es", "s", "ed"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    return word


def _in_order(wanted: list[str], given: list[str]) -> int:
    """How many wanted words occur in this order."""
    position = found = 0
    for word in wanted:
        if word in given[position:]:
            position = given.index(word, position) + 1
            found += 1
    return found


def told_apart(sentence: str, options: Options) -> frozenset[str]:
    """The option all of whose own words (those no other option has) a sentence uses, where only one is."""
    if options.labels_only or len(options.texts) < 2:
        return frozenset()
    said = words_key(without_pronoun(sentence), articles=True).split()
    if any(word in _NEGATIONS for word in said):
        return frozenset()
    spoken = {_stem(word) for word in said}
    words = [{_stem(w) for w in text.split() if w not in _EMPTY} for text in options.words]
    fitting = []
    for index, own in enumerate(words):
        others = set().union(*(other for place, other in enumerate(words) if place != index))
        distinct = {word for word in own - others if not word.isdigit()}
        if distinct & spoken:
            if not distinct <= spoken:
                return frozenset()
            fitting.append(LETTERS[index])
    return frozenset(fitting) if len(fitting) == 1 else frozenset()
