"""Inspect AI: an evaluation log, ``.eval`` (a zip of JSON) or ``.json``, as a run; a folder is all logs in it.

A sample with an error, or without a score, was not measured. The first scorer counts, or the one that
``PATH::scorer`` names. Nothing of Inspect is imported, and no member of the zip is unpacked beyond a bound.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ares_eval.foreign.files import LARGEST_JSON, ForeignError, decode, mapping, read_json, score
from ares_eval.outcomes import Key, Outcome, Outcomes, TaskOutcomes, reference_digest
from ares_eval.types import Json

LARGEST_MEMBER = 1 << 28
LARGEST_TOTAL = 1 << 34
"""Bytes, unpacked, of one member of a log and of all of them."""

_LEVELS = ("level", "difficulty")


def recognises(path: Path) -> bool:
    """Whether an Inspect log lies at ``path``; of a JSON file only the first bytes are looked at."""
    if path.is_dir():
        return any(recognises(file) for file in _logs(path))
    if path.suffix == ".eval":
        return zipfile.is_zipfile(path)
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    return head.lstrip().startswith(b"{") and b'"eval"' in head and b'"version"' in head


def load(path: Path, selection: str = "") -> Outcomes:
    """Read it; ``selection`` names the scorer. ForeignError for a log that is broken or too large."""
    files = [file for file in _logs(path) if recognises(file)] if path.is_dir() else [path]
    tasks: dict[str, TaskOutcomes] = {}
    notes: list[str] = []
    models: set[str] = set()
    for file in files:
        header, samples = _zip(file) if file.suffix == ".eval" else _plain(file)
        about = header.get("eval")
        if not isinstance(about, dict):
            raise ForeignError(f"{file} is no Inspect log: it has no `eval`")
        task = str(about.get("task", file.stem)).rpartition("/")[2]
        if task in tasks:
            raise ForeignError(f"{path} holds two logs of {task}; give one of them")
        model = str(about.get("model", ""))
        models.add(model)
        read = _Samples(file, selection, model)
        draws = dict(read.outcome(number, sample) for number, sample in enumerate(samples))
        tasks[task] = TaskOutcomes(draws, judges=(f"inspect {read.scorer}",), file=str(file))
        notes += [f"{task}: {note}" for note in read.notes()]
        if header.get("status") not in (None, "success"):
            notes.append(f"{task}: the log's status is {header['status']}")
    label = ", ".join(sorted(models)) or path.name
    return Outcomes(f"inspect {label}", path, "inspect", label, tasks, notes=tuple(notes))


def _logs(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in (".eval", ".json"))


def _plain(file: Path) -> tuple[dict[str, Json], Iterator[Json]]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ForeignError(f"{file} is no Inspect log")
    return content, iter(content.get("samples") or [])


def _zip(file: Path) -> tuple[dict[str, Json], Iterator[Json]]:
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    total = sum(entry.file_size for entry in archive.infolist())
    if total > LARGEST_TOTAL:
        raise ForeignError(f"{file} unpacks to {total:,} bytes, more than {LARGEST_TOTAL:,}")
    header = next((name for name in ("header.json", "_journal/start.json") if name in names), None)
    if header is None:
        raise ForeignError(f"{file} is no Inspect log: it has neither header.json nor a journal")
    content = _member(archive, file, header, LARGEST_JSON)
    if not isinstance(content, dict):
        raise ForeignError(f"{file} is no Inspect log")
    samples = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
    return content, (_member(archive, file, name, LARGEST_MEMBER) for name in samples)


def _member(archive: zipfile.ZipFile, file: Path, name: str, largest: int) -> Json:
    try:
        with archive.open(name) as member:
            data = member.read(largest + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error) as error:
        raise ForeignError(f"{file}: {name} cannot be unpacked: {error}") from None
    if len(data) > largest:
        raise ForeignError(f"{file}: {name} unpacks to more than {largest:,} bytes")
    return decode(data, f"{file}: {name}")


class _Samples:
    """Samples of one log to outcomes; the scorer is settled by the first that has scores."""

    def __init__(self, file: Path, scorer: str, model: str) -> None:
        self.scorer = scorer
        self._file, self._model = file, model
        self._others: set[str] = set()

    def outcome(self, number: int, sample: Json) -> tuple[Key, Outcome]:
        """(sample, draw) and what became of it; epochs count from 1, draws from 0."""
        if not isinstance(sample, dict) or "id" not in sample:
            raise ForeignError(f"{self._file}: sample {number + 1} has no id")
        scores = mapping(sample.get("scores"))
        if scores and not self.scorer:
            self.scorer = next(iter(scores))
        self._others |= set(scores) - {self.scorer}
        found = scores.get(self.scorer)
        value = score(found.get("value")) if isinstance(found, dict) else None
        if value is None and found is not None:
            raise ForeignError(f"{self._file}: sample {sample['id']}: {self.scorer} gives no score between 0 and 1")
        cause = "server" if sample.get("error") else "unscored" if value is None else None
        meta = mapping(sample.get("metadata"))
        stop = _stop_reason(sample)
        name, epoch = str(sample["id"]), sample.get("epoch", 1)
        if not isinstance(epoch, int):
            raise ForeignError(f"{self._file}: sample {name}: the epoch {epoch!r} is no number")
        return (name, epoch - 1), Outcome(
            score=value or 0.0,
            cause=cause,
            group=name,
            level=next((str(meta[key]) for key in _LEVELS if meta.get(key) is not None), None),
            tokens=self._tokens(mapping(sample.get("model_usage"))),
            truncated=stop in ("max_tokens", "model_length"),
            reference=_reference(sample.get("target")),
        )

    def notes(self) -> list[str]:
        """Which scorer was read, where there was a choice."""
        return [f"scored by {self.scorer}; there are also {', '.join(sorted(self._others))}"] if self._others else []

    def _tokens(self, usage: Mapping[str, Json]) -> int | None:
        """Output tokens of the evaluated model; a judge's are not the model's."""
        mine = usage.get(self._model) if self._model in usage else next(iter(usage.values()), None)
        count = mine.get("output_tokens") if isinstance(mine, dict) else None
        return count if isinstance(count, int) else None


def _stop_reason(sample: Mapping[str, Json]) -> str | None:
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, dict) else None
    if not choices or not isinstance(choices[0], dict):
        return None
    reason = choices[0].get("stop_reason")
    return reason if isinstance(reason, str) else None


def _reference(target: Json) -> str:
    if isinstance(target, str):
        return reference_digest(target)
    return reference_digest(tuple(map(str, target))) if isinstance(target, list) else ""
