"""LaTeX or plain mathematics as a list of tokens, bounded in length."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ares_eval.verify.algebra.nodes import TooLong, Unreadable
from ares_eval.verify.normalise import bare_maths, closing_brace

MAX_CHARACTERS = 1200

FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "ln",
        "log",
        "lg",
        "exp",
        "max",
        "min",
        "gcd",
        "lcm",
        "arg",
        "det",
        "deg",
        "asin",
        "acos",
        "atan",
        "arcsec",
        "arccsc",
        "arccot",
        "floor",
        "ceil",
        "abs",
        "sqrt",
        "cosec",
        "sgn",
    ]
)
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "omicron",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
        "partial",
        "nabla",
        "aleph",
        "Re",
        "Im",
    ]
)
_RELATIONS = {
    "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">=",
    "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~", "sim": "~", "cong": "~",
    "equiv": "=", "coloneqq": "=", "to": "->", "rightarrow": "->", "mapsto": "->", "doteq": "=",
}  # fmt: skip
_OPERATORS = {
    "times": "*", "cdot": "*", "cdotp": "*", "ast": "*", "bullet": "*", "div": "/", "pm": "±", "mp": "∓",
    "cup": "∪", "cap": "∩", "setminus": "∖", "backslash": "∖", "in": "∈", "infty": "∞", "lbrace": "{{", "rbrace": "}}",
    "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "colon": ":", "langle": "(", "rangle": ")", "lfloor": "⌊",
    "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "emptyset": "∅", "varnothing": "∅", "prime": "'", "circ": "°", "degree": "°", "land": "and", "wedge": "and",
    "lor": "or", "vee": "or", "ldots": "...", "dots": "...", "cdots": "...", "Vert": "|", "lVert": "|", "rVert": "|",
}  # fmt: skip
_SKIPPED = frozenset(
    {"angle", "triangle", "therefore", "because", "nonumber", "notag", "displaystyle", "hfill", "medspace", "vec"}
    | {"overrightarrow", "hat", "bar", "overline", "widehat", "parallel", "smallsetminus", "tag"}
)
_TEXT = frozenset(
    {"text", "mathrm", "textbf", "textit", "mathbf", "mathit", "mathsf", "textrm", "mbox", "hbox", "mathtt", "textsf"}
    | {"boldsymbol", "bm", "operatorname", "texttt", "textnormal", "emph", "underline"}
)
_SEPARATORS = {"and": "and", "or": "or", "und": "and", "et": "and", "with": ",", "&": "and", "và": "and"}
_UNIT_TAIL = re.compile(r"^(?:for|where|when|if|such that|as|with|all|any|some|is|are|since)\b", re.I)

_TOKEN = re.compile(
    r"\s+|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[a-zA-Z]+\*?)|(?P<letters>[a-zA-Z]+)|(?P<relation><=|>=|!=|==|:=|=<|=>|->|<|>|=|~)"
    r"|(?P<break>\\\\)|(?P<power>\*\*)|(?P<other>[-+*/^_(){}\[\],;:|!%'&.])|(?P<word>[^\W\d_]+)|(?P<bad>.)",
    re.S,
)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: number, symbol, word, function, command, relation, operator, separator or end."""

    kind: str
    text: str


_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,]|\s*,\s*\d)")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3}(?: \d{3})+)(?![\d])")
_BROKEN_COMMA = re.compile(r"\{,\}|,\\!|\\,(?=\d{3}(?!\d))")
_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:aligned|align\*?|gathered|split|equation\*?|array|cases|math|displaymath)\}(?:\{[lcr|]*\})?"
)
_CASES = re.compile(r"\\begin\s*\{cases\}(.*?)\\end\s*\{cases\}", re.S)


_QUALIFIER = re.compile(
    r"(?:[,;]\s*)?(?:\\(?:text|mathrm)\s*\{\s*,?\s*|\b)(?:for\s+(?:some|all|any|every|each|arbitrary|integers?|real|positive)|where|such\s+that|with)\b"
    r".*?(?=[,;]?\s*(?:\\text\s*\{\s*,?\s*)(?:and|or)\b|[,;]\s*(?:and|or)\b|$)",
    re.I | re.S,
)
_ORDINAL = re.compile(
    r"(?<=\d)\s*(?:\^\s*\{?\s*)?(?:\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)\b)\s*\}?"
)
_DANGLING = re.compile(r"\^\s*$")
_GLUED = re.compile(r"(?<=[\d)}])(or|and)(?=[A-Z(\\\-\d])")


def prepared(text: str) -> str:
    """Layout and qualifying clauses gone, digit groups joined, systems of equations as comma-separated ones."""
    text = _GLUED.sub(r" \1 ", _QUALIFIER.sub("", text))
    text = _BROKEN_COMMA.sub("", text)
    text = bare_maths(text)
    if "\\" in text:
        text = _CASES.sub(lambda m: m[1].replace("\\\\", ", ").replace("&", " "), text)
        text = _ENVIRONMENT.sub(" ", text)
    if "," in text and not re.search(r"[\[(]|\\lbrace|[a-zA-Z]_", text):
        text = _THOUSANDS.sub(lambda m: m[1].replace(",", ""), text)
    text = _ORDINAL.sub("", _DANGLING.sub("", text))
    if " " in text:
        text = _SPACED_THOUSANDS.sub(lambda m: m[1].replace(" ", ""), text)
    return text


