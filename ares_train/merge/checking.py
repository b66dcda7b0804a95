"""A merged folder compared with its checkpoint, by other code than wrote it.

The folder is read by the safetensors library and by transformers, the checkpoint by torch and a plain concatenation
along the placements. Every tensor must be equal bit by bit; then, where two models fit into half of the free memory,
both answer the same prompt and must give the same logits.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor

from ares_train.checkpoints import INDEX, SINGLE, CheckpointError, Contents
from ares_train.merge.naming import Entry, Outline
from ares_train.merge.shards import MAPPED_BYTES, load_rank
from ares_train.merge.source import Spec, same_bits
from ares_train.verl_cpu import pictures

PROMPT_TOKENS = 48
LOGIT_TOLERANCE = 1e-2
"""Of the largest logit. The same numbers give the same logits but for the order of sums, which kernels may choose by
the alignment of memory; in bfloat16 that is about 1 in 256. A wrong tensor moves logits by their own size."""


def check(
    folder: Path,
    files: Contents,
    model: Outline,
    entries: Sequence[Entry],
    specs: dict[str, Spec],
    say: Callable[[str], None],
) -> list[str]:
    """What was compared, one line each. CheckpointError at the first difference."""
    reference = Reference(files)
    say(f"comparing {len(entries)} tensors with the checkpoint")
    with Written(folder) as written:
        if sorted(written.names) != sorted(specs):
            raise CheckpointError(f"{folder}: the tensors written are not those of the plan (a fault of ares-train)")
        for entry in entries:
            expected = reference.tensor(entry.source).to(specs[entry.disk].dtype)
            if not same_bits(written.tensor(entry.disk), expected):
                raise CheckpointError(f"{entry.disk}: written otherwise than it is in the checkpoint")
    lines = [f"{len(entries)} tensors equal to the checkpoint's bit by bit (after the cast, if any), finite, each once"]
    _tokenizer(folder, model.config.get_text_config().vocab_size)
    need, free = _forward_bytes(specs), _free_memory()
    if need > free / 2:
        return [
            *lines,
            f"no forward pass: it takes about {need / 1e9:.0f} GB, half of the free memory is {free / 2e9:.0f} GB",
        ]
    say("comparing the answers of both")
    state = {entry.memory: reference.tensor(entry.source).to(specs[entry.disk].dtype) for entry in entries}
    return [*lines, _compare_logits(folder, model, state)]


class Reference:
    """The checkpoint read plainly: all parts of a tensor concatenated."""

    def __init__(self, files: Contents) -> None:
        self._files = files
        self._read = 0
        self._states: list[dict[str, torch.Tensor]] = []

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor, in memory."""
        if self._files.kind == "hf":
            for path in self._files.weights:
                with safe_open(path, framework="pt") as file:
                    if name in file.keys():  # noqa: SIM118 (not a mapping)
                        return file.get_tensor(name)
            raise KeyError(name)
        if not self._states or self._read > MAPPED_BYTES:
            self._states, self._read = [], 0
            self._states = [load_rank(path) for path in self._files.weights]
        parts = [state[name] for state in self._states]
        whole = parts[0]
        if isinstance(whole, DTensor):
            local = [part._local_tensor for part in parts]
            whole = _concatenated(whole.device_mesh.mesh, list(whole.placements), local)
        self._read += whole.nbytes
        return whole.clone()


def _concatenated(mesh: torch.Tensor, placements: list[Any], local: list[torch.Tensor]) -> torch.Tensor:
    """Mesh dimension by mesh dimension from the left; of replicas the first."""
    if not placements:
        return local[int(mesh)]
    first, rest = placements[0], placements[1:]
    if first.is_replicate():
        return _concatenated(mesh[0], rest, local)
    return torch.cat([_concatenated(part, rest, local) for part in mesh], dim=first.dim)


class Written:
    """A folder's tensors as the safetensors library reads them."""

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        if index.is_file():
            where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            with safe_open(folder / SINGLE, framework="pt") as file:
                where = dict.fromkeys(file.keys(), SINGLE)
        self._folder, self._where = folder, where
        self._open = contextlib.ExitStack()
        self._name = ""
        self._file: Any = None

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def names(self) -> Iterator[str]:
        """By the index, or the only file's header."""
        yield from self._where

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor; of one file at a time is open."""
        if self._where[name] != self._name:
            self._open.close()
            self._name = self._where[name]
            self._file = self._open.enter_context(safe_open(self._folder / self._name, framework="pt"))
        return self._file.get_tensor(name)


def _tokenizer(folder: Path, rows: int) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"tokenizer: transformers cannot load it ({str(error).splitlines()[0]})") from None
    if len(tokenizer) > rows:
        raise CheckpointError(f"tokenizer: {len(tokenizer):,} tokens for a model of {rows:,}; it is another model's")


def _compare_logits(folder: Path, model: Outline, state: dict[str, torch.Tensor]) -> str:
    from transformers.initialization import no_init_weights

    with _no_bars():
        loaded, report = model.model_class.from_pretrained(folder, dtype="auto", output_loading_info=True)
    wrong = {
        kind: sorted(report[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[kind]
    }
    if wrong:
        raise CheckpointError(f"transformers loads the merged folder with {wrong}")
    with no_init_weights():
        direct = model.model_class(model.config)
    found = direct.load_state_dict(state, strict=False, assign=True)
    lacking = set(found.missing_keys) - set(model.tied)
    if lacking or found.unexpected_keys:
        raise CheckpointError(f"the checkpoint's own names do not load: {sorted({*lacking, *found.unexpected_keys})}")
    direct.tie_weights()
    inputs, shown = _inputs(folder, loaded.config)
    with torch.inference_mode():
        ours, theirs = (each.eval()(**inputs).logits.float() for each in (loaded, direct))
    apart = float((ours - theirs).abs().max())
    scale = float(theirs.abs().max())
    if not apart <= LOGIT_TOLERANCE * scale:
        raise CheckpointError(f"logits differ by {apart:.3g} (largest {scale:.3g}): the folder answers otherwise")
    return f"a forward pass over {shown}: largest difference of logits {apart:.3g} (largest logit {scale:.3g})"


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _inputs(folder: Path, config: Any) -> tuple[dict[str, torch.Tensor], str]:
    """A prompt of fixed pseudo-random tokens; for a model that sees, a question with a picture."""
    if hasattr(config, "vision_config"):
        inputs = _pictured(folder)
        return inputs, f"{inputs['input_ids'].shape[1]} tokens with a picture"
    # Low numbers: bytes or common words, never a vocabulary's special tokens.
    most = min(config.get_text_config().vocab_size, 256)
    ids = torch.randint(0, most, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids}, f"{PROMPT_TOKENS} tokens"


def _pictured(folder: Path) -> dict[str, torch.Tensor]:
    from PIL import Image
    from transformers import AutoProcessor

    pictures.processors()
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"processor: transformers cannot load it ({str(error).splitlines()[0]})") from None
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is 2 + 2?"}]}
    prompt = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    picture = Image.radial_gradient("L").resize((112, 84)).convert("RGB")
    return dict(processor(text=[prompt], images=[picture], return_tensors="pt"))


def _forward_bytes(specs: dict[str, Spec]) -> int:
    """Both models, and what of the checkpoint is mapped."""
    return 3 * sum(spec.bytes for spec in specs.values())


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its control group if that is smaller."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit - int((group / "memory.current").read_text(encoding="ascii")))
    return max(0, free)
