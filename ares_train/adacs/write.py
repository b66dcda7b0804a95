"""Stage write: verl's SFT files for the chosen responses and for the control set.

    W/selected.parquet, W/vanilla.parquet            which responses (no text)
      -> W/sft/parts/part-NNNNN.parquet              their rows, joined with the texts part by part, checked
      -> W/sft/{adacs,vanilla}/{text,image}-{train,val}.parquet

Texts of one part at a time are in memory. Rows that verl would refuse, or train on otherwise than meant, are left out
by reason (template_check.py). With write.check below 1 only that share is checked wholly, and of the rest those whose
bytes do not prove that they are short enough. Train and val share no question.

verl 0.9.1 asserts a processor for every row of a file with a column ``images``, so text models need files without it:
the column is there where some row of the work has a picture, and then in all files ([] for text).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ares_eval.types import Json
from ares_train.adacs import pictures, schemas, store, template_check
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.conversation import Wording
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import SAMPLE_SETS, Layout
from ares_train.adacs.precheck import write_tokenizer
from ares_train.adacs.sft_rows import PART, SETS, RowMaker
from ares_train.adacs.store import Stage
from ares_train.adacs.ticker import Ticker

MODALITIES = ("text", "image")
SPLITS = ("train", "val")


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Write the files of W/sft. Raises AdacsError."""
    layout = Layout(work)
    store.digest_or(layout.selected, "select")
    chosen = read_chosen(layout)
    name = write_tokenizer(config)
    stage = Stage(layout.sft_parts, _settings(config, name))
    _parts(config, layout, stage, chosen, name, note)
    _files(layout, stage, note)


def read_chosen(layout: Layout) -> pa.Table:
    """The responses of both sets, each once: columns of SELECTED but ``set``, and a bool column a set."""
    tables = []
    for name, path in zip(SETS, (layout.selected, layout.vanilla), strict=True):
        if path.is_file():
            table = pq.read_table(path, schema=schemas.SELECTED).drop_columns(["set"])
            for other in SETS:
                table = table.append_column(other, pa.array(np.full(len(table), other == name, dtype=np.int8)))
            tables.append(table)
    keys = ["qid", "pool", "draw"]
    columns = [field.name for field in schemas.SELECTED if field.name not in (*keys, "set")]
    merged = pa.concat_tables(tables).group_by(keys, use_threads=False)
    merged = merged.aggregate([*((column, "min") for column in columns), *((name, "max") for name in SETS)])
    merged = merged.rename_columns([word.removesuffix("_min").removesuffix("_max") for word in merged.column_names])
    return merged.sort_by([(key, "ascending") for key in keys])


def _settings(config: AdacsConfig, name: str | None) -> str:
    student = None
    if config.write.check and name is not None:
        student = template_check.identity(name, config.rate.tokenizer_revision)
    return store.fingerprint(
        "write",
        student,
        Wording.of(config),
        [config.write.max_length, config.write.check, config.write.val_share, config.write.seed],
    )


# ---------------------------------------------------------------- parts


def _parts(
    config: AdacsConfig, layout: Layout, stage: Stage, chosen: pa.Table, name: str | None, note: Callable[[str], None]
) -> None:
    """Make every part that is not done. The student is loaded when the first of them is made."""
    questions = store.opened(layout.questions)
    numbers = questions.numbers()
    where = _where(chosen, questions, numbers)
    ticker = Ticker("write", "rows", len(chosen), note)
    maker: RowMaker | None = None
    for number in numbers:
        rows = chosen.take(pa.array(np.flatnonzero(where == number)))
        samples = [path for each in SAMPLE_SETS if (path := Stage(layout.samples(each), "").path(number)).is_file()]
        inputs = [
            store.digest(questions.path(number)),
            *map(store.digest, samples),
            _pictures(questions.path(number), rows),
            store.fingerprint(rows.to_pydict()),
        ]
        if stage.done(number, inputs):
            ticker.skip(len(rows))
            continue
        if maker is None:
            maker = RowMaker(config, layout, name)
        stage.write(number, maker.part(number, questions.path(number), rows), PART, inputs)
        ticker.add(len(rows))
    stage.keep_only(numbers)


def _pictures(questions: Path, rows: pa.Table) -> str:
    """Of the picture files that the chosen rows show, as they are now: rows are looked at again when they change."""
    table = pq.read_table(questions, columns=["qid", "images"])
    shown = table.filter(pc.is_in(table["qid"], value_set=rows["qid"].combine_chunks()))["images"].to_pylist()
    return store.fingerprint([pictures.state(Path(path)) for images in shown for path in images or ()])


