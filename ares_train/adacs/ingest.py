"""Stage 0, ingest: sources to question parts, without duplicates and without the benchmarks' questions.

    rows -> prepared chunks (questions, pictures looked at, matches)  [processes, resumable]
         -> contaminated and repeated ones dropped, the rest spread over buckets by hash(seed, qid)
         -> buckets sorted by that hash, cut into parts

The order of questions is that of the hash: shuffled, and the same for any number of processes. Of equal questions (text
and pictures, within and across sources) the first stays, in the order of the sources. Rows that are no questions go to
the quarantine table with their reason. Chunks whose rows name pictures that came, went or changed since are prepared
anew. Memory is bounded by a bucket (shuffle.py) and some 200 bytes a question.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ares_eval.tasks.rows import Row
from ares_train.adacs import contamination, prepare, schemas, store
from ares_train.adacs.benchmark_index import BenchmarkIndex
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.contamination import Coverage, Matcher
from ares_train.adacs.contamination_report import ContaminationReport, as_markdown
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from ares_train.adacs.prepare import CHUNK, PREPARED, Preparer, looked_at
from ares_train.adacs.shuffle import Spool
from ares_train.adacs.sources import Opened, open_source
from ares_train.adacs.store import Stage
from ares_train.adacs.ticker import Ticker


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Ingest all sources. Raises AdacsError."""
    layout = Layout(work)
    opened = [open_source(source) for source in config.ingest.sources]
    indexes, coverage = contamination.gather(config.ingest.contamination, note)
    compared = contamination.digest(config.ingest.contamination, coverage, indexes)
    settings = _fingerprint(config)
    inputs = [compared, *(source.digest for source in opened)]
    stage = Stage(layout.questions, settings)
    prepared = [_prepared(config, layout, source, compared) for source in opened]
    same_pictures = all(looked_at(path) for one in prepared for path in one.parts())
    if same_pictures and store.artifact_done(layout.ingest_report, settings, inputs):
        note(f"ingest: {len(stage.numbers())} parts are there already")
        return
    store.begin_artifact(layout.ingest_report)
    _prepare(config, layout, list(zip(opened, prepared, strict=True)), indexes, note)
    paths = [path for one in prepared for path in one.parts()]
    found = _Sorted(coverage)
    spool = Spool(layout.questions / "spool", config.seed, sum(pq.read_metadata(path).num_rows for path in paths))
    _sort_out(paths, found, spool)
    _check_trusted(config, found)
    parts = 0
    for parts, table in enumerate(spool.parts(config.ingest.part_rows), 1):
        stage.write(parts - 1, table, schemas.QUESTIONS, inputs)
    stage.keep_only(range(parts))
    if not parts:
        example = f"; the first row that is none: {found.quarantine[0]['reason']}" if found.quarantine else ""
        raise AdacsError(f"no question is left after ingest; {_why(found.counts)}{example}")
    _report(config, layout, opened, found, parts, settings, inputs)
    kept = sum(count.kept for count in found.counts.values())
    note(f"ingest: {kept} questions in {parts} parts; {_why(found.counts)}")
    for name, count in found.counts.items():
        if not count.kept:
            first = next((row["reason"] for row in found.quarantine if row["source"] == name), None)
            note(f"ingest: NOTHING is left of source {name}: {first or _why({name: count})}")


def _check_trusted(config: AdacsConfig, found: _Sorted) -> None:
    for name in config.rate.trust_source:
        if name not in found.counts:
            raise AdacsError(f"rate.trust_source: no question is of a source {name!r}; there are {_some(found.counts)}")


def _some(names: Iterable[str]) -> str:
    named = sorted(names)
    return ", ".join(named[:20]) + (f" and {len(named) - 20} more" if len(named) > 20 else "")


def _report(
    config: AdacsConfig,
    layout: Layout,
    opened: Sequence[Opened],
    found: _Sorted,
    parts: int,
    settings: str,
    inputs: Sequence[str],
) -> None:
    quarantine = pa.Table.from_pylist(found.quarantine, schema=schemas.QUARANTINE)
    dropped = pa.Table.from_pylist(found.dropped, schema=schemas.DROPPED)
    store.write_artifact(layout.quarantine, quarantine, settings, inputs, schema=schemas.QUARANTINE)
    store.write_artifact(layout.question_drops, dropped, settings, inputs, schema=schemas.DROPPED)
    contaminated = found.report.as_json()
    store.write_artifact(layout.contamination_report, contaminated, settings, inputs)
    store.write_text(layout.contamination_report.with_suffix(".md"), as_markdown(contaminated))
    sources = {
        name: {"kept": count.kept, "images": count.images, "left_out": dict(sorted(count.left_out.items()))}
        for name, count in sorted(found.counts.items())
    }
    whole = {
        "parts": parts,
        "sources": sources,
        "data": {source.config.name: source.description for source in opened},
        "benchmarks_checked": sorted(contaminated["checked"]),
        "benchmarks_not_checked": contaminated["not_checked"],
        "seed": config.seed,
    }
    # Last: it says that all of the above is there.
    store.write_artifact(layout.ingest_report, whole, settings, inputs)


def _fingerprint(config: AdacsConfig) -> str:
    """Of all that changes a question or its place."""
    ingest = replace(config.ingest, workers=1, contamination=replace(config.ingest.contamination, cache_dir=None))
    return store.fingerprint("ingest", ingest, config.rate.trust_source, config.seed)


