"""Real checkpoints of verl for the merge tests: `python -m tests.train.merge_checkpoints OUT`.

Written by verl's own FSDPCheckpointManager from models under torch's FSDP2 and FSDP1 (gloo, on the CPU). The processes
of every world size are forks of this one, which has imported verl already. The weights of rank files are those of
OUT/text, OUT/vl and OUT/odd plus ADDED: a merge which took the base model's weights would be seen.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ares_train.checkpoints import checkpoints_of, pin

ROOT = Path(__file__).resolve().parents[2]
ADDED = 0.03125
VARIANTS = ("w1", "w2", "w3", "w4", "hsdp", "vl", "odd", "fsdp1", "hf", "columns")
"""Folders of OUT/run-VARIANT/global_step_N/actor (``_save_all``)."""


def made(factory: Any) -> Path:
    """The folder with all of them; made once in a session of pytest, in a process of its own."""
    out: Path = factory.getbasetemp() / "merge-checkpoints"
    if not out.is_dir():
        environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "VERL_LOGGING_LEVEL": "WARN"}
        command = [sys.executable, "-m", __name__, str(out)]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr[-3000:]
    return out


def build(out: Path) -> Path:
    """Make all of them; ``out`` is returned."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch
    import torch.multiprocessing as mp

    from tests.models import tiny_qwen_vl, tiny_text

    torch.set_num_threads(1)
    out.mkdir(parents=True)
    tiny_text.build(out / "text", width=72)
    tiny_qwen_vl.build(out / "vl")
    _odd(out / "odd")
    import verl.utils.checkpoint.fsdp_checkpoint_manager  # noqa: F401 (once, for all forks)

    from ares_train.verl_cpu import pictures

    pictures.processors()

    for ranks in (1, 2, 3, 4):
        mp.start_processes(_save_all, (ranks, out), nprocs=ranks, start_method="fork")
    return out


def _odd(folder: Path) -> None:
    """Untied, with a vocabulary that no world size divides and biases shorter than the ranks are many."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tests.models import tiny_tokenizer

    tokenizer = tiny_tokenizer.build(512)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 1,
        hidden_size=22,
        intermediate_size=7,
        num_hidden_layers=1,
        num_attention_heads=11,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(1)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_all(rank: int, ranks: int, out: Path) -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/group-{ranks}", rank=rank, world_size=ranks)
    flat = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    _save(out / f"run-w{ranks}", out / "text", functools.partial(_fsdp2, mesh=flat))
    if ranks == 2:
        _save(out / "run-vl", out / "vl", functools.partial(_fsdp2, mesh=flat))
        _save(out / "run-pruned", out / "text", functools.partial(_fsdp2, mesh=flat))
        _save(out / "run-hf", out / "text", functools.partial(_fsdp2, mesh=flat), ["model", "hf_model"])
    if ranks == 3:
        _save(out / "run-odd", out / "odd", functools.partial(_fsdp2, mesh=flat))
        _save(out / "run-fsdp1", out / "odd", functools.partial(_fsdp1, mesh=flat))
        columns = functools.partial(_fsdp2, mesh=flat, shard_placement_fn=_last_dimension)
        _save(out / "run-columns", out / "text", columns)
    if ranks in (3, 4):
        _save_placements(out / f"placements-{ranks}", ranks)
    if ranks == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("ddp", "fsdp"))
        _save(out / "run-hsdp", out / "text", functools.partial(_fsdp2, mesh=grid))
    dist.barrier()
    dist.destroy_process_group()


def _save_placements(folder: Path, ranks: int) -> None:
    """Tensors of random shapes under random placements, one file a rank, and what torch makes of them."""
    import random

    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    draw = random.Random(ranks)
    torch.manual_seed(ranks)
    meshes = [init_device_mesh("cpu", shape) for shape in ([(3,)] if ranks == 3 else [(4,), (2, 2)])]
    state, whole = {}, {}
    for case in range(40):
        shape = [draw.randint(1, 9) for _ in range(draw.randint(1, 3))]
        mesh = draw.choice(meshes)
        placements = [draw.choice([Replicate(), *map(Shard, range(len(shape)))]) for _ in range(mesh.ndim)]
        dtype = draw.choice([torch.float32, torch.bfloat16, torch.int64])
        tensor = torch.randint(-99, 99, shape).to(dtype)
        name = f"{case}: {tuple(shape)} on {tuple(mesh.shape)} {placements}"
        state[name] = distribute_tensor(tensor, mesh, placements)
        whole[name] = state[name].full_tensor()
    state["scalar"] = whole["scalar"] = torch.tensor(7.0)
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / f"model_world_size_{ranks}_rank_{dist.get_rank()}.pt")
    if dist.get_rank() == 0:
        torch.save(whole, folder / "whole.pt")


def _last_dimension(parameter: Any) -> Any:
    from torch.distributed.tensor import Shard

    return Shard(parameter.dim() - 1) if parameter.shape[-1] % 3 == 0 else Shard(0)


def _layers(model: Any) -> Iterator[Any]:
    inner = getattr(model.model, "language_model", model.model)
    yield from inner.layers
    yield from getattr(getattr(model.model, "visual", None), "blocks", ())


def _fsdp2(model: Any, mesh: Any, **more: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    for layer in _layers(model):
        fully_shard(layer, mesh=mesh, **more)
    return fully_shard(model, mesh=mesh, **more)


def _fsdp1(model: Any, mesh: Any) -> Any:
    import torch
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    return FullyShardedDataParallel(
        model,
        device_mesh=mesh,
        use_orig_params=True,
        device_id=torch.device("cpu"),
        auto_wrap_policy=ModuleWrapPolicy({type(next(_layers(model)))}),
    )


def _save(run: Path, base: Path, shard: Callable[[Any], Any], save: list[str] | None = None) -> None:
    import torch
    import torch.distributed as dist
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    pictures = hasattr(AutoConfig.from_pretrained(base), "vision_config")
    model = (AutoModelForImageTextToText if pictures else AutoModelForCausalLM).from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(ADDED)
    manager = FSDPCheckpointManager(
        shard(model),
        processing_class=AutoProcessor.from_pretrained(base),
        checkpoint_config={"save_contents": save or ["model"], "load_contents": ["model"]},
    )
    _checkpoint(run, manager, 5)
    if run.name == "run-pruned":
        if dist.get_rank() == 0:
            pin(checkpoints_of(run)[0], run / "held")
        _checkpoint(run, manager, 10, keep=1)


def _checkpoint(run: Path, manager: Any, step: int, keep: int | None = None) -> None:
    import torch.distributed as dist

    manager.save_checkpoint(str(run / f"global_step_{step}" / "actor"), global_step=step, max_ckpt_to_keep=keep)
    if dist.get_rank() == 0:
        (run / "latest_checkpointed_iteration.txt").write_text(str(step))
    dist.barrier()


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).resolve()))
