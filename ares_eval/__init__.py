"""ares_eval: evaluate reasoning models, and see whether they think as much as a problem deserves."""

from __future__ import annotations

__version__ = "0.1.0"
