"""Whether two parsed answers are the same: expressions, named values, equations, regions, tuples, lists, matrices.

``same`` returns True, False or None (not to be told here). Order matters in brackets, not in lists and sets; open and
closed ends matter; a name before an equals sign is a label that may be missing on one side but not differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ares_eval.verify.algebra.equations import same_equation, same_inequality
from ares_eval.verify.algebra.evaluation import Undefined
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable, contains, symbols
from ares_eval.verify.algebra.points import environments, same_expression
from ares_eval.verify.algebra.regions import region_of, same_region

MAX_ITEMS = 150
_INEQUALITIES = ("<", ">", "<=", ">=", "!=")
_REGION_OPS = frozenset({"union", "inter", "minus", "in", "named_set", "empty"})
_LABEL_OPS = frozenset({"sym", "word", "call", "ratio", "div", "mul", "bracket", "const"})


@dataclass(frozen=True, slots=True)
class Named:
    """A value with the label it was given, if any."""

    label: Node | None
    value: Node


def same(answer: Node, reference: Node, *, ordered: bool = False) -> bool | None:
    """Whether both trees mean the same. Raises Unreadable where a comparison makes no sense."""
    answer, reference = simplified(answer), simplified(reference)
    if answer == reference:
        return True
    if _regional(reference) or _regional(answer):
        return _same_regional(answer, reference)
    if is_list(reference) or is_list(answer):
        return _same_lists(answer, reference, ordered)
    one, other = named(answer), named(reference)
    if one.label is not None and other.label is not None:
        return _both_named(answer, reference, one, other)
    if one.label is not None or other.label is not None:
        if one.value.op == "rel" or other.value.op == "rel":
            return _equations(answer, reference)
        return same(one.value, other.value, ordered=ordered)
    if answer.op == "rel" or reference.op == "rel":
        return _equations(answer, reference)
    return _same_values(answer, reference)


def simplified(node: Node) -> Node:
    """Approximation tails, memberships of a name and one-element lists stripped away."""
    while True:
        if node.op == "rel":
            operators: list[str] = node.name.split(",")
            if operators == ["->"]:
                node = Node("rel", node.args, "=")
            elif "~" in operators:
                cut = operators.index("~")
                kept = operators[:cut]
                if cut == 0 and is_label(node.args[0]):
                    operators[0] = "="
                    node = Node("rel", node.args, ",".join(operators))
                elif kept:
                    node = Node("rel", node.args[: cut + 1], ",".join(kept))
                else:
                    node = node.args[0]
            else:
                return node
        elif node.op == "list" and any(_is_domain(argument) for argument in node.args):
            items = tuple(argument for argument in node.args if not _is_domain(argument))
            if not items:
                return node
            node = items[0] if len(items) == 1 else Node("list", items, node.name)
        elif node.op == "list" and len(node.args) == 1:
            node = node.args[0]
        else:
            return node


def _is_domain(node: Node) -> bool:
    """``k in Z``: says what a parameter is, not what the answer is."""
    return node.op == "in" and node.args[0].op == "sym" and node.args[1].op == "named_set"


def is_list(node: Node) -> bool:
    """Several answers: a list, a set, or a plus-minus."""
    return (
        node.op in ("list", "set")
        or (node.op not in ("bracket", "rel", "matrix") and contains(node, {"pm", "mp"}))
        or (node.op == "rel" and contains(node, {"pm", "mp"}))
    )


def is_label(node: Node) -> bool:
    """A name that may stand before an equals sign: x, f(x), a_n, NO/BO, V_1:V_2, (x, y)."""
    if node.op in ("sym", "word"):
        return True
    if node.op == "call":
        return node.name.startswith("opaque ")
    if node.op == "const":
        return node.name != "pi"
    if node.op == "mul":
        left, right = node.args
        return is_label(left) and is_label(right)
    return node.op in _LABEL_OPS and bool(node.args) and all(is_label(argument) for argument in node.args)


def named(node: Node) -> Named:
    """The label and value of an equation, or just the value. In a chain of equals signs the last side counts."""
    if node.op != "rel" or set(node.name.split(",")) != {"="}:
        return Named(None, node)
    label, value = node.args[0], node.args[-1]
    if is_label(label) and not (_names(label) & _names(value) - _arguments(label)):
        return Named(label, value)
    if len(node.args) == 2 and is_label(value) and value.op in ("sym", "word") and not (_names(label) & _names(value)):
        return Named(value, label)
    return Named(None, node)


def _names(node: Node) -> frozenset[str]:
    return symbols(node)


def _arguments(label: Node) -> frozenset[str]:
    """Symbols that a label takes as arguments or carries as indices: the x of f(x)."""
    if label.op == "call":
        return symbols(label)
    if label.op == "mul" and label.args[1].op in ("sym", "bracket"):
        return symbols(label.args[1])
    found: frozenset[str] = frozenset()
    for argument in label.args:
        found |= _arguments(argument)
    return found


def _same_values(answer: Node, reference: Node) -> bool | None:
    if answer.op == "matrix" or reference.op == "matrix":
        return _same_matrices(answer, reference)
    if answer.op == "bracket" and reference.op == "bracket":
        if len(answer.args) != len(reference.args):
            return False
        if answer.name != reference.name and not (
            len(answer.args) > 2 and {answer.name, reference.name} <= {"()", "[]"}
        ):
            return False
        return every(same, answer.args, reference.args)
    if answer.op == "bracket" or reference.op == "bracket":
        return False
    if answer.op == "ratio" and reference.op == "ratio" and len(answer.args) == len(reference.args):
        first = Node("div", (answer.args[0], reference.args[0]))
        quotients = [Node("div", pair) for pair in zip(answer.args, reference.args, strict=True)]
        return every(same_expression, quotients[1:], [first] * (len(quotients) - 1))
    return same_expression(answer, reference)


def _same_matrices(answer: Node, reference: Node) -> bool | None:
    def entries(node: Node) -> tuple[str, tuple[Node, ...]] | None:
        if node.op == "matrix":
            rows, _, columns = node.name.partition("x")
            return ("vector" if "1" in (rows, columns) else node.name), node.args
        if node.op == "bracket":
            if all(argument.op == "bracket" for argument in node.args):
                width = {len(argument.args) for argument in node.args}
                if len(width) == 1:
                    flat = tuple(x for argument in node.args for x in argument.args)
                    return f"{len(node.args)}x{width.pop()}", flat
            return "vector", node.args
        return None

    one, other = entries(answer), entries(reference)
    if one is None or other is None:
        if contains(answer, {"matrix"}) and contains(reference, {"matrix"}):
            return None
        return False
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return False
    if answer.op == reference.op == "matrix" and answer.name != reference.name:
        return False
    return every(same, one[1], other[1])


def every(compare: Callable[[Node, Node], bool | None], ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    """All pairs the same: False as soon as one differs, None where one is open."""
    result: bool | None = True
    for one, other in zip(ones, others, strict=True):
        same_pair = compare(one, other)
        if same_pair is False:
            return False
        if same_pair is None:
            result = None
    return result


# ---------------------------------------------------------------- equations


def _both_named(answer: Node, reference: Node, one: Named, other: Named) -> bool | None:
    assert one.label is not None
    assert other.label is not None
    if same_label(one.label, other.label):
        return same(one.value, other.value)
    if one.label.op in ("sym", "word") and other.label.op in ("sym", "word"):
        if len(symbols(answer) | symbols(reference)) > 2:
            return _equations(answer, reference)
        return False
    return _equations(answer, reference)


def same_label(one: Node, other: Node) -> bool:
    """The same name, whatever its letter case or typeface."""
    return one == other or _spelled(one) == _spelled(other)


def _spelled(node: Node) -> str:
    inner = ",".join(_spelled(argument) for argument in node.args)
    return f"{node.op if node.op not in ('sym', 'word') else ''}{node.name.lower()}({inner})"


def _equations(answer: Node, reference: Node) -> bool | None:
    if answer.op != "rel" or reference.op != "rel":
        return False
    kinds = {operator == "=" for node in (answer, reference) for operator in node.name.split(",")}
    if kinds == {True}:
        return same_equation(answer, reference)
    return same_inequality(answer, reference)


# ---------------------------------------------------------------- regions


def _regional(node: Node) -> bool:
    if node.op in _REGION_OPS:
        return True
    if node.op == "bracket" and len(node.args) == 2:
        return node.name in ("[)", "(]") or contains(node, {"infinity"})
    if node.op == "rel":
        return any(operator in _INEQUALITIES for operator in node.name.split(","))
    if node.op == "list":
        return any(_regional(argument) for argument in node.args)
    return False


def _same_regional(answer: Node, reference: Node) -> bool | None:
    try:
        return _at_parameters(answer, reference)
    except (Unreadable, Undefined):
        pass
    if answer.op == "in" and reference.op == "in":
        return same(answer.args[1], reference.args[1])
    if answer.op == "in" or reference.op == "in":
        return same(_membership(answer), _membership(reference))
    if answer.op == "list" and reference.op == "list":
        return _matched(_items(answer), _items(reference))
    if answer.op == "rel" and reference.op == "rel":
        return _equations(answer, reference)
    if answer.op == reference.op and len(answer.args) == len(reference.args) and answer.name == reference.name:
        return every(same, answer.args, reference.args)
    return None if contains(answer, _REGION_OPS | {"rel"}) and contains(reference, _REGION_OPS | {"rel"}) else False


def _membership(node: Node) -> Node:
    return node.args[1] if node.op == "in" else node


def _at_parameters(answer: Node, reference: Node) -> bool:
    """Compare as sets of reals at several values of the parameters."""
    one, other = variable_of(answer), variable_of(reference)
    if one is not None and other is not None and one.lower() != other.lower():
        raise Unreadable("different variables")
    names = symbols(answer) | symbols(reference)
    free = names - {one, other}
    agreed = 0
    for point in environments(frozenset(n for n in free if n is not None)):
        full = {**dict.fromkeys(names, Fraction(1)), **point}
        left, right = region_of(answer, full, one), region_of(reference, full, other)
        if not same_region(left, right):
            return False
        agreed += 1
    return agreed > 0


def variable_of(node: Node) -> str | None:
    """The variable whose values a region describes: alone on a side, or alone altogether."""
    if node.op == "in" and node.args[0].op in ("sym", "word"):
        return node.args[0].name
    if node.op == "list":
        found = {variable for argument in node.args if (variable := variable_of(argument)) is not None}
        return found.pop() if len(found) == 1 else None
    if node.op in ("union", "inter", "minus"):
        found = {variable for argument in node.args if (variable := variable_of(argument)) is not None}
        return found.pop() if len(found) == 1 else None
    if node.op != "rel":
        return None
    names = symbols(node)
    if len(names) == 1:
        return next(iter(names))
    alone = [side.name for side in node.args if side.op in ("sym", "word")]
    inside = [a.name for side in node.args if side.op in ("call", "pow") for a in side.args[:1] if a.op == "sym"]
    candidates = alone or inside
    return candidates[0] if len(set(candidates)) == 1 else None


# ---------------------------------------------------------------- lists


def expanded(node: Node) -> list[Node]:
    """Both branches of a plus-minus; the node itself where there is none."""
    if not contains(node, {"pm", "mp"}):
        return [node]
    return [_branch(node, 1), _branch(node, -1)]


def _branch(node: Node, sign: int) -> Node:
    args = tuple(_branch(argument, sign) for argument in node.args)
    if node.op in ("pm", "mp"):
        positive = sign > 0 if node.op == "pm" else sign < 0
        return Node("add", (args[0], args[1] if positive else Node("neg", (args[1],))))
    return Node(node.op, args, node.name, node.value)


def _items(node: Node) -> list[Named]:
    """The answers of a list, each with its label; ``n = 1, 2, 3`` labels all of them."""
    parts = list(node.args) if node.op in ("list", "set") else [node]
    if len(parts) > MAX_ITEMS:
        raise TooLarge("list")
    if node.op == "list" and len(parts) > 1 and parts[0].op == "rel" and parts[0].name == "=":
        first = named(parts[0])
        if first.label is not None and not any(part.op == "rel" for part in parts[1:]):
            return [
                Named(first.label, value) for part in (first.value, *parts[1:]) for value in expanded(simplified(part))
            ]
    found: list[Named] = []
    for part in parts:
        part = simplified(part)
        if part.op == "set" or (part.op == "list" and node.op == "set"):
            found.extend(_items(part))
            continue
        for branch in expanded(part):
            item = named(branch)
            if item.label is not None and item.value.op == "set":
                found.extend(Named(item.label, value) for value in item.value.args)
            else:
                found.append(item)
    return found


def _same_lists(answer: Node, reference: Node, ordered: bool) -> bool | None:
    if reference.op == "bracket" or answer.op == "bracket":
        tuples = _tuples_by_name(answer, reference)
        if tuples is not None:
            return tuples
        return _list_and_bracket(answer, reference)
    one, other = named(answer), named(reference)
    if one.label is not None and one.value.op in ("set", "list"):
        answer = one.value
    if other.label is not None and other.value.op in ("set", "list"):
        reference = other.value
    left, right = _items(answer), _items(reference)
    if all(item.value.op == "list" for item in right) or all(item.value.op == "list" for item in left):
        return _same_groups(left, right)
    if answer.op == "set" or reference.op == "set":
        left, right = _distinct(left), _distinct(right)
    if ordered and len(left) == len(right):
        return every(same, [item.value for item in left], [item.value for item in right])
    return _matched(left, right)


def _same_groups(left: list[Named], right: list[Named]) -> bool | None:
    """Groups of named values ("p=5, q=2; p=7, q=2") against tuples or groups."""

    def as_bracket(item: Named) -> Node:
        if item.value.op != "list":
            return item.value
        return Node("bracket", tuple(named(part).value for part in item.value.args), "()")

    return _matched([Named(None, as_bracket(i)) for i in left], [Named(None, as_bracket(i)) for i in right])


def _tuples_by_name(answer: Node, reference: Node) -> bool | None:
    """``x = 3, y = 4`` against ``(3, 4)``: by the order of the names."""
    listed, bracket = (answer, reference) if reference.op == "bracket" else (reference, answer)
    if listed.op != "list" or bracket.op != "bracket" or bracket.name != "()":
        return None
    items = [named(simplified(part)) for part in listed.args]
    if any(item.label is None for item in items) or len(items) != len(bracket.args):
        return None
    labels = [_spelled(item.label) for item in items if item.label is not None]
    if len(set(labels)) != len(labels):
        return None
    values = [item.value for _, item in sorted(zip(labels, items, strict=True), key=lambda pair: pair[0])]
    return every(same, values, bracket.args)


def _list_and_bracket(answer: Node, reference: Node) -> bool | None:
    listed, bracket = (answer, reference) if reference.op == "bracket" else (reference, answer)
    if listed.op not in ("list", "set"):
        return False
    items = [item.value for item in _items(listed)]
    if len(items) != len(bracket.args):
        if len(items) == 1:
            return same(items[0], bracket)
        return False
    in_order = every(same, items, bracket.args)
    if in_order is not False or listed.op != "set":
        return in_order
    return _matched(_items(listed), [Named(None, part) for part in bracket.args])


def _distinct(items: list[Named]) -> list[Named]:
    kept: list[Named] = []
    for item in items:
        if not any(_same_named(item, other, True) for other in kept):
            kept.append(item)
    return kept


def _matched(left: list[Named], right: list[Named]) -> bool | None:
    """A one-to-one match in any order. Labels count where both sides have several."""
    if len(left) > MAX_ITEMS or len(right) > MAX_ITEMS:
        raise TooLarge("list")
    if len(left) != len(right):
        return False
    left_labels = {_spelled(item.label) for item in left if item.label is not None}
    right_labels = {_spelled(item.label) for item in right if item.label is not None}
    if (len(left_labels) > 1 and not right_labels) or (len(right_labels) > 1 and not left_labels):
        return every(same, [item.value for item in left], [item.value for item in right])
    labelled = len(left_labels) > 1 or len(right_labels) > 1
    rest = list(right)
    open_pairs = False
    for item in left:
        for index, other in enumerate(rest):
            verdict = _same_named(item, other, labelled)
            if verdict:
                del rest[index]
                break
            open_pairs |= verdict is None
        else:
            return None if open_pairs else False
    return True


def _same_named(one: Named, other: Named, labelled: bool) -> bool | None:
    if labelled and one.label is not None and other.label is not None and not same_label(one.label, other.label):
        return False
    try:
        return same(one.value, other.value)
    except Unreadable:
        return None
