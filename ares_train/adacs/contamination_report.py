"""What decontamination found: counts by benchmark and kind, examples by id. No question's text is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ares_eval.types import Json
from ares_train.adacs.contamination import KINDS, Coverage

EXAMPLES = 20
"""Pairs of ids shown for each benchmark."""


class ContaminationReport:
    """Gathers matches question by question."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in coverage.checked}
        self._hit: dict[str, set[str]] = {name: set() for name in coverage.checked}
        self._examples: dict[str, list[dict[str, Json]]] = {name: [] for name in coverage.checked}
        self._sources: dict[str, Counter[str]] = {}
        self.questions = 0

    def add(self, qid: str, source: str, own: str, matches: Sequence[Mapping[str, Any]]) -> None:
        """A question that matches benchmarks."""
        self.questions += 1
        self._sources.setdefault(source, Counter())[matches[0]["kind"]] += 1
        for match in matches:
            task = match["task"]
            self._counts[task][match["kind"]] += 1
            self._hit[task].add(match["id"])
            if len(self._examples[task]) < EXAMPLES:
                named = {"qid": qid, "source": source, "id": own or None}
                found = {"benchmark_id": match["id"], "kind": match["kind"], "score": match["score"]}
                self._examples[task].append(named | found)

    def as_json(self) -> dict[str, Json]:
        """All of it."""
        return {
            "questions_matched": self.questions,
            "checked": {
                name: {
                    "questions": checked.questions,
                    "pictures": checked.pictures,
                    "pictures_unreadable": checked.unreadable,
                    "data": checked.source,
                    "matches": {kind: self._counts[name][kind] for kind in KINDS if self._counts[name][kind]},
                    "benchmark_questions_hit": len(self._hit[name]),
                    "examples": self._examples[name],
                }
                for name, checked in sorted(self._coverage.checked.items())
            },
            "not_checked": dict(sorted(self._coverage.unchecked.items())),
            "by_source": {name: dict(sorted(kinds.items())) for name, kinds in sorted(self._sources.items())},
        }


def as_markdown(report: Mapping[str, Any]) -> str:
    """The same for reading."""
    lines = [
        "# Decontamination",
        "",
        f"{report['questions_matched']} questions match a benchmark and were left out.",
        "",
    ]
    lines += ["| benchmark | questions | pictures | exact | n-gram | picture, equal | picture, like | questions hit |"]
    lines += ["|---|" + "---:|" * 7]
    for name, one in report["checked"].items():
        unreadable = f" ({one['pictures_unreadable']} unreadable)" if one["pictures_unreadable"] else ""
        counts = " | ".join(str(one["matches"].get(kind, 0)) for kind in KINDS)
        lines.append(
            f"| {name} | {one['questions']} | {one['pictures']}{unreadable} | {counts} | "
            f"{one['benchmark_questions_hit']} |"
        )
    if report["not_checked"]:
        lines += ["", "**Not checked**, as their data could not be had:", ""]
        lines += [f"- {name}: {cause}" for name, cause in report["not_checked"].items()]
    if not report["checked"] and not report["not_checked"]:
        lines += ["", "**No benchmark was held against** (`contamination.tasks: none`)."]
    return "\n".join(lines) + "\n"
