"""Jinja2 as lm-eval uses it, in the sandbox: templates make texts of a row, expressions make values of a row.

A bare column name is looked up without Jinja2, so that simple tasks never import it. A row's own text is never
rendered as a template. Undefined names are errors, as in lm-eval.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

MAX_LIST_CHARS = 100_000
"""Longest text that is parsed as a written list: options are a few lines, not a book."""


class TemplateError(ValueError):
    """A template that cannot be compiled, or a row it cannot be rendered with."""


def column_or_template(source: str) -> Callable[[Mapping[str, Any]], Any]:
    """lm-eval's rule: the name of a column gives the column's value, anything else is a template and gives text."""
    if source.isidentifier():
        return functools.partial(_column, source)
    import jinja2

    try:
        template = _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"template line {error.lineno}: {error.message}") from error

    def render(row: Mapping[str, Any]) -> str:
        try:
            return template.render(row)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise TemplateError(_told(error, row)) from error

    return render


def expression(source: str) -> Callable[[Mapping[str, Any]], Any]:
    """A Jinja2 expression without braces, e.g. ``level`` or ``answer_type == 'float'``; gives the value itself."""
    if source.isidentifier():
        return functools.partial(_column, source)
    import jinja2

    try:
        compiled = _environment().compile_expression(source, undefined_to_none=False)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"expression {source!r}: {error.message}") from error

    def evaluate(row: Mapping[str, Any]) -> Any:
        try:
            value = compiled(row)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise TemplateError(_told(error, row)) from error
        if isinstance(value, jinja2.Undefined):
            raise TemplateError(f"expression {source!r} is undefined; columns: {_columns(row)}")
        return value

    return evaluate


def written_list(text: Any) -> list[Any]:
    """A list written as Python or JSON source, as MMMU's options are; a list is given back, nothing is evaluated."""
    if isinstance(text, (list, tuple)):
        return list(text)
    if not isinstance(text, str):
        raise TemplateError(f"not a list: {text!r:.80}")
    if len(text) > MAX_LIST_CHARS:
        raise TemplateError(f"a list of {len(text)} characters is too long")
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise TemplateError(f"not a list: {text!r:.80}") from error
    if not isinstance(value, (list, tuple)):
        raise TemplateError(f"not a list: {text!r:.80}")
    return list(value)


def lettered(text: str) -> list[str]:
    """The option texts of a question that ends ``... (A) one (B) two``; empty where there are not at least two.

    The letters must run from A without a gap and each be in brackets, and the run starting last is taken, so that
    brackets in the question itself do not count.
    """
    marks = list(re.finditer(r"(?<!\S)\(([A-Z])\)", text))
    starts = [i for i, mark in enumerate(marks) if mark[1] == "A"]
    if not starts:
        return []
    run = marks[starts[-1] :]
    if len(run) < 2 or [mark[1] for mark in run] != [chr(65 + i) for i in range(len(run))]:
        return []
    ends = [mark.start() for mark in run[1:]] + [len(text)]
    return [text[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True)]


@functools.lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["regex_replace"] = _regex_replace
    environment.filters["written_list"] = written_list
    environment.filters["lettered"] = lettered
    return environment


def _regex_replace(text: str, pattern: str, value: str = "", count: int = 0) -> str:
    """lm-eval's own filter of this name."""
    return re.sub(pattern, value, text, count=count)


def _column(name: str, row: Mapping[str, Any]) -> Any:
    try:
        return row[name]
    except KeyError:
        raise TemplateError(f"no column {name!r}; columns: {_columns(row)}") from None


def _columns(row: Mapping[str, Any]) -> str:
    return ", ".join(sorted(key for key in row if key not in ("doc", "row_number", "file_row", "split", "variant")))[
        :300
    ]


def _told(error: Exception, row: Mapping[str, Any]) -> str:
    import jinja2

    hint = f"; columns: {_columns(row)}" if isinstance(error, jinja2.UndefinedError) else ""
    return f"{str(error)[:200]}{hint}"
