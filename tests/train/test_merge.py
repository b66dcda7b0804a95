"""Checkpoints that verl's own manager wrote, merged: weights, names, types, files, folders, and verl's own merger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ares_train import checkpoints
from ares_train.checkpoints import CheckpointError
from ares_train.merge import merge, merging
from tests.train.merge_checkpoints import ADDED, ROOT, VARIANTS, made

BASE = {"vl": "vl", "odd": "odd", "fsdp1": "odd"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory)


def actor(runs: Path, variant: str) -> Path:
    return runs / f"run-{variant}" / "global_step_5" / "actor"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_gives_the_trained_weights_under_the_names_of_files(
    variant: str, runs: Path, tmp_path: Path
) -> None:
    merged = merge(runs / f"run-{variant}", tmp_path / "out")
    base = load_file(runs / BASE.get(variant, "text") / "model.safetensors")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert ours.keys() == base.keys()
    for name, tensor in base.items():
        assert torch.equal(ours[name], tensor + ADDED), name
    assert (merged.tensors, merged.parameters) == (len(base), sum(each.numel() for each in base.values()))
    assert (merged.dtype, merged.step, merged.reused) == ("float32", 5, False)
    assert len(merged.checked) == 2 and "bit by bit" in merged.checked[0] and "forward pass" in merged.checked[1]
    assert ("with a picture" in merged.checked[1]) == (variant == "vl")
    checkpoint = checkpoints.Checkpoint(5, actor(runs, variant).parent, actor(runs, variant))
    assert merged.source_digest == checkpoints.digest(checkpoint)
    texts = {path.name for path in (actor(runs, variant) / "huggingface").iterdir()} - {"model.safetensors"}
    own = {"model.safetensors", "README.md", merging.MANIFEST, "generation_config.json"}
    assert {path.name for path in merged.folder.iterdir()} == texts | own
    if variant == "vl":
        assert "preprocessor_config.json" in texts and any(name.startswith("visual.") for name in ours)


def test_equal_to_what_verls_own_merger_writes(runs: Path, tmp_path: Path) -> None:
    """verl's merger casts everything to bfloat16."""
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor(runs, "vl")), "--target_dir", str(tmp_path / "verl")]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    merge(actor(runs, "vl"), tmp_path / "ours", dtype="bfloat16", check=False)
    theirs, ours = (load_file(tmp_path / which / "model.safetensors") for which in ("verl", "ours"))
    assert theirs.keys() == ours.keys() and len(ours) > 100
    for name, tensor in theirs.items():
        assert ours[name].dtype == torch.bfloat16 and torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(("asked", "found"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_a_cast_by_request_and_the_configuration_says_so(
    asked: str, found: torch.dtype, runs: Path, tmp_path: Path
) -> None:
    merged = merge(actor(runs, "w3"), tmp_path / "out", dtype=asked)
    kept = load_file(runs / "text" / "model.safetensors")
    for name, tensor in load_file(merged.folder / "model.safetensors").items():
        assert torch.equal(tensor, (kept[name] + ADDED).to(found)), name
    config = json.loads((merged.folder / "config.json").read_text())
    assert config["dtype"] == asked == merged.dtype and "forward pass" in merged.checked[1]


def test_many_files_and_their_index_load_in_transformers(runs: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    lines: list[str] = []
    merged = merge(actor(runs, "w4"), tmp_path / "out", max_shard_bytes=100_000, progress=lines.append)
    index = json.loads((merged.folder / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in merged.folder.glob("*.safetensors"))
    assert len(files) > 3 and files == sorted(set(index["weight_map"].values()))
    assert index["metadata"]["total_size"] == 4 * merged.parameters
    assert [line for line in lines if line.startswith("writing")][-1].startswith(
        f"writing {files[-1]} (0.00 of 0.00 GB"
    )
    for name in files:
        held = load_file(merged.folder / name)
        assert held.keys() == {tensor for tensor, file in index["weight_map"].items() if file == name}
        assert sum(tensor.nbytes for tensor in held.values()) <= 130_000
    model = AutoModelForCausalLM.from_pretrained(merged.folder)
    base = AutoModelForCausalLM.from_pretrained(runs / "text")
    for (name, ours), theirs in zip(model.named_parameters(), base.parameters(), strict=True):
        assert torch.equal(ours, theirs + ADDED), name


def test_the_same_merge_again_is_left_as_it_is(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    first = merge(actor(runs, "w2"), target, check=False)
    weights = target / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    again = merge(actor(runs, "w2"), target, check=False)
    assert again.reused and weights.stat().st_mtime_ns == stamp
    assert (again.tensors, again.source_digest) == (first.tensors, first.source_digest)
    with pytest.raises(CheckpointError, match="exists and is not this merge"):
        merge(actor(runs, "w2"), target, dtype="bfloat16")
    with pytest.raises(CheckpointError, match="exists and is not this merge"):
        merge(actor(runs, "w3"), target)
    checked = merge(actor(runs, "w2"), target)
    assert not checked.reused and checked.checked, "what was not compared before is compared now"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="exists and is not this merge"):
        merge(actor(runs, "w2"), target)
    assert merge(actor(runs, "w3"), target, force=True, check=False).dtype == "float32"
    assert not list(tmp_path.glob(".*")), "neither drafts nor locks stay"


def test_what_is_no_model_is_not_replaced_even_by_force(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-mother.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="is no model's folder"):
        merge(actor(runs, "w1"), tmp_path / "letters", force=True)
    assert (tmp_path / "letters" / "to-mother.txt").exists()
    (tmp_path / "empty").mkdir()
    assert merge(actor(runs, "w1"), tmp_path / "empty", check=False).folder == tmp_path / "empty"


def test_an_interrupted_merge_leaves_nothing(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging.card, "text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        merge(actor(runs, "w2"), tmp_path / "out", check=False)
    assert not list(tmp_path.iterdir())


def test_a_killed_merge_leaves_no_target_and_the_next_one_clears_it_away(runs: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ares_train.merge import merge, merging\n"
        "merging.card.text = lambda *_: os.kill(os.getpid(), 9)\n"
        "merge(Path(sys.argv[1]), Path(sys.argv[2]), check=False)"
    )
    arguments = [sys.executable, "-c", code, str(actor(runs, "w2")), str(tmp_path / "out")]
    assert subprocess.run(arguments, cwd=ROOT, timeout=200).returncode == -9
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2 and all(name.startswith(".out.merging-") for name in left)
    merge(actor(runs, "w2"), tmp_path / "out", check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_card_says_what_it_is_and_names_no_path(runs: Path, tmp_path: Path) -> None:
    merged = merge(actor(runs, "vl"), tmp_path / "out")
    card = (merged.folder / "README.md").read_text()
    head = card.split("---")[1]
    assert "pipeline_tag: image-text-to-text" in head and "base_model" not in head
    assert f"`{merged.source_digest}`" in card and "| training step | 5 |" in card and "| type | float32 |" in card
    record = (merged.folder / merging.MANIFEST).read_text()
    assert str(runs) not in card + record and str(tmp_path) not in card + record


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("global_step_5/actor/huggingface/config.json", '{"_name_or_path": "%s"}'),
        ("sft_config.yaml", "model: {path: %s}"),
        ("config.yaml", "actor_rollout_ref:\n  model:\n    path: %s\n"),
    ],
)
def test_the_base_model_is_named_where_the_run_does(file: str, text: str, tmp_path: Path) -> None:
    from ares_train.merge import card

    actor = tmp_path / "global_step_5" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text('{"architectures": ["X"]}')
    assert card.base_model(actor) is None
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    for given, shown in ((name, name), ("/home/me/model", None), ("../models/x", None), ("null", None)):
        (tmp_path / file).write_text(text % given)
        assert card.base_model(actor) == shown, given
    made_of = {"step": None, "source_digest": "sha256:0", "parameters": 1, "tensors": 1, "dtype": "x", "checked": ()}
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}')
    written = card.text(tmp_path, made_of, name)
    assert f"base_model: {name}" in written and f"| base model | {name} |" in written and "--no-check" in written


def test_the_default_target_lies_where_pruning_does_not_reach(runs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(runs / "run-w1", tmp_path / "run")
    merged = merge(tmp_path / "run", check=False)
    assert merged.folder == tmp_path / "run" / "global_step_5" / "actor-merged"
    assert [each.step for each in checkpoints.checkpoints_of(tmp_path / "run")] == [5]
