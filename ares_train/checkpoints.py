"""The checkpoints of a verl run: where they are, whether they are whole, what identifies them, and how to hold one.

verl writes ``RUN/global_step_N/actor`` (reinforcement learning) or ``RUN/global_step_N`` (fine-tuning) with one file a
rank, ``model_world_size_W_rank_R.pt``, and configuration and tokenizer in ``huggingface/``; with ``hf_model`` among its
save contents the whole weights are there too, and they are then what is read. ``latest_checkpointed_iteration.txt`` is
written last: a step beyond it is still being written, or belongs to a line of training that was left.

verl prunes old checkpoints by removing the folder (``max_ckpt_to_keep``) and asks nobody. :func:`pin` holds one by hard
links, which cost no space and which pruning cannot reach.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

GONE = "removed while it was read (pruned by verl's max_ckpt_to_keep, perhaps); take a newer one"
TRACKER = "latest_checkpointed_iteration.txt"
STEP_FOLDER = re.compile(r"global_step_(\d+)")
RANK_FILE = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
HF_FOLDER = "huggingface"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_SUFFIXES = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
)


class CheckpointError(Exception):
    """What is wrong with a checkpoint, and how to mend it, in one line."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``folder``: RUN/global_step_N. ``actor``: where the model's files are, ``folder`` itself after fine-tuning."""

    step: int
    folder: Path
    actor: Path


@dataclass(frozen=True, slots=True)
class Contents:
    """The files that make a model.

    ``kind``: "fsdp" (one file a rank, in the order of ranks) or "hf" (safetensors). ``texts``: configuration, tokenizer
    and what else lies in ``huggingface/``. ``root``: the actor's folder, that all of them are under.
    """

    kind: Literal["fsdp", "hf"]
    root: Path
    weights: tuple[Path, ...]
    texts: tuple[Path, ...]


def checkpoints_of(run_dir: Path) -> list[Checkpoint]:
    """The whole checkpoints of a run, oldest first; pruned and unfinished ones are left out."""
    latest = latest_step(run_dir)
    found = []
    for folder in run_dir.iterdir() if run_dir.is_dir() else ():
        named = STEP_FOLDER.fullmatch(folder.name)
        if named is None or not folder.is_dir() or (latest is not None and int(named[1]) > latest):
            continue
        checkpoint = Checkpoint(int(named[1]), folder, actor_of(folder))
        if trouble(checkpoint.actor) is None:
            found.append(checkpoint)
    return sorted(found, key=lambda each: each.step)


def latest_step(run_dir: Path) -> int | None:
    """The step that verl says is saved; None where it says nothing (asynchronous saves write no tracker)."""
    try:
        text = (run_dir / TRACKER).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    # verl's RL trainer truncates the file before it writes: an empty one is a moment, not a fault.
    return int(text) if text.isdecimal() else None


def actor_of(folder: Path) -> Path:
    """Where the policy's files of a checkpoint are: its ``actor`` folder if it has one."""
    return folder / "actor" if (folder / "actor").is_dir() else folder


def step_of(path: Path) -> int | None:
    """N of the last ``global_step_N`` in a path."""
    named = [match for part in path.resolve().parts if (match := STEP_FOLDER.fullmatch(part))]
    return int(named[-1][1]) if named else None


def trouble(actor: Path) -> str | None:
    """Why a checkpoint cannot be read, as far as the files' names, sizes and ends tell; None if it is whole."""
    try:
        contents(actor)
    except CheckpointError as error:
        return str(error)
    return None


def contents(actor: Path) -> Contents:
    """The files of a checkpoint that make the model; CheckpointError says what is missing or broken."""
    if not actor.is_dir():
        raise CheckpointError(f"{actor}: no such folder (pruned by verl's max_ckpt_to_keep, perhaps)")
    texts_folder = actor / HF_FOLDER
    if not (texts_folder / "config.json").is_file():
        raise CheckpointError(f"{actor}: no {HF_FOLDER}/config.json{_megatron(actor)}")
    texts = tuple(
        path for path in sorted(texts_folder.rglob("*")) if path.is_file() and not path.name.endswith(WEIGHT_SUFFIXES)
    )
    whole = _hf_weights(texts_folder)
    if whole:
        return Contents("hf", actor, whole, texts)
    return Contents("fsdp", actor, _rank_files(actor), texts)


