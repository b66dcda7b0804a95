"""A run's checkpoints: which are whole, what identifies them, and that verl's own pruning cannot take a pinned one."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from ares_train import checkpoints
from ares_train.checkpoints import Checkpoint, CheckpointError, checkpoints_of, digest, pin
from ares_train.merge import merge
from tests.train.merge_checkpoints import made


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """Steps 5 and 10 of one run."""
    source = made(tmp_path_factory) / "run-w2"
    folder = Path(shutil.copytree(source, tmp_path / "run"))
    shutil.copytree(source / "global_step_5", folder / "global_step_10")
    (folder / "latest_checkpointed_iteration.txt").write_text("10")
    return folder


def steps(run: Path) -> list[int]:
    return [each.step for each in checkpoints_of(run)]


def test_whole_checkpoints_in_the_order_of_steps(run: Path) -> None:
    assert steps(run) == [5, 10]
    first = checkpoints_of(run)[0]
    assert (first.folder, first.actor) == (run / "global_step_5", run / "global_step_5" / "actor")
    assert checkpoints.step_of(first.actor) == 5 and checkpoints.step_of(run) is None
    assert checkpoints_of(run / "nothing") == []


def test_a_step_beyond_the_tracker_is_not_saved_yet(run: Path) -> None:
    tracker = run / "latest_checkpointed_iteration.txt"
    tracker.write_text("5")
    assert steps(run) == [5] and checkpoints.latest_step(run) == 5
    tracker.write_text("")  # verl's RL trainer truncates before it writes
    assert steps(run) == [5, 10] and checkpoints.latest_step(run) is None
    tracker.unlink()
    assert steps(run) == [5, 10]


def test_pruned_and_torn_checkpoints_are_left_out(run: Path) -> None:
    for spoil in (
        lambda actor: (actor / "model_world_size_2_rank_1.pt").unlink(),
        lambda actor: (actor / "model_world_size_2_rank_0.pt").write_bytes(b"PK"),
        lambda actor: (actor / "huggingface" / "config.json").unlink(),
        shutil.rmtree,  # what verl's pruning of an RL run leaves: the step's folder with data.pt
    ):
        kept = run.with_name("kept")
        shutil.copytree(run, kept)
        spoil(run / "global_step_5" / "actor")
        assert steps(run) == [10]
        assert checkpoints.trouble(checkpoints.actor_of(run / "global_step_5"))
        shutil.rmtree(run)
        kept.rename(run)


def test_fine_tuning_has_no_actor_folder(run: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(run / "global_step_5" / "actor", flat / "global_step_5")
    (found,) = checkpoints_of(flat)
    assert found.actor == found.folder == flat / "global_step_5"
    held = pin(found, flat / "held")
    assert held.actor == held.folder == flat / "held" / "global_step_5" and digest(held) == digest(found)


def test_the_digest_is_of_the_content(run: Path) -> None:
    five, ten = checkpoints_of(run)
    assert digest(five) == digest(ten) and digest(five).startswith("sha256:") and len(digest(five)) == 71
    before = digest(five)
    (five.folder / "actor" / "optim_world_size_2_rank_0.pt").write_bytes(b"of no consequence to an answer")
    assert digest(five) == before
    for name in ("model_world_size_2_rank_1.pt", "huggingface/chat_template.jinja"):
        path = five.actor / name
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert digest(five) != before
        path.write_bytes(kept)
    assert digest(five) == before
    (five.actor / "huggingface" / "chat_template.jinja").rename(five.actor / "huggingface" / "other.jinja")
    assert digest(five) != before


def test_a_pinned_checkpoint_outlives_verls_pruning(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    out = made(tmp_path_factory)
    run = out / "run-pruned"
    assert steps(run) == [10] and not (run / "global_step_5" / "actor").exists(), "verl pruned it"
    actor = run / "held" / "global_step_5" / "actor"
    merged = merge(actor, tmp_path / "merged", check=False)
    assert (merged.step, merged.tensors) == (5, 26)
    same = Checkpoint(5, actor.parent, actor)
    assert merged.source_digest == digest(same) == digest(checkpoints_of(out / "run-w2")[0])
    with pytest.raises(CheckpointError, match="no such folder"):
        pin(Checkpoint(5, run / "global_step_5", run / "global_step_5" / "actor"), tmp_path / "pins" / "step_5")
    assert not list((tmp_path / "pins").iterdir())


def test_a_pin_is_of_links_and_kept_if_it_is_there(run: Path) -> None:
    checkpoint = checkpoints_of(run)[0]
    held = pin(checkpoint, run / "held")
    for path in checkpoint.actor.rglob("*"):
        if path.is_file():
            assert (held.actor / path.relative_to(checkpoint.actor)).samefile(path)
    shutil.rmtree(checkpoint.folder)
    assert pin(checkpoint, run / "held") == held


def test_pruned_while_it_is_pinned(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints_of(run)[0]
    found = checkpoints.contents

    def late(actor: Path) -> Any:
        files = found(actor)
        shutil.rmtree(actor)
        return files

    monkeypatch.setattr(checkpoints, "contents", late)
    with pytest.raises(CheckpointError, match="removed before it could be pinned"):
        pin(checkpoint, run / "eval" / "pinned" / "step_5")
    assert not list((run / "eval" / "pinned").iterdir()), "whole or not at all"


def test_without_hard_links_it_is_copied_and_said(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, _: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    checkpoint: Checkpoint = checkpoints_of(run)[0]
    with caplog.at_level(logging.WARNING):
        held = pin(checkpoint, run / "held")
    assert digest(held) == digest(checkpoint) and "no hard links; copied instead" in caplog.text
