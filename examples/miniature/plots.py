"""Three small pictures per task: the course of training by level, accuracy against tokens, and how thinking splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from examples.miniature.arms import MAIN
from examples.miniature.results import Arm, load
from examples.miniature.task import LEVELS

COLOURS = dict(
    zip(("sft", *MAIN), ("#888888", "#000000", "#0072b2", "#d55e00", "#cc79a7", "#56b4e9", "#009e73"), strict=True)
)
SMOOTH = 5
"""Steps in a running mean: a step has eight questions of a level."""


def plots(folder: Path, task: str) -> list[Path]:
    """Write the pictures of a task's main arms; their paths."""
    arms = {name: arm for name, arm in load(folder, task).items() if name in COLOURS}
    trained = {name: arm for name, arm in arms.items() if name != "sft"}
    return [
        saved(training(trained), folder / f"{task}-training.svg"),
        saved(scatter(arms), folder / f"{task}-accuracy-tokens.svg"),
        saved(thinking(arms), folder / f"{task}-thinking.svg"),
    ]


def saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
    return path


def training(arms: dict[str, Arm]) -> Any:
    """Tokens (above) and accuracy (below) of base rollouts against the step, a panel per level, means over seeds."""
    figure, axes = pyplot.subplots(2, LEVELS, figsize=(13, 5.5), sharex=True, layout="constrained")
    for level in range(LEVELS):
        for row, measure in enumerate(("tokens", "right")):
            axis = axes[row][level]
            for name, arm in arms.items():
                course = np.array([[record[measure][level] for record in log] for log in arm.logs]).mean(0)
                smooth = np.convolve(course, np.ones(SMOOTH) / SMOOTH, "valid")
                axis.plot(np.arange(len(smooth)) + SMOOTH, smooth, color=COLOURS[name], label=name, linewidth=1.2)
            axis.grid(alpha=0.3)
        axes[0][level].set_title(f"level {level + 1}")
        axes[1][level].set_xlabel("step")
    axes[0][0].set_ylabel("tokens")
    axes[1][0].set_ylabel("accuracy")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms), frameon=False)
    return figure


def scatter(arms: dict[str, Arm]) -> Any:
    """Accuracy against tokens on the held-out questions, a panel per level, a point per seed."""
    figure, axes = pyplot.subplots(1, LEVELS, figsize=(13, 3.2), layout="constrained")
    for level, axis in enumerate(axes):
        for name, arm in arms.items():
            at = arm.level == level
            tokens, right = (arm.measures[measure][:, at].mean(1) for measure in ("tokens", "right"))
            axis.scatter(tokens, right, color=COLOURS[name], label=name, s=22, alpha=0.8)
        axis.set_title(f"level {level + 1}")
        axis.set_xlabel("tokens")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms), frameon=False)
    return figure


def thinking(arms: dict[str, Arm]) -> Any:
    """Useful work, useless re-checks, verified answers and HWE tokens by level, means over seeds."""
    titles = {
        "useful": "useful work",
        "rechecks": "useless re-checks",
        "verified": "verified answers",
        "hwe": "HWE tokens",
    }
    figure, axes = pyplot.subplots(1, len(titles), figsize=(13, 3.2), layout="constrained")
    for axis, (measure, title) in zip(axes, titles.items(), strict=True):
        for name, arm in arms.items():
            values = [arm.measures[measure][:, arm.level == level].mean() for level in range(LEVELS)]
            axis.plot(range(1, LEVELS + 1), values, color=COLOURS[name], label=name, marker="o", markersize=3)
        axis.set_title(title)
        axis.set_xlabel("level")
        axis.set_xticks(range(1, LEVELS + 1))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms), frameon=False)
    return figure
