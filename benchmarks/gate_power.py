"""How often the gate passes, fails and stays open, by simulation: the tables of docs/gate.md.

    python -m benchmarks.gate_power [--runs 400] [--write docs/gate.md]

Questions differ in difficulty, both runs answer each with its own luck, replies' lengths are log-normal with spread
between and within questions, and high-entropy tokens follow lengths. A candidate differs from the baseline by
planted effects only, so the true state of every rule is known.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ares_eval.compare.pairing import Pair, Pairing, TaskPairs
from ares_eval.gate import decide, load
from ares_eval.gate.policy import Policy
from ares_eval.outcomes import Outcome, Outcomes

BEGIN, END = "<!-- power: made by benchmarks/gate_power.py -->", "<!-- /power -->"


@dataclass(frozen=True, slots=True)
class Effect:
    """What is planted in the candidate. ``lost``: share of draws whose right answer becomes wrong (the true drop of
    accuracy). ``tokens``, ``easy_tokens``, ``hard_hwe``: factors. ``own``: share of questions that a candidate answers
    with luck of its own; the rest come out as in the baseline, as for two runs of nearly the same model."""

    lost: float = 0.0
    tokens: float = 1.0
    easy_tokens: float = 1.0
    hard_hwe: float = 1.0
    own: float = 1.0


def simulate(questions: int, draws: int, effect: Effect, seed: int, tasks: int = 1) -> Pairing:
    """Two runs of ``tasks`` tasks, with ``effect`` planted in the second; about 61 % of answers are right."""
    import numpy as np

    random = np.random.default_rng(seed)
    made = []
    for task in range(tasks):
        shape = (questions, draws)
        chance = random.beta(1.6, 1.0, questions)
        right_a = random.random(shape) < chance[:, None]
        again = random.random(shape) < chance[:, None]
        right_b = np.where(random.random(questions)[:, None] < effect.own, again, right_a)
        mean = 1.6 / 2.6
        right_b &= random.random(shape) >= effect.lost / mean
        tier = np.where(chance >= 0.75, 0, np.where(chance < 0.45, 2, 1))
        centre = 6.0 + 1.2 * (1 - chance) + random.normal(0, 0.5, questions)
        grown = math.log(effect.tokens) + np.where(tier == 0, math.log(effect.easy_tokens), 0.0)
        log_a = centre[:, None] + random.normal(0, 0.3, shape)
        log_b = (centre + grown)[:, None] + random.normal(0, 0.3, shape)
        length_a, length_b = np.exp(log_a).astype(int), np.exp(log_b).astype(int)
        depth = np.where(tier == 2, effect.hard_hwe, 1.0)[:, None]
        hwe_a, hwe_b = random.poisson(0.02 * length_a), random.poisson(0.02 * length_b * depth)
        names = ("easy", "medium", "hard")
        pairs = tuple(
            Pair(
                f"q{i:05d}",
                k,
                _outcome(f"q{i:05d}", names[tier[i]], right_a[i, k], length_a[i, k], hwe_a[i, k]),
                _outcome(f"q{i:05d}", names[tier[i]], right_b[i, k], length_b[i, k], hwe_b[i, k]),
            )
            for i in range(questions)
            for k in range(draws)
        )
        made.append(TaskPairs(f"task{task}", pairs, 0, 0, (None, None)))
    run = Outcomes("simulated", Path(), "ares", None, {})
    return Pairing(run, run, tuple(made), ())


def _outcome(group: str, level: str, right: bool, tokens: int, hwe: int) -> Outcome:
    return Outcome(float(right), group=group, level=level, tokens=int(tokens), hwe=int(hwe))


def verdicts(policy: Policy, questions: int, draws: int, effect: Effect, runs: int, tasks: int = 1) -> Counter[str]:
    """How often each verdict comes out of ``runs`` simulations."""
    return Counter(
        decide(simulate(questions, draws, effect, 1000 * questions + seed, tasks), policy).verdict
        for seed in range(runs)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulations of each cell")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this file")
    args = parser.parse_args(argv)
    text = "\n\n".join([_default(args.runs), _smoke(args.runs)])
    if args.write is None:
        print(text)
        return 0
    content = args.write.read_text(encoding="utf-8")
    head, _, rest = content.partition(BEGIN)
    _, _, tail = rest.partition(END)
    args.write.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
    return 0


def _default(runs: int) -> str:
    policy = load("default")
    effects = [
        ("same: pass", "pass", Effect()),
        ("same: fail (false alarm)", "fail", Effect()),
        ("2 points lower: pass", "pass", Effect(lost=0.02)),
        ("5 lower: fail", "fail", Effect(lost=0.05)),
        ("10 lower: fail", "fail", Effect(lost=0.10)),
        ("tokens x 1.1: pass", "pass", Effect(tokens=1.10)),
        ("tokens x 1.2: fail", "fail", Effect(tokens=1.20)),
        ("easy tokens x 1.1: fail", "fail", Effect(easy_tokens=1.10)),
        ("hard HWE x 0.8: fail", "fail", Effect(hard_hwe=0.8)),
    ]
    sizes = [(100, 1), (100, 8), (500, 1), (1000, 1), (1000, 4), (4000, 1)]
    return _table("`default`", policy, effects, sizes, runs)


def _smoke(runs: int) -> str:
    policy = load("smoke")
    own = 0.25  # a quarter of the questions come out by new luck: about one verdict in ten differs
    effects = [
        ("same: pass", "pass", Effect(own=own)),
        ("same: fail (false alarm)", "fail", Effect(own=own)),
        ("10 points lower: pass", "pass", Effect(lost=0.10, own=own)),
        ("20 lower: fail", "fail", Effect(lost=0.20, own=own)),
        ("25 lower: fail", "fail", Effect(lost=0.25, own=own)),
        ("tokens x 1.5: fail", "fail", Effect(tokens=1.5, own=own)),
    ]
    return _table("`smoke`, runs of nearly the same model", policy, effects, [(123, 1)], runs)


def _table(
    title: str,
    policy: Policy,
    effects: Sequence[tuple[str, str, Effect]],
    sizes: Sequence[tuple[int, int]],
    runs: int,
) -> str:
    lines = [
        f"Policy {title}, {runs} simulations a cell, percent:",
        "",
        "| questions x draws | " + " | ".join(name for name, _, _ in effects) + " |",
        "|---|" + "---:|" * len(effects),
    ]
    for questions, draws in sizes:
        done = {effect: verdicts(policy, questions, draws, effect, runs) for effect in {e for _, _, e in effects}}
        cells = [f"{100 * done[effect][verdict] / runs:.1f}" for _, verdict, effect in effects]
        lines.append(f"| {questions:,} x {draws} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
