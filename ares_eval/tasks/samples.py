"""A row becomes a Sample, as the task's YAML says: question, pictures, reference, answer spec, group, level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ares_eval.tasks.definition import (
    ANSWER_TYPES,
    AnswerRule,
    Definition,
    compile_expression,
    compile_text,
    computed,
    is_expression,
)
from ares_eval.tasks.errors import BadRow
from ares_eval.tasks.messages import flatten, user_turn
from ares_eval.tasks.rows import Row
from ares_eval.tasks.templates import TemplateError, written_list
from ares_eval.tasks.yaml_task import FunctionRef
from ares_eval.types import AnswerSpec, Json, Sample

Make = Callable[[Mapping[str, Any]], Any]

_PLAIN = (str, int, float, bool)


@dataclass(frozen=True)
class _Answer:
    """An answer rule, compiled: what is fixed in ``spec``, what the row decides beside it."""

    when: Make | None
    spec: AnswerSpec
    type: Make | None
    whole_policy: Make | None
    policy: Mapping[str, Make]
    choices: Make | None

    def of(self, values: Mapping[str, Any]) -> AnswerSpec:
        """The row's spec. Raises ValueError for a type or policy that is none."""
        if self.type is None and self.whole_policy is None and not self.policy and self.choices is None:
            return self.spec
        kind = self.spec.type if self.type is None else self.type(values)
        if kind not in ANSWER_TYPES:
            raise ValueError(f"answer type {kind!r:.40} is not one of {', '.join(ANSWER_TYPES)}")
        policy = dict(self.spec.policy) if self.whole_policy is None else _json(self.whole_policy(values)) or {}
        if not isinstance(policy, dict):
            raise ValueError(f"answer policy is not a mapping: {policy!r:.80}")
        policy |= {key: _json(make(values)) for key, make in self.policy.items()}
        texts = written_list(self.choices(values)) if self.choices else ()
        return AnswerSpec(kind, policy, tuple(plain_text(text, "option") for text in texts))


class SampleMaker:
    """Everything of a task's YAML that is applied to each row, compiled once. Raises BrokenTask for bad templates."""

    def __init__(self, definition: Definition) -> None:
        metadata = definition.metadata
        self._definition = definition
        self._text = compile_text(definition, "doc_to_text")
        self._target = compile_text(definition, "doc_to_target")
        self._images = definition.images.load() if isinstance(definition.images, FunctionRef) else definition.images
        self._keep, self._id, self._group, self._level = (
            self._optional(key) for key in ("keep", "id", "group", "level")
        )
        fields = metadata.get("fields", {})
        named = {name: name for name in fields} if isinstance(fields, list) else fields
        if not isinstance(named, dict) or not all(is_expression(source) for source in named.values()):
            raise definition.yaml.error("fields: must be a list of columns or a mapping", "metadata", "fields")
        self._fields = {name: compile_expression(definition, source, "fields") for name, source in named.items()}
        self._answers = [self._rule(rule) for rule in definition.answers]

    def _optional(self, key: str) -> Make | None:
        source = self._definition.metadata.get(key)
        if source is None:
            return None
        if not is_expression(source):
            raise self._definition.yaml.error(f"{key}: must be a Jinja2 expression", "metadata", key)
        make: Make = compile_expression(self._definition, source, key)
        return make

    def _rule(self, rule: AnswerRule) -> _Answer:
        def compiled(source: str | FunctionRef) -> Make:
            make: Make = compile_expression(self._definition, source, "answer")
            return make

        fixed = {} if computed(rule.policy) else {k: v for k, v in rule.policy.items() if not computed(v)}
        return _Answer(
            when=compiled(rule.when) if rule.when else None,
            spec=AnswerSpec("auto" if computed(rule.type) else str(rule.type), fixed),
            type=compiled(rule.type["from"]) if not isinstance(rule.type, str) else None,
            whole_policy=compiled(rule.policy["from"]) if computed(rule.policy) else None,
            policy={k: compiled(v["from"]) for k, v in rule.policy.items() if computed(v)},
            choices=compiled(rule.choices) if rule.choices else None,
        )

    def sample(self, row: Row) -> Sample | None:
        """The row's Sample; None where the task's `keep` leaves the row out. Raises BadRow."""
        task = self._definition.name
        try:
            return self._sample(task, row)
        except (TemplateError, ValueError, TypeError) as error:
            raise BadRow(task, row.file, row.number, str(error)) from error

    def keeps(self, row: Row) -> bool:
        """Whether the row is a question of the task. Raises BadRow."""
        try:
            return self._keep is None or bool(self._keep(context(row)))
        except TemplateError as error:
            raise BadRow(self._definition.name, row.file, row.number, str(error)) from error

    def keeps_doc(self, doc: Mapping[str, Any]) -> bool:
        """As ``keeps``, of one row's columns, for those who have their rows from elsewhere (lm-eval)."""
        return self.keeps(Row(doc, "", 0, 0, ""))

    def answer_of(self, doc: Mapping[str, Any]) -> AnswerSpec:
        """The answer spec of one row's columns, for those who have their rows from elsewhere (lm-eval)."""
        return self._answer(context(Row(doc, "", 0, 0, "")))

    def reference_of(self, doc: Mapping[str, Any]) -> str | tuple[str, ...]:
        """The accepted answer or answers of one row's columns."""
        return reference(self._target(context(Row(doc, "", 0, 0, ""))))

    def _sample(self, task: str, row: Row) -> Sample | None:
        values = context(row)
        if self._keep is not None and not self._keep(values):
            return None
        text = self._text(values)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the question is not a text: {text!r:.80}")
        cells = self._images(values) if callable(self._images) else [_cell(values, name) for name in self._images]
        pictures = flatten(cells)
        identity = plain_text(self._id(values), "id") if self._id is not None else str(row.index)
        level = self._level(values) if self._level is not None else None
        return Sample(
            task=task,
            id=identity,
            messages=user_turn(text, pictures),
            reference=reference(self._target(values)),
            answer=self._answer(values),
            group=plain_text(self._group(values), "group") if self._group is not None else identity,
            level=None if level is None else plain_text(level, "level"),
            fields={name: _json(make(values)) for name, make in self._fields.items()},
        )

    def _answer(self, values: Mapping[str, Any]) -> AnswerSpec:
        for rule in self._answers:
            if rule.when is None or rule.when(values):
                return rule.of(values)
        raise ValueError("no answer rule fits")


def context(row: Row) -> dict[str, Any]:
    """What templates and expressions see: the columns, ``doc`` (all columns), and what the columns do not hide of
    ``row_number``, ``file_row`` (in the split, in its file or config, from 0), ``split``, ``variant`` (from 1)."""
    own = {"row_number": row.index, "file_row": row.number - 1, "split": row.split, "variant": row.variant}
    return {**own, **row.values, "doc": row.values}


def reference(value: Any) -> str | tuple[str, ...]:
    """The accepted answer, or several accepted ones. Raises ValueError where there is none."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("no reference answer")
        return tuple(plain_text(item, "reference") for item in value)
    text = plain_text(value, "reference")
    if not text.strip():
        raise ValueError("no reference answer")
    return text


def plain_text(value: Any, what: str) -> str:
    """A scalar cell as text. Raises ValueError for anything else."""
    if not isinstance(value, _PLAIN):
        raise ValueError(f"{what} is not a text or number: {value!r:.80}")
    return value if isinstance(value, str) else str(value)


def _cell(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise ValueError(f"no picture column {name!r}")
    return values[name]


def _json(value: Any) -> Json:
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    raise ValueError(f"not a plain value: {value!r:.80}")
