"""Expressions by recursive descent: sums, products, powers, functions, numbers, symbols. Depth is bounded.

Juxtaposition is multiplication; an integer before a fraction of integers is a mixed number; ``f(x)`` is an opaque
function for the letters that name functions, a product for all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction

from ares_eval.verify.algebra.nodes import Node, TooLong, Unreadable, number
from ares_eval.verify.algebra.tokens import Token

_FUNCTION_LETTERS = frozenset("fghFGH")
_STARTS = frozenset({"(", "[", "{", "{{", "|", "∞", "∅", "⌊", "⌈"})


class Expressions(ABC):
    """The part of the parser that reads expressions; structures in brackets are a subclass's."""

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

    @abstractmethod
    def relation(self) -> Node:
        """A chain of sides; one side is just that side."""

    @abstractmethod
    def items(self, closing: str) -> list[Node]:
        """Separated relations up to a closing delimiter, which is taken."""

    @abstractmethod
    def delimited(self, opening: str) -> Node:
        """What an opening delimiter begins."""

    @abstractmethod
    def matrix(self) -> Node:
        """A matrix environment, its ``begin`` taken."""

    @abstractmethod
    def named_set(self, name: str) -> Node:
        """R, Z, ... with what is attached to it."""

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
            return self.named_set(token.text)
        if token.kind == "operator":
            return self.delimited(token.text)
        raise Unreadable(f"unexpected {token.text!r}")

    def _number(self) -> Node:
        text = self.take().text
        if len(text) > 1000:
            raise Unreadable("too many digits")
        return Node("num", value=Fraction(text if not text.startswith(".") else "0" + text))

    def _based(self, node: Node) -> Node:
        """``312_5`` is a numeral in base five."""
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
            name += "_" + flat(self.subscript())
        if name[0] in _FUNCTION_LETTERS and name.rstrip("'")[1:2] in ("", "_") and self.has("(", "'"):
            return self._opaque(name)
        return Node("word" if token.kind == "word" else "sym", (), name)

    def _opaque(self, name: str) -> Node:
        while self.accept("'"):
            name += "'"
        if not self.accept("("):
            return Node("sym", (), name)
        arguments = self.items(")")
        return Node("call", tuple(arguments), "opaque " + name)

    def subscript(self) -> list[Token]:
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
            arguments = tuple(self.items(")"))
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
            return self.matrix()
        raise Unreadable(f"\\{name}")

    def factor_of_root(self) -> Node:
        """``sqrt(3)``: the bracket alone is the radicand."""
        self.expect("(")
        node = self.sum()
        self.expect(")")
        return node


def flat(tokens: list[Token]) -> str:
    """The text of tokens in a row; subscripts of several are in lower case."""
    return "".join(token.text for token in tokens).lower() if len(tokens) > 1 else tokens[0].text


def _mixed(left: Node, right: Node) -> Node | None:
    """``1 3/4`` and ``1\\frac{3}{4}``: an integer followed by a proper fraction of integers."""
    if left.op != "num" or right.op != "div" or right.name != "frac":
        return None
    whole, top, bottom = left.value, right.args[0].value, right.args[1].value
    if whole is None or top is None or bottom is None or whole.denominator != 1 or not 0 <= top < bottom:
        return None
    return number(whole + top / bottom)