def tokenise(text: str, max_characters: int = MAX_CHARACTERS) -> list[Token]:
    """Tokens of a prepared text; Unreadable where it holds what is no mathematics or is too long."""
    if len(text) > max_characters:
        raise TooLong("too long")
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None
        position = match.end()
        kind = match.lastgroup
        if kind is None:
            continue
        if kind == "command":
            position = _command(text, match[0][1:].rstrip("*"), position, tokens)
        elif kind == "letters":
            _letters(match[0], tokens)
        elif kind == "relation":
            spelled = {"==": "=", ":=": "=", "=<": "<=", "=>": "->"}.get(match[0], match[0])
            tokens.append(Token("relation", spelled))
        elif kind == "number":
            tokens.append(Token("number", match[0]))
        elif kind == "power":
            tokens.append(Token("operator", "^"))
        elif kind == "break":
            tokens.append(Token("operator", "\\\\"))
        elif kind == "word":
            tokens.append(Token("word", match[0]))
        elif kind == "other":
            if match[0] == "." and not text[position:].strip(" ,;.])}"):
                continue
            tokens.append(Token("separator" if match[0] in ",;" else "operator", match[0]))
        else:
            raise Unreadable(f"unknown character {match[0]!r}")
        if len(tokens) > max_characters:
            raise TooLong("too many tokens")
    tokens.append(Token("end", ""))
    return tokens


def _command(text: str, name: str, position: int, tokens: list[Token]) -> int:
    if name in _TEXT:
        rest = position + len(text[position:]) - len(text[position:].lstrip())
        if rest < len(text) and text[rest] == "{":
            close = closing_brace(text, rest)
            if close < 0:
                raise Unreadable("unclosed brace")
            _text_token(text[rest + 1 : close], tokens)
            return close + 1
        return position
    if name in _RELATIONS:
        tokens.append(Token("relation", _RELATIONS[name]))
    elif name in _OPERATORS:
        spelled = _OPERATORS[name]
        tokens.append(Token("separator" if spelled in ("and", "or") else "operator", spelled))
    elif name in FUNCTIONS and name != "sqrt":
        tokens.append(Token("function", name))
    elif name in _GREEK:
        tokens.append(Token("symbol", name))
    elif name == "pi":
        tokens.append(Token("constant", "pi"))
    elif name in _SKIPPED:
        return position
    elif name == "mathbb":
        match = re.match(r"\s*\{?\s*([A-Z])\s*\}?", text[position:])
        if match is None:
            raise Unreadable("\\mathbb")
        tokens.append(Token("named_set", match[1]))
        return position + match.end()
    elif name in ("frac", "sqrt", "binom", "dbinom", "tbinom", "begin", "end", "log", "pmod", "bmod", "mod"):
        tokens.append(Token("command", name))
    else:
        raise Unreadable(f"unknown command \\{name}")
    return position


def _text_token(content: str, tokens: list[Token]) -> None:
    stripped = content.strip()
    lowered = stripped.strip(" ,.").lower()
    if not lowered:
        if "," in stripped:
            tokens.append(Token("separator", ","))
        return
    if lowered in _SEPARATORS:
        tokens.append(Token("separator", _SEPARATORS[lowered]))
    elif len(stripped) == 1 and stripped.isalpha():
        _letters(stripped, tokens)
    elif lowered in FUNCTIONS:
        tokens.append(Token("function", lowered))
    elif re.fullmatch(r"[\d.,+\-*/^() ]+", stripped):
        tokens.extend(tokenise(stripped)[:-1])
    elif lowered in ("degrees", "degree"):
        tokens.append(Token("operator", "°"))
    else:
        tokens.append(Token("word", " ".join(lowered.split())))


_LETTER_WORDS = {
    "pi": ("constant", "pi"),
    **dict.fromkeys(("infty", "inf", "infinity", "oo"), ("operator", "∞")),
    **dict.fromkeys(("degrees", "degree"), ("operator", "°")),
    "sqrt": ("command", "sqrt"),
}


def _letters(run: str, tokens: list[Token]) -> None:
    lowered = run.lower()
    if len(run) == 1:
        if run in ("e", "i"):
            tokens.append(Token("constant", run))
        else:
            tokens.append(Token("symbol", run))
    elif lowered in _SEPARATORS:
        tokens.append(Token("separator", _SEPARATORS[lowered]))
    elif lowered in _LETTER_WORDS and (run.islower() or lowered == "infinity"):
        tokens.append(Token(*_LETTER_WORDS[lowered]))
    elif run in FUNCTIONS:
        tokens.append(Token("function", run))
    elif lowered == "cup":
        tokens.append(Token("operator", "∪"))
    elif lowered == "in" and tokens and tokens[-1].kind == "symbol":
        tokens.append(Token("operator", "∈"))
    elif len(run) <= 3 and not run.isupper():
        _split(run, tokens)
    else:
        tokens.append(Token("word", run if run.isupper() else lowered))


def _split(run: str, tokens: list[Token]) -> None:
    """A short run of small letters: function names within it first (``xsin``), the rest a product of symbols."""
    for letter in run:
        _letters(letter, tokens)
