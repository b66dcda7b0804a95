"""What is wrong with a checkpoint is said in one line, and nothing is left at the target."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor, Partial

from ares_train.checkpoints import CheckpointError
from ares_train.merge import merge, merging
from tests.train.merge_checkpoints import made

EMBED, NORM, BIAS = "model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.bias"


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Callable[[str], Path]:
    """An actor's folder of its own, to be spoilt."""

    def copied(variant: str) -> Path:
        source = made(tmp_path_factory) / f"run-{variant}" / "global_step_5" / "actor"
        return Path(shutil.copytree(source, tmp_path / "run" / "global_step_5" / "actor"))

    return copied


def refused(actor: Path, pattern: str, **options: Any) -> None:
    target = actor.parent / "out"
    with pytest.raises(CheckpointError, match=pattern) as caught:
        merge(actor, target, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert {path.name for path in actor.parent.iterdir()} == {actor.name}, "no target, no draft"


def rewrite(actor: Path, rank: int, change: Callable[[dict[str, Any]], object]) -> None:
    path = next(actor.glob(f"model_world_size_*_rank_{rank}.pt"))
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def local(state: dict[str, Any], name: str) -> torch.Tensor:
    found = state[name]
    return found._local_tensor if isinstance(found, DTensor) else found


def edit_config(actor: Path, **changes: object) -> None:
    path = actor / "huggingface" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_rank_file_that_is_missing(copy: Callable[[str], Path]) -> None:
    actor = copy("w3")
    (actor / "model_world_size_3_rank_1.pt").unlink()
    refused(actor, r"1 of 3 rank files are missing, the first is model_world_size_3_rank_1\.pt")


def test_a_rank_file_that_is_cut_off(copy: Callable[[str], Path]) -> None:
    actor = copy("w3")
    path = actor / "model_world_size_3_rank_2.pt"
    path.write_bytes(path.read_bytes()[:-100])
    refused(actor, r"rank_2\.pt: cut off or still being written")


def test_a_rank_file_with_a_hole(copy: Callable[[str], Path]) -> None:
    """The end is there, and with it the zip file's directory; a tensor's bytes are not."""
    actor = copy("w2")
    path = actor / "model_world_size_2_rank_1.pt"
    data = path.read_bytes()
    path.write_bytes(data[:2000] + data[9000:])
    refused(actor, r"rank_1\.pt: not a whole torch file")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('{"world_size": 4}', r"4 of 4 rank files are missing"),
        ('{"world_size": "two"}', r"world size 'two' is no positive number"),
        ("{", r"no world size in it"),
    ],
)
def test_a_world_size_that_is_not_that_of_the_files(text: str, pattern: str, copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    (actor / "fsdp_config.json").write_text(text)
    refused(actor, pattern)


def test_files_of_two_world_sizes(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    stale = actor / "model_world_size_1_rank_0.pt"
    state = torch.load(actor / "model_world_size_2_rank_0.pt", weights_only=True)
    torch.save(state, stale)
    merge(actor, actor.parent / "out", check=False)  # fsdp_config.json tells which are meant
    shutil.rmtree(actor.parent / "out")
    (actor / "fsdp_config.json").unlink()
    refused(actor, r"files of several world sizes \(1, 2\)")


def test_a_tensor_that_one_rank_lacks(copy: Callable[[str], Path]) -> None:
    actor = copy("w3")
    rewrite(actor, 1, lambda state: state.pop(NORM))
    refused(actor, rf"{NORM}: not in the file of rank 1 \(model_world_size_3_rank_1\.pt\)")


def test_a_tensor_that_all_ranks_lack(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    for rank in range(2):
        rewrite(actor, rank, lambda state: state.pop(NORM))
    refused(actor, rf"{NORM} of the model is not in the checkpoint")


def test_a_tensor_that_the_model_does_not_have(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    for rank in range(2):
        rewrite(actor, rank, lambda state: state.update({"model.secret": state[NORM]}))
    refused(actor, r"model\.secret of the checkpoint is unknown to Qwen2ForCausalLM")


def test_a_shape_that_is_not_the_configurations(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    edit_config(actor, vocab_size=512)
    refused(actor, rf"{EMBED}: shape \(448, 72\), but the configuration of the model says \(512, 72\)")


def test_ranks_that_disagree_on_what_a_tensor_is(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    rewrite(actor, 1, lambda state: state.update({NORM: local(state, NORM).clone()}))
    refused(actor, rf"{NORM}: the ranks disagree on what it is")


def test_plain_pieces_are_not_taken_for_copies(copy: Callable[[str], Path]) -> None:
    """Without a placement nothing says that rank 1 holds the second half: no guess is made."""
    actor = copy("w2")
    for rank in range(2):
        rewrite(actor, rank, lambda state: state.update({NORM: torch.rand(72)}))
    refused(actor, rf"{NORM}: ranks 0 and 1 should hold the same values and do not")
    for rank in range(2):
        rewrite(actor, rank, lambda state: state.update({NORM: torch.ones(36)}))
    refused(actor, rf"{NORM}: shape \(36,\), but the configuration of the model says \(72,\)")


def test_plain_copies_on_every_rank_are_one_tensor(copy: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    actor = copy("w2")
    for rank in range(2):
        rewrite(actor, rank, lambda state: state.update({NORM: torch.arange(72.0)}))
    merged = merge(actor, tmp_path / "out")
    assert torch.equal(load_file(merged.folder / "model.safetensors")[NORM], torch.arange(72.0))


def test_replicas_that_differ(copy: Callable[[str], Path], tmp_path: Path) -> None:
    actor = copy("hsdp")
    rewrite(actor, 3, lambda state: local(state, BIAS).add_(1))
    refused(actor, rf"{BIAS}: ranks 1 and 3 should hold the same values and do not")


def test_a_rank_with_too_little(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")

    def shorten(state: dict[str, Any]) -> None:
        state[NORM]._local_tensor = state[NORM]._local_tensor[:-1].clone()

    rewrite(actor, 1, shorten)
    refused(actor, rf"{NORM}: rank 1 holds \(35,\) where its placement says \(36,\)")


def test_the_same_rank_twice(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    shutil.copy(actor / "model_world_size_2_rank_0.pt", actor / "model_world_size_2_rank_1.pt")
    refused(actor, r"rank_1\.pt: was saved as model_world_size_2_rank_0\.pt; put every rank's own file in its place")


def test_an_unfinished_reduction(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")

    def spoil(state: dict[str, Any]) -> None:
        object.__setattr__(state[NORM]._spec, "placements", (Partial(),))

    for rank in range(2):
        rewrite(actor, rank, spoil)
    refused(actor, r": placement P.* is not merged here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float, copy: Callable[[str], Path]) -> None:
    actor = copy("odd")
    rewrite(actor, 2, lambda state: local(state, EMBED)[0].fill_(value))
    refused(actor, rf"{EMBED}: holds NaN or infinite values", check=False)


def test_values_beyond_the_type_that_is_asked_for(copy: Callable[[str], Path]) -> None:
    actor = copy("w3")
    rewrite(actor, 2, lambda state: local(state, EMBED)[0].fill_(1e6))
    refused(actor, rf"{EMBED}: holds values beyond float16", dtype="float16")
    refused(actor, r"dtype 'int8': one of keep, bfloat16", dtype="int8")


def test_tied_weights_that_differ(copy: Callable[[str], Path]) -> None:
    actor = copy("w2")
    rewrite(actor, 1, lambda state: state.update({"lm_head.weight": state["lm_head.weight"] * 1}))
    merge(actor, actor.parent / "out", check=False)  # apart in the file, but equal
    shutil.rmtree(actor.parent / "out")
    rewrite(actor, 1, lambda state: local(state, "lm_head.weight").add_(1))
    refused(actor, rf"{EMBED} and lm_head\.weight: tied by the configuration, but different")


def test_only_the_other_name_of_a_tied_weight(copy: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    actor = copy("w2")
    for rank in range(2):
        rewrite(actor, rank, lambda state: state.pop(EMBED))
    merged = merge(actor, tmp_path / "out")
    names = load_file(merged.folder / "model.safetensors").keys()
    assert EMBED in names and "lm_head.weight" not in names and "forward pass" in merged.checked[1]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pwned",))


def test_a_pickle_that_runs_code_runs_none(
    copy: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    actor = copy("w1")
    path = actor / "model_world_size_1_rank_0.pt"
    kept = zipfile.ZipFile(path)
    with zipfile.ZipFile(actor / "new", "w") as evil:
        for entry in kept.infolist():
            data = kept.read(entry)
            evil.writestr(entry, pickle.dumps({"x": Evil()}, 2) if entry.filename.endswith("data.pkl") else data)
    (actor / "new").replace(path)
    refused(actor, r"rank_0\.pt: refused, it holds more than tensors")
    assert not (tmp_path / "pwned").exists()
    rewrite_plain = {"model.norm.weight": torch.ones(3), "step": 7}
    torch.save(rewrite_plain, path)
    refused(actor, r"'step' is a int, not a tensor")
    torch.save([torch.ones(3)], path)
    refused(actor, r"no state of a model in it")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            r"of a LoRA adapter.*verl\.model_merger",
        ),
        ("v_head.weight", r"a value head; this is a critic"),
        ("score.weight", r"a value head; this is a critic"),
    ],
)
def test_adapters_and_critics(name: str, pattern: str, copy: Callable[[str], Path]) -> None:
    actor = copy("w1")
    rewrite(actor, 0, lambda state: state.update({name: torch.ones(2, 2)}))
    refused(actor, pattern)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"architectures": ["Qwen2ForTokenClassification"]}, r"is a critic or reward model; merge the actor"),
        ({"architectures": ["Qwen99ForCausalLM"]}, r"transformers .* has no model Qwen99ForCausalLM"),
        ({"architectures": []}, r"one architecture expected"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, r"brings code of its own"),
    ],
)
def test_configurations(changes: dict[str, object], pattern: str, copy: Callable[[str], Path]) -> None:
    actor = copy("w1")
    edit_config(actor, **changes)
    refused(actor, pattern)


def test_the_critics_folder(copy: Callable[[str], Path]) -> None:
    actor = copy("w1")
    refused(actor.rename(actor.with_name("critic")), r"a critic is no language model; merge the actor beside it")


def test_megatron(copy: Callable[[str], Path]) -> None:
    actor = copy("w1")
    (actor / "model_world_size_1_rank_0.pt").unlink()
    (actor / "dist_ckpt").mkdir()
    refused(actor, r"Megatron checkpoint, which verl merges: python -m verl\.model_merger merge --backend megatron")


def test_texts_that_are_missing(copy: Callable[[str], Path]) -> None:
    actor = copy("vl")
    texts = actor / "huggingface"
    (texts / "preprocessor_config.json").rename(actor / "kept")
    refused(actor, r"a vision model without preprocessor_config\.json")
    (actor / "kept").rename(texts / "preprocessor_config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (texts / name).unlink()
    refused(actor, r"no tokenizer in it")
    (texts / "config.json").unlink()
    refused(actor, r"no huggingface/config\.json")


def test_another_models_tokenizer(copy: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    actor = copy("w1")
    tokenizer = AutoTokenizer.from_pretrained(actor / "huggingface")
    tokenizer.add_tokens([f"<extra {number}>" for number in range(100)])
    tokenizer.save_pretrained(actor / "huggingface")
    refused(actor, r"tokenizer: \d+ tokens for a model of 448; it is another model's")


def test_whole_weights_that_are_not_whole(copy: Callable[[str], Path]) -> None:
    actor = copy("hf")
    weights = actor / "huggingface" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused(actor, r"model\.safetensors: not a whole safetensors file")
    index = {"metadata": {}, "weight_map": {NORM: "../../../other.safetensors"}}
    (actor / "huggingface" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(actor, r"names files outside its folder")


def test_saved_again_while_it_is_read(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    actor = copy("w2")
    kept = merging.card.text

    def late(*arguments: Any) -> str:
        rewrite(actor, 1, lambda state: None)
        return kept(*arguments)

    monkeypatch.setattr(merging.card, "text", late)
    refused(actor, r"saved again while it was read", check=False)


def test_pruned_while_it_is_read(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    actor = copy("w2")
    kept = merging.naming.outline

    def late(folder: Path) -> Any:
        (actor / "model_world_size_2_rank_0.pt").unlink()
        return kept(folder)

    monkeypatch.setattr(merging.naming, "outline", late)
    refused(actor, r"rank_0\.pt: removed while it was read")


def test_no_room_for_the_target(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(merging.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 1000))
    refused(copy("w2"), r"0\.0 GB needed, 0\.0 GB free")


def test_the_second_reading_is_not_the_first(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses one number is caught by the comparison."""
    from ares_train.merge import shards

    pieces = shards.Shards.pieces

    def wrong(self: Any, name: str) -> Any:
        for piece in pieces(self, name):
            if name == BIAS:
                piece = piece.clone()
                piece[-1] += 1e-3
            yield piece

    monkeypatch.setattr(shards.Shards, "pieces", wrong)
    refused(copy("w2"), rf"{BIAS}: written otherwise than it is in the checkpoint")
