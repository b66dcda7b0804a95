"""A gate's decision as text, Markdown (a job's summary), JUnit XML (a CI's test view) and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import msgspec

from ares_eval.compare.report import markdown_table
from ares_eval.gate.decision import Decision, Finding, State, Verdict
from ares_eval.gate.rules import Test
from ares_eval.types import Json

WORDS: dict[Verdict, str] = {
    "pass": "PASS: what must be shown is shown, and no bound is broken",
    "fail": "FAIL: a bound is shown to be broken",
    "inconclusive": "INCONCLUSIVE: the sample is too small to tell",
    "incomplete": "INCOMPLETE: too much was not measured to decide",
}
_MARKS: dict[State, str] = {
    "kept": "✅ kept",
    "not broken": "✅ not broken",
    "broken": "❌ broken",
    "open": "❔ open",
    "skipped": "➖ skipped",
    "missing": "⚠️ missing",
}


def text(decision: Decision) -> str:
    """For a terminal."""
    lines = [WORDS[decision.verdict], *(f"  {cause}" for cause in decision.incomplete), ""]
    for finding in decision.findings:
        test = finding.test
        lines.append(f"{finding.state:10}  {test.scope}: {test.rule.title}")
        if test.missing:
            lines.append(f"            {test.missing}")
            continue
        lines.append(
            f"            observed {shown(test)} over {test.pairs:,} pairs; p(kept) {test.p_kept:.3g}, "
            f"p(broken, Holm) {finding.p_broken_holm:.3g}"
        )
        if finding.state == "open":
            lines.append(f"            {test.advice}")
    return "\n".join(lines) + "\n"


def markdown(decision: Decision, comparison: str, title: str) -> str:
    """For a job's summary; ``comparison`` is its Markdown, folded below."""
    rows = [["rule", "scope", "observed", "pairs", "p kept", "p broken (Holm)", ""]]
    rows += [_cells(finding) for finding in decision.findings]
    parts = [f"## {title}: {WORDS[decision.verdict]}"]
    if decision.incomplete:
        parts.append("\n".join(f"- {cause}" for cause in decision.incomplete))
    parts.append(markdown_table(rows))
    if advice := _advice(decision.findings):
        parts.append("What would decide:\n\n" + "\n".join(f"- {line}" for line in advice))
    policy = decision.policy
    parts.append(
        f"A rule is *broken* or *kept* where that is shown at level {policy.alpha:g}; broken ones are Holm-adjusted "
        f"over all {len(decision.findings)} tests."
    )
    parts.append(f"<details><summary>Comparison</summary>\n\n{comparison}\n</details>")
    return "\n\n".join(parts) + "\n"


def junit(decision: Decision, title: str, verdict_fails: bool) -> bytes:
    """JUnit XML: a test case for each finding and one for the verdict, which fails where the exit code will."""
    suite = ElementTree.Element("testsuite", name=title)
    fails = errors = skipped = 0
    for finding in decision.findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"gate.{finding.test.scope}", name=finding.test.rule.title
        )
        message = finding.test.missing or f"observed {shown(finding.test)}"
        if finding.state == "broken":
            fails += 1
            ElementTree.SubElement(case, "failure", message=message, type=finding.state)
        elif finding.state == "missing":
            errors += 1
            ElementTree.SubElement(case, "error", message=message, type=finding.state)
        elif finding.state in ("open", "skipped"):
            skipped += 1
            ElementTree.SubElement(case, "skipped", message=f"{message}; {finding.test.advice}".rstrip("; "))
    case = ElementTree.SubElement(suite, "testcase", classname="gate", name="verdict")
    if verdict_fails:
        fails += 1
        ElementTree.SubElement(
            case,
            "failure",
            message="; ".join([WORDS[decision.verdict], *decision.incomplete]),
            type=decision.verdict,
        )
    suite.attrib |= {
        "tests": str(len(decision.findings) + 1),
        "failures": str(fails),
        "errors": str(errors),
        "skipped": str(skipped),
    }
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def as_json(decision: Decision, comparison: Json, exit_code: int) -> dict[str, Json]:
    """Everything as values."""
    return {
        "verdict": decision.verdict,
        "exit_code": exit_code,
        "incomplete": list(decision.incomplete),
        "policy": msgspec.to_builtins(decision.policy),
        "tests": [
            {
                "rule": finding.test.rule.title,
                "kind": finding.test.rule.kind,
                "tier": finding.test.rule.tier,
                "proof": finding.test.rule.proof,
                "scope": finding.test.scope,
                "bound": finding.test.bound,
                "observed": finding.test.observed,
                "interval": None if finding.test.interval is None else list(finding.test.interval),
                "pairs": finding.test.pairs,
                "p_kept": finding.test.p_kept,
                "p_broken": finding.test.p_broken,
                "p_broken_holm": finding.p_broken_holm,
                "state": finding.state,
                "missing": finding.test.missing,
                "advice": finding.test.advice,
            }
            for finding in decision.findings
        ],
        "comparison": comparison,
    }


def shown(test: Test) -> str:
    """The observed value with its interval, in the unit that people use."""
    if test.observed is None:
        return ""
    if test.rule.kind in ("tokens", "hwe"):
        form, scale, unit = "{:.3f}", 1.0, ""
    elif test.rule.kind == "accuracy":
        form, scale, unit = "{:+.1f}", 100.0, " points"
    else:
        form, scale, unit = "{:.1f}", 100.0, " %"
    text = form.format(scale * test.observed)
    if test.interval is not None:
        low, high = (form.format(scale * bound) for bound in test.interval)
        text += f" [{low}, {high}]"
    return text + unit


def _cells(finding: Finding) -> list[str]:
    test = finding.test
    if test.missing:
        return [test.rule.title, test.scope, test.missing, "", "", "", _MARKS[finding.state]]
    return [
        test.rule.title,
        test.scope,
        shown(test),
        f"{test.pairs:,}",
        f"{test.p_kept:.3g}",
        f"{finding.p_broken_holm:.3g}",
        _MARKS[finding.state],
    ]


def _advice(findings: Sequence[Finding]) -> list[str]:
    return [
        f"{finding.test.scope}, {finding.test.rule.title}: {finding.test.advice}"
        for finding in findings
        if finding.state == "open"
    ]
