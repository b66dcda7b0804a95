"""How well an LLM judge agrees with the calibration set that ships with ARES.

  ares-eval judge-check --judge-model NAME --judge-base-url URL

The pairs were written for ARES and labelled by hand; half of them are wrong answers, many of them nearly right.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any


def add_judge_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """Arguments that name a judge."""
    parser.add_argument("--judge-model", required=required, help="the judge's model name")
    parser.add_argument("--judge-base-url", required=required, help="its OpenAI-compatible server, ending in /v1")
    parser.add_argument("--judge-api-key", help="its key (default: the environment's JUDGE_API_KEY)")
    parser.add_argument("--judge-threads", type=int, default=8, help="requests at once (default: 8)")


def judge_of(args: argparse.Namespace) -> Any:
    """The judge that the arguments name."""
    from ares_eval.verify.judge_http import HttpJudge

    key = args.judge_api_key or os.environ.get("JUDGE_API_KEY")
    return HttpJudge(args.judge_model, args.judge_base_url, key)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval judge-check``."""
    add_judge_arguments(parser, required=True)
    parser.add_argument("--output", type=Path, help="write each pair's decision as JSON lines")


def calibration() -> list[dict[str, Any]]:
    """The pairs: id, type, question, response, reference, label (1 right, 0 wrong)."""
    text = (files("ares_eval.verify") / "calibration.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def run(args: argparse.Namespace) -> int:
    """Ask the judge about every pair; 3 where some got no reply, 4 where none did."""
    from ares_eval.verify.judge import PROMPT_HASH, JudgeError, ask

    try:
        judge = judge_of(args)
    except ValueError as error:
        print(f"ares-eval judge-check: {error}", file=sys.stderr)
        return 2
    pairs = calibration()

    def decide(pair: dict[str, Any]) -> str:
        try:
            return ask(judge, pair["question"], pair["response"], [pair["reference"]]).value
        except JudgeError as error:
            return f"failed: {error}"

    with ThreadPoolExecutor(max(1, args.judge_threads)) as threads:
        values = list(threads.map(decide, pairs))
    if args.output is not None:
        lines = [json.dumps({**pair, "judged": value}) for pair, value in zip(pairs, values, strict=True)]
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    failed = [value for value in values if value.startswith("failed")]
    if len(failed) == len(pairs):
        print(f"ares-eval judge-check: {failed[0].removeprefix('failed: ')}", file=sys.stderr)
        return 4
    _report(judge.model, PROMPT_HASH, pairs, values)
    return 3 if failed else 0


def _report(model: str, prompt: str, pairs: list[dict[str, Any]], values: list[str]) -> None:
    counts = Counter(zip((pair["label"] for pair in pairs), values, strict=True))
    asked = [(pair, value) for pair, value in zip(pairs, values, strict=True) if not value.startswith("failed")]
    agreed = counts[1, "correct"] + counts[0, "incorrect"]
    print(f"judge {model}, prompt {prompt}, {len(asked)} of {len(pairs)} pairs answered")
    print(f"{'':12}{'said right':>12}{'said wrong':>12}{'unsure':>9}")
    for label, name in ((1, "right"), (0, "wrong")):
        row = [counts[label, value] for value in ("correct", "incorrect", "unverifiable")]
        print(f"{name:12}{row[0]:>12}{row[1]:>12}{row[2]:>9}")
    print(f"agreement {100 * agreed / len(asked):.1f} %, kappa {_kappa(asked):.2f}")
    kinds = sorted({pair["type"] for pair, _ in asked})
    for kind in kinds:
        of_kind = [(pair, value) for pair, value in asked if pair["type"] == kind]
        right = sum(value == ("correct" if pair["label"] else "incorrect") for pair, value in of_kind)
        print(f"  {kind:12}{right}/{len(of_kind)}")
    for pair, value in asked:
        if value != ("correct" if pair["label"] else "incorrect"):
            print(f"  {pair['id']}: said {value}, is {'right' if pair['label'] else 'wrong'}")


def _kappa(asked: list[tuple[dict[str, Any], str]]) -> float:
    """Cohen's kappa of labels and decisions, unsure ones counted as a decision of their own (Cohen 1960)."""
    n = len(asked)
    labels = Counter("correct" if pair["label"] else "incorrect" for pair, _ in asked)
    said = Counter(value for _, value in asked)
    observed = sum(value == ("correct" if pair["label"] else "incorrect") for pair, value in asked) / n
    expected = sum(labels[value] * said[value] for value in labels) / n**2
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)
