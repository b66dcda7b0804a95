"""The locked-down process that runs VLMEvalKit's own code: what there is, prompts, and scores.

One JSON line on standard input says what to do; one JSON line on standard output is the answer. In between, scoring may
put questions to the judge: a line out, a line back. Whatever their code prints goes to ``log.txt`` of the own folder.

The process locks itself before it imports anything of VLMEvalKit's: see vlmeval_locks.py. Rows of a benchmark and, far
more so, what a model wrote are hostile here: their scorers evaluate both.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import random
import re
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from ares_eval.integrations import vlmeval_light as light
from ares_eval.integrations import vlmeval_locks as locks
from ares_eval.integrations import vlmeval_stand_ins as stand_ins
from ares_eval.integrations import vlmeval_verdicts as verdicts

API_FAILURE = "Failed to obtain answer via API"
"""What VLMEvalKit's scorers look for in a judge's reply that is none."""
LONGEST_FIELD = 20_000
"""Characters of a cell that go back with a row."""
_PR_SET_PDEATHSIG = 1


def main(parent: int) -> None:
    """Do the one thing that the first line of standard input asks for."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    spec = json.loads(asked.readline())
    # A forked process closes its standard input, and would wait for the lock of a thread that reads from it.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    own = Path(spec["own"])
    log = os.open(own / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    readable = [Path(path) for path in spec["readable"]]
    try:
        held = locks.lock(own, readable, memory_bytes=spec["memory_bytes"], cpu_seconds=spec["cpu_seconds"])
        judge = _Judge(asked, answers)
        light.install(judge.build)
        done = {"done": _ACTIONS[spec["action"]](spec, own, judge), "locks": held}
    except locks.NoLock as error:
        done = {"failed": str(error), "kind": "NoLock"}
    except Exception as error:  # noqa: BLE001 - their code raises anything; the parent says what
        traceback.print_exc()
        done = {"failed": " ".join(str(error).split())[:500], "kind": type(error).__name__}
    answers.write(json.dumps(done).encode() + b"\n")
    answers.flush()
    # Their pools and leftover threads must not keep a finished process alive.
    os._exit(0)


# ---------------------------------------------------------------- what there is, and prompts


def _index(_spec: Mapping[str, Any], _own: Path, _judge: _Judge) -> dict[str, Any]:
    return light.index()


def _prepare(spec: Mapping[str, Any], own: Path, _judge: _Judge) -> dict[str, Any]:
    """Prompts of the first ``limit`` rows: ``rows.jsonl`` and the pictures they name, all in the own folder."""
    dataset = light.build(spec["name"], spec["entry"])
    if str(getattr(dataset, "MODALITY", "IMAGE")) not in ("IMAGE", "TEXT") or not hasattr(dataset, "data"):
        raise ValueError(f"{spec['name']} is no dataset of pictures or texts")
    table = dataset.data
    count = len(table) if spec["limit"] is None else min(spec["limit"], len(table))

    def row(number: int) -> dict[str, Any]:
        line = table.iloc[number]
        messages = dataset.build_prompt(line)
        return {
            "index": str(line["index"]),
            "parts": [_part(one, own) for one in messages],
            "columns": {str(name): cell for name in table.columns if (cell := _cell(name, line[name])) is not None},
        }

    light.lines(own / "rows.jsonl", (row(number) for number in range(count)))
    return {"rows": len(table), "type": str(getattr(dataset, "TYPE", "")), "class": type(dataset).__name__}


def _part(message: Any, own: Path) -> list[str]:
    """One piece of a prompt as [kind, text or path]; a role means several turns, which are not asked here.

    Paths in the own folder are given from there: it will be moved.
    """
    if not isinstance(message, dict) or message.get("type") not in ("image", "text") or "role" in message:
        raise ValueError("its prompts are more than pictures and texts of one turn")
    value = str(message["value"])
    return [message["type"], value.removeprefix(f"{own}{os.sep}") if message["type"] == "image" else value]


def _cell(name: Any, value: Any) -> Any:
    if str(name) in ("image", "index"):
        return None
    cell = light.plain(value)
    return None if isinstance(cell, str) and len(cell) > LONGEST_FIELD else cell


# ---------------------------------------------------------------- scores


def _evaluate(spec: Mapping[str, Any], own: Path, judge: _Judge) -> list[dict[str, Any]]:
    """For each draw of ``predictions`` (index -> text): metrics, the primary one, and a verdict for each row."""
    dataset = light.build(spec["name"], spec["entry"])
    table = dataset.data.copy()
    found = []
    for number, predictions in enumerate(spec["predictions"]):
        dataset.data = table.copy()
        folder = own / f"draw{number}"
        folder.mkdir()
        found.append(_evaluate_draw(dataset, predictions, folder, spec, judge))
    return found


def _evaluate_draw(
    dataset: Any, predictions: Mapping[str, str], folder: Path, spec: Mapping[str, Any], judge: _Judge
) -> dict[str, Any]:
    import numpy as np

    status = importlib.import_module("vlmeval.smp.status_report")
    files = importlib.import_module("vlmeval.smp.file")
    judge.failed.clear()
    rows = dataset.data[[str(index) in predictions for index in dataset.data["index"]]].copy()
    rows["prediction"] = [predictions[str(index)] for index in rows["index"]]
    if "image" in rows:
        rows.pop("image")
    file = str(folder / f"ares_{spec['name']}.tsv")
    files.dump(rows, file)
    random.seed(0)
    np.random.seed(0)
    found: dict[str, Any] = {"metrics": {}, "primary": None, "error": None}
    try:
        outcome = _call(dataset, file, {"model": spec["judge_name"], "nproc": spec["nproc"]})
        found["metrics"] = light.plain(status.flatten_summary_metrics(_percentages_read(outcome)))
        primary = type(dataset).report_primary_metric(found["metrics"]) if found["metrics"] else {}
        found["primary"] = light.plain(next(iter(primary.items()), None))
    except Exception as error:  # noqa: BLE001 - what was scored row by row before it failed still counts
        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    found["rows"] = verdicts.read(folder, spec["name"], list(map(str, rows["index"])))
    found["judge"] = {"asked": judge.asked, "failed": sorted(judge.failed)}
    return found


def _call(dataset: Any, file: str, options: dict[str, Any]) -> Any:
    """``evaluate``; without ``model`` where their own code passes it twice (CharXiv)."""
    try:
        return dataset.evaluate(file, **options)
    except TypeError as error:
        if "multiple values for keyword argument 'model'" not in str(error):
            raise
        return dataset.evaluate(file, nproc=options["nproc"])


_PERCENTAGE = re.compile(r"(nan|\d+(?:\.\d+)?)%(?: \(\d+\))?")


def _percentages_read(outcome: Any) -> Any:
    """We-Math writes its scores as texts, "12.34%" and "12.34% (5)": their report of metrics would leave them out."""
    if not hasattr(outcome, "columns"):
        return outcome

    def number(cell: Any) -> Any:
        match = _PERCENTAGE.fullmatch(cell) if isinstance(cell, str) else None
        return float(match[1]) if match else cell

    return outcome.map(number)


class _Judge:
    """The judge that their scorers see. Every question goes to the parent and waits for its answer."""

    def __init__(self, answers: IO[bytes], questions: IO[bytes]) -> None:
        self._answers, self._questions = answers, questions
        self._waiting: dict[int, Future[str | None]] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self.asked = 0
        self.failed: set[str] = set()
        """Rows whose question got no answer."""

    def build(self, model: str | None = None, **_: Any) -> _Model:
        """What build_judge gives."""
        return _Model(self, model or "judge")

    def ask(self, question: dict[str, Any]) -> str | None:
        """The judge's reply, None where there is none."""
        future: Future[str | None] = Future()
        with self._lock:
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, daemon=True)
                self._reader.start()
            number = self.asked
            self.asked += 1
            self._waiting[number] = future
            self._questions.write(json.dumps({"judge": {"id": number, **question}}).encode() + b"\n")
            self._questions.flush()
        return future.result()

    def _read(self) -> None:
        for line in self._answers:
            answer = json.loads(line)
            with self._lock:
                future = self._waiting.pop(answer["id"])
            future.set_result(answer["reply"])


class _Model:
    """The interface of VLMEvalKit's OpenAIWrapper that scorers use."""

    def __init__(self, judge: _Judge, model: str) -> None:
        self._judge = judge
        self.model = model
        self.system_prompt: str | None = None

    def working(self) -> bool:
        """Whether it answers; it was asked for, so it does."""
        return True

    def generate(self, message: Any, **_: Any) -> str:
        """The reply to a prompt (text, or a list of pieces without pictures)."""
        row = getattr(stand_ins.current, "row", None)
        pieces = [message] if isinstance(message, str) else message
        texts = [piece if isinstance(piece, str) else piece.get("value") for piece in pieces]
        reply = None
        if all(isinstance(piece, str) or piece.get("type") == "text" for piece in pieces):
            reply = self._judge.ask(
                {
                    "prompt": "\n".join(map(str, texts)),
                    "system": self.system_prompt,
                    "row": {} if row is None else {str(key): light.plain(row[key]) for key in row.index},
                }
            )
        if reply is None:
            self._judge.failed.add(str(row["index"]) if row is not None else "")
            return f"{API_FAILURE}."
        return reply


_ACTIONS = {"index": _index, "prepare": _prepare, "evaluate": _evaluate}
