"""A task that brings its own settings and its own scoring runs through the evaluator as it says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from ares_eval import cli, plan
from ares_eval.config import load
from ares_eval.records import load_run
from ares_eval.tasks import catalog
from ares_eval.tasks.scoring import Score, ScoringFailed, Summary
from ares_eval.types import AnswerSpec, Message, Record, Reply, Sample, TextPart, Verdict
from tests import loopback

QUESTIONS = {"one": "What is 1 plus 1?", "two": "What is 2 plus 2?", "three": "What is 3 plus 3?"}


class Length:
    """Scores a reply by its length; the last question's score is known only when all are asked."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.closed = 0

    def submit(self, sample: Sample, draw: int, reply: Reply) -> Future[Score]:
        done: Future[Score] = Future()
        later = sample.id == "three"
        verdict = Verdict("unverifiable" if later else "correct", "length", reason="later" if later else None)
        done.set_result(Score(verdict, {} if later else {"length": len(reply.text)}))
        return done

    def summarise(self, records: Iterable[Record], *, questions: int, draws: int) -> Summary:
        if self.broken:
            raise ScoringFailed("toy:x: the scorer is broken")
        kept = list(records)
        lengths = [len(record.text or "") for record in kept if record.measured]
        mean = sum(lengths) / len(lengths) if lengths else None
        last = [record for record in kept if record.sample == "three" and record.measured]
        scores = {("three", r.draw): Score(Verdict("incorrect", "length"), {"length": -1}) for r in last}
        return Summary({"length": mean, "length_stderr": None, "asked": questions * draws}, scores)

    def close(self) -> None:
        self.closed += 1


class Toy:
    """What a source of tasks gives."""

    name = "toy:x"
    suites: tuple[str, ...] = ()
    modality = "text"
    repeats = 2
    metrics = ("length",)
    fingerprint = "f" * 64
    dataset_digest = "sha256:0"
    source = "this test"
    size = len(QUESTIONS)

    def __init__(self, broken: bool) -> None:
        self.scorer = Length(broken)
        self.defaults: Mapping[str, Any] = {"max_tokens": 7, "system_prompt": "", "stop": ("Q:",), "top_p": None}

    def samples(self) -> Iterator[Sample]:
        for name, text in QUESTIONS.items():
            own = {"max_tokens": 5} if name == "two" else {}
            yield Sample("toy:x", name, (Message("user", (TextPart(text),)),), "?", AnswerSpec(), name, defaults=own)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Toy:
    task = Toy(broken=getattr(request, "param", False))

    class Source:
        def names(self) -> list[str]:
            return ["toy:x"]

        def resolve(self, name: str) -> list[str]:
            return ["toy:x"] if name == "toy:all" else [name]

        def load(self, name: str, **options: object) -> Toy:
            return task

    class Point:
        def load(self) -> Source:
            return Source()

    monkeypatch.setattr(catalog, "prefixes", lambda: {"toy": Point()})
    return task


def run(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    words = ["--model-name", "m", "--openai-base-url", url, "--datasets", "toy:all", "--quiet", "--json", *more]
    code = cli.main([*words, "--output-dir", str(tmp_path / "runs"), "--no-cache"])
    return code, json.loads(capsys.readouterr().out)


def asked(server: loopback.Server) -> list[dict[str, Any]]:
    return [json.loads(request["body"]) for request in server.requests() if request["path"].endswith("/completions")]


def test_its_own_settings_scores_and_metrics(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback.start(reply="four", keep_bodies=True) as server:
        code, shown = run(tmp_path, server.url, capsys)
        bodies = asked(server)
        assert code == 0
        changed, _ = run(tmp_path, server.url, capsys, "--max-tokens", "9")
        assert changed == 0
        assert {body["max_tokens"] for body in asked(server)[len(bodies) :]} == {9}
    assert len(bodies) == 6
    assert sorted(body["max_tokens"] for body in bodies) == [5, 5, 7, 7, 7, 7]
    for body in bodies:
        assert (body["stop"], body["temperature"]) == (["Q:"], 0.3)
        assert "top_p" not in body
        assert [message["role"] for message in body["messages"]] == ["user"]
    found = shown["tasks"]["toy:x"]
    assert (found["n"], found["correct"], found["incorrect"], found["unverifiable"]) == (6, 4, 2, 0)
    assert found["metrics"]["primary"] == "length"
    assert found["metrics"]["length"] == len("four")
    assert found["metrics"]["asked"] == 6
    kept = {(r.sample, r.draw): r for r in load_run(shown["run"]).records()}
    assert kept["one", 0].fields == {"length": 4}
    assert kept["three", 1].fields == {"length": -1}
    assert kept["three", 1].verdict == Verdict("incorrect", "length")
    assert toy.scorer.closed == 2


@pytest.mark.parametrize("toy", [True], indirect=True)
def test_a_scorer_that_fails_ends_with_its_line_and_no_value(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.start(reply="four") as server:
        words = ["--model-name", "m", "--openai-base-url", server.url, "--datasets", "toy:x", "--quiet", "--json"]
        code = cli.main([*words, "--output-dir", str(tmp_path / "runs"), "--no-cache"])
    out = capsys.readouterr()
    assert code == 3
    assert "toy:x: the scorer is broken" in out.err
    assert json.loads(out.out)["tasks"]["toy:x"]["metrics"]["length"] is None


def test_what_is_set_by_the_user_or_by_the_task_makes_another_run(toy: Toy) -> None:
    own = plan.fingerprint(toy, load({"model_name": "m"}))  # type: ignore[arg-type]
    same_value = plan.fingerprint(toy, load({"model_name": "m", "max_tokens": 8192}))  # type: ignore[arg-type]
    assert own != same_value
