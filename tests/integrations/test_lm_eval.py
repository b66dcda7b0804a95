"""`lm:TASK` as a user meets it: names, errors, hostile replies, what is not measured; and what needs no lm-eval."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ares_eval import cli
from ares_eval.integrations import lm_eval, lm_eval_index, lm_eval_process, lm_eval_scorer
from ares_eval.integrations.lm_eval_index import Entry, closure, expand
from ares_eval.integrations.lm_eval_prompts import generation, interleaved, read_chat
from ares_eval.records import load_run
from ares_eval.tasks import DataUnavailable, UnknownTask, load, resolve
from tests import loopback
from tests.integrations import lm_eval_data as data

needs_lm_eval = pytest.mark.skipif(
    lm_eval_index.version() is None, reason="lm-eval is not installed: pip install 'ares[lm-eval]'"
)

# ---------------------------------------------------------------- without lm-eval


INDEX = {
    "a": Entry("task", "a/a.yaml"),
    "b": Entry("class", "b.yaml"),
    "inner": Entry("group", "i.yaml", ("b",), whole=True),
    "outer": Entry("group", "o.yaml", ("a", "inner")),
    "tag": Entry("tag", None, ("a", "outer")),
    "one_of_many": Entry("task", "m.yaml"),
}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a", ["a"]),
        ("inner", ["inner"]),
        ("outer", ["a", "inner"]),
        ("tag", ["a", "inner"]),
        ("*_of_*", ["one_of_many"]),
        ("[io]*er", ["inner", "a"]),
        ("nothing", []),
    ],
)
def test_what_a_name_stands_for(name: str, names: list[str]) -> None:
    assert expand(name, INDEX) == names


def test_what_loading_a_name_needs() -> None:
    assert set(closure("tag", INDEX)) == {"tag", "a", "outer", "inner", "b"}
    assert closure("nothing", INDEX) == {}


def test_an_index_of_another_version_is_not_read(tmp_path: Path) -> None:
    file = lm_eval_index.file(tmp_path, "0.4.13")
    lm_eval_index.write(file, "0.4.13", INDEX)
    assert lm_eval_index.read(file, "0.4.13") == INDEX
    assert lm_eval_index.read(file, "0.4.14") is None
    file.write_bytes(b'{"format": 1')
    assert lm_eval_index.read(file, "0.4.13") is None


@pytest.mark.parametrize(
    ("kwargs", "settings"),
    [
        ({}, {"max_tokens": 256, "temperature": 0.0, "top_p": None, "top_k": None, "stop": []}),
        ({"until": "\n", "max_gen_toks": 9}, {"max_tokens": 9, "stop": ["\n"]}),
        ({"until": ["a", "", "b", "c", "d", "e"]}, {"stop": ["a", "b", "c", "d"]}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"do_sample": True, "temperature": 0.7, "min_p": 0.1}, {"temperature": 0.7, "extra_body": {"min_p": 0.1}}),
    ],
)
def test_generation_settings(kwargs: dict[str, Any], settings: dict[str, Any]) -> None:
    found = generation(kwargs)
    assert {name: found[name] for name in settings} == settings


def test_pictures_take_the_places_of_their_marks() -> None:
    assert interleaved("see <image> and <image>.", [1, 2]) == ["see ", 1, " and ", 2, "."]
    assert interleaved("<image>", [1]) == [1]
    assert interleaved("see <image>", [1, 2]) == [1, 2, "see <image>"]


def test_a_context_that_is_no_list_of_messages_is_one_message() -> None:
    assert read_chat('[{"role": "user", "content": "Q"}]') == [("user", "Q")]
    assert read_chat('[{"role" is a word') == [("user", '[{"role" is a word')]
    assert read_chat("[1, 2]") == [("user", "[1, 2]")]


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_index, "version", lambda: None)
    assert resolve("lm:gsm8k") == ("lm:gsm8k",)
    with pytest.raises(DataUnavailable, match=r"lm-eval is not installed; pip install 'ares\[lm-eval\]'"):
        load("lm:gsm8k")


def test_children_get_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "JUDGE_API_KEY"):
        monkeypatch.setenv(name, "secret")
    assert lm_eval_process.environment("loader").get("HF_TOKEN") == "secret"
    assert [n for n, v in lm_eval_process.environment("loader").items() if v == "secret"] == ["HF_TOKEN"]
    scorer = lm_eval_process.environment("scorer")
    assert "secret" not in scorer.values()
    assert scorer["HF_HUB_OFFLINE"] == "1"


# ---------------------------------------------------------------- with lm-eval


HOSTILE = """
task: hostile
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{number}}"
generation_kwargs: {until: []}
process_results: !function score.score
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""

