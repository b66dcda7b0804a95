"""One HWE threshold for all checkpoints of a series: that of its first step.

By the paper's rule each run has a tau_high of its own, the percentile of its own entropies, so a model that grows surer
of itself would show as many HWE tokens as before. Steps are held against the first one's tau instead, as ``compare``
and ``gate`` hold a candidate against its baseline's; counts of another estimate of entropy are not comparable at all.
"""

from __future__ import annotations

import math

from ares_eval.analysis import summary
from ares_eval.analysis.observe import Options
from ares_eval.analysis.summary import Analysis, analyse
from ares_eval.analysis.tokens import TokenOptions
from ares_eval.records import Run
from ares_eval.report.gather import kept_analysis
from ares_eval.series.steps import Threshold


def analysed(run: Run, threshold: Threshold | None) -> Analysis:
    """The analysis of a run by ``threshold`` (None: by its own); the one in its folder where that is such a one.

    Raises RunError where nothing was measured.
    """
    kept = kept_analysis(run)
    if kept is not None and (threshold is None or kept.entropy is None or _same(threshold_of(kept), threshold)):
        return kept
    if threshold is None:
        return analyse(run)
    return analyse(run, Options(tokens=TokenOptions(window=threshold.window, tau_value=threshold.tau)))


def keep(run: Run, analysis: Analysis) -> None:
    """Write the analysis into the run's folder, where reports and a later series find it. Raises RunError."""
    summary.write(analysis, run.folder / summary.FILE)


def threshold_of(analysis: Analysis) -> Threshold | None:
    """The threshold that an analysis counted by; None without token traces."""
    entropy = analysis.entropy
    if entropy is None:
        return None
    name = "exact" if entropy.estimate == "exact" else f"{entropy.estimate} bound, top {entropy.top}"
    return Threshold(entropy.tau, analysis.options.tokens.window, name)


def comparable(analysis: Analysis, threshold: Threshold | None) -> bool:
    """Whether HWE counts of this analysis stand on the same scale as ``threshold``'s."""
    own = threshold_of(analysis)
    return own is None or threshold is None or _same(own, threshold)


def _same(a: Threshold | None, b: Threshold) -> bool:
    return (
        a is not None and math.isclose(a.tau, b.tau, rel_tol=1e-9) and (a.window, a.estimate) == (b.window, b.estimate)
    )
