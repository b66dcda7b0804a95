"""Evaluate a model on benchmarks.

examples:
  ares-eval --serve embedded --datasets smoke_text                      a small model on this machine, no key, no GPU
  ares-eval --model-name gpt-4.1 --datasets mathverse,mathvision        OpenAI, key from $OPENAI_API_KEY
  ares-eval --model-name ARES-RL-7B --openai-base-url http://127.0.0.1:23333/v1 --datasets all --preset reasoning
  ares-eval --serve vllm:./checkpoint --datasets math500 --samples 8 --logprobs 20
  ares-eval --model-name m --datasets all --dry-run                     counts and costs, nothing sent

The same command again resumes an unfinished run and shows a finished one. Exit codes: 0 complete, 2 usage,
3 incomplete, 4 nothing could be measured, 130 interrupted.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from ares_eval.types import Json

_HIDDEN = argparse.SUPPRESS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a run; what is not given is left out, so that files and presets can fill it."""

    def group(title: str) -> Any:
        added = parser.add_argument_group(title)

        def flag(name: str, **options: Any) -> None:
            added.add_argument(name, default=_HIDDEN, **options)

        return flag

    flag = group("model")
    flag("--model-name", metavar="NAME", help="model id as the server knows it; with --serve: the name to serve under")
    flag("--openai-api-key", metavar="KEY", help="API key (also $OPENAI_API_KEY); local servers need none")
    flag("--openai-base-url", metavar="URL", help="OpenAI-compatible endpoint (also $OPENAI_BASE_URL) [OpenAI's]")
    flag("--model-revision", metavar="REV", help="which weights answer, where the name does not say: part of the cache")
    flag("--transport", choices=["aiohttp", "openai"], help="openai: the official client, also for Azure [aiohttp]")
    flag("--serve", metavar="SPEC", help="start a server: embedded, vllm:PATH, lmdeploy:PATH, llama.cpp:FILE, hf:PATH")
    flag("--serve-args", metavar="ARGS", help="further arguments for that server, in one quoted string")

    flag = group("benchmarks")
    flag("--datasets", metavar="A,B,SUITE", help="tasks and suites, by comma; `ares-eval list` shows them [all]")
    flag("--dataset-dir", metavar="DIR", help="folder with local copies; what is not there comes from the hub")
    flag("--include-path", metavar="DIR", action="append", help="a further folder of task YAML files")
    flag("--limit", metavar="N", type=int, help="first N questions of each dataset (whole groups where they count)")
    flag("--samples", metavar="K", type=int, help="draws for each question [the task's own: AIME 16, else 1]")
    flag(
        "--skip-unavailable", action="store_true", help="a dataset that cannot be had does not make the run incomplete"
    )

    flag = group("sampling")
    flag("--max-tokens", metavar="N", type=int, help="tokens of an answer at most [8192]")
    flag("--temperature", metavar="T", type=float, help="[0.3]")
    flag("--top-p", metavar="P", type=float, help="[0.95]")
    flag("--top-k", metavar="K", type=int, help="[not sent]")
    flag("--seed", metavar="N", type=int, help="seed of the first draw; each further draw adds one [not sent]")
    flag("--reasoning-effort", metavar="LEVEL", help="low, medium, high, ... as the server takes it [not sent]")
    flag("--logprobs", metavar="K", type=int, help="top alternatives of each token; above 0 token traces are kept [0]")
    flag("--vocabulary-size", metavar="N", type=int, help="for upper entropy bounds, where the server does not tell")
    flag("--extra-body", metavar="JSON", help="further members of each request's body")
    flag("--stream", action="store_true", help="ask for streamed replies")
    flag("--preset", metavar="NAME", help="sampling settings from configs/presets (reasoning, greedy)")

    flag = group("prompt and pictures")
    flag("--system-prompt", metavar="TEXT", help="instead of the think-then-box prompt; '' for none")
    flag("--prompt-style", choices=["system", "user-suffix"], help="where that prompt stands [system]")
    flag("--min-pixels", metavar="N", type=int, help="smaller pictures are enlarged to this area [262144]")
    flag("--max-pixels", metavar="N", type=int, help="larger pictures are shrunk to this area [1048576]")

    flag = group("engine")
    flag("--eval-threads", metavar="N", type=int, help="requests in flight, 1 to 1024 [8]")
    flag("--max-retries", metavar="N", type=int, help="retries after the first try [3]")
    flag("--timeout", metavar="S", type=float, help="seconds without a byte before a request counts as lost [600]")
    flag("--cache-dir", metavar="DIR", help="reply cache [$ARES_CACHE or ~/.cache/ares]")
    flag("--no-cache", action="store_true", help="neither read nor write the cache")

    flag = group("scoring")
    flag(
        "--scoring",
        choices=["sound", "official"],
        help="official: as the benchmarks' own scripts, with their guesses and nearest options [sound]",
    )

    flag = group("judge (for what rules cannot verify)")
    flag("--judge-model", metavar="NAME", help="an LLM judge for unverifiable answers; never the model under test")
    flag("--judge-base-url", metavar="URL", help="its endpoint")
    flag("--judge-api-key", metavar="KEY", help="its key (also $JUDGE_API_KEY)")
    flag("--judge-self", action="store_true", help="let a model judge its own answers all the same")

    flag = group("output")
    flag("--output-dir", metavar="DIR", help="where run folders go [results/runs]")
    flag("--run-name", metavar="NAME", help="name of the run's folder [the datasets]")
    flag("--fresh", action="store_true", help="a new folder, even where this run exists")
    flag(
        "--export",
        metavar="FORMAT",
        action="append",
        choices=["lm-eval", "vlmeval", "inspect"],
        help="also write the result files of another harness: lm-eval, vlmeval (VLMEvalKit), inspect",
    )
    flag(
        "--tracker",
        choices=["wandb", "mlflow", "trackio", "tensorboard"],
        help="log the run's figures to this tracker when it is done",
    )
    flag("--config", metavar="FILE", help="a YAML file with these settings; flags win")
    flag("--dry-run", action="store_true", help="count requests, pictures and tokens; send nothing")
    flag("--input-price", metavar="USD", type=float, help="price of a million prompt tokens, for --dry-run")
    flag("--output-price", metavar="USD", type=float, help="price of a million answer tokens, for --dry-run")
    flag("--quiet", action="store_true", help="no progress, only the result")
    flag("--json", action="store_true", help="results as JSON on standard output")


