"""Questions to verl's parquet for reinforcement learning.

    ares-train data questions.jsonl --output train.parquet --model MODEL
    ares-train data TIGER-Lab/ViRL39K --output train.parquet --val-output val.parquet --val-size 512 \\
        --images image --image-root ViRL39K --id qid --source-column source \\
        --keep PassRate_32BTrained --keep PassRate_7BBase --keep category --model Qwen/Qwen2.5-VL-7B-Instruct

Sources are files (JSONL, JSON, parquet, globs), folders in the Hub's form, or datasets of the Hub. Questions that
repeat, that belong to a benchmark, or whose pictures are broken are left out; OUTPUT.report.json says how many and why,
and the work folder holds the tables. Training takes evaluation's verdicts with
reward.custom_reward_function.path=pkg://ares_eval.verify.reward and name=compute_score.

exit codes: 0 done, 2 a setting or source that cannot work, 130 interrupted
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("sources", nargs="+", metavar="FILE|HUB_ID", help="where the questions are")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.parquet")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for what is made on the way [OUT-work]")

    group = parser.add_argument_group("columns of the sources")
    group.add_argument("--question", metavar="COL", default="question", help="[question]")
    group.add_argument("--messages", metavar="COL", help="chat turns instead of a question")
    group.add_argument(
        "--answer", metavar="COL", default="answer", help="reference, or a list of accepted ones [answer]"
    )
    group.add_argument("--images", metavar="COL", default="images", help="[images]")
    group.add_argument("--choices", metavar="COL", help="option texts")
    group.add_argument("--id", metavar="COL")
    group.add_argument("--source-column", metavar="COL", help="names the source of each row [the source's own name]")
    group.add_argument("--answer-type-column", metavar="COL")
    group.add_argument(
        "--keep", metavar="COL", action="append", default=[], help="kept in extra_info.extra; repeatable"
    )

    group = parser.add_argument_group("sources")
    group.add_argument("--answer-type", metavar="TYPE", default="auto", help="of all answers [guessed]")
    group.add_argument("--answer-policy", metavar="JSON", default="{}", help="how answers are compared")
    group.add_argument("--split", default="train", help="[train]")
    group.add_argument("--hub-config", metavar="NAME")
    group.add_argument("--revision", default="main", help="[main]")
    group.add_argument("--image-root", type=Path, metavar="DIR", help="what picture paths are relative to")
    group.add_argument("--limit", type=int, metavar="N", help="first N rows of each source")

    group = parser.add_argument_group("decontamination")
    group.add_argument("--tasks", default="all", help="benchmarks to hold against, by comma; none for no check [all]")
    group.add_argument("--dataset-dir", type=Path, metavar="DIR", help="local copies of benchmarks")
    group.add_argument("--require-all", action="store_true", help="refuse where a benchmark cannot be had")

    group = parser.add_argument_group("rows")
    group.add_argument("--model", metavar="MODEL", help="whose template and processor count prompts [not checked]")
    group.add_argument("--model-revision", metavar="REV")
    group.add_argument("--max-prompt-length", type=int, metavar="N", help="tokens; longer prompts are left out [4096]")
    group.add_argument("--system-prompt", metavar="TEXT", help="instead of the think-then-box prompt; '' for none")
    group.add_argument("--prompt-style", choices=["system", "user-suffix"], default="system", help="[system]")
    group.add_argument("--ability", default="math", help="verl's column [math]")
    group.add_argument("--val-output", type=Path, metavar="VAL.parquet")
    group.add_argument("--val-size", type=int, default=0, metavar="N", help="questions that go there instead")
    group.add_argument("--seed", type=int, default=0, help="of the order [0]")
    group.add_argument("--workers", type=int, default=1, metavar="N", help="processes [1]")
    group.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    from ares_eval.config import ConfigError
    from ares_eval.tasks.prompts import ARES_SYSTEM_PROMPT
    from ares_train import data
    from ares_train.adacs.config import from_dict
    from ares_train.adacs.errors import AdacsError

    try:
        if (args.val_output is None) != (args.val_size == 0) or args.val_size < 0:
            raise ConfigError("--val-output and --val-size go together")
        if args.max_prompt_length is not None and args.model is None:
            raise ConfigError("--max-prompt-length needs --model, whose template counts")
        settings = data.RlSettings(
            system_prompt=ARES_SYSTEM_PROMPT if args.system_prompt is None else args.system_prompt,
            prompt_style=args.prompt_style,
            model=args.model,
            model_revision=args.model_revision,
            max_prompt_length=args.max_prompt_length or 4096,
            validation=args.val_size,
            ability=args.ability,
        )
        work = args.work or args.output.with_name(f"{args.output.stem}-work")
        note = _silent if args.quiet else _note
        report = data.write(from_dict(_ingest(args)), settings, work, args.output, args.val_output, note)
    except KeyboardInterrupt:
        print("ares-train data: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (AdacsError, ConfigError) as error:
        print(f"ares-train data: {error}", file=sys.stderr)
        return 2
    _tell(report, args)
    return 0


def _ingest(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as a configuration of ingest."""
    import msgspec

    from ares_eval.config import ConfigError

    try:
        policy = msgspec.json.decode(args.answer_policy, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"--answer-policy is not a JSON object: {error}") from None
    fields = {
        "question": None if args.messages else args.question,
        "messages": args.messages,
        "images": args.images or None,
        "answer": args.answer,
        "choices": args.choices,
        "answer_type": args.answer_type_column,
        "id": args.id,
        "source": args.source_column,
        "extra": args.keep,
    }
    sources = []
    for place in args.sources:
        hub = _on_hub(place)
        sources.append(
            {
                "name": place.rpartition("/")[2] if hub else Path(place).stem,
                "hub" if hub else "path": place,
                "config": args.hub_config,
                "split": args.split,
                "revision": args.revision,
                "fields": fields,
                "image_root": args.image_root,
                "answer_type": args.answer_type,
                "answer_policy": policy,
                "limit": args.limit,
            }
        )
    against = {"tasks": args.tasks, "dataset_dir": args.dataset_dir, "require_all": args.require_all}
    return {
        "ingest": {"sources": sources, "contamination": against, "workers": args.workers},
        "seed": args.seed,
    }


def _on_hub(place: str) -> bool:
    """Whether a source is a dataset's id: ORG/NAME, and nothing of that name lies here."""
    path = Path(place)
    return not path.exists() and place.count("/") == 1 and not place.startswith((".", "/", "~")) and not path.suffix


def _tell(report: dict[str, Any], args: argparse.Namespace) -> None:
    rows = report["rows"]
    print(
        f"{args.output}: {rows['train']} questions" + (f"; {args.val_output}: {rows['val']}" if "val" in rows else "")
    )
    left_out: dict[str, int] = dict(report["dropped"])
    for source in report["ingest"]["sources"].values():
        for reason, count in source["left_out"].items():
            name = reason.partition(":")[0]
            left_out[name] = left_out.get(name, 0) + count
    if left_out:
        told = sorted(left_out.items(), key=lambda item: -item[1])
        print("left out: " + ", ".join(f"{count} {reason}" for reason, count in told))
    if report["prompt_length"] is None:
        print("prompt lengths were NOT checked (--model)")
    unchecked = report["ingest"]["benchmarks_not_checked"]
    if not report["ingest"]["benchmarks_checked"]:
        print("the questions were NOT held against any benchmark" + ("" if unchecked else " (--tasks none)"))
    elif unchecked:
        print(f"NOT held against: {', '.join(unchecked)}")


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(_line: str) -> None:
    return None
