"""Evaluate the checkpoints of a run while it trains, each by its own weights.

  ares-train watch checkpoints/my-run --datasets math500 --serve vllm                until Ctrl-C
  ares-train watch checkpoints/my-run --config eval.yaml --until-step 500            until step 500 has its result
  ares-train watch checkpoints/my-run --datasets smoke --serve hf --once             what is there now
  ares-train watch RUN --datasets math500 --baseline first --on-fail stop            stop a run that regresses

RUN_DIR is verl's trainer.default_local_dir. Results go to RUN_DIR/eval: step_N.json, metrics.jsonl, best.json, runs/;
`ares-eval series RUN_DIR` shows them. The trainer queues its checkpoints by the callback
ares_train.loop.callback.AresCheckpointCallback; without it they are found by themselves. Several watchers may share a
run. docs/loop.md describes the files and what survives what.

What the trainer says of its evaluation (trainer.eval) is taken over; --config and flags win over it.

exit codes: 0 everything has a result, 1 with --on-fail stop: a gate failed, 2 usage, 3 something has no complete
result, 130 interrupted
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ares_train.loop.settings import Settings
    from ares_train.loop.watch import End, Watched

FAILED, USAGE, INCOMPLETE, INTERRUPTED = 1, 2, 3, 130

_OWN = frozenset({"run_dir", "config", "once", "until_step", "timeout"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command; what is not given is left out, so that the file of settings can fill it."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the training run's folder (global_step_N in it)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML with these settings, and `run:` for ares-eval's"
    )
    end = parser.add_argument_group("when to end [at Ctrl-C]")
    end.add_argument("--once", action="store_true", help="when everything that is there has a result")
    end.add_argument("--until-step", type=int, metavar="N", help="when step N or a later one has a result")
    end.add_argument("--timeout", type=float, metavar="S", help="after so many seconds")

    what = _group(parser, "what is evaluated")
    what("--datasets", metavar="A,B,SUITE", help="tasks and suites, as for ares-eval")
    what("--serve", choices=["vllm", "lmdeploy", "hf"], help="who serves the weights [vllm]")
    what("--serve-args", metavar="ARGS", help="further arguments for that server, in one quoted string")
    what("--model-name", metavar="NAME", help="name in the results [the run's folder]")
    what("--dtype", choices=["keep", "bfloat16", "float16", "float32"], help="of the merged weights [keep]")
    what("--eval-python", metavar="PATH", help="the Python that has ares-eval with its registries [this one]")
    then = _group(parser, "what follows")
    then("--baseline", metavar="RUN", help="gate against a run, a saved baseline, first, previous, best, or step:N")
    then("--policy", metavar="FILE", help="the gate's policy, or its name in configs/gates [default]")
    then("--on-fail", choices=["none", "warn", "stop"], help="when the gate fails; stop asks the trainer to end [warn]")
    then("--best-metric", metavar="NAME", help="figure that decides the best, as gsm8k/accuracy [mean over tasks]")
    then("--best-mode", choices=["max", "min"], help="[max]")
    then("--keep", choices=["none", "best", "all"], help="whose merged weights are kept [best]")
    then("--tracker", metavar="NAME[:ID]", action="append", help="wandb, mlflow, trackio, tensorboard; ID: run to join")
    then("--tries", type=int, metavar="N", help="how often an evaluation may fail [3]")
    then("--poll", type=float, metavar="S", help="seconds between two looks [10]")


def _group(parser: argparse.ArgumentParser, title: str) -> Callable[..., object]:
    return functools.partial(parser.add_argument_group(title).add_argument, default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Watch until the end that was asked for."""
    from ares_eval import trackers
    from ares_train.loop import settings, watch

    given = {name: value for name, value in vars(args).items() if name not in _OWN}
    if not args.run_dir.is_dir() and args.once:
        return _complain(f"{args.run_dir}: no such folder", USAGE)
    try:
        made = settings.load(args.run_dir, args.config, given)
        for name in made.tracker:
            trackers.check(name.partition(":")[0])
    except (settings.SettingsError, trackers.TrackerUnavailable) as error:
        return _complain(str(error), USAGE)
    return _watch(args.run_dir, made, watch.End(args.once, args.until_step, args.timeout))


def _watch(run_dir: Path, settings: Settings, end: End) -> int:
    from ares_eval import interrupts
    from ares_eval.series.steps import StepFileError
    from ares_train.loop import watch
    from ares_train.loop.child import EvaluatorUnusable, Interrupted
    from ares_train.loop.queue import QueueError
    from ares_train.loop.settings import SettingsError

    asked = "stopping; what is under way is kept (press Ctrl-C again to stop at once)"
    with interrupts.asked_to_stop(lambda: _say(asked)) as stop:
        try:
            watch.check(run_dir, settings, stop)
            there = "" if any(run_dir.glob("global_step_*")) else "; no checkpoint is there yet"
            _say(f"watching {run_dir}: {settings.datasets} by {settings.serve}{there}")
            done = watch.watch(run_dir, settings, end, stop=stop, say=_say)
        except (SettingsError, EvaluatorUnusable) as error:
            return _complain(str(error), USAGE)
        except (QueueError, StepFileError, OSError) as error:
            return _complain(str(error), INCOMPLETE)
        except (Interrupted, KeyboardInterrupt):
            return _complain("stopped; the same command goes on from here", INTERRUPTED)
    return _code(done, settings)


def _code(done: Watched, settings: Settings) -> int:
    for job in done.left:
        _say(f"step {job.step}: no result yet")
    if settings.on_fail == "stop" and any(r.gate is not None and r.gate.verdict == "fail" for r in done.results):
        return FAILED
    if done.left or done.timed_out or any(result.status != "complete" for result in done.results):
        return INCOMPLETE
    return 0


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _complain(line: str, code: int) -> int:
    print(f"ares-train watch: {line}", file=sys.stderr)
    return code
