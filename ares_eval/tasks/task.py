"""A task that is ready to be asked: `load` a name, iterate its samples. Nothing is read before it is needed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ares_eval.tasks import catalog
from ares_eval.tasks.definition import Definition, read_definition
from ares_eval.tasks.errors import BadRow
from ares_eval.tasks.samples import SampleMaker
from ares_eval.tasks.scoring import JudgeModel, Scorer
from ares_eval.tasks.sources import Source, find_source
from ares_eval.types import Json, Sample


@dataclass(frozen=True)
class Task:
    """A benchmark with its data found. ``limit``: only the first so many questions (groups, where a metric needs
    whole groups); None for all."""

    definition: Definition
    data: Source
    limit: int | None = None

    @property
    def name(self) -> str:
        """The task's name: its file's stem."""
        return self.definition.name

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites that name it (`all` is not among them: it is a rule)."""
        return self.definition.suites

    @property
    def modality(self) -> str:
        """text, or image+text."""
        return self.definition.modality

    @property
    def repeats(self) -> int:
        """Draws per question that the protocol asks for (AIME: 16)."""
        return self.definition.repeats

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of metrics, the primary one first."""
        return self.definition.metrics

    @property
    def defaults(self) -> Mapping[str, Json]:
        """Settings of RunConfig that the task brings along; ours leave all to the run."""
        return {}

    @property
    def scorer(self) -> Scorer | None:
        """The task's own scoring in the verifier's place (scoring.py); ours have none."""
        return None

    @property
    def official_rule(self) -> str | None:
        """The rule of official.py that `--scoring official` decides by; None where ours is as the official one."""
        rule = self.definition.official.get("rule")
        return None if rule is None else str(rule)

    @property
    def judged_officially(self) -> bool:
        """Whether the official protocol asks a judge about every answer."""
        return bool(self.definition.official.get("judge"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the task's definition; see Definition.fingerprint."""
        return self.definition.fingerprint

    @property
    def dataset_digest(self) -> str:
        """``sha256:...`` over the local files that hold the rows, or the Hub's commit. Reads those files once."""
        return self.data.digest

    @property
    def source(self) -> str:
        """Where the rows come from, for people."""
        return self.data.description

    @functools.cached_property
    def size(self) -> int | None:
        """Samples that `samples` gives; None where only reading all of it would tell (scattered groups).

        A task that leaves rows out (`keep`) reads its rows once to count them.
        """
        if "keep" in self.definition.metadata:
            maker = SampleMaker(self.definition)
            kept = (row for row in self.data.rows() if maker.keeps(row))
            enough = None if self.limit is None or self.definition.grouped else max(self.limit, 0)
            size: int | None = sum(1 for _ in itertools.islice(kept, enough))
        elif self.limit is not None and not self.definition.grouped:
            size = self.data.size_until(max(self.limit, 0))
        else:
            size = self.data.size
        if size is None or self.limit is None:
            return size
        if not self.definition.grouped:
            return min(size, max(self.limit, 0))
        tables = len(self.data.tables)
        return min(size, max(self.limit, 0) * tables) if tables > 1 else None

    def samples(self) -> Iterator[Sample]:
        """The questions, lazily, in the order of the source. Raises BadRow, BrokenTask."""
        maker = SampleMaker(self.definition)
        made: set[str] = set()
        groups: set[str] = set()
        count = 0
        if self.limit is not None and self.limit <= 0:
            return
        for row in self.data.rows():
            sample = maker.sample(row)
            if sample is None:
                continue
            if self.definition.grouped and self.limit is not None and sample.group not in groups:
                if len(groups) >= self.limit:
                    # Variants that are read side by side come group by group: nothing wanted can follow.
                    if len(self.data.tables) > 1:
                        return
                    continue
                groups.add(sample.group)
            if sample.id in made:
                raise BadRow(self.name, row.file, row.number, f"the id {sample.id!r} occurs twice")
            made.add(sample.id)
            yield sample
            count += 1
            if not self.definition.grouped and count == self.limit:
                return


def load(
    name: str,
    *,
    dataset_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    limit: int | None = None,
    include_path: Sequence[str | Path] = (),
    judge: JudgeModel | None = None,
) -> Task:
    """Find a task and its data; no row is read yet.

    ``dataset_dir``: folder with local data (sources.py); ``cache_dir``: where `datasets` keeps what the Hub sends
    (its own default where None); ``include_path``: more folders of task files; ``judge``:
    for tasks of other registries whose own scoring asks a model. Raises UnknownTask, BrokenTask,
    DataUnavailable.
    """
    external = catalog.external(name)
    if external is not None:
        loaded: Task = external.load(name, dataset_dir=dataset_dir, cache_dir=cache_dir, limit=limit, judge=judge)
        return loaded
    definition = read_definition(catalog.find(name, include_path))
    directory = None if dataset_dir is None else Path(dataset_dir)
    data = find_source(definition, directory, None if cache_dir is None else Path(cache_dir))
    return Task(definition, data, limit)
