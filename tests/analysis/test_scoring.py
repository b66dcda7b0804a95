"""Entropies computed after a run: exact ones by a real small model, bounds from a server's prompt log-probs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ares_eval import cli
from ares_eval.analysis.observe import Options, observe
from ares_eval.analysis.scored_traces import read_index, scored_trace
from ares_eval.analysis.scoring import CannotScore, score_run
from ares_eval.analysis.tokens import TokenOptions
from ares_eval.inference.logprobs import entropy_bounds
from ares_eval.records import Run, RunWriter, load_run
from ares_eval.types import Record, TokenTrace, WireMessage
from tests import loopback
from tests.analysis.synthetic import Reply, record_of, run_of

TOP = 20
MODEL = "m"

# ---------------------------------------------------------------- a scorer that needs no model


class Constant:
    """Gives every token one nat."""

    workers = 2

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[dict[str, str]]]] = []

    def score(
        self, messages: Sequence[Mapping[str, str]], record: Record, tokens: tuple[str, ...] | None
    ) -> TokenTrace:
        self.asked.append((record.sample, [dict(message) for message in messages]))
        if record.sample == "odd":
            raise CannotScore("planted")
        texts = tokens if tokens is not None else ("a", "b")
        ones = np.ones(len(texts))
        return TokenTrace(texts, -ones, ones, ones, 0 * ones, 1000, "exact", 1000)


def test_what_was_scored_is_not_scored_again(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run", [Reply("a"), Reply("b", entropy=[0.5, 0.5]), Reply("odd"), Reply("c", cause="server")]
    )
    first = score_run(run, Constant())
    assert (first.scored, first.kept, dict(first.skipped)) == (2, 0, {"planted": 1})
    assert first.logprob_difference == pytest.approx(0.5) and first.suspicious
    assert first.inside == 0.0  # one nat lies outside the planted bounds of half a nat
    again = Constant()
    second = score_run(run, again)
    assert (second.scored, second.kept) == (0, 2)
    assert [sample for sample, _ in again.asked] == ["odd"]
    assert again.asked[0][1] == [{"role": "user", "content": "What is it?"}]


def test_scored_entropies_are_preferred_and_the_records_stay(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply("a", entropy=[0.5] * 6)])
    before = (run.folder / "samples.jsonl").read_bytes()
    score_run(run, Constant())
    assert (run.folder / "samples.jsonl").read_bytes() == before
    seen = observe(run, Options(tokens=TokenOptions(tau_value=1.0), answers=False), study=False)
    assert seen.tokens is not None
    assert (seen.tokens.estimate, seen.tokens.hwe.tolist()) == ("exact", [3])
    low = Options(tokens=TokenOptions(tau_value=1.0, estimate="low"), answers=False)
    seen = observe(run, low, study=False)
    assert seen.tokens is not None and seen.tokens.hwe.tolist() == [0]


def test_an_interrupted_scoring_does_not_shrink_the_run(tmp_path: Path) -> None:
    replies = [Reply(sample, entropy=[0.5] * 6) for sample in ("a", "odd")]
    run = run_of(tmp_path / "run", replies)
    score_run(run, Constant())
    seen = observe(run, Options(tokens=TokenOptions(tau_value=1.0), answers=False), study=False)
    assert seen.tokens is not None
    assert (seen.tokens.estimate, seen.tokens.hwe.tolist()) == ("low", [0, 0])
    assert "1 of 2 replies were scored" in seen.notes[0]
    exact = Options(tokens=TokenOptions(tau_value=1.0, estimate="exact"), answers=False)
    seen = observe(run, exact, study=False)
    assert seen.tokens is not None
    np.testing.assert_array_equal(seen.tokens.hwe, [3, np.nan])


def test_scores_of_a_reply_that_was_replaced_do_not_count(tmp_path: Path) -> None:
    import dataclasses

    run = run_of(tmp_path / "run", [Reply("a")])
    score_run(run, Constant())
    (record,) = run.records()
    index = read_index(run.folder)
    assert scored_trace(run, index, record) is not None
    assert scored_trace(run, index, dataclasses.replace(record, key="another")) is None


def test_a_torn_index_is_mended(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply("a"), Reply("b")])
    score_run(run, Constant())
    path = run.folder / "traces" / "scored.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert len(read_index(run.folder)) == 1
    assert score_run(run, Constant()).scored == 1
    assert len(read_index(run.folder)) == 2


# ---------------------------------------------------------------- a real small model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="needs the [hf] extra")
    from tests.models import tiny_text

    return tiny_text.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def sampled(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[np.ndarray]]:
    """A run of the tiny model, sampled here step by step without a cache, its top 20 recorded as a server would; and
    the exact entropies of its replies."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    # Only tokens whose text can be sent: no special ones, no padding of the vocabulary, no lone pieces of characters.
    sendable = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    for token in range(len(tokenizer)):
        sendable[token] = token not in tokenizer.all_special_ids and "\ufffd" not in tokenizer.decode([token])
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("sampled") / "run"
    exact: list[np.ndarray] = []
    with RunWriter(folder) as writer:
        writer.write("run.json", {"format": 1, "status": "complete", "model": "tiny", "settings": {}})
        for number in range(4):
            question = f"What is {number} + 2?"
            writer.append_prompt("planted", f"q{number}", "p", [WireMessage("user", (question,))])
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            chosen, logprobs, tops, entropies = [], [], [], []
            with torch.inference_mode():
                for _ in range(300):
                    logp = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
                    token = int(torch.multinomial(logp.exp() * sendable, 1))
                    chosen.append(token)
                    logprobs.append(float(logp[token]))
                    tops.append(logp.topk(TOP).values.exp().numpy())
                    entropies.append(float(-(logp.exp() * logp).sum()))
                    ids.append(token)
            known = np.stack(tops)
            low, high, tail = entropy_bounds(known, known[:, -1], len(logp))
            texts = tuple(tokenizer.decode([token]) for token in chosen)
            trace = TokenTrace(texts, np.array(logprobs), low, high, tail, TOP, "topk-bounds", len(logp))
            reply = Reply(f"q{number}", text="".join(texts), length=len(chosen))
            writer.append(record_of(reply), trace)
            exact.append(np.array(entropies))
    return load_run(folder), exact


