"""Parts spread over Ray's workers by Ray Data: each is asked, kept and written by one task, as the local executor does.

Ray retries a task whose worker died; a part that is finished is not asked again and one in progress goes on from its
partial file, so a retry repeats nothing. After a restart of the whole job it is the manifests that know what is done,
not Ray. The work folder must be the same for all nodes. Keys are not sent: each node has them in its own environment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ares_train.adacs.config import AdacsConfig, from_dict
from ares_train.adacs.errors import AdacsError, Incomplete
from ares_train.adacs.layout import Layout, SampleSet
from ares_train.adacs.ticker import Ticker

STARTS = 3
"""Tries to start Ray here: it gives itself half a minute for each, however busy the machine is."""


def run(
    config: AdacsConfig,
    layout: Layout,
    name: SampleSet,
    base_url: str | None,
    total: int,
    todo: list[int],
    note: Callable[[str], None],
) -> None:
    """Ask the parts ``todo`` of a set, ``sample.workers`` at a time. Raises Incomplete where some are not finished."""
    ticker = Ticker(f"sample {name}", "parts", total, note)
    ticker.skip(total - len(todo))
    failed: list[str] = []
    with cluster(config.sample.ray_address) as ray:
        parts = ray.data.from_items([{"part": part} for part in todo], override_num_blocks=len(todo))
        asked = parts.map(
            ask_part,
            fn_kwargs={
                "settings": config.settings(),
                "work": str(layout.work.resolve()),
                "name": name,
                "base_url": base_url,
            },
            concurrency=min(config.sample.workers, len(todo)),
        )
        for row in asked.iter_rows():
            if row["error"]:
                failed.append(row["error"])
            ticker.add(1)
    if failed:
        raise Incomplete(f"{len(failed)} of {len(todo)} parts are not finished; the first: {failed[0]}")


def ask_part(
    row: dict[str, Any], settings: dict[str, Any], work: str, name: SampleSet, base_url: str | None
) -> dict[str, Any]:
    """One part, in a worker: ``{part, error}``, where ``error`` is "" for a part that is done."""
    from ares_train.adacs.asking import ask_parts
    from ares_train.adacs.sample import asked_set

    part = int(row["part"])
    try:
        asked = asked_set(from_dict(settings), Layout(Path(work)), name, base_url)
        if not asked.stage.done(part, asked.inputs(part)):
            ask_parts(asked, [part], lambda _line: None)
    except AdacsError as error:
        return {"part": part, "error": str(error)}
    return {"part": part, "error": ""}


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster or started here for the block. Raises AdacsError where it cannot be had."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise AdacsError("executor ray needs Ray: pip install 'ares[train]'") from error
    if ray.is_initialized():
        yield ray
        return
    for attempt in range(1, STARTS + 1):
        if _started(ray, address, last=attempt == STARTS):
            break
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()


def _started(ray: Any, address: str | None, *, last: bool) -> bool:
    """Connect to Ray or start it; False where it was too slow and may be tried again."""
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise AdacsError(f"sample.ray_address: {' '.join(str(error).split())[:200]}") from error
    except Exception as error:
        # Ray gives its own processes half a minute and raises a bare Exception where a busy machine took longer.
        if "timed out during startup" not in str(error):
            raise
        if last:
            raise Incomplete(f"Ray did not start in {STARTS} tries: the machine is busy; run the same again") from error
        ray.shutdown()
        return False
    return True
