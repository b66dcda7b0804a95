"""A run's columns for the viewer: one row a draw, with the place of its line in samples.jsonl; no texts.

Three Parquet files lie in the run's ``.view`` folder (in one of the process where that cannot be written): records,
prompts (where the messages of each question stand) and tokens (HWE figures, made later since all traces must be read).
Their names hold the size and time of the file that they were made from, so a run that has grown gets new ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ares_eval import records
from ares_eval.analysis import scored_traces, summary
from ares_eval.analysis.tokens import NotRecorded, TokenOptions, TokenSource
from ares_eval.records import Run, RunError, placed_lines
from ares_eval.types import Record, TraceRef, Usage

if TYPE_CHECKING:
    import numpy as np

VERSION = 2
FOLDER = ".view"
SHORT = 200
"""Characters of an answer or a reference that are kept for lists and search."""

UNMEASURED = "not measured"


class _Verdict(msgspec.Struct):
    value: str
    method: str = ""
    reason: str | None = None
    extracted: str | None = None


class _Line(msgspec.Struct):
    """What the index takes of a record; msgspec skips the texts without building them."""

    task: str
    sample: str
    draw: int
    group: str
    level: str | None = None
    reference: str | list[str] = ""
    finish_reason: str | None = None
    truncated: bool = False
    usage: Usage = Usage()
    latency: float | None = None
    cached: bool = False
    trace: TraceRef | None = None
    verdict: _Verdict | None = None
    cause: str | None = None


class _PromptHead(msgspec.Struct):
    task: str
    sample: str


@dataclass(frozen=True, slots=True)
class Files:
    """The index files of one state of a run; ``tokens`` is None until ``make_tokens`` was called, or where there are
    no traces."""

    records: Path
    prompts: Path
    tokens: Path | None


def make(run: Run, fallback: Path) -> Files:
    """The index of a run, made where there is none of its present state. ``fallback``: a folder that can be written.

    Raises RunError for a line that is no record.
    """
    folder = _folder(run.folder, fallback)
    kept = folder / f"records-{_stamp(run.folder / records.SAMPLES)}.parquet"
    prompts = folder / f"prompts-{_stamp(run.folder / records.PROMPTS)}.parquet"
    if not kept.exists():
        _write(kept, _record_columns(run.folder / records.SAMPLES))
    if not prompts.exists():
        _write(prompts, _prompt_columns(run.folder / records.PROMPTS))
    tokens = _tokens_path(kept)
    return Files(kept, prompts, tokens if tokens.exists() else None)


def make_tokens(run: Run, files: Files) -> Files:
    """The same with HWE figures; raises analysis.tokens.NotRecorded where no trace counts."""
    from ares_eval.analysis.columns import draws_of
    from ares_eval.analysis.words import DEFAULT_LIST, read_words

    path = _tokens_path(files.records)
    if not path.exists():
        if not scored_traces.read_index(run.folder) and not _any_trace(files):
            raise NotRecorded("token log-probs are not recorded")
        # Their texts are not needed, and a hundred thousand of them do not fit.
        draws = draws_of(replace(record, text="", reasoning="") for record in run.records() if record.measured)
        figures = TokenSource(run, draws, token_options(run)).figures(read_words(DEFAULT_LIST))
        names = ("tokens", "hwe", "windows", "confirmed", "density", "mean", "tau")
        columns: dict[str, Any] = {
            "task": [r.task for r in draws.records],
            "sample": [r.sample for r in draws.records],
            "draw": [r.draw for r in draws.records],
        }
        columns["estimate"] = [figures.estimate] * len(draws)
        columns |= {"trace_tokens" if name == "tokens" else name: getattr(figures, name) for name in names}
        _write(path, columns)
    return replace(files, tokens=path)


def _any_trace(files: Files) -> bool:
    from pyarrow import compute, parquet

    return bool(compute.any(parquet.read_table(files.records, columns=["trace"])["trace"]).as_py())


def token_options(run: Run) -> TokenOptions:
    """How HWE is counted: as the run's own analysis did, so that the viewer's numbers are those of the report."""
    with contextlib.suppress(RunError):
        return replace(summary.read(run.folder / summary.FILE).options.tokens, part="all")
    return TokenOptions()


def _folder(run: Path, fallback: Path) -> Path:
    own = run / FOLDER
    try:
        own.mkdir(exist_ok=True)
        probe = own / ".probe"
        probe.touch()
        probe.unlink()
    except OSError:
        own = fallback / "".join(c if c.isalnum() else "_" for c in str(run.resolve()))
        own.mkdir(parents=True, exist_ok=True)
    return own


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return f"{VERSION}-0-0"
    return f"{VERSION}-{stat.st_size}-{stat.st_mtime_ns}"


def _tokens_path(of: Path) -> Path:
    return of.with_name(of.name.replace("records-", "tokens-", 1))


def _write(path: Path, columns: dict[str, Any]) -> None:
    """One Parquet file, whole or not at all; older ones of its kind are removed."""
    import pyarrow
    from pyarrow import parquet

    part = path.with_name(f".{path.name}.part")
    parquet.write_table(pyarrow.table(columns), part, compression="zstd", row_group_size=50_000)
    part.replace(path)
    kind = path.name.partition("-")[0]
    for old in path.parent.glob(f"{kind}-*.parquet"):
        if old != path:
            old.unlink(missing_ok=True)


# ---------------------------------------------------------------- columns


def _record_columns(path: Path) -> dict[str, Any]:
    """One row a draw by the rule of records.latest: the last line counts, but a measured one is never replaced by a
    failure."""
    kept: dict[tuple[str, str, int], tuple[int, int, _Line]] = {}
    for offset, length, line in placed_lines(path, msgspec.json.Decoder(_Line)):
        key = (line.task, line.sample, line.draw)
        before = kept.get(key)
        if before is None or line.cause is None or before[2].cause is not None:
            kept[key] = (offset, length, line)
    rows = list(kept.values())
    lines = [line for _, _, line in rows]
    verdicts = [line.verdict for line in lines]
    return {
        "row": list(range(len(rows))),
        "task": [line.task for line in lines],
        "sample": [line.sample for line in lines],
        "draw": [line.draw for line in lines],
        "level": _texts([line.level for line in lines]),
        "tier": _texts(_tiers(lines)),
        "verdict": [_outcome(line) for line in lines],
        "reason": _texts([line.cause or (line.verdict.reason if line.verdict else None) for line in lines]),
        "method": _texts([v.method if v is not None else None for v in verdicts]),
        "answer": _texts([_short(v.extracted) if v is not None else None for v in verdicts]),
        "reference": _texts([_short(_reference(line)) for line in lines]),
        "tokens": _numbers([line.usage.completion for line in lines]),
        "reasoning": _numbers([line.usage.reasoning for line in lines]),
        "truncated": [line.truncated for line in lines],
        "trace": [line.trace is not None for line in lines],
        "offset": [offset for offset, _, _ in rows],
        "length": [length for _, length, _ in rows],
    }


def _prompt_columns(path: Path) -> dict[str, Any]:
    rows = list(placed_lines(path, msgspec.json.Decoder(_PromptHead)))
    return {
        "task": _texts([head.task for _, _, head in rows]),
        "sample": _texts([head.sample for _, _, head in rows]),
        "offset": _numbers([offset for offset, _, _ in rows]),
        "length": _numbers([length for _, length, _ in rows]),
    }


def _outcome(line: _Line) -> str:
    if line.cause is not None:
        return UNMEASURED
    return "unverifiable" if line.verdict is None else line.verdict.value


def _reference(line: _Line) -> str:
    return line.reference if isinstance(line.reference, str) else " | ".join(line.reference)


def _short(text: str | None) -> str | None:
    return None if text is None else text[:SHORT]


def _texts(values: Sequence[str | None]) -> Any:
    """An empty or all-empty column keeps its type."""
    import pyarrow

    return pyarrow.array(values, type=pyarrow.string())


def _numbers(values: Sequence[int | None]) -> Any:
    import pyarrow

    return pyarrow.array(values, type=pyarrow.int64())


def _tiers(lines: Sequence[_Line]) -> list[str | None]:
    """Easy, medium or hard, as ``ares-eval analyze`` would have it by default: by the dataset's level, else by the pass
    rate of the question's other draws; None where neither tells."""
    import numpy as np

    from ares_eval.analysis.difficulty import TIERS

    found: list[str | None] = [None] * len(lines)
    places: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        if line.cause is None:
            places.setdefault(line.task, []).append(i)
    for rows in places.values():
        tier = _task_tiers([lines[i] for i in rows])
        for i, value in zip(rows, np.asarray(tier).tolist(), strict=True):
            found[i] = TIERS[value] if value >= 0 else None
    return found


def _task_tiers(lines: Sequence[_Line]) -> np.ndarray:
    import numpy as np

    from ares_eval.analysis.difficulty import NoDifficulty, from_levels, from_own_pass_rate

    with contextlib.suppress(NoDifficulty):
        return from_levels([line.level for line in lines]).tier
    number: dict[str, int] = {}
    question = np.array([number.setdefault(line.sample, len(number)) for line in lines], dtype=np.int64)
    draw = np.array([line.draw for line in lines], dtype=np.int64)
    right = np.array([_outcome(line) == "correct" for line in lines], dtype=np.bool_)
    try:
        return from_own_pass_rate(question, draw, right).tier
    except NoDifficulty:
        return np.full(len(lines), -1)


def read_record(folder: Path, offset: int, length: int) -> Record:
    """The record of one line; RunError where the file has changed under the index."""
    try:
        with (folder / records.SAMPLES).open("rb") as file:
            file.seek(offset)
            return msgspec.json.decode(file.read(length), type=Record)
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"{folder / records.SAMPLES} has no record at byte {offset}: {error}") from None
