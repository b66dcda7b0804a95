"""VLMEvalKit: a model's folder with prediction and score tables, as a run.

``<model>_<dataset>.tsv`` (or .json) holds the predictions; the scorers write tables beside it that begin with the same
name and have a column of per-question scores (``hit`` of multiple choice, ``score`` and others of the rest). The table
with such a column is what is read. A prediction that is VLMEvalKit's failure text was not measured. Excel files are not
read: VLMEvalKit cuts long replies in them; run it with PRED_FORMAT=tsv and EVAL_FORMAT=tsv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ares_eval.foreign.files import ForeignError, read_json, score
from ares_eval.outcomes import Key, Outcome, Outcomes, TaskOutcomes, reference_digest
from ares_eval.types import Json

SCORES = ("hit", "score", "eval_score", "eval_match", "match", "is_correct", "correct", "judge", "verdict")
"""Columns that hold a question's score, in order of preference."""

FAILED = "Failed to obtain answer via API"
"""What VLMEvalKit stores as a prediction where a request failed."""

_LARGEST_FIELD = 1 << 26
_RUN_FOLDER = re.compile(r"T\d{8}([-_]?(\d{6}|G[0-9a-f]+))?")
_LEVELS = ("level", "difficulty")


def recognises(path: Path) -> bool:
    """Whether a table with an index and predictions or scores lies at ``path``."""
    if path.is_file():
        return path.suffix in (".tsv", ".json") and _is_table(path)
    return path.is_dir() and any(_is_table(file) for file in _files(path))


def load(path: Path, selection: str = "") -> Outcomes:
    """Read it; ``selection`` names the score's column. ForeignError where no table has per-question scores."""
    files = [path] if path.is_file() else [file for file in _files(path) if _is_table(file)]
    stems = _predictions(files)
    model = _model(path)
    tasks: dict[str, TaskOutcomes] = {}
    notes: list[str] = []
    for stem, mine in stems.items():
        task = stem.removeprefix(f"{model}_") if model else stem
        scored = [(file, column) for file in mine if (column := _score_column(file, selection))]
        if not scored:
            raise ForeignError(f"{mine[0]} has predictions, but no table beside it has scores ({', '.join(SCORES)})")
        file, column = scored[0]
        tasks[task] = TaskOutcomes(_draws(file, column), judges=(f"vlmevalkit {column}",), file=str(file))
        if len(scored) > 1:
            notes.append(f"{task}: scores of {file.name}; there are also {', '.join(f.name for f, _ in scored[1:])}")
    return Outcomes(f"vlmevalkit {model or path.name}", path, "vlmevalkit", model, tasks, notes=tuple(notes))


def _files(folder: Path) -> Iterator[Path]:
    """Tables of a run's folder; of a model's folder, those of its newest run."""
    runs = sorted(entry for entry in folder.iterdir() if entry.is_dir() and _RUN_FOLDER.fullmatch(entry.name))
    for entry in sorted((runs[-1] if runs else folder).iterdir()):
        if entry.is_file() and entry.suffix in (".tsv", ".json"):
            yield entry


def _model(path: Path) -> str | None:
    folder = path if path.is_dir() else path.parent
    name = folder.parent.name if _RUN_FOLDER.fullmatch(folder.name) else folder.name
    return name or None


def _predictions(files: list[Path]) -> dict[str, list[Path]]:
    """Tables by the prediction table whose name they begin with, the longest names (scores) first."""
    stems = sorted((file.stem for file in files), key=len)
    heads: list[str] = []
    for stem in stems:
        if not any(stem == head or stem.startswith(f"{head}_") for head in heads):
            heads.append(stem)
    return {
        head: sorted(
            (file for file in files if file.stem == head or file.stem.startswith(f"{head}_")),
            key=lambda file: (-len(file.stem), file.name),
        )
        for head in sorted(heads)
    }


def _is_table(file: Path) -> bool:
    columns = _columns(file)
    return "index" in columns and ("prediction" in columns or not columns.isdisjoint(SCORES))


def _score_column(file: Path, selection: str) -> str:
    columns = _columns(file)
    return next((name for name in ([selection] if selection else SCORES) if name in columns), "")


def _columns(file: Path) -> set[str]:
    try:
        return set(next(_rows(file), {}))
    except ForeignError:
        return set()


def _rows(file: Path) -> Iterator[Mapping[str, Json]]:
    if file.suffix == ".json":
        yield from _json_rows(file)
        return
    csv.field_size_limit(_LARGEST_FIELD)
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            yield from csv.DictReader(stream, delimiter="\t")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ForeignError(f"{file} is no table: {error}") from None


def _json_rows(file: Path) -> Iterator[Mapping[str, Json]]:
    """A list of rows, or columns of values as pandas writes them by default."""
    content = read_json(file)
    if isinstance(content, list):
        yield from (row for row in content if isinstance(row, dict))
    elif isinstance(content, dict) and content and all(isinstance(column, dict | list) for column in content.values()):
        columns = {
            name: list(column.values()) if isinstance(column, dict) else column for name, column in content.items()
        }
        if len({len(column) for column in columns.values()}) == 1:
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))


def _draws(file: Path, column: str) -> dict[Key, Outcome]:
    draws: dict[Key, Outcome] = {}
    for position, row in enumerate(_rows(file)):
        if "index" not in row or column not in row:
            raise ForeignError(f"{file}, row {position + 1}: no index, or no {column}")
        sample = str(row["index"])
        failed = FAILED in str(row.get("prediction", ""))
        value = score(row[column])
        if value is None:
            value = score(_number(row[column]))
        if value is None and not failed:
            raise ForeignError(f"{file}, row {position + 1}: {column} is {row[column]!r}, no score between 0 and 1")
        answer = row.get("answer")
        draws[sample, 0] = Outcome(
            score=value or 0.0,
            cause="server" if failed else None,
            group=sample,
            level=next((str(row[name]) for name in _LEVELS if row.get(name) not in (None, "")), None),
            reference=reference_digest(str(answer)) if answer not in (None, "") else "",
            position=position,
            line=position + 2 if file.suffix == ".tsv" else None,
        )
    return draws


def _number(value: Json) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
