"""A run reduced to what a later run is paired with: small enough to commit, without a text of question or reply.

One JSON file: the model and its settings, each task's fingerprint, and a row for each draw (columns named once):
verdict, tokens, flags, digests of prompt and right answer, tokens in high-entropy windows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ares_eval import records, resources
from ares_eval.compare.window_entropy import measured
from ares_eval.foreign.files import ForeignError, mapping, read_json
from ares_eval.outcomes import Key, Outcome, Outcomes, TaskOutcomes, WindowEntropy, of_run
from ares_eval.types import Json

FORMAT = 1
MARK = "ares_baseline"
LARGEST = 64 << 20
"""Bytes; 100,000 draws come to about 10 MB."""

COLUMNS = ("sample", "draw", *(name for name in Outcome._fields if name != "line"))
_SETTINGS = ("temperature", "top_p", "top_k", "max_tokens", "seed", "samples", "limit", "logprobs", "prompt_style")


def save(run: records.Run, name: str, folder: Path | None = None) -> Path:
    """Write ``folder``/``name``.json (results/baselines of this installation); ForeignError for a bad name or run.

    A run with a draw that was asked for and has no record is refused: it is unfinished.
    """
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.startswith("."):
        raise ForeignError(f"{name!r} is no name for a file: letters, digits, . _ + - only")
    outcomes = measured(of_run(run))
    for task, entry in outcomes.tasks.items():
        if entry.planned is not None and len(entry.draws) < entry.planned:
            raise ForeignError(f"{run.folder} is unfinished: {task} has {len(entry.draws)} of {entry.planned} draws")
    path = (folder or resources.folder("results/baselines")) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(_text(run.manifest, name, outcomes))
    part.replace(path)
    return path


def is_baseline(path: Path) -> bool:
    """Whether a baseline lies at ``path``; looks at its first bytes only."""
    if not path.is_file() or path.suffix != ".json":
        return False
    with path.open("rb") as file:
        return f'"{MARK}"'.encode() in file.read(200)


def load(path: Path) -> Outcomes:
    """Read a baseline; ForeignError where it is none, or of another format."""
    content = mapping(read_json(path, LARGEST))
    if content.get(MARK) != FORMAT:
        raise ForeignError(f"{path} is a baseline of format {content.get(MARK)!r}; this version reads {FORMAT}")
    try:
        stored = msgspec.convert(content, _Stored)
        tasks = {name: _task(task) for name, task in stored.tasks.items()}
    except (ValueError, TypeError, KeyError) as error:  # msgspec.ValidationError is a ValueError
        raise ForeignError(f"{path} is a broken baseline: {error}") from None
    return Outcomes(
        label=f"baseline {stored.name}",
        source=path,
        harness="baseline",
        model=stored.model,
        tasks=tasks,
        window_entropy=stored.window_entropy,
    )


class _Task(msgspec.Struct):
    fingerprint: str | None
    planned: int | None
    judges: tuple[str, ...]
    columns: tuple[str, ...]
    draws: list[tuple[Json, ...]]


class _Stored(msgspec.Struct):
    name: str
    model: str | None
    tasks: dict[str, _Task]
    window_entropy: WindowEntropy | None = None


def _task(task: _Task) -> TaskOutcomes:
    if unknown := set(task.columns) - set(COLUMNS):
        raise KeyError(f"unknown column {sorted(unknown)[0]}")
    draws: dict[Key, Outcome] = {}
    for row in task.draws:
        fields = dict(zip(task.columns, row, strict=True))
        key = (str(fields.pop("sample")), int(fields.pop("draw")))
        values = [fields.get(name, Outcome._field_defaults.get(name)) for name in Outcome._fields]
        outcome = msgspec.convert(values, Outcome)
        draws[key] = outcome._replace(group=outcome.group or key[0])
    return TaskOutcomes(draws, task.fingerprint, task.planned, task.judges)


def _text(manifest: Mapping[str, Json], name: str, outcomes: Outcomes) -> bytes:
    """The file: a header, then a line for each draw, so that a change of baseline can be read in a diff."""
    settings = manifest.get("settings", {})
    environment = manifest.get("environment", {})
    head: dict[str, Json] = {
        MARK: FORMAT,
        "name": name,
        "model": outcomes.model,
        "revision": manifest.get("revision"),
        "created": manifest.get("created"),
        "ares": environment.get("ares"),
        "settings": {key: settings[key] for key in _SETTINGS if settings.get(key) is not None},
        "window_entropy": outcomes.window_entropy,
    }
    lines = [_json(head)[:-1] + b',\n"tasks": {']
    for number, task in enumerate(sorted(outcomes.tasks)):
        entry = outcomes.tasks[task]
        about = {"fingerprint": entry.fingerprint, "planned": entry.planned, "judges": entry.judges, "columns": COLUMNS}
        lines.append((b"," if number else b"") + _json(task) + b": " + _json(about)[:-1] + b', "draws": [')
        rows = [_json(_row(key, entry.draws[key])) for key in sorted(entry.draws)]
        lines += [row + b"," for row in rows[:-1]] + rows[-1:] + [b"]}"]
    return b"\n".join(lines) + b"\n}}\n"


def _row(key: Key, outcome: Outcome) -> list[Json]:
    fields = outcome._asdict() | {"sample": key[0], "draw": key[1]}
    if outcome.group == key[0]:
        fields["group"] = ""
    return [fields[column] for column in COLUMNS]


def _json(value: Json) -> bytes:
    return msgspec.json.encode(value)
