"""Recursive descent from tokens to a tree: expressions, relations, intervals, tuples, sets, lists, matrices.

Juxtaposition is multiplication; an integer before a fraction of integers is a mixed number; ``f(x)`` is an opaque
function for the letters that name functions, a product for all others. Depth is bounded.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from ares_eval.verify.algebra.nodes import Node, TooLong, Unreadable, number
from ares_eval.verify.algebra.tokens import MAX_CHARACTERS, Token, prepared, tokenise

MAX_DEPTH = 40
DEEP_DEPTH = 5000
DEEP_CHARACTERS = 50_000
_FUNCTION_LETTERS = frozenset("fghFGH")
_BRACKETS = {"(": ")", "[": "]"}
_STARTS = frozenset({"(", "[", "{", "{{", "|", "∞", "∅", "⌊", "⌈"})


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


class _Parser:
    def __init__(self, tokens: list[Token], max_depth: int) -> None:
        self.max_depth = max_depth
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0

    # ------------------------------------------------------------ tokens

    def peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def has(self, *texts: str) -> bool:
        token = self.peek()
        return token.text in texts and token.kind in ("operator", "separator", "relation")

    def accept(self, *texts: str) -> bool:
        if self.has(*texts):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise Unreadable(f"expected {text!r}, found {self.peek().text!r}")

    # ------------------------------------------------------------ structures

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

    # ------------------------------------------------------------ expressions

    def sum(self) -> Node:
        node = self._signed()
        while self.has("+", "-", "±", "∓"):
            operator = self.take().text
            right = self.product()
            if operator == "+":
                node = Node("add", (node, right))
            elif operator == "-":
                node = Node("add", (node, Node("neg", (right,))))
            else:
                node = Node("pm" if operator == "±" else "mp", (node, right))
        return node

    def _signed(self) -> Node:
        if self.has("±", "∓"):
            operator = "pm" if self.take().text == "±" else "mp"
            return Node(operator, (number(0), self.product()))
        return self.product()

    def product(self) -> Node:
        negative = False
        while self.has("-", "+"):
            negative ^= self.take().text == "-"
        node = self.factor()
        while True:
            if node.op == "num" and self.peek().kind == "number":
                node = self._mixed_inline(node)
            elif self.accept("*"):
                node = Node("mul", (node, self._unary_factor()))
            elif self.accept("/"):
                node = Node("div", (node, self._unary_factor()))
            elif self._starts_factor():
                right = self.factor()
                node = _mixed(node, right) or Node("mul", (node, right))
            else:
                break
        return Node("neg", (node,)) if negative else node

    def _mixed_inline(self, whole: Node) -> Node:
        """``1 3/4``; any other two numbers side by side are no expression."""
        top, slash, bottom = self.peek(), self.peek(1), self.peek(2)
        if slash.text != "/" or bottom.kind != "number" or not (top.text.isdigit() and bottom.text.isdigit()):
            raise Unreadable("two numbers side by side")
        self.at += 3
        if whole.value is None or whole.value.denominator != 1 or not 0 < int(top.text) < int(bottom.text):
            raise Unreadable("two numbers side by side")
        return number(whole.value + Fraction(int(top.text), int(bottom.text)))

    def _unary_factor(self) -> Node:
        if self.accept("-"):
            return Node("neg", (self._unary_factor(),))
        self.accept("+")
        return self.factor()

    def _starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("number", "symbol", "constant", "function", "word", "named_set"):
            return True
        if token.kind == "command":
            return token.text not in ("end", "pmod", "bmod", "mod")
        if token.text == "|" and token.kind == "operator":
            return self.bars == 0
        return token.kind == "operator" and token.text in _STARTS

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > self.max_depth:
            raise TooLong("too deep")
        node = self.primary()
        while True:
            if self.accept("^"):
                if self.accept("°") or self._braced_degree():
                    node = Node("call", (node,), "degree")
                    continue
                node = Node("pow", (node, self.exponent()))
            elif self.accept("!"):
                node = Node("fact", (node,))
            elif self.accept("%"):
                node = Node("call", (node,), "percent")
            elif self.accept("°"):
                node = Node("call", (node,), "degree")
            elif self.has("'") and node.op in ("sym", "word"):
                self.take()
                node = Node(node.op, (), node.name + "'")
            else:
                break
        self.depth -= 1
        return node

    def _braced_degree(self) -> bool:
        if self.has("{") and self.peek(1).text == "°" and self.peek(2).text == "}":
            self.at += 3
            return True
        return False

    def exponent(self) -> Node:
        if self.accept("{"):
            node = self.relation()
            self.expect("}")
            return node
        if self.has("-", "+"):
            negative = self.take().text == "-"
            node = self.exponent()
            return Node("neg", (node,)) if negative else node
        if self.peek().kind == "number" and len(self.peek().text) > 1 and self.peek().text.isdigit():
            return self._number()
        node = self.primary()
        if self.accept("^"):
            node = Node("pow", (node, self.exponent()))
        return node

    def primary(self) -> Node:
        token = self.take()
        if token.kind == "number":
            self.at -= 1
            node = self._number()
            return self._based(node)
        if token.kind in ("symbol", "word"):
            return self._symbol(token)
        if token.kind == "constant":
            if token.text != "pi" and self.has("_"):
                return self._symbol(token)
            return Node("const", (), token.text)
        if token.kind == "function":
            return self._function(token.text)
        if token.kind == "command":
            return self._command(token.text)
        if token.kind == "named_set":
            return self._named_set(token.text)
        if token.kind == "operator":
            return self._delimited(token.text)
        raise Unreadable(f"unexpected {token.text!r}")

    def _number(self) -> Node:
        text = self.take().text
        if len(text) > 1000:
            raise Unreadable("too many digits")
        return Node("num", value=Fraction(text if not text.startswith(".") else "0" + text))

    def _based(self, node: Node) -> Node:
        """``204_5`` is a numeral in base five."""
        if not self.has("_"):
            return node
        self.take()
        base = self._argument()
        if base.op != "num" or base.value is None or base.value.denominator != 1:
            raise Unreadable("subscripted number")
        return Node("call", (node, base), "numeral")

    def _symbol(self, token: Token) -> Node:
        name = token.text
        if self.accept("_"):
            name += "_" + _flat(self._subscript())
        if name[0] in _FUNCTION_LETTERS and name.rstrip("'")[1:2] in ("", "_") and self.has("(", "'"):
            return self._opaque(name)
        return Node("word" if token.kind == "word" else "sym", (), name)

    def _opaque(self, name: str) -> Node:
        while self.accept("'"):
            name += "'"
        if not self.accept("("):
            return Node("sym", (), name)
        arguments = self._items(")")
        return Node("call", tuple(arguments), "opaque " + name)

    def _subscript(self) -> list[Token]:
        if not self.accept("{"):
            return [self.take()]
        depth, found = 1, []
        while depth:
            token = self.take()
            if token.kind == "end":
                raise Unreadable("unclosed subscript")
            depth += (token.text == "{") - (token.text == "}")
            if depth:
                found.append(token)
        return found

    def _function(self, name: str) -> Node:
        name = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "cosec": "csc"}.get(name, name)
        base = power = None
        while self.has("_", "^"):
            if self.take().text == "_":
                base = self._argument()
            else:
                power = self.exponent()
        if power is not None and power.op == "neg" and power.args[0] == number(1):
            name, power = "arc" + name, None
        if self.has("("):
            self.take()
            arguments = tuple(self._items(")"))
        else:
            arguments = (self._function_argument(),)
        if base is not None:
            arguments = (*arguments, base)
        node = Node("call", arguments, name)
        return node if power is None else Node("pow", (node, power))

    def _function_argument(self) -> Node:
        """``\\sin 2x`` takes the product, up to the next function or sign."""
        negative = self.accept("-")
        node = self.factor()
        while self.peek().kind in ("number", "symbol", "constant") or (
            self.peek().kind == "command" and self.peek().text in ("frac", "sqrt")
        ):
            node = Node("mul", (node, self.factor()))
        if self.has("/") and self.peek(1).kind == "number":
            self.take()
            node = Node("div", (node, self.factor()))
        return Node("neg", (node,)) if negative else node

    def _argument(self) -> Node:
        """One braced group or one token, as LaTeX reads it."""
        if self.accept("{"):
            node = self.relation()
            self.expect("}")
            return node
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at] = Token("number", token.text[1:])
            return number(int(token.text[0]))
        return self.primary()

    def _command(self, name: str) -> Node:
        if name == "frac":
            top = self._argument()
            return Node("div", (top, self._argument()), "frac")
        if name.endswith("binom"):
            top = self._argument()
            return Node("call", (top, self._argument()), "binom")
        if name == "sqrt":
            index = None
            if self.accept("["):
                index = self.sum()
                self.expect("]")
            radicand = self._argument() if not self.has("(") else self.factor_of_root()
            if index is None:
                return Node("call", (radicand,), "sqrt")
            return Node("call", (radicand, index), "root")
        if name == "log":
            return self._function("log")
        if name == "begin":
            return self._matrix()
        raise Unreadable(f"\\{name}")

    def factor_of_root(self) -> Node:
        """``sqrt(3)``: the bracket alone is the radicand."""
        self.expect("(")
        node = self.sum()
        self.expect(")")
        return node

    def _matrix(self) -> Node:
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

    def _named_set(self, name: str) -> Node:
        suffix = ""
        while self.has("^", "_"):
            self.take()
            suffix += _flat(self._subscript())
        return Node("named_set", (), name + suffix)

    def _delimited(self, opening: str) -> Node:
        if opening in ("(", "["):
            return self._bracket(opening)
        if opening == "{":
            items = self._items("}")
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

    def _items(self, closing: str) -> list[Node]:
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
        self.bars += 1
        first = self.relation()
        self.bars -= 1
        if self.has("|") or (first.op == "ratio" and len(first.args) == 2):
            return self._set_builder(first)
        items = [first]
        while self.peek().kind == "separator":
            self.take()
            if not self.has("}}"):
                items.append(self.relation())
        self.expect("}}")
        return Node("set", tuple(items))

    def _set_builder(self, first: Node) -> Node:
        """``{x | condition}`` is its condition."""
        self.expect("|")
        conditions = [self.relation()]
        while self.peek().kind == "separator":
            self.take()
            conditions.append(self.relation())
        self.expect("}}")
        return conditions[0] if len(conditions) == 1 else Node("list", tuple(conditions), ",")


def _flat(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens).lower() if len(tokens) > 1 else tokens[0].text


def _mixed(left: Node, right: Node) -> Node | None:
    """``1 3/4`` and ``1\\frac{3}{4}``: an integer followed by a proper fraction of integers."""
    if left.op != "num" or right.op != "div" or right.name != "frac":
        return None
    whole, top, bottom = left.value, right.args[0].value, right.args[1].value
    if whole is None or top is None or bottom is None or whole.denominator != 1 or not 0 <= top < bottom:
        return None
    return number(whole + top / bottom)


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