def _hf_weights(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder if all are there, else nothing."""
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX}: not an index of weights ({error})") from None
        if any(Path(name).name != name for name in names):
            raise CheckpointError(f"{folder / INDEX}: names files outside its folder")
        paths = tuple(folder / name for name in names)
        return paths if all(path.is_file() for path in paths) else ()
    return (folder / SINGLE,) if (folder / SINGLE).is_file() else ()


def _rank_files(actor: Path) -> tuple[Path, ...]:
    ranks: dict[int, dict[int, Path]] = {}
    for path in actor.iterdir():
        if named := RANK_FILE.fullmatch(path.name):
            ranks.setdefault(int(named[1]), {})[int(named[2])] = path
    if not ranks:
        raise CheckpointError(f"{actor}: no file model_world_size_*_rank_*.pt{_megatron(actor)}")
    size = _world_size(actor)
    if size is None:
        if len(ranks) > 1:
            raise CheckpointError(
                f"{actor}: files of several world sizes ({', '.join(map(str, sorted(ranks)))}) and no fsdp_config.json "
                "to tell which were saved last; remove the stale ones"
            )
        size = next(iter(ranks))
    files = ranks.get(size, {})
    missing = [rank for rank in range(size) if rank not in files]
    if missing:
        raise CheckpointError(
            f"{actor}: {len(missing)} of {size} rank files are missing, the first is "
            f"model_world_size_{size}_rank_{missing[0]}.pt; copy the files of all nodes into one folder"
        )
    found = tuple(files[rank] for rank in range(size))
    for path in found:
        try:
            # The directory of a zip file is at its end: a file that is cut or still being written has none.
            with zipfile.ZipFile(path) as archive:
                saved_as = archive.namelist()[0].split("/")[0] + path.suffix
        except FileNotFoundError:
            raise CheckpointError(f"{path}: {GONE}") from None
        except (zipfile.BadZipFile, IndexError):
            raise CheckpointError(f"{path}: cut off or still being written (not a whole torch file)") from None
        # torch writes a file's first name into it. A rank's file under another rank's name would pass for its part.
        if RANK_FILE.fullmatch(saved_as) and saved_as != path.name:
            raise CheckpointError(f"{path}: was saved as {saved_as}; put every rank's own file in its place")
    return found


def _world_size(actor: Path) -> int | None:
    path = actor / "fsdp_config.json"
    if not path.is_file():
        return None
    try:
        size = json.loads(path.read_text(encoding="utf-8"))["world_size"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no world size in it ({error})") from None
    if not isinstance(size, int) or size < 1:
        raise CheckpointError(f"{path}: world size {size!r} is no positive number")
    return size


def _megatron(actor: Path) -> str:
    if (actor / "dist_ckpt").is_dir() or (actor / "model").is_dir():
        return (
            "; this is a Megatron checkpoint, which verl merges: "
            f"python -m verl.model_merger merge --backend megatron --local_dir {actor} --target_dir OUT"
        )
    inner = actor / "actor"
    return f"; did you mean {inner}?" if inner.is_dir() else ""


def digest(checkpoint: Checkpoint) -> str:
    """``sha256:...`` over the content of the files that make the model: weights, configuration, tokenizer.

    Reads all of them. Two checkpoints have the same digest only if they serve the same answers; it is the
    ``--model-revision`` of their evaluation.
    """
    return content_digest(contents(checkpoint.actor))


def signatures(files: Contents) -> dict[Path, tuple[int, int, int]]:
    """Inode, size and time of change of the files: what is different after any of them was written again."""
    found = {}
    for path in (*files.weights, *files.texts):
        try:
            state = path.stat()
        except FileNotFoundError:
            raise CheckpointError(f"{path}: {GONE}") from None
        found[path] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def content_digest(files: Contents) -> str:
    """As :func:`digest`, of files already found."""
    total = hashlib.sha256()
    for path in (*files.weights, *files.texts):
        try:
            with path.open("rb") as file:
                one = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise CheckpointError(f"{path}: {GONE}") from None
        total.update(f"{path.relative_to(files.root).as_posix()}\0{one}\n".encode())
    return f"sha256:{total.hexdigest()}"


def pin(checkpoint: Checkpoint, into: Path) -> Checkpoint:
    """Hold the model's files of a checkpoint under the folder ``into`` until the caller removes that.

    The files are hard links; where the file system has none they are copied, and a warning says so. What is returned
    has the same layout, under ``into``, which appears whole or not at all; one that exists is left as it is.
    CheckpointError if the checkpoint was pruned before it could be held. Saving a step again writes into the same
    files, linked or not: only :func:`digest` tells that.
    """
    if not into.is_dir():
        into.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        try:
            _held(checkpoint, draft)
            try:
                draft.rename(into)
            except OSError as error:
                # Of two that pin the same at once, one finds the other's.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    folder = into / checkpoint.folder.name
    return Checkpoint(checkpoint.step, folder, folder / checkpoint.actor.relative_to(checkpoint.folder))


def _held(checkpoint: Checkpoint, into: Path) -> Checkpoint:
    folder = into / checkpoint.folder.name
    actor = folder / checkpoint.actor.relative_to(checkpoint.folder)
    files = contents(checkpoint.actor)
    extra = [path for name in ("fsdp_config.json", "lora_train_meta.json") if (path := files.root / name).is_file()]
    for path in (*files.weights, *files.texts, *extra):
        _hold(path, actor / path.relative_to(files.root))
    return Checkpoint(checkpoint.step, folder, actor)


def _hold(path: Path, held: Path) -> None:
    held.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.hardlink_to(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: removed before it could be pinned") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK):
            raise
        logger.warning("%s: this file system has no hard links; copied instead", path)
        shutil.copy2(path, held)