SCORE = """
import json, os, signal
from pathlib import Path

def score(doc, results):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # fails outside a main thread
    Path(__file__).with_name("seen.json").write_text(json.dumps(dict(os.environ)))
    print("this must not get between the answers")
    text = results[0]
    while "hang" in text:
        pass
    if "raise" in text:
        raise ValueError("bad reply")
    if "exit" in text:
        os._exit(3)
    return {"acc": float(str(doc["number"]) in text)}
"""

UNSAFE = HOSTILE.replace("task: hostile", "task: unsafe\nunsafe_code: true")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = data.folder(tmp_path / "yaml")
    boxes = str(next(place.glob("*.jsonl")))
    (place / "score.py").write_text(SCORE)
    (place / "hostile.yaml").write_text(HOSTILE.replace("DATA", boxes))
    (place / "unsafe.yaml").write_text(UNSAFE.replace("DATA", boxes))
    return place


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def evaluate(url: str, names: str, *more: str) -> tuple[int, dict[str, Any], str]:
        words = ["--model-name", "m", "--openai-base-url", url, "--datasets", names, "--quiet", "--json", *more]
        code = cli.main([*words, "--output-dir", str(tmp_path / "runs"), "--cache-dir", str(tmp_path / "cache")])
        shown = capsys.readouterr()
        return code, json.loads(shown.out) if shown.out else {}, shown.err

    return evaluate


@needs_lm_eval
def test_names(folder: Path) -> None:
    assert resolve("lm:gsm8k_cot") == ("lm:gsm8k_cot",)
    assert resolve("lm:ai2_arc") == ("lm:arc_challenge", "lm:arc_easy")
    assert resolve("lm:mmlu_pro") == ("lm:mmlu_pro",)
    assert resolve(f"lm:{folder}/our_tag") == tuple(f"lm:{folder}/our_{one}" for one in ("choice", "draws", "prefix"))
    with pytest.raises(UnknownTask, match=r"no task 'gsm8k_coot'.*did you mean lm:gsm8k_cot"):
        resolve("lm:gsm8k_coot")
    # From here on the index is a file: nothing of lm-eval is started to look a name up.
    assert len(list(lm_eval.LmEvalSource().names())) > 14_000
    source = lm_eval.LmEvalSource()
    source.resolve("lm:winogrande")
    assert source._loader is None


