"""``--export inspect``: a run as logs that `inspect view` opens, one ``.eval`` file a task.

A log is a zip of JSON in the layout of Inspect's log version 2: ``header.json``, ``samples/<id>_epoch_<n>.json`` for
each draw (epochs count from 1), ``summaries.json``, ``_journal/start.json``. Samples are written one after the other,
so a run of any size needs little memory. The scorer is called ``ares``: C for correct, I for incorrect, N for
unverifiable. A question that was not measured is a sample with an error. Pictures are named by their digest.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ares_eval import records
from ares_eval.export_files import Lines, Prompts, file_name, whole
from ares_eval.records import RunError
from ares_eval.types import Json, Record

VERSION = 2
SCORER = "ares"
_VALUES = {"correct": "C", "incorrect": "I", "unverifiable": "N"}
_STOPS = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter", "tool_calls": "tool_calls"}
_SHOWN = 1000
"""Characters of a question in the list of samples."""


def export(run_dir: Path, out: Path) -> Path:
    """Write the run in ``run_dir`` into ``out``; that folder. RunError where the run has no results."""
    run = records.load_run(run_dir)
    if run.results is None:
        raise RunError(f"{run_dir} has no results yet: finish the run first")
    out.mkdir(parents=True, exist_ok=True)
    began = _time(run.manifest["created"])
    with Lines(run_dir / records.SAMPLES) as lines, Prompts(run_dir / records.PROMPTS) as prompts:
        for name, results in run.results["tasks"].items():
            identity = _identity(run.manifest, name)
            path = out / f"{began.replace(':', '-')}_{file_name(name).replace('_', '-')}_{identity}.eval"
            header = _header(run.manifest, name, results, identity)
            with whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                _member(archive, "_journal/start.json", {key: header[key] for key in ("version", "eval", "plan")})
                summaries = []
                for sample in _samples(run.manifest, name, lines, prompts):
                    _member(archive, f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
                    summaries.append(_summary(sample))
                _member(archive, "summaries.json", summaries)
                dataset = header["eval"]["dataset"]
                dataset["sample_ids"] = list(dict.fromkeys(summary["id"] for summary in summaries))
                dataset["samples"] = len(dataset["sample_ids"])
                header["results"] |= {
                    "total_samples": len(summaries),
                    "completed_samples": sum("error" not in summary for summary in summaries),
                }
                _member(archive, "header.json", header)
    return out


def _member(archive: zipfile.ZipFile, name: str, content: Json) -> None:
    archive.writestr(name, json.dumps(content, ensure_ascii=False))


def _time(stamp: str) -> str:
    """ISO 8601 with an offset, as Inspect writes it."""
    return datetime.fromisoformat(stamp).astimezone(UTC).isoformat(timespec="seconds")


def _identity(manifest: Mapping[str, Json], task: str) -> str:
    """22 letters and digits, the same for the same run and task: a second export replaces the first."""
    return hashlib.sha256(f"{manifest.get('digest')} {manifest['created']} {task}".encode()).hexdigest()[:22]


# ---------------------------------------------------------------- the header


def _header(manifest: Mapping[str, Json], task: str, results: Json, identity: str) -> dict[str, Json]:
    settings, metrics = manifest.get("settings", {}), results["metrics"]
    about = manifest.get("tasks", {}).get(task, {})
    generation = {
        name: settings[name]
        for name in ("max_tokens", "temperature", "top_p", "top_k", "seed")
        if settings.get(name) is not None
    }
    numbers = {"accuracy": metrics["accuracy"], "stderr": metrics["accuracy_stderr"]}
    primary = metrics.get("primary")
    if primary not in (None, "accuracy") and isinstance(metrics.get(primary), int | float):
        numbers[primary] = metrics[primary]
    began = _time(manifest["created"])
    return {
        "version": VERSION,
        "status": "success" if manifest.get("status") == "complete" else "cancelled",
        "eval": {
            "eval_id": identity,
            "run_id": str(manifest.get("digest"))[:22],
            "created": began,
            "task": task,
            "task_id": identity,
            "task_version": 0,
            "task_args": {},
            "dataset": {"name": task, "location": about.get("source"), "shuffled": False},
            "model": str(manifest.get("model")),
            "model_generate_config": generation,
            "model_args": {},
            "config": {"epochs": metrics.get("draws", 1)},
            "packages": {"ares": str(manifest.get("environment", {}).get("ares"))},
            "metadata": {"ares": {"fingerprint": about.get("fingerprint"), "digest": about.get("dataset_digest")}},
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": generation},
        "results": {
            "scores": [
                {
                    "name": SCORER,
                    "scorer": SCORER,
                    "params": {},
                    "metrics": {
                        name: {"name": name, "value": value, "params": {}}
                        for name, value in numbers.items()
                        if value is not None
                    },
                }
            ],
            "metadata": {"ares": results},
        },
        "stats": {
            "started_at": began,
            "completed_at": _time(manifest.get("finished") or manifest["created"]),
            "model_usage": {},
        },
    }


# ---------------------------------------------------------------- samples


def _samples(manifest: Mapping[str, Json], task: str, lines: Lines, prompts: Prompts) -> Iterator[dict[str, Json]]:
    """Every measured draw in the order of asking, then the questions without any."""
    model, places = str(manifest.get("model")), lines.samples(task)
    for _, name in prompts.order(task, [name for name, draws in places.items() if draws]):
        messages = [_message(message) for message in prompts.messages(task, name)]
        for record in lines.read(places[name]):
            yield _sample(record, messages, model)
    for name in (name for name, draws in places.items() if not draws):
        error = {"message": "not measured", "traceback": "", "traceback_ansi": ""}
        yield {"id": name, "epoch": 1, "input": "", "target": "", "messages": [], "metadata": {}, "error": error}


def _sample(record: Record, messages: list[Json], model: str) -> dict[str, Json]:
    usage = {
        "input_tokens": record.usage.prompt or 0,
        "output_tokens": record.usage.completion or 0,
        "total_tokens": (record.usage.prompt or 0) + (record.usage.completion or 0),
        "reasoning_tokens": record.usage.reasoning,
    }
    text: Json = record.text or ""
    if record.reasoning:
        text = [{"type": "reasoning", "reasoning": record.reasoning}, {"type": "text", "text": record.text or ""}]
    reply = {"role": "assistant", "content": text, "source": "generate", "model": model}
    stop = _STOPS.get(record.finish_reason or "", "unknown")
    return {
        "id": record.sample,
        "epoch": record.draw + 1,
        "input": messages,
        "target": record.reference if isinstance(record.reference, str) else list(record.reference),
        "messages": [*messages, reply],
        "output": {
            "model": record.served_by or model,
            "choices": [{"message": reply, "stop_reason": stop}],
            "completion": record.text or "",
            "usage": usage,
            "time": record.latency,
        },
        "scores": {SCORER: _score(record)},
        "metadata": {"group": record.group, "level": record.level, **record.fields},
        "store": {},
        "events": [],
        "model_usage": {model: usage},
        "total_time": record.latency,
        "uuid": hashlib.sha256(f"{record.task} {record.sample} {record.draw} {record.key}".encode()).hexdigest()[:22],
    }


def _score(record: Record) -> dict[str, Json]:
    verdict = record.verdict
    if verdict is None:
        return {"value": "N", "explanation": "not judged"}
    why = f": {verdict.reason}" if verdict.reason else ""
    return {
        "value": _VALUES[verdict.value],
        "answer": verdict.extracted,
        "explanation": f"{verdict.value} by {verdict.method}{why}",
        "metadata": {"type": verdict.type, "version": verdict.version},
    }


def _message(message: Json) -> dict[str, Json]:
    content = message["content"]
    if not isinstance(content, str):
        content = [
            {
                "type": "text",
                "text": part["text"] if part["type"] == "text" else f"[picture {part['image_url']['url']}]",
            }
            for part in content
        ]
    return {"role": message["role"], "content": content}


def _summary(sample: Mapping[str, Json]) -> dict[str, Json]:
    """The sample as the list of samples shows it."""
    asked = sample["input"]
    turn = asked[-1]["content"] if isinstance(asked, list) and asked else asked
    text = turn if isinstance(turn, str) else "".join(part["text"] for part in turn)
    kept = {key: sample[key] for key in ("id", "epoch", "target", "uuid", "model_usage", "total_time") if key in sample}
    kept |= {"input": text[:_SHOWN], "completed": "error" not in sample, "metadata": {}}
    if "scores" in sample:
        kept["scores"] = {name: {"value": score["value"]} for name, score in sample["scores"].items()}
    if "error" in sample:
        kept["error"] = sample["error"]["message"]
    return kept
