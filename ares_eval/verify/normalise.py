"""One spelling for what means the same: Unicode mathematics to LaTeX, LaTeX decoration away, text to bare words.

Pure functions over strings, linear in their length; nothing here decides whether an answer is right. The same
normal forms are used for the answer and for the reference, so a rule that is too eager costs a distinction on both
sides: only spellings without meaning of their own are dropped (case of letters, signs and brackets are kept).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ", "0123456789+-()n", strict=True))
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
_SYMBOLS = {
    "π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "—": "-", "≤": r"\le ", "≥": r"\ge ", "≦": r"\le ",
    "≧": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ",
    "˚": r"^\circ ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "∠": r"\angle ", "△": r"\triangle ", "Δ": r"\Delta ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ",
    "λ": r"\lambda ", "μ": r"\mu ", "µ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "φ": r"\phi ", "ϕ": r"\phi ",
    "ω": r"\omega ", "Ω": r"\Omega ", "τ": r"\tau ", "ξ": r"\xi ", "η": r"\eta ", "ψ": r"\psi ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "→": r"\to ", "⇒": r"\to ",
    "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "⁄": "/", "∕": "/", "，": ",", "；": ";", "：": ":",
    "（": "(", "）": ")", "。": ".", "．": ".", "％": "%", "、": ",", "∣": "|", "∖": r"\setminus ",
    "⟨": r"\langle ", "⟩": r"\rangle ",
}  # fmt: skip
_DROPPED = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"))
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SUPER_RUN = re.compile("[" + re.escape("".join(_SUPERSCRIPTS)) + "]+")
_SUB_RUN = re.compile("[" + re.escape("".join(_SUBSCRIPTS)) + "]+")
_ROOT_OF = re.compile(r"√\s*(\d+(?:\.\d+)?|[a-zA-Zπ])")
_VULGAR_RUN = re.compile(r"(\d?)\s*([" + "".join(_VULGAR) + "])")


_SWALLOWED = re.compile(
    "\t(?=ext|imes|o\\b|heta|an\\b)|\x0c(?=rac)|\x08(?=oxed|inom|egin|ar\\b)|\r(?=ight|angle|ho\\b)"
)
_ESCAPES = {"\t": "\\t", "\x0c": "\\f", "\x08": "\\b", "\r": "\\r"}


def ascii_maths(text: str) -> str:
    """Unicode mathematics as LaTeX; every script's digits as 0-9; typographic quotes, dashes and spaces as ASCII.

    Commands whose backslash was swallowed by a string escape (a tab before "ext") are mended.
    """
    text = _SWALLOWED.sub(lambda m: _ESCAPES[m[0]], text)
    if text.isascii():
        return text
    text = text.translate(_DROPPED)
    text = _ROOT_OF.sub(r"\\sqrt{\1}", text)
    text = _SUPER_RUN.sub(lambda m: "^{" + "".join(_SUPERSCRIPTS[c] for c in m[0]) + "}", text)
    text = _SUB_RUN.sub(lambda m: "_{" + "".join(_SUBSCRIPTS[c] for c in m[0]) + "}", text)
    text = _VULGAR_RUN.sub(_vulgar, text)
    return _NOT_ASCII.sub(_ascii_character, text)


def _vulgar(match: re.Match[str]) -> str:
    top, bottom = _VULGAR[match[2]].split("/")
    return match[1] + rf"\frac{{{top}}}{{{bottom}}}"


@lru_cache(maxsize=4096)
def _spelled(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if unicodedata.category(character) == "Zs":
        return " "
    folded = unicodedata.normalize("NFKC", character)
    return folded if folded.isascii() else character


def _ascii_character(match: re.Match[str]) -> str:
    return _spelled(match[0])


def closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one at ``start``, or -1; escaped braces are skipped."""
    depth, position, end = 0, start, len(text)
    while position < end:
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


_BRACE = re.compile(r"\\.|[{}]", re.S)


def closing_braces(text: str, openings: set[int], end: int) -> dict[int, int]:
    """The closing brace of each of these opening ones, in one pass; unclosed ones are missing."""
    found: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text, min(openings), end):
        brace = match[0]
        if brace == "{":
            stack.append(match.start())
        elif brace == "}" and stack:
            opened = stack.pop()
            if opened in openings:
                found[opened] = match.start()
    return found


