"""Judge a run's recorded replies anew, sending nothing to the model; shows which verdicts flip, and why.

  ares-eval rescore RUN                  show what would change
  ares-eval rescore RUN --write          and keep it: changed records are appended, the last of a draw counts
  ares-eval rescore RUN --judge-model NAME --judge-base-url URL
                                         ask a judge about what rules cannot tell; counted with and without it

A judge's decisions are kept in the run's judged.jsonl and are never written into samples.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ares_eval.commands.judge_check import add_judge_arguments, judge_of
from ares_eval.types import Record, Verdict

JUDGED = "judged.jsonl"
JUDGE_CACHE = "judge-cache.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval rescore``."""
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--write", action="store_true", help="replace the verdicts in the run")
    parser.add_argument("--workers", type=int, help="processes for algebra")
    parser.add_argument("--show", type=int, default=50, help="flips to print (default: 50)")
    parser.add_argument("--output", type=Path, help="write every new verdict as JSON lines")
    add_judge_arguments(parser, required=False)
    parser.add_argument("--judge-self", action="store_true", help="let the model under test judge its own answers")


def run(args: argparse.Namespace) -> int:
    """Rescore; 2 where the folder is no run or the judge is misnamed, 4 where nothing in it was measured."""
    from ares_eval.records import RunError, load_run
    from ares_eval.verify import VERIFIER_VERSION

    try:
        recorded = load_run(args.run)
        foreign = {name for name, task in recorded.manifest.get("tasks", {}).items() if task.get("own_scorer")}
        records = [record for record in recorded.records() if record.measured and record.task not in foreign]
    except RunError as error:
        print(f"ares-eval rescore: {error}", file=sys.stderr)
        return 2
    if not records:
        why = "its tasks bring their own scorers" if foreign else "nothing was measured"
        print(f"ares-eval rescore: nothing to judge in {args.run}: {why}", file=sys.stderr)
        return 4
    judge = None
    if args.judge_model:
        from ares_eval.verify.judge import refuse_self_judging

        try:
            if not args.judge_base_url:
                raise ValueError("--judge-model needs --judge-base-url")
            refuse_self_judging(args.judge_model, _tested_model(recorded.manifest, records), args.judge_self)
            judge = judge_of(args)
        except ValueError as error:
            print(f"ares-eval rescore: {error}", file=sys.stderr)
            return 2
    questions = _questions(args.run)
    verdicts = _officially(recorded.manifest, records, _verdicts(records, questions, args.workers))
    print(f"{len(records)} replies, verifier {VERIFIER_VERSION}")
    _print_flips(records, verdicts, args.show)
    _print_counts(records, verdicts)
    if judge is not None:
        _judge(args, judge, records, verdicts, questions)
    if args.output is not None:
        lines = (_line(record, verdict) for record, verdict in zip(records, verdicts, strict=True))
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if args.write:
        _write(args.run, records, verdicts)
    return 0


def _verdicts(records: Sequence[Record], questions: dict[tuple[str, str], str], workers: int | None) -> list[Verdict]:
    from ares_eval.verify import Verifier

    with Verifier(workers) as verifier:
        futures = [
            verifier.submit(
                record.text or "", record.reference, record.answer, question=questions.get((record.task, record.sample))
            )
            for record in records
        ]
        return [future.result() for future in futures]


