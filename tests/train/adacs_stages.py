"""`python -m tests.train.adacs_stages WORK`: select, write and report of a planted folder, for tests that kill it."""

from __future__ import annotations

import sys
from pathlib import Path

from ares_train.adacs import lengths, report, select, write
from tests.train.adacs_pool import configured

CONFIG = configured(
    select={"pool": "estimator", "zero": "allow_incorrect", "size": 10_000}, write={"check": 0.0, "val_share": 0.1}
)


def run(work: Path) -> None:
    """The stages that come after rate."""
    for stage in (lengths, select, write, report):
        stage.run(CONFIG, work, print)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
