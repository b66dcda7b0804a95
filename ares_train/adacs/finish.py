"""Why a reply ended, in the words of servers and of recorded traces."""

from __future__ import annotations

CUT_OFF = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "max_new_tokens",
        "max_length",
        "model_length",
        "token_limit",
        "model_context_window_exceeded",
        "truncated",
    }
)
"""The token limit ended it."""

ENDED = frozenset(
    {
        "stop",
        "stop_sequence",
        "stop_token",
        "end_turn",
        "end_of_turn",
        "eos",
        "eos_token",
        "end",
        "complete",
        "completed",
        "finished",
        "normal",
        "tool_calls",
        "function_call",
    }
)
"""The model ended it."""


def cut_off(reason: str | None) -> bool:
    """Whether a reply was ended by the token limit."""
    return reason is not None and _word(reason) in CUT_OFF


def known(reason: str | None) -> bool:
    """Whether a reason says which of both it was; none at all counts as ended by the model."""
    return not reason or _word(reason) in CUT_OFF | ENDED


def _word(reason: str) -> str:
    """As the sets above have it; enumerations may carry their type's name (``FinishReason.MAX_TOKENS``)."""
    return reason.strip().rpartition(".")[2].lower().replace("-", "_").replace(" ", "_")
