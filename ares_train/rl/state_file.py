"""AEPO's state beside a checkpoint: ``global_step_N/aepo_state.json``, written before verl names the checkpoint
complete."""

from __future__ import annotations

from pathlib import Path

from ares_train.aepo.state import AEPOState

NAME = "aepo_state.json"


def save(folder: Path, state: AEPOState) -> None:
    """Write ``state`` into the checkpoint ``folder``, which may not exist yet; whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{NAME}.tmp"
    draft.write_text(state.to_json(), encoding="utf-8")
    draft.replace(folder / NAME)


def load(folder: Path) -> AEPOState | None:
    """The state saved in the checkpoint ``folder``; None where there is none (a checkpoint of another trainer).

    StateError for a file that is not one.
    """
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return AEPOState.from_json(text)
