"""One benchmark: its definition, where its data is looked for, and its first question as it would be sent.

ares-eval show mathvision --dataset-dir DIR
ares-eval show gsm8k --json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ares_eval.tasks import (
    ARES_SYSTEM_PROMPT,
    DataUnavailable,
    PixelLimits,
    TaskError,
    load,
    prepare,
    prompt_digest,
    style,
)
from ares_eval.tasks.catalog import external, find
from ares_eval.tasks.definition import Definition, read_definition
from ares_eval.tasks.sources import locations
from ares_eval.types import Message, PictureError, Sample, TextPart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ares-eval show`."""
    limits = PixelLimits()
    parser.add_argument("task", metavar="TASK", help="a name of `ares-eval list`")
    parser.add_argument("--dataset-dir", type=Path, metavar="DIR", help="folder with local data")
    parser.add_argument("--include-path", action="append", default=[], metavar="DIR", help="more folders of task files")
    parser.add_argument("--system-prompt", default=ARES_SYSTEM_PROMPT, help="default: the ARES think/boxed prompt")
    parser.add_argument("--prompt-style", choices=("system", "user-suffix"), default="system", help="where it goes")
    parser.add_argument("--min-pixels", type=int, default=limits.min_pixels, help="smallest area of a sent picture")
    parser.add_argument("--max-pixels", type=int, default=limits.max_pixels, help="largest area of a sent picture")
    parser.add_argument("--json", action="store_true", help="print JSON, pictures as data URLs")


def run(args: argparse.Namespace) -> int:
    """0; 2 for an unknown or broken task; 3 where its data or a picture cannot be had (the definition is shown)."""
    try:
        limits = PixelLimits(args.min_pixels, args.max_pixels)
        of_a_source = external(args.task) is not None
        definition = None if of_a_source else read_definition(find(args.task, args.include_path))
    except (TaskError, ValueError) as error:
        print(f"ares-eval show: {error}", file=sys.stderr)
        return 2
    told: dict[str, Any] = _foreign(args.task) if definition is None else _definition(definition)
    code, problem = 0, None
    try:
        task = load(args.task, dataset_dir=args.dataset_dir, include_path=args.include_path)
        if of_a_source:
            told |= {name: getattr(task, name) for name in ("suites", "modality", "repeats", "metrics", "fingerprint")}
            told |= {"size": task.size, "answer": {"settings": dict(task.defaults)}}
        told["data"] = {"source": task.source, "digest": task.dataset_digest, "questions": task.size}
        sample = next(task.samples(), None)
        if sample is not None:
            told["sample"] = _sample(
                sample, style(sample.messages, args.system_prompt, args.prompt_style), limits, args
            )
    except (DataUnavailable, PictureError) as error:
        code, problem = 3, str(error)
    except TaskError as error:
        code, problem = 2, str(error)
    if args.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        _print(told)
    if problem is not None:
        print(f"ares-eval show: {problem}", file=sys.stderr)
    return code


def _foreign(name: str) -> dict[str, Any]:
    """What is known of a task of another registry before it is loaded."""
    prefix = name.partition(":")[0]
    told = dict.fromkeys(("description", "file", "modality", "licence", "fingerprint"), "")
    lists: dict[str, Any] = {"suites": (), "metrics": (), "places": {}, "official": {}, "evidence": {}}
    return {
        **told,
        **lists,
        "name": name,
        "description": f"a task of the registry {prefix}",
        "file": "its own definition",
        "lm_eval": name.partition(":")[2],
        "size": None,
        "repeats": 1,
        "answer": {},
    }


def _definition(definition: Definition) -> dict[str, Any]:
    metadata = definition.metadata
    return {
        "name": definition.name,
        "description": metadata.get("description", ""),
        "file": str(definition.file),
        "lm_eval": definition.config["task"],
        "suites": list(definition.suites),
        "modality": definition.modality,
        "size": definition.size,
        "repeats": definition.repeats,
        "metrics": list(definition.metrics),
        "answer": metadata["answer"],
        "places": dict(locations(definition)),
        "official": metadata.get("official", {}),
        "evidence": metadata.get("evidence", {}),
        "licence": metadata.get("licence"),
        "fingerprint": definition.fingerprint,
    }


def _sample(
    sample: Sample, messages: tuple[Message, ...], limits: PixelLimits, args: argparse.Namespace
) -> dict[str, Any]:
    return {
        "id": sample.id,
        "group": sample.group,
        "level": sample.level,
        "fields": dict(sample.fields),
        "reference": sample.reference,
        "answer": {
            "type": sample.answer.type,
            "policy": dict(sample.answer.policy),
            "choices": list(sample.answer.choices),
        },
        "prompt_digest": prompt_digest(messages),
        "messages": [_message(message, limits, args.json) for message in messages],
    }


def _message(message: Message, limits: PixelLimits, whole: bool) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
            continue
        prepared = prepare(part.picture, limits)
        how = "untouched" if prepared.untouched else "resized"
        url = prepared.data_url()
        size = f"{prepared.size[0]} x {prepared.size[1]}"
        note = f"{part.picture.source}: {prepared.media_type}, {size}, {how}, {len(url):,} characters"
        parts.append({"type": "image_url", "image_url": {"url": url}} if whole else {"type": "picture", "text": note})
    return {"role": message.role, "content": parts}


def _print(told: dict[str, Any]) -> None:
    print(f"{told['name']}: {told['description']}")
    draws = "" if told["repeats"] == 1 else f", {told['repeats']} draws each"
    facts = {
        "file": f"{told['file']} (in lm-eval: {told['lm_eval']})",
        "suites": ", ".join(told["suites"]) or "none",
        "modality": told["modality"],
        "questions": f"{told['size'] or 'unknown'}{draws}",
        "metrics": ", ".join(told["metrics"]),
        "answer": _line(told["answer"]),
        "licence": told["licence"] or "not stated",
        "fingerprint": told["fingerprint"],
    }
    facts |= {f"{kind} data": place for kind, place in told["places"].items()}
    facts |= {f"official {key}": _line(value) for key, value in told["official"].items()}
    if told["evidence"]:
        facts["evidence"] = ", ".join(f"{key}: {value}" for key, value in told["evidence"].items())
    facts |= {f"data {key}": value for key, value in told.get("data", {}).items() if value is not None}
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"  {key:{width}}  {value}")
    sample = told.get("sample")
    if sample is None:
        return
    level = f", level {sample['level']}" if sample["level"] else ""
    print(f"\nfirst question: {sample['id']}{level}; answer {_line(sample['reference'])} as {_line(sample['answer'])}")
    for message in sample["messages"]:
        print(f"[{message['role']}]")
        for part in message["content"]:
            print(part["text"] if part["type"] == "text" else f"<{part['text']}>")


def _line(value: Any) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
