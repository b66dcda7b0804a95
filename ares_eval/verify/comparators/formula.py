"""The common core of latex, structured and list answers: own algebra first, then, and only then, sympy's.

In order: equal strings; both sides parsed and compared as trees; the same after dropping units, renaming what may be
renamed, or rounding where the task or six given digits allow it. What cannot be parsed or told goes to the workers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ares_eval.verify.algebra.evaluation import Undefined, evaluate
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable, contains, symbols
from ares_eval.verify.algebra.parser import parse
from ares_eval.verify.algebra.structures import named, same
from ares_eval.verify.comparators.date import same_time
from ares_eval.verify.decision import Algebra, Decision, Outcome
from ares_eval.verify.extract import boxes, neighbouring_boxes
from ares_eval.verify.normalise import ascii_maths, bare_maths, string_key, trimmed, unwrap, words_key
from ares_eval.verify.rounding import approximates, rounded
from ares_eval.verify.units import parse_unit, same_dimension

MAX_ANSWER = 20_000
"""Characters of an answer that a worker looks at; longer ones are compared as strings only."""
_PARAMETER = re.compile(r"integer|mathbb|\bany\b|\ball\b|arbitrary|constant|parameter|\breal\b|\\in\b|∈")


def compare_formula(kind: str, answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide whether two formulas or structures are the same, or ask algebra."""
    answer, reference = trimmed(ascii_maths(answer)), trimmed(cleaned_reference(reference))
    if (key := string_key(answer)) and key == string_key(reference):
        return Decision(True, f"{kind}:string", normalised=(key, key))
    if len(answer) > MAX_ANSWER or len(reference) > MAX_ANSWER:
        return Decision(None, f"{kind}:long", "over_budget")
    time = same_time(answer, reference)
    if time is not None:
        return Decision(time, f"{kind}:time")
    words = _compare_words(answer, reference)
    if words is not None:
        return words
    try:
        wanted = parse(reference)
        stated = parse(answer)
    except Unreadable:
        return Algebra(kind, answer, reference, policy.get("digits"))
    try:
        result = compare_trees(stated, wanted, answer, reference, policy)
    except (Unreadable, Undefined, TooLarge):
        result = None
    if result is None:
        return Algebra(kind, answer, reference, policy.get("digits"))
    return Decision(result, f"{kind}:points", normalised=(bare_maths(answer), bare_maths(reference)))


def cleaned_reference(reference: str) -> str:
    """A reference as datasets spell it: the content of its boxes where it has any, doubled backslashes undoubled."""
    if "\\\\boxed" in reference:
        reference = reference.replace("\\\\", "\\")
    reference = ascii_maths(reference)
    if "boxed" not in reference:
        return reference
    found = boxes(reference, 0, len(reference))
    if not found:
        return reference
    return (neighbouring_boxes(found[-1], reference) or found[-1]).text


def compare_trees(stated: Node, wanted: Node, answer: str, reference: str, policy: Mapping[str, Any]) -> bool | None:
    """Trees compared, then again without units, with symbols renamed, rounded. The texts say what may be renamed."""
    ordered = bool(policy.get("ordered"))
    without = _without_units(stated, wanted)
    if without is None:
        return False
    stated, wanted = without
    result = same(stated, wanted, ordered=ordered)
    if result is True:
        return True
    renamed = _renamed(stated, wanted, bool(_PARAMETER.search(answer) or _PARAMETER.search(reference)))
    if renamed is not None and same(renamed, wanted, ordered=ordered):
        return True
    digits = policy.get("digits")
    if digits is not None and same(_rounded(stated, int(digits)), _rounded(wanted, int(digits))):
        return True
    if approximates(named(stated).value, named(wanted).value):
        return True
    return result


# ---------------------------------------------------------------- words

_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z' ,;&.-]*")


def _compare_words(answer: str, reference: str) -> Decision | None:
    """References of words only ("odd", "point, straight line") are compared as words; None for mathematics."""
    wanted = unwrap(bare_maths(reference)).strip()
    if not _WORDS_ONLY.fullmatch(wanted) or max(map(len, re.findall(r"[A-Za-z]+", wanted))) < 3:
        return None
    stated = unwrap(bare_maths(answer)).strip()
    one, other = _word_list(stated), _word_list(wanted)
    shown = (" | ".join(one), " | ".join(other))
    if one == other or (sorted(one) == sorted(other) and "[" not in reference):
        return Decision(True, "words", normalised=shown)
    tokens, expected = set(words_key(stated).split()), set(words_key(wanted).split())
    if tokens and (tokens <= expected or expected <= tokens):
        return Decision(None, "words", "needs_judge", shown)
    return Decision(False, "words", normalised=shown)