def _where(chosen: pa.Table, questions: Stage, numbers: Sequence[int]) -> np.ndarray:
    """The part of each chosen response's question, int [N]."""
    columns = [pq.read_table(questions.path(number), columns=["qid"])["qid"] for number in numbers]
    if not columns:
        raise AdacsError(f"{questions.folder} has no questions: run `ares-train adacs ingest` first")
    part = np.repeat(np.array(numbers), [len(column) for column in columns])
    qids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    place = pc.index_in(chosen["qid"], value_set=qids)
    if place.null_count:
        lost = chosen["qid"].filter(pc.is_null(place))[0]
        raise AdacsError(
            f"question {lost} was selected but is not in {questions.folder}: run the stages from rate on again"
        )
    found: np.ndarray = part[place.to_numpy()]
    return found


# ---------------------------------------------------------------- files


def _files(layout: Layout, stage: Stage, note: Callable[[str], None]) -> None:
    """Put the parts together, a file a set, modality and split; files without a row are not there."""
    paths = stage.parts()
    inputs = [store.digest(path) for path in paths]
    facts = _facts(paths)
    some_image = bool(pc.any(pc.equal(facts["modality"], "image")).as_py())
    schema = schemas.SFT if some_image else schemas.SFT.remove(schemas.SFT.get_field_index("images"))
    settings = store.fingerprint(stage.fingerprint, schema.names)
    rows: dict[str, Json] = {}
    for chosen in SETS:
        for modality in MODALITIES:
            for split in SPLITS:
                path = layout.sft(chosen, modality, split)
                mask = _mask(facts, chosen, modality, split)
                if not mask.any():
                    path.unlink(missing_ok=True)
                    store.artifact_manifest(path).unlink(missing_ok=True)
                    continue
                if not store.artifact_done(path, settings, inputs):
                    content = _rows(paths, schema, chosen, modality, split)
                    store.write_artifact(path, content, settings, inputs, schema=schema)
                rows[f"{chosen}/{modality}-{split}"] = _amounts(facts, mask)
    store.begin_artifact(layout.sft_report)
    if not any(name.startswith(f"{SETS[0]}/") for name in rows):
        reasons = Counter(reason for reason in facts["left_out"].to_pylist() if reason is not None)
        told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "nothing was selected"
        raise AdacsError(f"no row is left to train on: {told}; {layout.sft_parts} holds them with their reasons")
    kept = np.array([reason is None for reason in facts["left_out"].to_pylist()], dtype=np.bool_)
    left_out = {
        name: dict(sorted(Counter(facts["left_out"].filter(pa.array(_of(facts, name) & ~kept)).to_pylist()).items()))
        for name in SETS
    }
    report = {"files": rows, "left_out": left_out, "checked": len(facts) - facts["length"].null_count}
    store.write_artifact(layout.sft_report, report, settings, inputs)
    for name in SETS:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in left_out[name].items())
        note(f"write: {name}: {int((_of(facts, name) & kept).sum()):,} rows" + (f"; left out: {lost}" if lost else ""))


def _facts(paths: Sequence[Path]) -> pa.Table:
    columns = ["tokens", "modality", "split", *SETS, "length", "left_out"]
    tables = [pq.read_table(path, columns=columns) for path in paths]
    return pa.concat_tables(tables).combine_chunks()


def _of(facts: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    found: np.ndarray = np.asarray(facts[name].to_numpy(zero_copy_only=False), dtype=np.bool_)
    return found


def _mask(facts: pa.Table | pa.RecordBatch, chosen: str, modality: str, split: str) -> np.ndarray:
    """The rows of one file, bool [N]."""
    good = pc.and_(pc.equal(facts["modality"], modality), pc.equal(facts["split"], split))
    good = pc.and_(good, pc.is_null(facts["left_out"]))
    found: np.ndarray = _of(facts, chosen) & np.asarray(good.to_numpy(zero_copy_only=False), dtype=np.bool_)
    return found


def _rows(paths: Sequence[Path], schema: pa.Schema, chosen: str, modality: str, split: str) -> Iterator[pa.RecordBatch]:
    for batch in store.batches(paths):
        mask = _mask(batch, chosen, modality, split)
        if mask.any():
            yield batch.filter(pa.array(mask)).select(schema.names)


def _amounts(facts: pa.Table, mask: np.ndarray) -> dict[str, Json]:
    """Rows, and tokens of the responses as rated; of whole rows where all were checked."""
    some = facts.filter(pa.array(mask))
    whole = some["length"]
    return {
        "rows": len(some),
        "response_tokens": int(pc.sum(some["tokens"]).as_py() or 0),
        "row_tokens": None if whole.null_count else int(pc.sum(whole).as_py()),
        "longest_row": pc.max(whole).as_py(),
    }
