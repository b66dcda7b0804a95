"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests import loopback


@pytest.fixture
def start_loopback() -> Iterator[Callable[..., loopback.Server]]:
    """Starts loopback servers that stop with the test: ``server = start_loopback(latency=0.05)``."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(loopback.start(**options))
