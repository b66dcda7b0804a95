"""Sampling: planted pass rates come out exactly, whatever fails, is killed or is spread over processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ares_eval.analysis.ragged import ragged, row_quantiles
from ares_train.adacs import ingest, rate, sample, store
from ares_train.adacs.asking import ask_parts
from ares_train.adacs.errors import Incomplete
from ares_train.adacs.layout import Layout
from ares_train.adacs.partial import Partial, Sampled
from ares_train.commands import adacs as command
from tests.train.adacs_corpus import WRONG, configured, picture, right_draws, samples, silent, sums, tree, write_jsonl

QUESTIONS = 20
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "sums.jsonl", sums(QUESTIONS))


def bodies(server: Any) -> list[dict[str, Any]]:
    """The chat requests that a loopback server kept."""
    return [json.loads(one["body"]) for one in server.requests() if one["path"].endswith("/chat/completions")]


def rates(work: Path) -> dict[str, dict[str, Any]]:
    return {row["qid"]: row for row in pq.read_table(Layout(work).rates).to_pylist()}


def prompts(work: Path, system: bool = True) -> dict[str, str]:
    """qid to the text that the loopback server decides by: the last message's."""
    rows = [r for batch in store.batches(store.opened(work / "questions").parts()) for r in batch.to_pylist()]
    return {row["qid"]: row["messages"][-1]["content"] for row in rows}


