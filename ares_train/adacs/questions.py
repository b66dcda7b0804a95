"""A question as the pipeline has it, how a source's row becomes one, and how it is asked.

``qid`` is a hash of source, the source's own id, prompt and picture digests: the same question has the same id in every
run and on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ares_eval.tasks.definition import ANSWER_TYPES
from ares_eval.types import (
    AnswerSpec,
    Json,
    Message,
    Picture,
    PictureError,
    PicturePart,
    Sample,
    TextPart,
)
from ares_eval.verify.extract import boxes
from ares_train.adacs import answer_policy, pictures
from ares_train.adacs.config import SourceConfig
from ares_train.adacs.pictures import Seen
from ares_train.adacs.placeholders import IMAGE, Misplaced, Turn, place

MAX_TEXT = 200_000
"""Characters of a question; the longest of the known sets have some 20,000."""

_SPECIAL = re.compile(r"<\|(?:im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>")
"""Control tokens of Qwen's template: inside of a question they would end a turn or stand for pictures."""

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


class Unusable(ValueError):
    """A row that is no question. ``reason``: a word to count by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Question:
    """A row of schema QUESTIONS, and what ingest needs besides: the source's ``id`` and the pictures as seen."""

    qid: str
    source: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    references: tuple[str, ...]
    answer: AnswerSpec
    extra: Mapping[str, Json]
    id: str
    seen: tuple[Seen, ...]

    @property
    def modality(self) -> str:
        """text or image."""
        return "image" if self.images else "text"

    @property
    def text(self) -> str:
        """All that the user says."""
        return "\n".join(content for role, content in self.turns if role == "user")

    def row(self) -> dict[str, Any]:
        """As schema QUESTIONS has it."""
        return {
            "qid": self.qid,
            "source": self.source,
            "modality": self.modality,
            "messages": [{"role": role, "content": content} for role, content in self.turns],
            "images": list(self.images),
            "references": list(self.references),
            "answer_type": self.answer.type,
            "answer_policy": msgspec.json.encode(dict(self.answer.policy), order="sorted").decode(),
            "choices": list(self.answer.choices),
            "extra": msgspec.json.encode(dict(self.extra), order="sorted", enc_hook=str).decode(),
        }


def question_of(
    values: Mapping[str, Any],
    source: SourceConfig,
    image_root: Path | None,
    picture_folder: Path,
    trusted: Sequence[str] = (),
) -> Question:
    """The question in a source's row; pictures that came inside of it are kept in ``picture_folder``.

    ``trusted``: sources whose questions need no reference answer. Raises Unusable.
    """
    fields = source.fields
    name = _word(values, fields.source) or source.name
    turns = _turns(values, source)
    cells = pictures.cells(values.get(fields.images)) if fields.images else []
    seen, images = _pictures(cells, image_root, picture_folder)
    choices = _choices(values.get(fields.choices)) if fields.choices else ()
    turns = _with_choices(turns, choices)
    try:
        literal = fields.images is None or fields.images not in values
        turns, order = place(turns, len(images), literal=literal)
    except Misplaced as error:
        raise Unusable("placeholders", str(error)) from error
    if any(_SPECIAL.search(content) for _, content in turns):
        raise Unusable("special_token", "a control token of the chat template stands in the text")
    references = _references(values.get(fields.answer)) if fields.answer else ()
    if not references and name not in trusted:
        raise Unusable("no_answer", _absent(values, fields.answer))
    kind = _word(values, fields.answer_type) or source.answer_type
    if kind not in ANSWER_TYPES:
        raise Unusable("answer_type", repr(kind)[:60])
    own = _word(values, fields.id)
    seen, images = [seen[at] for at in order], [images[at] for at in order]
    digests = [one.sha256 for one in seen]
    extra = {column: values[column] for column in fields.extra if column in values}
    return Question(
        qid=qid_of(name, own, turns, digests),
        source=name,
        turns=tuple(turns),
        images=tuple(images),
        references=references,
        answer=AnswerSpec(kind, _policy(values, source), choices),
        extra={**extra, "id": own} if own else extra,
        id=own,
        seen=tuple(seen),
    )


def qid_of(source: str, own: str, turns: Sequence[Turn], digests: Sequence[str]) -> str:
    """32 hexadecimal digits."""
    content = msgspec.json.encode([source, own, list(turns), list(digests)])
    return hashlib.sha256(content).hexdigest()[:32]


def _turns(values: Mapping[str, Any], source: SourceConfig) -> list[Turn]:
    fields = source.fields
    if fields.messages is not None:
        written = values.get(fields.messages)
        if not isinstance(written, list | tuple) or not written:
            absent = _absent(values, fields.messages)
            raise Unusable("no_question", absent or f"column {fields.messages} holds no turns")
        turns = [_turn(one, fields.images is not None) for one in written]
        while turns and turns[-1][0] == "assistant":
            turns.pop()
    else:
        assert fields.question is not None
        written = values.get(fields.question)
        if not isinstance(written, str):
            absent = _absent(values, fields.question)
            raise Unusable("no_question", absent or f"column {fields.question} holds no text")
        turns = [("user", written)]
    turns = [(role, content.replace("\0", "").strip()) for role, content in turns]
    if not any(role == "user" and content for role, content in turns):
        raise Unusable("no_question")
    if sum(len(content) for _, content in turns) > MAX_TEXT:
        raise Unusable("too_long", f"more than {MAX_TEXT} characters")
    return turns