def run(args: argparse.Namespace) -> int:
    """Exit code of the run."""
    from ares_eval import config as settings

    try:
        config = settings.load(_given(vars(args)))
        config = _named(config)
    except (settings.ConfigError, ValueError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 2
    return _evaluate(config)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    import shlex

    given = dict(flags)
    if "extra_body" in given:
        try:
            given["extra_body"] = json.loads(given["extra_body"])
        except ValueError as error:
            raise ValueError(f"--extra-body is no JSON: {error}") from None
    if "serve_args" in given:
        given["serve_args"] = tuple(shlex.split(given["serve_args"]))
    for name in ("include_path", "export"):
        if name in given:
            given[name] = tuple(given[name])
    return given


def _named(config: Any) -> Any:
    """The configuration with the model's name filled in from --serve; ValueError where there is none, or no server."""
    if config.serve is None:
        if not config.model_name:
            raise ValueError("--model-name is missing (or --serve embedded for a small model on this machine)")
        return config
    from ares_eval.inference import servers

    name = servers.served_name(config.serve)
    return config if config.model_name else config.replace(model_name=name)


def _evaluate(config: Any) -> int:
    from ares_eval import evaluate as evaluation
    from ares_eval import progress, records, tasks
    from ares_eval.config import ConfigError
    from ares_eval.inference.cache import CacheError
    from ares_eval.inference.servers import ServerFailed, ServeSpecError

    # A run makes millions of short-lived objects and hardly a cycle: collecting as often as Python does by default
    # takes a tenth of its CPU time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    quiet = config.quiet or config.json
    shown = progress.choose(quiet=quiet)

    def warn(line: str) -> None:
        if quiet:
            print(f"ares-eval: {line}", file=sys.stderr)
        else:
            shown.note(line)

    if config.tracker is not None and not _tracker_is_there(config.tracker):
        return 2
    try:
        if config.dry_run:
            from ares_eval import dry_run

            return dry_run.show(config, print)
        done = evaluation.evaluate(config, shown, warn=warn)
    except (tasks.TaskError, ConfigError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 2
    except evaluation.NothingToRun as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 3
    except (records.RunError, CacheError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 3
    except ServeSpecError as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 2
    except ServerFailed as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("ares-eval: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for form in config.export:
        _export(form, done.folder)
    if config.tracker is not None:
        _track(config.tracker, done.folder, warn)
    _show(done.results, done, config)
    return done.exit_code


def _tracker_is_there(tracker: str) -> bool:
    """Asked before the run: nobody should learn after hours that a package is missing."""
    from ares_eval import trackers

    try:
        trackers.check(tracker)
    except trackers.TrackerUnavailable as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return False
    return True


def _track(tracker: str, folder: Any, warn: Callable[[str], None]) -> None:
    """A tracker that refuses does not undo the run: `ares-eval report --tracker` logs it later."""
    from ares_eval import trackers

    try:
        warn(trackers.log_folder(tracker, folder))
    except trackers.TrackerUnavailable as error:
        warn(f"{error}; `ares-eval report {folder} --tracker {tracker}` tries again")


def _export(form: str, folder: Any) -> None:
    from ares_eval import export_inspect, export_lm_eval, export_vlmeval

    export = {"lm-eval": export_lm_eval, "vlmeval": export_vlmeval, "inspect": export_inspect}[form].export
    export(folder, folder / form)


def _show(found: dict[str, Json], done: Any, config: Any) -> None:
    from ares_eval import table

    if config.json:
        print(json.dumps({"run": str(done.folder), "exit_code": done.exit_code, **found}))
    else:
        table.write_table(found, sys.stdout)
        if "judged" in found:
            judged = found["judged"]
            print(f"\nwith the judge {judged['model']} ({judged['decided']} of {judged['asked']} decided):")
            table.write_table(judged, sys.stdout)
        print(f"run: {done.folder}")
    if done.reason:
        print(f"ares-eval: {done.reason}", file=sys.stderr)
