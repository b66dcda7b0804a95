"""Can training work here? Versions, devices, rollout engines, and what verl sees in a child process and a Ray worker.

    ares-train doctor

A child process imports verl with the environment of a training run, and starts Ray for a moment: half a minute. What is
broken is told with its mend.

exit codes: 0 all well, 1 something is broken
"""

from __future__ import annotations

import argparse

SIGNS = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Exit code of the command."""
    from ares_train import doctor

    broken = 0
    for finding in doctor.examine():
        broken += finding.verdict == "broken"
        mend = f"; {finding.mend}" if finding.mend else ""
        print(f"{SIGNS[finding.verdict]} {finding.subject}: {finding.found}{mend}", flush=True)
    print(f"{broken} broken" if broken else "all well")
    return 1 if broken else 0