def _why(counts: Mapping[str, _Count]) -> str:
    total: Counter[str] = Counter()
    for count in counts.values():
        total.update({reason.partition(":")[0]: number for reason, number in count.left_out.items()})
    return "left out: " + (", ".join(f"{number} {reason}" for reason, number in total.most_common()) or "none")


# ---------------------------------------------------------------- rows to prepared chunks


def _prepared(config: AdacsConfig, layout: Layout, source: Opened, compared: str) -> Stage:
    """Where a source's chunks lie: names that differ in signs that no folder can have are kept apart by their hash."""
    name = source.config.name
    folder = f"{re.sub(r'[^A-Za-z0-9]+', '_', name)[:40]}-{store.fingerprint(name)[:12]}"
    settings = store.fingerprint("prepare", source.config, config.rate.trust_source, compared)
    return Stage(layout.questions / "prepared" / folder, settings)


def _prepare(
    config: AdacsConfig,
    layout: Layout,
    sources: Sequence[tuple[Opened, Stage]],
    indexes: Sequence[BenchmarkIndex],
    note: Callable[[str], None],
) -> None:
    """Prepare every source's chunks that are not there yet."""
    workers = config.ingest.workers
    with ExitStack() as stack:
        submit: Callable[[Preparer, list[Row]], Future[pa.Table]]
        if workers > 1:
            pool = stack.enter_context(
                ProcessPoolExecutor(
                    workers,
                    mp_context=get_context("spawn"),
                    initializer=prepare.begin,
                    initargs=(tuple(indexes), config.ingest.contamination),
                )
            )

            def submit(preparer: Preparer, rows: list[Row]) -> Future[pa.Table]:
                column = preparer.source.fields.images
                return pool.submit(prepare.work, preparer, [prepare.portable(row, column) for row in rows])
        else:
            matcher = Matcher(indexes, config.ingest.contamination)

            def submit(preparer: Preparer, rows: list[Row]) -> Future[pa.Table]:
                done: Future[pa.Table] = Future()
                done.set_result(preparer.table(rows, matcher))
                return done

        for source, stage in sources:
            preparer = Preparer(source.config, source.image_root, layout.pictures, config.rate.trust_source)
            ticker = Ticker(f"ingest {source.config.name}", "rows", source.size(), note)
            _prepare_source(source, preparer, stage, submit, 2 * workers if workers > 1 else 1, ticker)


def _prepare_source(
    source: Opened,
    preparer: Preparer,
    stage: Stage,
    submit: Callable[[Preparer, list[Row]], Future[pa.Table]],
    ahead: int,
    ticker: Ticker,
) -> None:
    inputs = [source.digest]
    under_way: deque[tuple[int, Future[pa.Table]]] = deque()

    def settle() -> None:
        number, future = under_way.popleft()
        table = future.result()
        stage.write(number, table, PREPARED, inputs)
        ticker.add(table.num_rows)

    number = -1
    for number, rows in enumerate(_chunks(source.rows())):
        if stage.done(number, inputs) and looked_at(stage.path(number)):
            ticker.skip(len(rows))
            continue
        under_way.append((number, submit(preparer, rows)))
        if len(under_way) >= ahead:
            settle()
    while under_way:
        settle()
    stage.keep_only(range(number + 1))


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# ---------------------------------------------------------------- what is kept


@dataclass
class _Count:
    kept: int = 0
    images: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


class _Sorted:
    """What becomes of the prepared rows: kept, dropped with a reason, or no question at all."""

    def __init__(self, coverage: Coverage) -> None:
        self.counts: dict[str, _Count] = {}
        self.report = ContaminationReport(coverage)
        self.quarantine: list[dict[str, Any]] = []
        self.dropped: list[dict[str, Any]] = []
        self._first: dict[int, tuple[int, str]] = {}

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Whether a prepared row stays; it is counted either way."""
        count = self.counts.setdefault(row["source"], _Count())
        if row["reason"] is not None:
            count.left_out[row["reason"]] += 1
            named = {name: row[name] for name in ("source", "file", "row", "id")}
            self.quarantine.append({**named, "reason": row["detail"]})
            return False
        reason = self._reason(row)
        if reason is not None:
            count.left_out[reason] += 1
            self.dropped.append({"qid": row["qid"], "reason": reason})
            return False
        count.kept += 1
        count.images += row["modality"] == "image"
        return True

    def _reason(self, row: Mapping[str, Any]) -> str | None:
        if row["matches"]:
            self.report.add(row["qid"], row["source"], row["id"], row["matches"])
            return f"contaminated:{row['matches'][0]['kind']}:{row['matches'][0]['task']}"
        known = self._first.get(row["same"])
        if known is None:
            self._first[row["same"]] = row["same_answer"], row["source"]
            return None
        answer, source = known
        return f"duplicate:{source}" if answer == row["same_answer"] else f"duplicate_other_answer:{source}"


_DECIDED_BY = ["qid", "source", "modality", "id", "file", "row", "reason", "detail", "same", "same_answer", "matches"]


def _sort_out(paths: Sequence[Path], found: _Sorted, spool: Spool) -> None:
    """Go over all prepared rows once, in order; what stays goes to ``spool``."""
    for path in paths:
        table = pq.read_table(path)
        kept = [found.keeps(row) for row in table.select(_DECIDED_BY).to_pylist()]
        spool.add(table.filter(pa.array(kept, pa.bool_())))