def _absent(values: Mapping[str, Any], column: str | None) -> str:
    """That a row has no such column, and which ones it has; "" where it has it."""
    if column is None or column in values:
        return ""
    return f"there is no column {column}; there are {', '.join(values)}"


def _turn(written: Any, pictures_named: bool) -> Turn:
    if not isinstance(written, dict):
        raise Unusable("messages", "a turn is no object")
    role = str(written.get("role") or written.get("from") or "")
    role = _ROLES.get(role, role)
    if role not in ("system", "user", "assistant"):
        raise Unusable("messages", f"role {role!r:.40}")
    content = written.get("content", written.get("value"))
    if isinstance(content, list | tuple):
        return role, "".join(_part(part, pictures_named) for part in content)
    if not isinstance(content, str):
        raise Unusable("messages", "a turn holds no text")
    return role, content


def _part(part: Any, pictures_named: bool) -> str:
    if isinstance(part, dict) and part.get("type") in ("image", "image_url"):
        if not pictures_named:
            raise Unusable("messages", "a picture part, but fields.images names no column that holds it")
        return IMAGE
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Unusable("messages", "a part is neither text nor picture")


def _pictures(cells: Sequence[Any], root: Path | None, folder: Path) -> tuple[list[Seen], list[str]]:
    seen, images = [], []
    for cell in cells:
        try:
            found = pictures.read(cell, root)
            one = pictures.look(found.data)
        except PictureError as error:
            reason, _, detail = str(error).partition(": ")
            raise Unusable(f"picture_{reason}", detail) from error
        seen.append(one)
        images.append(str(found.file or pictures.keep(found.data, one, folder.resolve())))
    return seen, images


def _choices(written: Any) -> tuple[str, ...]:
    if isinstance(written, dict):
        written = [written[letter] for letter in sorted(written) if written[letter] is not None]
    if written is None:
        return ()
    if not isinstance(written, list | tuple):
        raise Unusable("choices", "neither a list nor a mapping")
    return tuple(str(text).strip() for text in written)


def _with_choices(turns: list[Turn], choices: Sequence[str]) -> list[Turn]:
    """Options that the question does not show are shown below it."""
    last = max((at for at, (role, _) in enumerate(turns) if role == "user"), default=None)
    if not choices or last is None or all(text in turns[last][1] for text in choices):
        return turns
    options = "\n".join(f"({letter}) {text}" for letter, text in zip(_letters(len(choices)), choices, strict=True))
    return [*turns[:last], ("user", f"{turns[last][1]}\n{options}"), *turns[last + 1 :]]


def _letters(count: int) -> str:
    if count > 26:
        raise Unusable("choices", "more than 26 options")
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]


def _references(written: Any) -> tuple[str, ...]:
    if isinstance(written, list | tuple):
        return tuple(text for one in written for text in _references(one))
    if written is None or isinstance(written, dict | bytes):
        return ()
    text = (str(int(written)) if isinstance(written, float) and written.is_integer() else str(written)).strip()
    if text.startswith("\\boxed"):
        # Some sets write the reference as the model is to write its answer (ViRL39K).
        found = boxes(text, 0, len(text))
        text = found[0].text.strip() if len(found) == 1 else text
    return (text,) if text else ()


def _policy(values: Mapping[str, Any], source: SourceConfig) -> dict[str, Json]:
    written = values.get(source.fields.answer_policy) if source.fields.answer_policy else None
    if isinstance(written, str) and written.strip():
        try:
            written = msgspec.json.decode(written)
        except msgspec.DecodeError as error:
            raise Unusable("answer_policy", str(error)) from error
    if written is None or written == "":
        return dict(source.answer_policy)
    if not isinstance(written, dict):
        raise Unusable("answer_policy", "not a mapping")
    policy = {**source.answer_policy, **{name: value for name, value in written.items() if value is not None}}
    wrong = answer_policy.fault(policy)
    if wrong is not None:
        raise Unusable("answer_policy", wrong)
    return policy


def _word(values: Mapping[str, Any], column: str | None) -> str:
    value = values.get(column) if column is not None else None
    return "" if value is None else str(value).strip()


# ---------------------------------------------------------------- asking


def messages_of(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns of a row of schema QUESTIONS (``messages``, ``images``), pictures in their places."""
    images = iter(row["images"] or ())
    messages = []
    for turn in row["messages"]:
        parts: list[TextPart | PicturePart] = []
        for number, text in enumerate(turn["content"].split(IMAGE)):
            if number:
                path = Path(next(images))
                parts.append(PicturePart(Picture(str(path), path.read_bytes)))
            if text:
                parts.append(TextPart(text))
        messages.append(Message(turn["role"], tuple(parts)))
    return tuple(messages)


def spec_of(row: Mapping[str, Any]) -> AnswerSpec:
    """How the answer of a row of schema QUESTIONS is compared."""
    return AnswerSpec(row["answer_type"], msgspec.json.decode(row["answer_policy"]), tuple(row["choices"]))


def question_text(row: Mapping[str, Any]) -> str:
    """The text of the last user turn of a row of schema QUESTIONS, for the verifier."""
    return next((str(turn["content"]) for turn in reversed(row["messages"]) if turn["role"] == "user"), "")


def sample_of(row: Mapping[str, Any], task: str) -> Sample:
    """A row of schema QUESTIONS as what the evaluator asks, under the name ``task``."""
    return Sample(
        task=task,
        id=row["qid"],
        messages=messages_of(row),
        reference=tuple(row["references"]),
        answer=spec_of(row),
        group=row["qid"],
    )