def test_exact_entropies_lie_within_the_bounds_of_the_top_20(
    tiny: Path, sampled: tuple[Run, list[np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, exact = sampled
    for record, wanted in zip(run.records(), exact, strict=True):
        trace = run.trace(record)
        assert trace is not None
        assert (trace.entropy_low <= wanted + 1e-5).all() and (wanted <= trace.entropy_high + 1e-5).all()
        assert (trace.entropy_high - trace.entropy_low).max() > 0.1  # the bounds say something else than the value
    code = cli.main(["entropy", str(run.folder), "--scorer", f"hf:{tiny}", "--device", "cpu"])
    out = capsys.readouterr().out
    index = read_index(run.folder)
    for record, wanted in zip(run.records(), exact, strict=True):
        found, recorded = scored_trace(run, index, record), run.trace(record)
        assert found is not None and recorded is not None
        assert (found.estimator, found.top) == ("exact", found.vocabulary)
        # The forward pass in blocks with a cache is that of every step alone.
        np.testing.assert_allclose(found.entropy_low, wanted, atol=1e-4)
        np.testing.assert_allclose(found.logprob, recorded.logprob, atol=1e-4)
        assert (found.entropy_low >= recorded.entropy_low - 1e-4).all()
        assert (found.entropy_low <= recorded.entropy_high + 1e-4).all()
    assert "100.00 % of entropies lie within the recorded bounds" in out
    assert code == 0, out


def test_replies_without_tokens_are_split_by_the_tokenizer(tiny: Path, tmp_path: Path) -> None:
    from ares_eval.analysis.score_hf import HfScorer

    run = run_of(tmp_path / "run", [Reply("a", text="1 + 2 = 3 é", right=True)])
    assert score_run(run, HfScorer(str(tiny), device="cpu")).scored == 1
    (record,) = run.records()
    trace = scored_trace(run, read_index(run.folder), record)
    assert trace is not None and "".join(trace.tokens) == "1 + 2 = 3 é"
    assert (trace.entropy_low > 0).all()


def test_a_reply_longer_than_the_context_is_skipped(tiny: Path, tmp_path: Path) -> None:
    from ares_eval.analysis.score_hf import HfScorer

    run = run_of(tmp_path / "run", [Reply("a", text="1 2 " * 4000)])
    report = score_run(run, HfScorer(str(tiny), device="cpu"))
    assert report.scored == 0 and "longer than the scorer's context" in next(iter(report.skipped))


def test_reasoning_goes_back_into_its_tags() -> None:
    from ares_eval.analysis.score_hf import reply_text

    record = record_of(Reply("a", text="4", reasoning="2 and 2"))
    assert reply_text(record, "<|im_start|>assistant\n") == "<think>\n2 and 2\n</think>\n\n4"
    assert reply_text(record, "<|im_start|>assistant\n<think>\n") == "2 and 2\n</think>\n\n4"


# ---------------------------------------------------------------- a server's prompt log-probs


def test_bounds_from_prompt_log_probs(
    start_loopback: Callable[..., loopback.Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_loopback(dialect="vllm", keep_bodies=True)
    run = run_of(tmp_path / "run", [Reply("a", text="We know that 2 + 2 = 4, so the answer is 4.")])
    words = ["entropy", str(run.folder), "--scorer", server.url, "--model-name", MODEL, "--vocabulary-size", "5000"]
    assert cli.main(words) == 0, capsys.readouterr().err
    body = server.requests()[-1]["body"]
    body = json.loads(body) if isinstance(body, str) else body
    assert body["prompt_logprobs"] == 20 and body["continue_final_message"] is True
    assert body["messages"][-1] == {"role": "assistant", "content": "We know that 2 + 2 = 4, so the answer is 4."}
    (record,) = run.records()
    trace = scored_trace(run, read_index(run.folder), record)
    assert trace is not None
    assert "".join(trace.tokens).strip() == record.text
    assert trace.estimator == "prompt-topk-bounds"
    assert (trace.entropy_low > 0).all() and (trace.entropy_low <= trace.entropy_high).all()
    seen = observe(run, Options(answers=False), study=False)
    assert seen.tokens is not None and seen.tokens.estimator == "prompt-topk-bounds"


def test_a_server_that_gives_none_is_named(
    start_loopback: Callable[..., loopback.Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_loopback(dialect="llamacpp")
    run = run_of(tmp_path / "run", [Reply("a", text="It is 4.")])
    assert cli.main(["entropy", str(run.folder), "--scorer", server.url, "--model-name", MODEL]) == 4
    assert "prompt_logprobs" in capsys.readouterr().err


@pytest.mark.parametrize("scorer", ["hf:", "model", "ftp://host"])
def test_a_scorer_that_is_none(scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "run", [Reply("a")])
    assert cli.main(["entropy", str(run.folder), "--scorer", scorer]) == 2
    assert "hf:PATH" in capsys.readouterr().err
