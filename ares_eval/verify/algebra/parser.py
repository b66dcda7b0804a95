"""From text to a tree: relations, intervals, tuples, sets, lists and matrices of expressions."""

from __future__ import annotations

from functools import lru_cache

from ares_eval.verify.algebra.expressions import Expressions, flat
from ares_eval.verify.algebra.nodes import Node, TooLong, Unreadable
from ares_eval.verify.algebra.tokens import MAX_CHARACTERS, prepared, tokenise

MAX_DEPTH = 40
DEEP_DEPTH = 5000
DEEP_CHARACTERS = 50_000


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of an answer; Unreadable where it is none."""
    return _parsed(text, MAX_CHARACTERS, MAX_DEPTH)


def parse_deep(text: str) -> Node:
    """The same with wide limits, for a worker process whose recursion limit is raised."""
    return _parsed(text, DEEP_CHARACTERS, DEEP_DEPTH)


def _parsed(text: str, characters: int, depth: int) -> Node:
    parser = _Parser(tokenise(prepared(text), characters), depth)
    node = parser.answer()
    if parser.peek().kind != "end":
        raise Unreadable(f"left over: {parser.peek().text!r}")
    return node


class _Parser(Expressions):
    def answer(self) -> Node:
        """Everything up to the end: one item, or a list of items."""
        groups: list[tuple[str, Node]] = []
        separator = ""
        while self.peek().kind != "end":
            if self.peek().kind == "separator":
                token = self.take()
                separator = _stronger(separator, token.text)
                continue
            groups.append((separator, self.relation()))
            separator = ""
            if self.peek().kind not in ("separator", "end"):
                raise Unreadable(f"left over: {self.peek().text!r}")
        if not groups:
            raise Unreadable("empty")
        if len(groups) == 1:
            return groups[0][1]
        return _grouped(groups)

    def relation(self) -> Node:
        """A chain of sides joined by =, <, in, ...; one side is just that side."""
        self.depth += 1
        if self.depth > self.max_depth:
            raise TooLong("too deep")
        sides = [self.union()]
        operators: list[str] = []
        while True:
            if self.peek().kind == "relation":
                operators.append(self.take().text)
                sides.append(self.union())
            elif self.has("∈"):
                self.take()
                sides = [Node("in", (_chain(sides, operators), self.union()))]
                operators = []
            else:
                break
        self.depth -= 1
        return _chain(sides, operators)

    def union(self) -> Node:
        node = self.ratio()
        while self.has("∪", "∩", "∖"):
            operator = {"∪": "union", "∩": "inter", "∖": "minus"}[self.take().text]
            node = Node(operator, (node, self.ratio()))
        return node

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.has(":"):
            self.take()
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def matrix(self) -> Node:
        self.expect("{")
        name = ""
        while not self.accept("}"):
            token = self.take()
            if token.kind == "end":
                raise Unreadable("environment")
            name += token.text
        if not name.endswith("matrix"):
            raise Unreadable(f"environment {name}")
        rows: list[list[Node]] = [[]]
        while not (self.peek().kind == "command" and self.peek().text == "end"):
            if self.accept("\\\\"):
                rows.append([])
            elif self.accept("&"):
                continue
            else:
                rows[-1].append(self.relation())
        self.take()
        self.expect("{")
        while not self.accept("}"):
            if self.take().kind == "end":
                raise Unreadable("environment")
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("ragged matrix")
        if name.startswith(("v", "V")):
            raise Unreadable("determinant")
        return Node("matrix", tuple(x for row in rows for x in row), f"{len(rows)}x{len(rows[0])}")

    def named_set(self, name: str) -> Node:
        suffix = ""
        while self.has("^", "_"):
            self.take()
            suffix += flat(self.subscript())
        return Node("named_set", (), name + suffix)

    def delimited(self, opening: str) -> Node:
        if opening in ("(", "["):
            return self._bracket(opening)
        if opening == "{":
            items = self.items("}")
            return items[0] if len(items) == 1 else Node("set", tuple(items))
        if opening == "{{":
            return self._set()
        if opening == "|":
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.expect("|")
            return Node("call", (node,), "abs")
        if opening == "⌊" or opening == "⌈":
            node = self.sum()
            self.expect("⌋" if opening == "⌊" else "⌉")
            return Node("call", (node,), "floor" if opening == "⌊" else "ceil")
        if opening == "∞":
            return Node("infinity")
        if opening == "∅":
            return Node("empty")
        raise Unreadable(f"unexpected {opening!r}")

    def _bracket(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        items = [self.relation()]
        while self.peek().kind == "separator":
            self.take()
            if self.has(")", "]"):
                break
            items.append(self.relation())
        self.bars = bars
        closing = self.take().text
        if closing not in (")", "]"):
            raise Unreadable(f"expected a bracket, found {closing!r}")
        if len(items) == 1:
            if opening + closing not in ("()", "[]"):
                raise Unreadable("unbalanced bracket")
            return items[0]
        return Node("bracket", tuple(items), opening + closing)

    def items(self, closing: str) -> list[Node]:
        items = []
        while not self.accept(closing):
            if self.peek().kind == "end":
                raise Unreadable("unclosed")
            if self.peek().kind == "separator":
                self.take()
                continue
            items.append(self.relation())
        if not items:
            raise Unreadable("empty group")
        return items

    def _set(self) -> Node:
        if self.accept("}}"):
            return Node("empty")
        if self.peek().kind == "symbol" and self.peek(1).text in ("|", ":"):
            self.at += 2
            return self._conditions()
        self.bars += 1
        first = self.relation()
        self.bars -= 1
        if self.accept("|"):
            return self._conditions()
        items = [first]
        while self.peek().kind == "separator":
            self.take()
            if not self.has("}}"):
                items.append(self.relation())
        self.expect("}}")
        return Node("set", tuple(items))

    def _conditions(self) -> Node:
        """``{x | condition}`` is its condition."""
        conditions = [self.relation()]
        while self.peek().kind == "separator":
            self.take()
            conditions.append(self.relation())
        self.expect("}}")
        return conditions[0] if len(conditions) == 1 else Node("list", tuple(conditions), ",")


def _chain(sides: list[Node], operators: list[str]) -> Node:
    return sides[0] if not operators else Node("rel", tuple(sides), ",".join(operators))


_STRENGTH = {"": 0, ",": 1, "and": 2, "or": 3, ";": 4}


def _stronger(one: str, other: str) -> str:
    if one == ",":
        return "," if other in ("and", "or") else other
    return max(one, other, key=_STRENGTH.__getitem__)


def _grouped(items: list[tuple[str, Node]]) -> Node:
    """One flat list, or a list of lists where ``;`` or ``or`` separates groups of several relations."""
    strong = max((separator for separator, _ in items), key=_STRENGTH.__getitem__)
    if strong in (";", "or") and any(separator in (",", "and") for separator, _ in items[1:]):
        groups: list[list[Node]] = [[]]
        for separator, node in items:
            if separator == strong:
                groups.append([])
            groups[-1].append(node)
        if all(len(group) > 1 and all(n.op == "rel" for n in group) for group in groups):
            return Node("list", tuple(Node("list", tuple(group), ",") for group in groups), strong)
    return Node("list", tuple(node for _, node in items), strong)