def test_planted_pass_rates_are_recovered_exactly(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(wrong=WRONG)
    config = configured(source, server.url, sample={"estimator": {"draws": 8}}, rate={"tokenizer": None})
    work = tmp_path / "w"
    ingest.run(config, work, silent)
    sample.run(config, work, silent)
    # What is done is not asked again.
    before = server.stats()["requests"]
    notes: list[str] = []
    sample.run(config, work, notes.append)
    assert notes == ["sample estimator: 3 parts are there already"]
    assert server.stats()["requests"] == before
    recorded_lengths(work)
    rate.run(config, work, silent)
    found = rates(work)
    asked = prompts(work)
    assert len(found) == len(asked) == QUESTIONS
    for qid, prompt in asked.items():
        right = right_draws(prompt, 8)
        assert (found[qid]["n_valid"], found[qid]["n_correct"], found[qid]["tier"]) == (8, right, right)
        assert found[qid]["p"] == right / 8
    assert len({row["tier"] for row in found.values()}) > 3
    rows = samples(work)
    assert [(row["qid"], row["draw"]) for row in rows] == [(qid, draw) for qid in asked for draw in range(8)]
    assert {row["seed"] for row in rows} == set(range(8))
    assert all(row["completion_tokens"] == 64 and row["cause"] is None for row in rows)


def recorded_lengths(work: Path) -> None:
    """Give samples recorded lengths, so that a test needs no tokenizer."""
    for folder in (work / "samples").iterdir():
        stage = store.opened(folder)
        for number in stage.numbers():
            manifest = stage.manifest(number)
            assert manifest is not None
            table = pq.read_table(stage.path(number))
            table = table.set_column(table.schema.get_field_index("tokens"), "tokens", table["completion_tokens"])
            stage.write(number, table, table.schema, [])


def test_faults_are_retried_and_what_is_lost_is_told(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(fault=["500=0.2", "reset=0.1"], retry_after=0.01)
    config = configured(source, server.url, sample={"estimator": {"ask": {"max_retries": 8}}})
    ingest.run(config, tmp_path / "w", silent)
    sample.run(config, tmp_path / "w", silent)
    assert all(row["cause"] is None for row in samples(tmp_path / "w"))


def test_unmeasured_draws_are_kept_as_such_up_to_a_share(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(fault_when=["Case 3:=filter-400"])
    work = tmp_path / "w"
    config = configured(source, server.url, sample={"max_lost": 0.2})
    ingest.run(config, work, silent)
    sample.run(config, work, silent)
    lost = [row for row in samples(work) if row["cause"] is not None]
    assert len(lost) == 4
    assert {(row["cause"], row["text"]) for row in lost} == {("content_filter", None)}
    strict = configured(source, server.url, sample={"max_lost": 0.0, "estimator": {"draws": 5}})
    with pytest.raises(Incomplete, match=r"1 parts lost more than sample.max_lost .*5 content_filter"):
        sample.run(strict, work, silent)
    # The other parts are done; the lost draws, and only they, are asked again.
    stage = store.opened(work / "samples" / "estimator")
    assert len(stage.numbers()) == 2
    server.reset()
    with pytest.raises(Incomplete):
        sample.run(strict, work, silent)
    assert server.stats()["requests"] == 5


def test_a_server_that_refuses_stops_the_stage_with_one_line(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_loopback(api_key="sk-right")
    file = tmp_path / "c.yaml"
    config = configured(source, server.url)
    file.write_text(json.dumps(config.settings()))
    ingest.run(config, tmp_path / "w", silent)
    words = ["sample", "--config", str(file), "--work", str(tmp_path / "w"), "--quiet"]
    os.environ["OPENAI_API_KEY"] = "sk-wrong-and-secret"
    try:
        assert main(words) == 3
    finally:
        del os.environ["OPENAI_API_KEY"]
    told = capsys.readouterr().err
    assert told.startswith("ares-train adacs: sample estimator: stopped: ")
    assert told.count("\n") == 1
    assert "sk-wrong-and-secret" not in told + "".join(
        path.read_text(errors="replace") for path in (tmp_path / "w").rglob("*") if path.is_file()
    )


def main(words: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


# ---------------------------------------------------------------- kill and resume


def test_kill_dash_nine_loses_only_what_was_in_flight(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(wrong=WRONG, latency=0.15)
    config = configured(source, server.url)
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(config.settings()))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for work in (whole, killed):
        ingest.run(config, work, silent)
    sample.run(config, whole, silent)
    asked = server.stats()["requests"]
    assert asked == 4 * QUESTIONS
    server.reset()
    words = [sys.executable, "-m", "ares_train.cli", "adacs", "sample", "--config", str(file), "--work", str(killed)]
    kills = 0
    for after in (12, 40):
        process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and server.stats()["requests"] < after:
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2
    held = sum(sum(1 for _ in path.open()) - 1 for path in killed.rglob("*.partial.jsonl"))
    held += len(samples(killed))
    assert held >= 12
    assert subprocess.run(words, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert tree(killed / "samples") == tree(whole / "samples")
    # At most what was in flight (eval_threads 8) is asked a second time, at each kill.
    assert server.stats()["requests"] <= asked + 2 * 8


def test_an_interrupt_drains_and_says_so(source: Path, tmp_path: Path, start_loopback: Callable[..., Any]) -> None:
    server = start_loopback(latency=0.3)
    config = configured(source, server.url)
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(config.settings()))
    ingest.run(config, tmp_path / "w", silent)
    words = [sys.executable, "-m", "ares_train.cli", "adacs", "sample", "--config", str(file)]
    words += ["--work", str(tmp_path / "w")]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and server.stats()["requests"] < 10:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        told.splitlines()[-1] == "ares-train adacs: sample estimator: interrupted; the same command goes on from here"
    )
    held = sum(sum(1 for _ in path.open()) - 1 for path in (tmp_path / "w").rglob("*.partial.jsonl"))
    assert held + len(samples(tmp_path / "w")) == server.stats()["requests"]


def test_a_work_folder_belongs_to_one_process(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(configured(source).settings()))
    (tmp_path / "w").mkdir()
    with (tmp_path / "w" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["ingest", "--config", str(file), "--work", str(tmp_path / "w")]) == 2
    assert "another process works in" in capsys.readouterr().err
    assert main(["ingest", "--config", str(file), "--work", str(tmp_path / "w"), "--quiet"]) == 0
    assert main(["rate", "--config", str(file), "--work", str(tmp_path / "w"), "--quiet"]) == 3
    assert "3 of 3 parts are not sampled" in capsys.readouterr().err
    assert main(["sample", "--config", str(file), "--work", str(tmp_path / "new")]) == 2
    assert "run `ares-train adacs ingest` to its end first" in capsys.readouterr().err


def test_the_cache_answers_what_was_asked_before(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback()
    ask = {"no_cache": False, "cache_dir": str(tmp_path / "cache")}
    config = configured(source, server.url, sample={"estimator": {"ask": ask}})
    for work in ("one", "two"):
        ingest.run(config, tmp_path / work, silent)
        sample.run(config, tmp_path / work, silent)
    assert server.stats()["requests"] == 4 * QUESTIONS
    assert tree(tmp_path / "one" / "samples") == tree(tmp_path / "two" / "samples")


def test_a_partial_file_outlives_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with Partial(path, "as asked") as partial:
        partial.add(Sampled(qid="a", draw=0, text="one"))
        partial.add(Sampled(qid="a", draw=1, cause="timeout"))
        partial.add(Sampled(qid="b", draw=0, text="two"))
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[-1])):
        path.write_bytes(whole[:-cut])
        with Partial(path, "as asked") as partial:
            assert ("a", 0) in partial
            assert ("a", 1) not in partial
            assert ("b", 0) not in partial
            partial.add(Sampled(qid="b", draw=0, text="again"))
            (batch,) = partial.batches([("b", 0), ("a", 0)], {"a": "s", "b": "s"})
            assert batch.column("text").to_pylist() == ["again", "one"]


def test_a_partial_file_of_other_settings_is_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    for made_for, held in (("one", 0), ("one", 1), ("other", 0), ("other", 1), ("one", 0)):
        with Partial(path, made_for) as partial:
            assert len(partial) == held
            partial.add(Sampled(qid="a", draw=0, text=made_for))
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    with Partial(path, "one") as partial:
        assert not len(partial)


def test_replies_to_two_settings_never_stand_in_one_part(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    """The first server fails at some questions, so that its part stays open; then another one is asked otherwise."""
    one = start_loopback(reply="first", fault_when=["Case 3:=filter-400"])
    other = start_loopback(reply="second")
    work = tmp_path / "w"
    strict = {"max_lost": 0.0}
    before = configured(source, one.url, sample=strict)
    ingest.run(before, work, silent)
    with pytest.raises(Incomplete, match="max_lost"):
        sample.run(before, work, silent)
    assert list(work.rglob("*.partial.jsonl"))
    after = configured(source, other.url, sample={**strict, "estimator": {"ask": {"temperature": 0.9}}})
    sample.run(after, work, silent)
    assert {row["text"] for row in samples(work)} == {"second"}
    assert not list(work.rglob("*.partial.jsonl"))


# ---------------------------------------------------------------- pools


def test_resampling_asks_only_what_was_never_right(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(wrong=0.8)
    config = configured(source, server.url, sample={"resample": 3, "estimator": {"draws": 2}})
    work = tmp_path / "w"
    ingest.run(config, work, silent)
    sample.run(config, work, silent)
    never = {qid for qid, prompt in prompts(work).items() if not right_draws(prompt, 2, wrong=0.8)}
    assert 0 < len(never) < QUESTIONS
    rows = samples(work, "resample")
    assert {row["qid"] for row in rows} == never
    assert len(rows) == 3 * len(never)
    assert {row["draw"] for row in rows} == {2, 3, 4}
    recorded_lengths(work)
    rate.run(config, work, silent)
    found = rates(work)
    for qid, prompt in prompts(work).items():
        # The pass rate is that of the first draws: a right one among the further draws does not change it.
        assert (found[qid]["n_valid"], found[qid]["n_correct"]) == (2, right_draws(prompt, 2, wrong=0.8))
    rated = [row for batch in store.batches(store.opened(work / "rated").parts()) for row in batch.to_pylist()]
    further = [row for row in rated if row["draw"] >= 2]
    assert {row["pool"] for row in further} == {"estimator"}
    assert {row["sample_part"].rpartition("/")[0] for row in further} == {"samples/resample"}
    assert any(row["correct"] == 1 for row in further)


def test_a_teacher_is_asked_the_longest_first(source: Path, tmp_path: Path, start_loopback: Callable[..., Any]) -> None:
    server = start_loopback(keep_bodies=True)
    teacher = {
        "draws": 1,
        "ask": {"model_name": "m", "openai_base_url": server.url, "no_cache": True, "eval_threads": 1},
    }
    config = configured(source, server.url, ingest={"part_rows": 50}, sample={"teacher": teacher})
    work = tmp_path / "w"
    ingest.run(config, work, silent)
    sample.run_set(config, Layout(work), "estimator", silent)
    stage = store.opened(work / "samples" / "estimator")
    table = pq.read_table(stage.path(0))
    chance = random.Random(0)
    lengths = {qid: chance.randrange(10, 1000) for qid in table["qid"].to_pylist()}
    rows = [{**row, "completion_tokens": lengths[row["qid"]]} for row in table.to_pylist()]
    inputs = [store.digest(store.opened(work / "questions").path(0))]
    stage.write(0, table.from_pylist(rows, schema=table.schema), table.schema, inputs)
    server.reset()
    sample.run_set(config, Layout(work), "teacher", silent)
    asked = [body["messages"][-1]["content"] for body in bodies(server)[-QUESTIONS:]]
    texts = prompts(work)
    order = {texts[qid]: length for qid, length in lengths.items()}
    assert [order[text] for text in asked] == sorted(lengths.values(), reverse=True)
    assert len(samples(work, "teacher")) == QUESTIONS


def test_entropies_and_the_threshold_over_all_replies(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(dialect="vllm")
    config = configured(source, server.url, sample={"estimator": {"ask": {"logprobs": 5}}}, rate={"window": 2})
    work = tmp_path / "w"
    ingest.run(config, work, silent)
    sample.run(config, work, silent)
    recorded_lengths(work)
    rate.run(config, work, silent)
    rows = samples(work)
    entropies = ragged([row["entropy"] for row in rows])
    tau = row_quantiles(entropies, 0.95).mean()
    told = json.loads(Layout(work).rate_report.read_text())
    assert told["tau"]["estimator"] == pytest.approx(float(tau), abs=1e-9)
    rated = [row for batch in store.batches(store.opened(work / "rated").parts()) for row in batch.to_pylist()]
    for row, held in zip(rated, rows, strict=True):
        one = held["entropy"]
        assert row["hwe"] == sum((one[t] + one[t + 1]) / 2 >= tau for t in range(len(one) - 1))
    assert any(row["hwe"] for row in rated)


# ---------------------------------------------------------------- pictures, Ray


def test_pictures_are_sent_in_their_places(tmp_path: Path, start_loopback: Callable[..., Any]) -> None:
    server = start_loopback(check_pictures=True, keep_bodies=True)
    rows = []
    for n in range(3):
        (tmp_path / f"p{n}.png").write_bytes(picture(n, size=(640, 512)))
        rows.append({"id": str(n), "question": f"Here <image> and there, what is {n} + 1?", "answer": n + 1,
                     "images": [f"p{n}.png"]})  # fmt: skip
    config = configured(write_jsonl(tmp_path / "a.jsonl", rows), server.url)
    ingest.run(config, tmp_path / "w", silent)
    sample.run(config, tmp_path / "w", silent)
    assert server.stats()["pictures"]["image/png 640x512"] == 3 * 4
    kinds = [part["type"] for part in bodies(server)[-1]["messages"][-1]["content"]]
    assert kinds == ["text", "image_url", "text"]
    (tmp_path / "p0.png").unlink()
    other = configured(
        write_jsonl(tmp_path / "a.jsonl", rows), server.url, sample={"max_lost": 0.5, "estimator": {"draws": 2}}
    )
    sample.run(other, tmp_path / "w", silent)
    found = {(row["cause"], row["text"] is None) for row in samples(tmp_path / "w")}
    assert found == {(None, False), ("picture", True)}


def test_ray_spreads_parts_and_makes_the_same_files(
    source: Path, tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(wrong=WRONG)
    local = configured(source, server.url)
    spread = configured(source, server.url, sample={"executor": "ray", "workers": 2})
    for name, config in (("local", local), ("ray", spread)):
        ingest.run(config, tmp_path / name, silent)
    sample.run(local, tmp_path / "local", silent)
    # One part is there already: it must not be asked again.
    part = store.opened(tmp_path / "local" / "samples" / "estimator").path(1)
    (tmp_path / "ray" / "samples" / "estimator").mkdir(parents=True)
    for file in (part, part.with_suffix(".json")):
        (tmp_path / "ray" / "samples" / "estimator" / file.name).write_bytes(file.read_bytes())
    server.reset()
    notes: list[str] = []
    sample.run(spread, tmp_path / "ray", notes.append)
    assert server.stats()["requests"] == 4 * (QUESTIONS - 8)
    assert tree(tmp_path / "ray" / "samples") == tree(tmp_path / "local" / "samples")
    assert notes[-1] == "sample estimator: 3 parts are done"


def test_parts_may_be_asked_one_by_one(source: Path, tmp_path: Path, start_loopback: Callable[..., Any]) -> None:
    server = start_loopback()
    config = configured(source, server.url)
    ingest.run(config, tmp_path / "w", silent)
    asked = sample.asked_set(config, Layout(tmp_path / "w"), "estimator")
    ask_parts(asked, [2], silent)
    assert asked.stage.numbers() == [2]
    with pytest.raises(Incomplete, match="2 of 3 parts are not sampled"):
        rate.run(config, tmp_path / "w", silent)
