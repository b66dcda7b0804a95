"""``--export lm-eval``: a finished run as the files that lm-evaluation-harness 0.4 writes.

    OUT/<model>/results_<time>.json             its EvalResults
    OUT/<model>/samples_<task>_<time>.jsonl     its SampleResult, one line a question, filter "none"

Names, keys and types follow lm_eval/result_schema.py and loggers/evaluation_tracker.py of 0.4.12. What lm-eval has no
key for lies under one key, ``ares``, at the top of the results and in every sample line. ``acc`` is the mean over
questions of the share of right draws. Questions without a measured draw have no line (lm-eval would read one as a wrong
answer); they are named under ``ares`` and are the difference between ``original`` and ``effective`` samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import msgspec

from ares_eval import records
from ares_eval.export_files import Lines, Prompts, file_name, whole
from ares_eval.records import RunError
from ares_eval.types import Json, Record

FILTER = "none"
"""lm-eval names the pipeline that made a score; ours is the verifier's, which has no lm-eval name."""
NO_ANSWER = "[invalid]"
"""What lm-eval's own extraction filters yield where they find no answer."""


def export(run_dir: Path, out: Path) -> Path:
    """Write the run in ``run_dir`` below ``out``; the folder of the files. RunError where the run has no results.

    A second export of the same run replaces the files of the first.
    """
    run = records.load_run(run_dir)
    if run.results is None:
        raise RunError(f"{run_dir} has no results yet: finish the run first")
    folder = out / file_name(str(run.manifest.get("model") or "model"))
    folder.mkdir(parents=True, exist_ok=True)
    time = _time(run.manifest)
    prompts = Prompts(run_dir / records.PROMPTS)
    lines = Lines(run_dir / records.SAMPLES)
    hashes: dict[str, str] = {}
    unmeasured: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    with prompts, lines:
        for task in sorted(run.results["tasks"]):
            samples = lines.samples(task)
            digest = hashlib.sha256()
            unmeasured[task] = sorted(name for name, draws in samples.items() if not draws)
            counts[task] = len(samples) - len(unmeasured[task])
            with whole(folder / f"samples_{file_name(task)}_{time}.jsonl") as file:
                for number, sample in prompts.order(task, [name for name, draws in samples.items() if draws]):
                    line = _sample_line(
                        number, lines.read(samples[sample]), prompts.messages(task, sample), run.manifest
                    )
                    digest.update((line["doc_hash"] + line["prompt_hash"] + line["target_hash"]).encode())
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            hashes[task] = digest.hexdigest()
    content = _results(run.manifest, run.results, counts)
    content["task_hashes"] = hashes
    content["ares"] = {"manifest": run.manifest, "results": run.results, "not_measured": unmeasured}
    with whole(folder / f"results_{time}.json") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode())
    return folder


# ---------------------------------------------------------------- results_<time>.json