@needs_lm_eval
def test_what_cannot_be_run_says_so_in_a_line(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.yaml").write_text("task: broken\ndataset_path: json\noutput_type: [")
    with pytest.raises(UnknownTask, match=r"broken\.yaml"):
        resolve(f"lm:{folder}/broken")
    with pytest.raises(DataUnavailable, match="runs programs that the model writes"):
        load(f"lm:{folder}/unsafe")
    (folder / "nowhere.yaml").write_text(HOSTILE.replace("DATA", str(tmp_path / "nowhere.jsonl")))
    with pytest.raises(DataUnavailable, match=r"nowhere\.jsonl"):
        load(f"lm:{folder}/nowhere.yaml")


@needs_lm_eval
def test_a_task_is_the_same_in_every_process(folder: Path) -> None:
    """Else no run would ever be resumed."""
    (folder / "prompt.py").write_text(
        "from functools import partial\n"
        "def ask(doc, mark): return doc['question'] + mark\n"
        "marked = partial(ask, mark='!')\n"
    )
    text = (folder / "hostile.yaml").read_text().replace('"{{question}}"', "!function prompt.marked")
    (folder / "marked.yaml").write_text(text)
    first, second = (lm_eval.LmEvalSource().load(f"lm:{folder}/marked.yaml") for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.dataset_digest == second.dataset_digest
    assert list(first.samples()) == list(second.samples())
    (folder / "marked.yaml").write_text(text.replace("until: []", "until: [x]"))
    assert lm_eval.LmEvalSource().load(f"lm:{folder}/marked.yaml").fingerprint != first.fingerprint


@needs_lm_eval
def test_scorers_that_hang_fail_or_die_cost_their_question(
    folder: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_eval_scorer, "SCORE_SECONDS", 3.0)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-scorers-1234")
    answers = {f"How many stones lie in box {n}?": str(n + 20) for n in range(7)}
    answers["How many stones lie in box 1?"] = "hang"
    answers["How many stones lie in box 2?"] = "raise"
    answers["How many stones lie in box 3?"] = "exit"
    answers["How many stones lie in box 4?"] = "other"
    with loopback.start(answers=answers, tokens=12, answer_format="I say {answer}.") as server:
        code, shown, _ = run(server.url, f"lm:{folder}/hostile")
    assert code == 0
    (task,) = shown["tasks"].values()
    assert (task["n"], task["correct"], task["incorrect"], task["unverifiable"]) == (7, 3, 1, 3)
    assert task["metrics"]["acc,none"] == 3 / 4
    assert (task["metrics"]["acc,none_worst"], task["metrics"]["acc,none_best"]) == (3 / 7, 6 / 7)
    left_out = {doc: why for _, doc, why in task["metrics"]["lm_eval"]["not_scored"]}
    assert set(left_out) == {1, 2, 3}
    assert "ValueError: bad reply" in left_out[2]
    reasons = {r.sample: r.verdict.reason for r in load_run(shown["run"]).records() if r.verdict and r.verdict.reason}
    assert reasons == {"1": "timeout", "2": "unparsed", "3": "over_budget"}
    seen = json.loads((folder / "seen.json").read_text())
    assert "sk-not-for-scorers-1234" not in seen.values()
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert lm_eval.SOURCE._scorer.child is None


@needs_lm_eval
def test_what_was_not_measured_is_not_wrong_and_is_asked_again(folder: Path, run: Callable[..., Any]) -> None:
    name = f"lm:{folder}/our_draws"
    with loopback.start(
        dialect="vllm",
        answers=data.ANSWERS,
        tokens=12,
        answer_format="The answer is {answer}.",
        fault_when=["box 3?=filter-400"],
    ) as server:
        code, shown, _ = run(server.url, name, "--limit", "5")
    task = shown["tasks"][name]
    # The few-shots come first in every prompt, so that only box 3 itself is refused.
    assert code == 3
    assert sum(task["not_measured"].values()) == 3
    assert task["metrics"]["exact_match,first"] == 1.0
    assert (task["metrics"]["exact_match,first_worst"], task["metrics"]["lm_eval"]["scored"]) == (0.8, 4)
    with loopback.start(
        dialect="vllm", answers=data.ANSWERS, tokens=12, answer_format="The answer is {answer}."
    ) as server:
        code, shown, _ = run(server.url, name, "--limit", "5")
        assert server.stats()["requests"] == 3
    assert code == 0
    assert shown["tasks"][name]["metrics"]["lm_eval"]["scored"] == 5


@needs_lm_eval
def test_likelihoods_that_a_server_does_not_tell(folder: Path, run: Callable[..., Any]) -> None:
    with loopback.start(dialect="llamacpp") as server:
        code, shown, said = run(server.url, f"lm:{folder}/our_choice")
    assert code == 4
    assert said.count("our_choice asks for log-likelihoods, which need /v1/completions with echo and logprobs") == 1
    (task,) = shown["tasks"].values()
    assert task["not_measured"] == {"unsupported_input": 7}
    assert task["metrics"]["acc,none"] is None


@needs_lm_eval
def test_the_users_flags_go_before_the_tasks(folder: Path, run: Callable[..., Any]) -> None:
    more = ["--limit", "2", "--samples", "1", "--max-tokens", "33", "--system-prompt", "Think."]
    with loopback.start(dialect="vllm", answers=data.ANSWERS, keep_bodies=True) as server:
        code, _, _ = run(server.url, f"lm:{folder}/our_draws", *more)
        bodies = [json.loads(one["body"]) for one in server.requests() if one["path"].endswith("/chat/completions")]
    assert code == 0
    assert len(bodies) == 2
    for body in bodies:
        assert (body["max_tokens"], body["temperature"], body["min_p"]) == (33, 0.7, 0.05)
        assert body["messages"][0]["content"].startswith("Think.\n\nYou count things.")


@needs_lm_eval
def test_listing_names_the_prefix_and_imports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "smoke"]) == 0
    assert "lm:NAME" in capsys.readouterr().out