_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|md|sc)?|math(?:rm|bf|it|sf|tt|cal|normal|bb|frak|scr)|mbox|hbox|"
    r"boldsymbol|bm|underline|overline|emph|operatorname\*?|ensuremath|displaystyle|boxed|fbox|textnormal)\s*\{"
)
_STYLE = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|bf|rm|it|boldmath|bigl?|bigr?|Bigl?|Bigr?|biggl?|biggr?|"
    r"Biggl?|Biggr?|left|right|middle)(?![a-zA-Z])"
)
_SPACES = re.compile(
    r"(?<!\\)\\[,;:! ]|\\(?:quad|qquad|thinspace|enspace)(?![a-zA-Z])|\\(?:hspace|phantom)\{[^{}]*\}|~|\\\n"
)
_DOLLARS = re.compile(r"\$\$?|\\[\[\]()](?![a-zA-Z])")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_FRACTION_DIGITS = re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)")


def unwrap(text: str) -> str:
    """The text with \\text{..}, \\mathrm{..}, \\boxed{..} and the like replaced by their content, nested ones too."""
    if "\\" not in text:
        return text
    wrappers = list(_WRAPPER.finditer(text))
    closers = closing_braces(text, {match.end() - 1 for match in wrappers}, len(text)) if wrappers else {}
    dropped: list[tuple[int, int]] = []
    for match in wrappers:
        close = closers.get(match.end() - 1)
        if close is not None:
            dropped += [(match.start(), match.end()), (close, close + 1)]
    if not dropped:
        return text
    pieces, cursor = [], 0
    for start, end in sorted(dropped):
        pieces += [text[cursor:start], " "]
        cursor = end
    return "".join([*pieces, text[cursor:]])


def bare_maths(text: str) -> str:
    """LaTeX without delimiters and layout: no $, \\left, thin spaces or dollar signs; one name for every fraction."""
    text = ascii_maths(text)
    if "\\" in text:
        text = _DOUBLED.sub(r"\\", text) if "\\begin" not in text else text
        text = text.replace(r"\$", " ").replace(r"\{", r"\lbrace ").replace(r"\}", r"\rbrace ")
        text = _SPACES.sub(" ", _STYLE.sub("", text))
        text = _FRACTION_DIGITS.sub(r"\\frac{\1}{\2}", _FRACTIONS.sub(r"\\frac", text))
    return _DOLLARS.sub(" ", text).strip()


_EDGE_MARKUP = re.compile(r"^(?:\*\*|__|`|\"|“)+|(?:\*\*|__|`|\"|”)+$")


def trimmed(text: str) -> str:
    """The text without surrounding blanks, markdown emphasis, quotes and closing punctuation."""
    previous = None
    while previous != text:
        previous = text
        quoted = _QUOTED.fullmatch(text.strip())
        text = _EDGE_MARKUP.sub("", quoted[1] if quoted else text.strip()).rstrip(" \t\n.,;:").lstrip(" \t\n:;,")
    return text


_DIGIT_GAP = re.compile(r"(?<=\d)\s+(?=\d)")


def string_key(text: str) -> str:
    """What two answers have in common that differ in layout only. Case, signs, digits and brackets are kept."""
    text = _DIGIT_GAP.sub("_", unwrap(bare_maths(trimmed(text))))
    return "".join(text.split()).rstrip(".").replace("{,}", ",")


_QUOTED = re.compile(r"'([^']*)'")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NOT_WORD = re.compile(r"[^\w%$€£+\-./^=<>]+|(?<!\d)[./]|[./](?!\d)|(?<![\w)])-(?!\d)|(?<=\w)-(?=[^\W\d])|_")


def words_key(text: str, articles: bool = False) -> str:
    """Bare words in lower case: no markup, accents, punctuation that is no part of a number; articles if asked for."""
    text = unwrap(ascii_maths(text)).replace("$", " ") if "\\" in text else ascii_maths(text)
    text = text.lower()
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = _NOT_WORD.sub(" ", text)
    if not articles:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split())
