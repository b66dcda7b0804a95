"""One checkpoint made a Hugging Face folder: found, read, written, checked, and put in its place in one step.

The target appears whole or not at all: everything is written to a hidden folder beside it, checked there and renamed. A
target that holds the same source in the same type is left as it is; any other is refused unless forced.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ares_train import checkpoints
from ares_train.checkpoints import CheckpointError, Contents
from ares_train.merge import card, naming
from ares_train.merge.source import Safetensors, Source, Spec
from ares_train.merge.weights_writer import MAX_SHARD_BYTES, write_weights

Dtype: TypeAlias = Literal["keep", "bfloat16", "float16", "float32"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
MANIFEST = "ares_merge.json"
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model", "spiece.model")


@dataclass(frozen=True, slots=True)
class Merged:
    """A finished target.

    ``dtype``: of most of the parameters. ``source_digest``: as :func:`ares_train.checkpoints.digest` of the checkpoint.
    ``checked``: what was compared, one line each. ``reused``: the folder was there already.
    """

    folder: Path
    tensors: int
    parameters: int
    dtype: str
    source_digest: str
    step: int | None
    checked: tuple[str, ...]
    reused: bool = False


def merge(
    local_dir: Path,
    target_dir: Path | None = None,
    *,
    dtype: str | None = None,
    check: bool = True,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Merged:
    """Make a Hugging Face folder of the checkpoint in ``local_dir``.

    ``local_dir``: ``global_step_N/actor``, ``global_step_N``, or a run's folder (its newest whole checkpoint).
    ``target_dir``: default is ``local_dir`` with ``-merged`` to its name: beside it, where pruning does not reach.
    ``dtype``: None or "keep", or what floating-point tensors are cast to. ``check``: compare the written tensors with a
    second reading of the source, and the answers of both where memory allows. ``force``: replace another model's folder
    at the target. ``progress`` gets a line at every stage. CheckpointError says what is wrong and leaves no target.
    """
    say = progress or (lambda _: None)
    wanted = dtype or "keep"
    if wanted not in DTYPES:
        raise CheckpointError(f"dtype {wanted!r}: one of {', '.join(DTYPES)}")
    actor = find(local_dir, say)
    target = target_dir if target_dir is not None else actor.with_name(f"{actor.name}-merged")
    files = checkpoints.contents(actor)
    _refuse_incomplete_texts(files)
    say(f"reading {len(files.weights)} {'rank files' if files.kind == 'fsdp' else 'weight files'} of {actor}")
    before = checkpoints.signatures(files)
    source_digest = checkpoints.content_digest(files)
    if (there := _already(target, source_digest, wanted, check, force)) is not None:
        say(f"{target} holds this checkpoint already")
        return there
    target.parent.mkdir(parents=True, exist_ok=True)
    with _draft(target) as folder:
        made = _make(files, folder, wanted, source_digest, check, max_shard_bytes, say)
        if checkpoints.signatures(files) != before:
            raise CheckpointError(f"{actor}: saved again while it was read; merge it when that is done")
        _put(folder, target)
    return Merged(target, **made)


def find(local_dir: Path, say: Callable[[str], None]) -> Path:
    """The folder with the policy's files that ``local_dir`` means."""
    if local_dir.name == "critic":
        raise CheckpointError(f"{local_dir}: a critic is no language model; merge the actor beside it")
    if local_dir.is_file():
        raise CheckpointError(f"{local_dir}: a file; give the folder of the checkpoint or of the run")
    if local_dir.is_dir() and any(checkpoints.STEP_FOLDER.fullmatch(path.name) for path in local_dir.iterdir()):
        whole = checkpoints.checkpoints_of(local_dir)
        if not whole:
            raise CheckpointError(f"{local_dir}: none of its checkpoints is whole; name one to see what it lacks")
        say(f"newest whole checkpoint: step {whole[-1].step}")
        return whole[-1].actor
    return checkpoints.actor_of(local_dir)


def open_source(files: Contents, *, replicas: bool = True) -> Source:
    """The tensors of a checkpoint."""
    if files.kind == "hf":
        return Safetensors(files.weights)
    from ares_train.merge.shards import Shards

    return Shards(files.weights, replicas=replicas)


