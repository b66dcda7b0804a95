"""The gate of a checkpoint: its run against a baseline, which may be an earlier step of the same training."""

from __future__ import annotations

import re
from pathlib import Path

from ares_eval import gate
from ares_eval.compare import Mismatch, compare_outcomes
from ares_eval.foreign import ForeignError, load_any
from ares_eval.gate import report
from ares_eval.records import RunError
from ares_eval.series import steps
from ares_eval.series.steps import Gate, StepResult
from ares_train.loop import ranking
from ares_train.loop.settings import Settings, SettingsError

_STEP = re.compile(r"step:(\d{1,12})")
OWN = ("first", "previous", "best")


def check(settings: Settings) -> None:
    """SettingsError where the policy cannot be used, or the baseline is neither a step's nor there."""
    baseline = settings.baseline
    try:
        gate.load(settings.policy)
        if baseline and baseline not in OWN and not _STEP.fullmatch(baseline):
            load_any(gate.baseline_path(baseline))
    except (gate.PolicyError, ForeignError, RunError) as error:
        raise SettingsError(str(error)) from None


def decide(run_dir: Path, step: int, candidate: Path, settings: Settings) -> Gate | None:
    """What the gate says of the run ``candidate`` of ``step``; None where nothing is gated, or where no earlier step
    can be the baseline yet.

    Runs that cannot be compared give the verdict incomplete, with the reasons, and so does a named step that is past
    and has no complete result.
    """
    name, against = _baseline(run_dir, step, settings)
    policy = settings.policy
    if against is None:
        match = _STEP.fullmatch(settings.baseline)
        if match is not None and int(match[1]) < step:
            return Gate("incomplete", name, policy, (f"step {int(match[1])} has no complete result to compare with",))
        return None
    rules = gate.load(policy)
    try:
        comparison = compare_outcomes(load_any(against), load_any(candidate), tier_source=rules.tiers)
    except Mismatch as error:
        return Gate("incomplete", name, policy, tuple(error.reasons))
    except (RunError, ForeignError) as error:
        return Gate("incomplete", name, policy, (str(error),))
    decision = gate.decide(comparison.pairing, rules)
    return Gate(decision.verdict, name, policy, _findings(decision))


def _findings(decision: gate.Decision) -> tuple[str, ...]:
    """A line for each cause of no verdict, and for each test that is broken or open."""
    lines = list(decision.incomplete)
    for finding in decision.findings:
        if finding.state in ("broken", "open"):
            test = finding.test
            advice = f"; {test.advice}" if finding.state == "open" and test.advice else ""
            lines.append(f"{finding.state}: {test.scope}: {test.rule.title}: observed {report.shown(test)}{advice}")
    return tuple(lines)


def _baseline(run_dir: Path, step: int, settings: Settings) -> tuple[str, Path | None]:
    """What the candidate is held against: a name for people, and the path."""
    baseline = settings.baseline
    match = _STEP.fullmatch(baseline)
    if baseline not in OWN and match is None:
        return baseline, gate.baseline_path(baseline) if baseline else None
    earlier = {
        number: result
        for number, result in steps.read_all(run_dir).items()
        if number < step and result.status == "complete" and result.run is not None
    }
    chosen: StepResult | None
    if match is not None:
        chosen = earlier.get(int(match[1]))
    elif baseline == "best":
        chosen = ranking.best_of(earlier.values(), settings.best_metric, settings.best_mode)
    else:
        chosen = earlier[(min if baseline == "first" else max)(earlier)] if earlier else None
    if chosen is None or chosen.run is None:
        return baseline, None
    return f"step {chosen.step}", run_dir / chosen.run