def _results(manifest: Mapping[str, Json], results: Mapping[str, Json], counts: Mapping[str, int]) -> dict[str, Json]:
    settings, environment = manifest.get("settings", {}), manifest.get("environment", {})
    generation = _generation(settings)
    tasks: Mapping[str, Json] = results["tasks"]
    scores = {name: _scores(name, counts[name], task["metrics"]) for name, task in tasks.items()}
    suites = {
        name: {
            "name": name,
            "alias": name,
            "sample_len": sum(counts[task] for task in suite["tasks"]),
            **_pair("macro", suite["metrics"]["macro"], suite["metrics"]["macro_stderr"]),
        }
        for name, suite in results["suites"].items()
        if suite["metrics"]["macro"] is not None
    }
    created = datetime.fromisoformat(manifest["created"])
    system = settings.get("system_prompt")
    content: dict[str, Json] = {
        "results": scores,
        "groups": suites,
        "group_subtasks": {name: results["suites"][name]["tasks"] for name in suites} | {name: [] for name in tasks},
        "configs": {
            name: {
                "task": name,
                "output_type": "generate_until",
                "repeats": task["metrics"].get("draws", 1),
                "generation_kwargs": generation,
                "metadata": manifest.get("tasks", {}).get(name, {}),
            }
            for name, task in tasks.items()
        },
        "versions": {name: manifest.get("tasks", {}).get(name, {}).get("fingerprint") for name in tasks},
        "n-shot": {},
        "higher_is_better": {name: dict.fromkeys(_metric_names(scores[name]), True) for name in tasks},
        "n-samples": {
            name: {"original": task["n"] // task["metrics"].get("draws", 1), "effective": counts[name]}
            for name, task in tasks.items()
        },
        "config": {
            "model": "ares",
            "model_args": {
                "model": manifest.get("model"),
                "revision": manifest.get("revision"),
                "base_url": settings.get("openai_base_url"),
                "num_concurrent": settings.get("eval_threads"),
            },
            "batch_size": None,
            "device": None,
            "use_cache": None,
            "limit": settings.get("limit"),
            "bootstrap_iters": 0,
            "gen_kwargs": generation,
            "random_seed": settings.get("seed"),
        },
        "git_hash": environment.get("git"),
        "date": created.timestamp(),
        "pretty_env_info": json.dumps(environment, ensure_ascii=False),
        "model_source": "ares",
        "model_name": manifest.get("model"),
        "model_name_sanitized": file_name(str(manifest.get("model") or "model")),
        "system_instruction": system,
        "system_instruction_sha": _sha256(system) if system else None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(manifest.get("timing", {}).get("seconds", "")),
    }
    if not suites:
        del content["groups"]  # lm-eval has the key only where there are groups
    return content


def _scores(name: str, count: int, metrics: Mapping[str, Json]) -> dict[str, Json]:
    """``metric,filter`` pairs; "N/A" is lm-eval's word for no standard error, and what has no value is left out."""
    average = f"avg@{metrics.get('draws')}"
    source = average if average in metrics else "accuracy"
    scores: dict[str, Json] = {"name": name, "alias": name, "sample_len": count}
    scores |= _pair("acc", metrics[source], metrics[f"{source}_stderr"])
    for key in metrics:
        if f"{key}_stderr" in metrics and key != "accuracy":
            scores |= _pair(key, metrics[key], metrics[f"{key}_stderr"])
    return scores


def _pair(name: str, value: float | None, stderr: float | None) -> dict[str, Json]:
    if value is None:
        return {}
    return {f"{name},{FILTER}": value, f"{name}_stderr,{FILTER}": "N/A" if stderr is None else stderr}


def _metric_names(scores: Mapping[str, Json]) -> list[str]:
    names = [key.partition(",")[0] for key in scores if "," in key]
    return [name for name in names if not name.endswith("_stderr")]


def _generation(settings: Mapping[str, Json]) -> dict[str, Json]:
    """Sampling parameters under lm-eval's names."""
    names = {"max_tokens": "max_gen_toks", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
    given = {theirs: settings[ours] for ours, theirs in names.items() if settings.get(ours) is not None}
    return {"until": [], "do_sample": bool(settings.get("temperature")), **given}


# ---------------------------------------------------------------- samples_<task>_<time>.jsonl


def _sample_line(
    number: int, draws: Sequence[Record], messages: Sequence[Json], manifest: Mapping[str, Json]
) -> dict[str, Json]:
    first = draws[0]
    doc = {"id": first.sample, "group": first.group, "level": first.level, "fields": dict(first.fields)}
    target = first.reference if isinstance(first.reference, str) else str(list(first.reference))
    prompt = json.dumps(messages, ensure_ascii=False)
    answers = [NO_ANSWER if d.verdict is None or d.verdict.extracted is None else d.verdict.extracted for d in draws]
    right = sum(draw.verdict is not None and draw.verdict.value == "correct" for draw in draws)
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": _generation(manifest.get("settings", {}))}},
        "resps": [[draw.text or "" for draw in draws]],
        "filtered_resps": answers if len(answers) == 1 else [answers],
        "filter": FILTER,
        "metrics": ["acc"],
        "doc_hash": _sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _sha256(prompt),
        "target_hash": _sha256(target),
        "acc": right / len(draws),
        "ares": {"prompt": first.prompt, "answer": asdict(first.answer), "draws": [_draw(draw) for draw in draws]},
    }


def _draw(record: Record) -> dict[str, Json]:
    """What lm-eval has no place for, of one draw."""
    return {
        "draw": record.draw,
        "verdict": None if record.verdict is None else msgspec.to_builtins(record.verdict),
        "reasoning": record.reasoning,
        "finish_reason": record.finish_reason,
        "truncated": record.truncated,
        "usage": asdict(record.usage),
        "latency": record.latency,
        "attempts": record.attempts,
        "cached": record.cached,
        "served_by": record.served_by,
    }


# ---------------------------------------------------------------- times and hashes


def _time(manifest: Mapping[str, Json]) -> str:
    """When the run began, so that a resumed run's export replaces the earlier one. lm-eval's form: - for :, no _."""
    stamp: str = manifest["created"]
    return stamp.removesuffix("Z").replace(":", "-")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