def _officially(manifest: dict[str, Any], records: Sequence[Record], verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """The verdicts as the run scored: by the official scripts where it was asked to."""
    from ares_eval.tasks import official

    asked = {name: task.get("asked", {}).get("scoring", "") for name, task in manifest.get("tasks", {}).items()}
    found = list(verdicts)
    for number, (record, verdict) in enumerate(zip(records, verdicts, strict=True)):
        kind, _, rule = asked.get(record.task, "").partition(":")
        if kind == "official":
            seed = f"{record.task}/{record.sample}/{record.draw}"
            found[number] = official.decide(rule, record.text or "", verdict, record.reference, record.answer, seed)
    return found


def _questions(folder: Path) -> dict[tuple[str, str], str]:
    """Question texts from the run's prompts.jsonl: all text of the last user message."""
    from ares_eval.records import PROMPTS

    found: dict[tuple[str, str], str] = {}
    path = folder / PROMPTS
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        texts = [_text_of(message) for message in entry.get("messages", []) if message.get("role") == "user"]
        if texts:
            found[entry["task"], entry["sample"]] = texts[-1]
    return found


def _text_of(message: dict[str, Any]) -> str:
    parts = message.get("parts", message.get("content", ""))
    if isinstance(parts, str):
        return parts
    return "\n".join(
        part if isinstance(part, str) else str(part.get("text", "")) for part in parts if isinstance(part, (str, dict))
    )


def _tested_model(manifest: dict[str, Any], records: Sequence[Record]) -> str:
    config = manifest.get("config") or manifest.get("settings") or {}
    named = config.get("model_name") if isinstance(config, dict) else None
    return str(named or manifest.get("model") or next((r.served_by for r in records if r.served_by), "") or "")


def _print_flips(records: Sequence[Record], verdicts: Sequence[Verdict], limit: int) -> None:
    flips = [
        (record, record.verdict, verdict)
        for record, verdict in zip(records, verdicts, strict=True)
        if record.verdict is not None and record.verdict.value != verdict.value
    ]
    print(f"{len(flips)} verdicts flip")
    for record, before, after in flips[:limit]:
        print(f"  {record.task} {record.sample} #{record.draw}: {_said(before)} -> {_said(after)}")
        reference = record.reference if isinstance(record.reference, str) else " | ".join(record.reference)
        print(f"    answer {_short(after.extracted)}   reference {_short(reference)}")
    if len(flips) > limit:
        print(f"  and {len(flips) - limit} more (--show N)")


def _said(verdict: Verdict) -> str:
    reason = f", {verdict.reason}" if verdict.reason else ""
    return f"{verdict.value} ({verdict.method}{reason}; {verdict.version or 'unknown version'})"


def _short(text: str | None) -> str:
    line = "-" if text is None else " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def _print_counts(records: Sequence[Record], verdicts: Sequence[Verdict]) -> None:
    counts: dict[str, Counter[str]] = {}
    for record, verdict in zip(records, verdicts, strict=True):
        counts.setdefault(record.task, Counter())[verdict.value] += 1
        if record.verdict is not None and record.verdict.value == "correct":
            counts[record.task]["before"] += 1
    print(f"{'task':28}{'replies':>9}{'before':>9}{'correct':>9}{'unverifiable':>14}")
    for task, count in counts.items():
        total = sum(count[value] for value in ("correct", "incorrect", "unverifiable"))
        print(f"{task:28}{total:>9}{count['before']:>9}{count['correct']:>9}{count['unverifiable']:>14}")


def _judge(
    args: argparse.Namespace,
    judge: Any,
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    questions: dict[tuple[str, str], str],
) -> None:
    """Ask the judge about every unverifiable verdict; its decisions are written beside the rules' ones."""
    from ares_eval.verify.judge import PROMPT_HASH, JudgeCache, JudgeError, ask, needs_judge

    cache = JudgeCache(args.run / JUDGE_CACHE)
    asked = [(r, v) for r, v in zip(records, verdicts, strict=True) if needs_judge(v)]

    def decide(pair: tuple[Record, Verdict]) -> str | None:
        record, _ = pair
        references = (record.reference,) if isinstance(record.reference, str) else record.reference
        try:
            return ask(judge, questions.get((record.task, record.sample)), record.text or "", references, cache).value
        except JudgeError:
            return None

    with ThreadPoolExecutor(max(1, args.judge_threads)) as threads:
        values = list(threads.map(decide, asked))
    with (args.run / JUDGED).open("w", encoding="utf-8") as file:
        for (record, verdict), value in zip(asked, values, strict=True):
            entry = {
                "task": record.task,
                "sample": record.sample,
                "draw": record.draw,
                "rules": verdict.value,
                "reason": verdict.reason,
                "judge": value,
                "model": judge.model,
                "prompt": PROMPT_HASH,
            }
            file.write(json.dumps(entry) + "\n")
    failed = values.count(None)
    print(f"judge {judge.model} (prompt {PROMPT_HASH}) was asked about {len(asked)} replies; {failed} got no decision")
    said = Counter(record.task for (record, _), value in zip(asked, values, strict=True) if value == "correct")
    print(f"{'task':28}{'rules only':>12}{'with judge':>12}{'bounds':>18}")
    for task in dict.fromkeys(record.task for record in records):
        of_task = [v for r, v in zip(records, verdicts, strict=True) if r.task == task]
        right = sum(v.value == "correct" for v in of_task)
        unknown = sum(v.value == "unverifiable" for v in of_task)
        share = [100 * n / len(of_task) for n in (right, right + said[task], right + unknown)]
        print(f"{task:28}{share[0]:>11.2f}%{share[1]:>11.2f}%{share[0]:>9.2f}-{share[2]:.2f}%")


def _line(record: Record, verdict: Verdict) -> str:
    named = {"task": record.task, "sample": record.sample, "draw": record.draw}
    return json.dumps({**named, **dataclasses.asdict(verdict)}, ensure_ascii=False)


def _write(folder: Path, records: Sequence[Record], verdicts: Sequence[Verdict]) -> None:
    """Append a line with the new verdict for every draw whose verdict changed: the last line of a draw counts."""
    from ares_eval.evaluate import sum_up_again
    from ares_eval.records import RESULTS, RunWriter

    changed = [
        dataclasses.replace(record, verdict=verdict)
        for record, verdict in zip(records, verdicts, strict=True)
        if record.verdict is None or _without_time(record.verdict) != _without_time(verdict)
    ]
    with RunWriter(folder) as writer:
        for record in changed:
            writer.append(record)
        print(f"{len(changed)} records were given their new verdict")
        if changed and (folder / RESULTS).exists():
            sum_up_again(writer)
            print(f"{folder / RESULTS} was made anew")


def _without_time(verdict: Verdict) -> Verdict:
    return dataclasses.replace(verdict, seconds=0.0)