def _word_list(text: str) -> list[str]:
    return [key for part in re.split(r"[,;]|\band\b|\bor\b|&", text) if (key := words_key(part))]


# ---------------------------------------------------------------- units, names, rounding


def _without_units(stated: Node, wanted: Node) -> tuple[Node, Node] | None:
    """Both trees without the words behind their values; None where the two name different units."""
    one, other = _words(stated), _words(wanted)
    if not one and not other:
        return stated, wanted
    left, unit = _split_unit(stated)
    right, expected = _split_unit(wanted)
    if unit and expected:
        first, second = parse_unit(unit), parse_unit(expected)
        if first is not None and second is not None:
            if not same_dimension(first, second):
                return None
            if first.known:
                return _scaled(left, first.factor), _scaled(right, second.factor)
            return left, right
    extra, missing = one - other, other - one
    return (_dropped(stated, extra) if extra else stated), (_dropped(wanted, missing) if missing else wanted)


def _words(node: Node) -> frozenset[str]:
    found: set[str] = set()
    stack = [node]
    while stack:
        item = stack.pop()
        if item.op == "word" and not item.name.isupper():
            found.add(item.name)
        stack.extend(item.args)
    return frozenset(found)


def _split_unit(node: Node) -> tuple[Node, str | None]:
    if node.op == "mul" and node.args[1].op == "word":
        return node.args[0], node.args[1].name
    return node, None


def _scaled(node: Node, factor: Fraction) -> Node:
    return Node("mul", (node, Node("num", value=factor)))


def _dropped(node: Node, names: frozenset[str]) -> Node:
    """The tree without these words where they multiply something."""
    args = tuple(_dropped(argument, names) for argument in node.args)
    if node.op == "mul":
        left, right = args
        if right.op == "word" and right.name in names:
            return left
        if left.op == "word" and left.name in names:
            return right
    return Node(node.op, args, node.name, node.value)


def _renamed(stated: Node, wanted: Node, parametric: bool) -> Node | None:
    """The answer with its symbols renamed to the reference's: letter case, arguments of functions, parameters."""
    one, other = named(stated), named(wanted)
    if (one.label is None) != (other.label is None):
        return _renamed(one.value, other.value, parametric)
    ours, theirs = symbols(stated), symbols(wanted)
    extra, missing = ours - theirs, theirs - ours
    if not extra or len(extra) != len(missing):
        return None
    lowered = {name.lower(): name for name in missing}
    if len(lowered) == len(missing) and {name.lower() for name in extra} == set(lowered):
        return _substituted(stated, {name: lowered[name.lower()] for name in extra})
    if len(extra) == 1 and (parametric or _is_argument(stated, next(iter(extra)))):
        return _substituted(stated, {next(iter(extra)): next(iter(missing))})
    return None


def _is_argument(node: Node, name: str) -> bool:
    """Whether a symbol is the argument of a function that the answer defines: the x of f(x) = ..."""
    if node.op in ("list", "set"):
        return any(_is_argument(argument, name) for argument in node.args)
    if node.op != "rel" or node.name != "=":
        return False
    label = node.args[0]
    if label.op == "call" and label.name.startswith("opaque "):
        return name in symbols(label)
    return label.op == "mul" and label.args[1] == Node("sym", (), name)


def _substituted(node: Node, names: Mapping[str, str]) -> Node:
    args = tuple(_substituted(argument, names) for argument in node.args)
    name = names.get(node.name, node.name) if node.op in ("sym", "word") else node.name
    return Node(node.op, args, name, node.value)


def _rounded(node: Node, digits: int) -> Node:
    """Every constant expression of a structure replaced by its value rounded to ``digits`` decimals."""
    if node.op in ("list", "set", "bracket", "matrix", "rel"):
        return Node(node.op, tuple(_rounded(argument, digits) for argument in node.args), node.name, node.value)
    if symbols(node) or contains(node, {"infinity", "pm", "mp"}):
        return node
    try:
        value = evaluate(node, {})
    except (Unreadable, Undefined, TooLarge):
        return node
    if isinstance(value, complex):
        if value.imag:
            return node
        value = Fraction(value.real)
    return Node("num", value=rounded(value, digits))
