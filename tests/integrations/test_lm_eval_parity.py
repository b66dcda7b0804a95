"""Prompts and scores of `lm:TASK` are those of lm-eval's own evaluator, to the last digit.

One run of ares-eval against the loopback server, with lm-eval's own YAML files over the loopback hub; then lm-eval's
``simple_evaluate`` on the same replies, in another process.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ares_eval.records import load_run
from tests import loopback
from tests.integrations import lm_eval_data as data

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'ares[lm-eval]'")

CHAT = [
    "gsm8k",  # few-shots drawn by chance, two filters
    "gsm8k_cot",  # few-shots of its own
    "gsm8k_cot_self_consistency",  # 64 draws, majority votes
    "mmlu_pro",  # a group of 14, weighted by size
    "minerva_math500",  # scores with signals and sympy
    "gpqa_diamond_cot_zeroshot",  # options shuffled at loading
    "drop",  # scores of its own between 0 and 1
    "triviaqa",  # several right answers
    "mmmu_val_accounting",  # pictures
]
PLAIN = [
    "arc_easy",  # multiple choice
    "winogrande",  # several contexts, one continuation
    "hellaswag",  # documents processed
    "lambada_openai",  # a likelihood and a perplexity
    "truthfulqa_mc2",  # scores of its own from likelihoods
]
OURS = ["our_group"]
LIMIT = 5


@dataclass(frozen=True)
class Both:
    """What ares-eval and lm-eval made of the same replies."""

    results: dict[str, Any]
    records: dict[str, list[Any]]
    prompts: dict[str, dict[str, list[Any]]]
    theirs: dict[str, dict[str, Any]]
    bodies: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    place = tmp_path_factory.mktemp("lm_eval")
    data.hub(place / "hub")
    folder = data.folder(place / "yaml")
    names = [f"lm:{name}" for name in (*CHAT, *PLAIN)] + [f"lm:{folder}/{name}" for name in OURS]
    with loopback.start(
        hub=str(place / "hub"),
        dialect="vllm",
        answers=data.ANSWERS,
        answer_format="The answer is {answer}.\n#### {answer}",
        wrong=0.3,
        draws="successive",
        tokens=24,
        keep_bodies=True,
    ) as server:
        environment = {**os.environ, "HF_ENDPOINT": server.root, "HF_HOME": str(place / "hf")}
        words = ["--model-name", "m", "--openai-base-url", server.url, "--datasets", ",".join(names)]
        words += ["--limit", str(LIMIT), "--json", "--quiet", "--no-cache", "--output-dir", str(place / "runs")]
        done = subprocess.run(
            [sys.executable, "-m", "ares_eval.cli", *words], env=environment, capture_output=True, text=True, cwd=place
        )
        assert done.returncode == 0, done.stderr
        bodies = [json.loads(one["body"]) for one in server.requests() if one["path"] == "/v1/chat/completions"]
        results = json.loads(done.stdout)
        run = load_run(results["run"])
        records: dict[str, list[Any]] = {}
        for record in run.records():
            records.setdefault(record.task, []).append(record)
        prompts: dict[str, dict[str, list[Any]]] = {}
        for line in (run.folder / "prompts.jsonl").read_text().splitlines():
            row = json.loads(line)
            prompts.setdefault(row["task"], {})[row["sample"]] = row["messages"]
        asked = []
        for name in names:
            kept = [
                [r.fields["lm_task"], r.fields["doc_id"], r.draw, r.text] for r in records[name] if r.text is not None
            ]
            ours = name.removeprefix(f"lm:{folder}/")
            asked.append(
                {
                    "name": ours.removeprefix("lm:"),
                    "include_path": str(folder) if ours in OURS else None,
                    "chat": ours not in [f"lm:{one}" for one in PLAIN],
                    "limit": LIMIT,
                    # A closed form is not changed by it, and nothing else is compared.
                    "bootstrap_iters": 10,
                    "replies": kept,
                }
            )
        reference = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "lm_eval_reference.py")],
            input=json.dumps(asked), env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert reference.returncode == 0, reference.stderr[-3000:]
    theirs = dict(zip(names, json.loads(reference.stdout), strict=True))
    short = {name: name.removeprefix("lm:").removeprefix(f"{folder}/") for name in names}
    yield Both(
        {short[name]: task for name, task in results["tasks"].items()},
        {short[name]: found for name, found in records.items()},
        {short[name]: found for name, found in prompts.items()},
        {short[name]: found for name, found in theirs.items()},
        {"chat": bodies},
    )


BOOTSTRAPPED = ("perplexity_stderr,none",)


@pytest.mark.parametrize("name", [*CHAT, *PLAIN, *OURS])
def test_the_results_are_lm_evals(both: Both, name: str) -> None:
    ours, theirs = both.results[name]["metrics"]["lm_eval"], both.theirs[name]
    assert ours["not_scored"] == []
    assert both.results[name]["not_measured"] == {}
    for kind, rows in (("results", theirs["results"]), ("groups", theirs["groups"])):
        for row, values in rows.items():
            if kind == "results" and row in theirs["groups"]:
                continue
            expected = {
                key: None if value == "N/A" or key in BOOTSTRAPPED else value
                for key, value in values.items()
                if key not in ("name", "alias", "sample_count")
            }
            assert ours[kind][row] == expected, row
    assert set(ours["groups"]) == set(theirs["groups"])
    primary = both.results[name]["metrics"]["primary"]
    row = theirs["groups"].get(name) or theirs["results"][name]
    assert both.results[name]["metrics"][primary] == row[primary]


@pytest.mark.parametrize("name", [*CHAT, *OURS])
def test_the_chat_prompts_are_lm_evals(both: Both, name: str) -> None:
    wanted = {(task, doc): (turns, pictures) for task, doc, turns, _, pictures in both.theirs[name]["prompts"]
              if isinstance(turns[0], dict)}  # fmt: skip
    assert wanted
    seen = 0
    for record in both.records[name]:
        turns, pictures = wanted.get((record.fields["lm_task"], record.fields["doc_id"]), (None, []))
        if turns is None:
            continue
        seen += 1
        sent = both.prompts[name][record.sample]
        assert [turn["role"] for turn in sent] == [turn["role"] for turn in turns]
        for ours, theirs in zip(sent, turns, strict=True):
            texts = [part if isinstance(part, str) else "<image>" for part in ours["parts"]]
            assert "".join(texts) == theirs["content"]
        places = [part["picture"] for turn in sent for part in turn["parts"] if not isinstance(part, str)]
        assert len(places) == len(pictures)
    assert seen >= len(wanted)


@pytest.mark.parametrize("name", [*PLAIN])
def test_the_texts_whose_likelihood_is_asked_for_are_lm_evals(both: Both, name: str) -> None:
    wanted: dict[int, list[list[str]]] = {}
    for _, doc, pair, _, _ in both.theirs[name]["prompts"]:
        wanted.setdefault(doc, []).append(pair)
    assert wanted
    for record in both.records[name]:
        turns = ["".join(turn["parts"]) for turn in both.prompts[name][record.sample]]
        assert [list(pair) for pair in zip(turns[::2], turns[1::2], strict=True)] == wanted[record.fields["doc_id"]]


def test_pictures_stand_at_their_marks(both: Both) -> None:
    """lm-eval puts all pictures before the text; the pixels are the same, the places are ours."""
    sent = [body for body in both.bodies["chat"] if "compare" in json.dumps(body["messages"][-1])]
    assert sent
    content = sent[0]["messages"][-1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text", "image_url", "text"]
    assert content[2]["text"] == " with "
    theirs = {hashlib.sha256(_pixels(base64.b64decode(p))).hexdigest()
              for row in both.theirs["mmmu_val_accounting"]["prompts"] for p in row[4]}  # fmt: skip
    for part in (content[1], content[3]):
        picture = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        assert hashlib.sha256(_pixels(picture)).hexdigest() in theirs


def _pixels(data: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return repr(picture.size).encode() + picture.convert("RGB").tobytes()


def test_every_metric_of_every_filter_is_recorded(both: Both) -> None:
    """One draw a question: the scores of single replies are those of the whole."""
    for name in ("gsm8k", "gsm8k_cot", "drop", "arc_easy", "minerva_math500", "mmlu_pro"):
        theirs = {
            (task, doc, filtered): metrics
            for task, rows in both.theirs[name]["samples"].items()
            for doc, filtered, _, metrics in rows
        }
        for record in both.records[name]:
            for filtered, metrics in record.fields["lm_eval"].items():
                expected = theirs[record.fields["lm_task"], record.fields["doc_id"], filtered]
                assert metrics == {key: expected[key] for key in metrics}
            assert record.verdict is not None


def test_document_hashes_are_lm_evals(both: Both) -> None:
    for name in ("gsm8k", "arc_easy", "drop", "our_group"):
        hashes = {(t, d): h for t, rows in both.theirs[name]["samples"].items() for d, _, h, _ in rows}
        for record in both.records[name]:
            assert record.fields["doc_hash"] == hashes[record.fields["lm_task"], record.fields["doc_id"]]


def test_the_task_says_how_it_is_sampled(both: Both) -> None:
    """generation_kwargs as lm-eval's API models send them; the rest of the body as the run says."""
    drawn = [b for b in both.bodies["chat"] if str(b["messages"][0]["content"]).startswith("You count")]
    assert len(drawn) == 2 * 3 * LIMIT
    for body in drawn:
        assert (body["max_tokens"], body["temperature"], body["top_p"], body["stop"]) == (77, 0.7, 0.9, ["ZZZ"])
        assert body["min_p"] == 0.05
    sums = [b for b in both.bodies["chat"] if b.get("stop") == ["Question:", "</s>", "<|im_end|>"]]
    assert {(b["max_tokens"], b["temperature"], b.get("top_p")) for b in sums} == {(256, 0.0, None)}
    assert "seed" not in sums[0]
