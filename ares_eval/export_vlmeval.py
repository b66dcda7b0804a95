"""``--export vlmeval``: a run as the prediction and score files of VLMEvalKit.

    OUT/<model>/T<date>-<time>/<model>_<dataset>.tsv                 predictions: the dataset's columns but its pictures
    OUT/<model>/T<date>-<time>/<model>_<dataset>_ares_result.tsv     the same with ``hit`` and ``log``, row by row
    OUT/<model>/T<date>-<time>/<model>_<dataset>_acc.csv             the totals
    OUT/<model>/T<date>-<time>/status.json                           its record of the run

``run.py --mode eval --reuse`` goes on from the prediction files; of a ``vlm:`` task they have every column of the
table, of a task of ours index, question, answer and the task's fields. Tables are TSV: an Excel cell holds 32,767
characters, and a long answer's end is its answer. VLMEvalKit knows one reply to a question: further draws go to
folders of their own, a second later each. Questions that were not measured have no row, and VLMEvalKit asks them again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from ares_eval import records
from ares_eval.export_files import Lines, Prompts, file_name, whole
from ares_eval.records import RunError
from ares_eval.types import Json, Record

PREFIX = "vlm:"
JUDGE = "ares"
_CLOSE_THINK = "</think>"


def export(run_dir: Path, out: Path) -> Path:
    """Write the run in ``run_dir`` below ``out``; the model's folder. RunError where the run has no results."""
    run = records.load_run(run_dir)
    if run.results is None:
        raise RunError(f"{run_dir} has no results yet: finish the run first")
    model = file_name(str(run.manifest.get("model") or "model"))
    began = datetime.fromisoformat(run.manifest["created"])
    tasks: Mapping[str, Json] = run.results["tasks"]
    with Lines(run_dir / records.SAMPLES) as lines, Prompts(run_dir / records.PROMPTS) as prompts:
        for draw in range(max(int(task["metrics"].get("draws", 1)) for task in tasks.values())):
            folder = out / model / (began + timedelta(seconds=draw)).strftime("T%Y%m%d-%H%M%S")
            folder.mkdir(parents=True, exist_ok=True)
            done = {}
            for name, task in tasks.items():
                if draw < int(task["metrics"].get("draws", 1)):
                    dataset = file_name(name.removeprefix(PREFIX))
                    _tables(folder / f"{model}_{dataset}", name, draw, lines, prompts)
                    _totals(folder / f"{model}_{dataset}_acc.csv", task["metrics"])
                    done[dataset] = _status(f"{model}_{dataset}.tsv", task["metrics"], run.manifest)
            _write_status(folder, model, run.manifest, done)
    return out / model


# ---------------------------------------------------------------- tables


def _tables(stem: Path, task: str, draw: int, lines: Lines, prompts: Prompts) -> None:
    """The predictions, and the same with our verdicts."""
    places = {name: draws for name, draws in lines.samples(task).items() if draw in draws}
    order = [name for _, name in prompts.order(task, list(places))]
    columns: dict[str, None] = dict.fromkeys(["index", "question", "answer"])

    def each() -> Iterator[Record]:
        for sample in order:
            yield from lines.read({draw: places[sample][draw]})

    for record in each():
        columns.update(dict.fromkeys(map(str, record.fields)))
    own = ["prediction", "thinking"]
    names = [name for name in columns if name not in (*own, "hit", "log", "image")] + own
    with whole(Path(f"{stem}.tsv")) as first, whole(Path(f"{stem}_{JUDGE}_result.tsv")) as second:
        predictions, verdicts = _Writer(first, names), _Writer(second, [*names, "hit", "log"])
        for record in each():
            row = _row(record, prompts.messages(task, record.sample))
            predictions.write(row)
            verdicts.write(row | _verdict(record))
        predictions.close()
        verdicts.close()


class _Writer:
    """A TSV as pandas writes it with every cell quoted."""

    def __init__(self, file: IO[bytes], names: list[str]) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        form = {"delimiter": "\t", "quoting": csv.QUOTE_ALL, "lineterminator": "\n"}
        self._rows = csv.DictWriter(self._text, names, restval="", **form)  # type: ignore[arg-type]
        self._rows.writeheader()

    def write(self, row: Mapping[str, Json]) -> None:
        self._rows.writerow(row)

    def close(self) -> None:
        """Leave the file to its owner."""
        self._text.detach()


def _row(record: Record, messages: list[Json]) -> dict[str, Json]:
    thinking, tag, prediction = (record.text or "").rpartition(_CLOSE_THINK)
    reference = record.reference if isinstance(record.reference, str) else json.dumps(list(record.reference))
    cells = {str(name): _cell(value) for name, value in record.fields.items()}
    return {
        "index": record.sample,
        "question": _text(messages),
        "answer": reference,
        **cells,
        "prediction": prediction.strip() if tag else prediction,
        "thinking": record.reasoning or thinking.replace("<think>", "", 1).strip(),
    }


def _cell(value: Json) -> Json:
    if value is None:
        return ""
    return str(value) if isinstance(value, list | dict) else value


def _text(messages: list[Json]) -> str:
    turns = [message["content"] for message in messages if message["role"] == "user"]
    last = turns[-1] if turns else ""
    return last if isinstance(last, str) else "".join(part.get("text", "") for part in last)


def _verdict(record: Record) -> dict[str, Json]:
    verdict = record.verdict
    if verdict is None:
        return {"hit": 0, "log": "not judged"}
    answer = "" if verdict.extracted is None else f": {verdict.extracted}"
    why = f" ({verdict.reason})" if verdict.reason else ""
    return {"hit": int(verdict.value == "correct"), "log": f"{verdict.value} by {verdict.method}{why}{answer}"}


# ---------------------------------------------------------------- totals


def _totals(path: Path, metrics: Mapping[str, Json]) -> None:
    """VLMEvalKit's table of accuracies: one split, the overall share of right answers."""
    with whole(path) as file:
        text = io.StringIO(newline="")
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
            [["split", "Overall"], ["none", "" if metrics["accuracy"] is None else metrics["accuracy"]]]
        )
        file.write(text.getvalue().encode())


def _status(file: str, metrics: Mapping[str, Json], manifest: Mapping[str, Json]) -> dict[str, Json]:
    theirs = metrics.get("vlmeval_metrics")
    numbers = theirs or {"split=none|Overall": metrics["accuracy"]}
    return {
        "status": "done",
        "prediction_file": file,
        "judge_model": metrics.get("vlmeval_judge", JUDGE),
        "metrics": {name: value for name, value in numbers.items() if value is not None},
        "updated_at": manifest.get("finished") or manifest["created"],
    }


def _write_status(folder: Path, model: str, manifest: Mapping[str, Json], done: Mapping[str, Json]) -> None:
    content = {
        "schema_version": "1.0",
        "eval_id": folder.name,
        "created_at": manifest["created"],
        "model_name": model,
        "updated_at": manifest.get("finished") or manifest["created"],
        "datasets": done,
    }
    with whole(folder / "status.json") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode())