def _make(
    files: Contents,
    folder: Path,
    wanted: str,
    source_digest: str,
    check: bool,
    max_shard_bytes: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    import torch

    texts = files.root / checkpoints.HF_FOLDER
    model = naming.outline(texts)
    source = open_source(files, replicas=check)
    entries = naming.plan(source, model)
    cast = None if wanted == "keep" else getattr(torch, wanted)
    specs = {
        entry.disk: Spec(entry.spec.shape, cast if cast and entry.spec.dtype.is_floating_point else entry.spec.dtype)
        for entry in entries
    }
    origin = {entry.disk: entry.source for entry in entries}
    need, free = sum(spec.bytes for spec in specs.values()), shutil.disk_usage(folder).free
    if need > free:
        raise CheckpointError(f"{folder.parent}: {need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    weights = write_weights(
        folder, specs, lambda name: source.pieces(origin[name]), max_shard_bytes=max_shard_bytes, progress=say
    )
    source.close()
    dtype = _main_dtype(list(specs.values()))
    for path in files.texts:
        copy = folder / path.relative_to(texts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    _set_dtype(folder / "config.json", dtype)
    if not (folder / "generation_config.json").exists():
        say("no generation_config.json in the checkpoint: made from the model's configuration")
        _generation_config(folder)
    checked: list[str] = []
    if check:
        from ares_train.merge import checking

        checked = checking.check(folder, files, model, entries, specs, say)
    made: dict[str, Any] = {
        "tensors": len(specs),
        "parameters": sum(spec.elements for spec in specs.values()),
        "dtype": dtype,
        "source_digest": source_digest,
        "step": checkpoints.step_of(files.root),
        "checked": tuple(checked),
    }
    (folder / "README.md").write_text(card.text(folder, made, card.base_model(files.root)), encoding="utf-8")
    sizes = {path.name: path.stat().st_size for path in weights}
    record = {"version": 1, "requested": wanted, **made, "files": sizes}
    (folder / MANIFEST).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return made


def _refuse_incomplete_texts(files: Contents) -> None:
    folder = files.root / checkpoints.HF_FOLDER
    names = {path.name for path in files.texts}
    if not names.intersection(TOKENIZER_FILES):
        raise CheckpointError(f"{folder}: no tokenizer in it; copy the base model's tokenizer files there")
    if '"vision_config"' in (folder / "config.json").read_text(encoding="utf-8") and not names & {*PROCESSOR_FILES}:
        raise CheckpointError(
            f"{folder}: a vision model without {' or '.join(PROCESSOR_FILES)} (verl saves the tokenizer alone where it "
            "cannot load the processor, as without torchvision); copy them from the base model"
        )


def _already(target: Path, source_digest: str, wanted: str, check: bool, force: bool) -> Merged | None:
    """What is at the target if it is this very merge; CheckpointError if something else is in the way."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        record = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        same = record["source_digest"] == source_digest and record["requested"] == wanted
        whole = all((target / name).stat().st_size == size for name, size in record["files"].items())
        made = {key: record[key] for key in ("tensors", "parameters", "dtype", "source_digest", "step")}
        checked = tuple(record["checked"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same = whole = False
    if same and whole and not force:
        # Merged with --no-check before and to be checked now: made again in its place.
        return Merged(target, **made, checked=checked, reused=True) if checked or not check else None
    if not force:
        raise CheckpointError(f"{target}: exists and is not this merge; choose another --target_dir, or --force")
    if not (target / "config.json").is_file():
        raise CheckpointError(f"{target}: exists and is no model's folder; not replaced, even by --force")
    return None


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, gone after the block unless it was renamed; those of dead merges go first."""
    prefix = f".{target.name}.merging-"
    for old in target.parent.glob(f"{prefix}*.lock"):
        with old.open("r+") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old.with_suffix(""), ignore_errors=True)
            old.unlink(missing_ok=True)
    lock_number, lock_name = tempfile.mkstemp(prefix=prefix, suffix=".lock", dir=target.parent)
    try:
        fcntl.flock(lock_number, fcntl.LOCK_EX)
        folder = Path(lock_name).with_suffix("")
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(Path(lock_name).with_suffix(""), ignore_errors=True)
        Path(lock_name).unlink(missing_ok=True)
        os.close(lock_number)


def _put(folder: Path, target: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if target.is_dir() and any(target.iterdir()):
        old = folder.with_suffix(".old")
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old)
        return
    if target.is_dir():
        target.rmdir()
    folder.rename(target)


def _main_dtype(specs: Sequence[Spec]) -> str:
    counts: Counter[str] = Counter()
    for spec in specs:
        counts[str(spec.dtype).removeprefix("torch.")] += spec.elements
    return counts.most_common(1)[0][0]


def _set_dtype(path: Path, dtype: str) -> None:
    """Make config.json name the type that the weights have: servers load in the type it names."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in ("dtype", "torch_dtype"):
            if key in part:
                part[key] = dtype
    if "torch_dtype" not in config:
        config["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _generation_config(folder: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
