"""`ares-eval` as a user runs it: exit codes, resuming, records, secrets; against the loopback server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ares_eval import cli
from ares_eval.records import load_run, read_records
from tests import loopback

ANSWERS = {f"What is {n} plus {n}?": 2 * n for n in range(40)}
SECRET = "sk-never-written-anywhere-0123456789"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty sums in GSM8K's own layout."""
    folder = tmp_path / "data" / "gsm8k" / "grade_school_math" / "data"
    folder.mkdir(parents=True)
    rows = [json.dumps({"question": q, "answer": f"Adding gives {a}.\n#### {a}"}) for q, a in ANSWERS.items()]
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


def words(tmp_path: Path, url: str, *more: str, datasets: str = "gsm8k") -> list[str]:
    return [
        *(
            "--model-name",
            "m",
            "--openai-base-url",
            url,
            "--datasets",
            datasets,
            "--dataset-dir",
            str(tmp_path / "data"),
        ),
        *("--output-dir", str(tmp_path / "runs"), "--cache-dir", str(tmp_path / "cache"), "--quiet", "--json", *more),
    ]


def ask(tmp_path: Path, url: str, *more: str, datasets: str = "gsm8k") -> int:
    return cli.main(words(tmp_path, url, *more, datasets=datasets))


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_a_run_is_scored_recorded_and_shown_again(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.start(answers=ANSWERS, wrong=0.25) as server:
        assert ask(tmp_path, server.url) == 0
        first = shown(capsys)
        sent = server.stats()["requests"]
        assert ask(tmp_path, server.url) == 0
        assert shown(capsys) == first
        assert server.stats()["requests"] == sent
        assert ask(tmp_path, server.url, "--fresh") == 0
        replayed = shown(capsys)
        assert server.stats()["requests"] == sent == 40
    task = first["tasks"]["gsm8k"]
    assert task["n"] == 40
    assert task["correct"] + task["incorrect"] == 40
    assert 0 < task["incorrect"] < 25
    assert task["metrics"]["accuracy"] == task["correct"] / 40
    assert replayed["tasks"] == first["tasks"]
    assert replayed["run"] == first["run"] + "-2"
    run = load_run(first["run"])
    assert run.manifest["status"] == "complete"
    assert sorted(record.sample for record in run.records()) == sorted(map(str, range(40)))
    for record in run.records():
        assert record.verdict is not None
        right = f"{{{2 * int(record.sample)}}}" in (record.text or "")
        assert (record.verdict.value == "correct") == right


def test_what_fails_is_not_measured_and_asked_for_again(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.start(answers=ANSWERS, fault_when=["What is 7 plus 7?=500"]) as server:
        assert ask(tmp_path, server.url, "--max-retries", "1") == 3
    broken = shown(capsys)["tasks"]["gsm8k"]
    assert broken["not_measured"] == {"server": 1}
    assert (broken["n"], broken["correct"], broken["incorrect"]) == (40, 39, 0)
    assert broken["metrics"]["accuracy"] == 1.0
    assert broken["metrics"]["accuracy_worst"] == 39 / 40
    with loopback.start(answers=ANSWERS) as server:
        assert ask(tmp_path, server.url, "--max-retries", "1") == 0
        assert server.stats()["requests"] == 1
    assert shown(capsys)["tasks"]["gsm8k"]["correct"] == 40


def test_a_server_that_answers_nobody_is_exit_4_and_scores_nothing(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.start(fault=["500=1"]) as server:
        assert ask(tmp_path, server.url, "--max-retries", "1") == 4
    task = shown(capsys)["tasks"]["gsm8k"]
    assert (task["correct"], task["incorrect"], task["unverifiable"]) == (0, 0, 0)
    assert task["metrics"]["accuracy"] is None


def test_nobody_listening_is_exit_4(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, "http://127.0.0.1:9/v1", "--max-retries", "0") == 4
    assert "127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--datasets", "gsm8"], "gsm8k"),
        (["--tempreture", "1"], "--temperature"),
        (["--temperature", "-1"], "temperature"),
        (["--eval-threads", "2000"], "eval-threads"),
        (["--preset", "resoning"], "reasoning"),
        (["--extra-body", "{"], "--extra-body"),
        (["--openai-base-url", "ftp://x"], "http"),
        (["--serve", "embeded"], "embedded"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_a_wrong_word_is_exit_2_and_names_what_would_do(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        code = cli.main(["--model-name", "m", "--output-dir", str(tmp_path), *flags])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_missing_model_name_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--datasets", "gsm8k"]) == 2
    assert "--model-name" in capsys.readouterr().err


def test_an_unavailable_dataset_leaves_the_others_running(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with loopback.start(answers=ANSWERS) as server:
        assert ask(tmp_path, server.url, datasets="aime24,gsm8k") == 3
        captured = capsys.readouterr()
        assert "aime24" in captured.err
        assert json.loads(captured.out)["tasks"]["gsm8k"]["correct"] == 40
        assert ask(tmp_path, server.url, "--skip-unavailable", datasets="aime24,gsm8k") == 0


def test_draws_are_distinct_and_summed_up(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback.start(answers=ANSWERS, wrong=0.5, draws="successive") as server:
        assert ask(tmp_path, server.url, "--samples", "4", "--limit", "10", "--seed", "3") == 0
        assert server.stats()["requests"] == 40
    found = shown(capsys)
    metrics = found["tasks"]["gsm8k"]["metrics"]
    assert found["tasks"]["gsm8k"]["n"] == 40
    assert metrics["avg@4"] <= metrics["pass@4"]
    assert metrics["pass@1"] == pytest.approx(metrics["avg@4"])
    records = list(load_run(found["run"]).records())
    assert len({record.key for record in records}) == 40
    assert {(record.sample, record.draw) for record in records} == {(str(s), d) for s in range(10) for d in range(4)}


def test_traces_are_kept_with_log_probs(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback.start(answers=ANSWERS) as server:
        assert ask(tmp_path, server.url, "--logprobs", "5", "--limit", "3") == 0
    run = load_run(shown(capsys)["run"])
    for record in run.records():
        trace = run.trace(record)
        assert trace is not None
        assert len(trace.tokens) == len(trace.entropy_low) > 0


def test_pictures_are_not_sent_to_a_server_that_takes_none(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.start(answers=ANSWERS, text_only=True) as server:
        assert ask(tmp_path, server.url, datasets="smoke_pictures,gsm8k") == 3
    captured = capsys.readouterr()
    found = json.loads(captured.out)["tasks"]
    assert found["smoke_pictures"]["not_measured"] == {"unsupported_input": found["smoke_pictures"]["n"]}
    assert found["gsm8k"]["correct"] == 40
    assert captured.err.count("pictures") == 1


def test_a_dry_run_counts_and_sends_nothing(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ("--input-price", "1", "--output-price", "2", "--samples", "2")
    assert ask(tmp_path, "http://127.0.0.1:9/v1", "--dry-run", *prices) == 0
    counted = shown(capsys)
    (task,) = counted["tasks"]
    assert (task["questions"], task["requests"], task["pictures"]) == (40, 80, 0)
    assert counted["cost"][0] == pytest.approx(task["prompt_tokens"] / 1e6)
    assert counted["cost"][1] == pytest.approx(counted["cost"][0] + 80 * 8192 * 2 / 1e6)
    assert not (tmp_path / "runs").exists()


def test_the_key_is_written_nowhere(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with loopback.start(answers=ANSWERS, api_key=SECRET) as server:
        assert ask(tmp_path, server.url, "--openai-api-key", SECRET) == 0
        assert ask(tmp_path, server.url, "--openai-api-key", SECRET[:-1], "--fresh", "--no-cache") == 4
    shown = capfd.readouterr()
    assert SECRET[:-1] not in shown.out + shown.err
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert SECRET[:-1].encode() not in path.read_bytes(), path


def test_a_judge_decides_what_rules_cannot_and_is_kept_apart(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vague = "Somewhere between three and fifteen, I believe."
    with loopback.start(reply=vague) as server, loopback.start(model="judge", reply="INCORRECT", api_key="j") as judge:
        flags = ("--judge-model", "judge", "--judge-base-url", judge.url, "--judge-api-key", "j")
        assert ask(tmp_path, server.url, *flags, datasets="smoke_text") == 0
        asked = judge.stats()["requests"]
    found = shown(capsys)
    rules, judged = found["tasks"]["smoke_text"], found["judged"]["tasks"]["smoke_text"]
    assert rules["unverifiable"] == found["judged"]["asked"] == asked > 0
    assert judged["unverifiable"] == 0
    assert judged["incorrect"] == rules["incorrect"] + rules["unverifiable"]
    assert found["judged"]["model"] == "judge"
    assert json.loads((Path(found["run"]) / "judged.json").read_text())["decided"] == asked


def test_a_model_does_not_judge_itself_unless_told(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tmp_path, "http://127.0.0.1:9/v1", "--judge-model", "m") == 2
    assert "--judge-self" in capsys.readouterr().err


def test_a_second_process_on_the_same_run_is_turned_away(tmp_path: Path, data: Path) -> None:
    with loopback.start(answers=ANSWERS, latency=2.0) as server:
        command = [sys.executable, "-m", "ares_eval.cli", *words(tmp_path, server.url, "--eval-threads", "1")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            wait_until(lambda: server.stats()["good"] > 0)
            second = subprocess.run(command, capture_output=True, text=True)
            first.kill()
    assert second.returncode == 3
    assert "another process" in second.stderr


def test_ctrl_c_waits_for_what_is_in_flight_and_resumes(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.start(answers=ANSWERS, latency=0.3) as server:
        command = [sys.executable, "-m", "ares_eval.cli", *words(tmp_path, server.url, "--eval-threads", "4")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: server.stats()["good"] >= 4)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "interrupted" in said
        sent = server.stats()["requests"]
        assert sent < 40
        assert len(list(read_records(next((tmp_path / "runs").rglob("samples.jsonl"))))) == sent
        assert ask(tmp_path, server.url, "--eval-threads", "4") == 0
        assert server.stats()["requests"] == 40
    assert shown(capsys)["tasks"]["gsm8k"]["correct"] == 40


@pytest.mark.parametrize("cache", [[], ["--no-cache"]])
def test_a_killed_run_resumes_to_the_results_of_an_unbroken_one(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], cache: list[str]
) -> None:
    flags = ["--eval-threads", "4", *cache]
    with loopback.start(answers=ANSWERS, wrong=0.3, latency=0.05) as server:
        assert ask(tmp_path, server.url, *flags, "--run-name", "unbroken", "--no-cache") == 0
        unbroken = shown(capsys)
        server.reset()
        for round_ in range(4):
            process = subprocess.Popen(
                [sys.executable, "-m", "ares_eval.cli", *words(tmp_path, server.url, *flags)],
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            done = server.stats()["good"]
            wait_until(lambda done=done, n=round_: server.stats()["good"] >= min(40, done + 2 + 3 * n))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert ask(tmp_path, server.url, *flags) == 0
        assert server.stats()["requests"] <= 40 + 4 * 4
    resumed = shown(capsys)
    assert resumed["tasks"] == unbroken["tasks"]
    files = [Path(run["run"]) / "results.json" for run in (resumed, unbroken)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_changed_data_are_noticed(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback.start(answers=ANSWERS, fault_when=["What is 7 plus 7?=500"]) as server:
        assert ask(tmp_path, server.url, "--max-retries", "0") == 3
        file = data / "gsm8k" / "grade_school_math" / "data" / "test.jsonl"
        file.write_text(file.read_text().replace("#### 2\n", "#### 3\n").replace('#### 2"', '#### 3"'))
        assert ask(tmp_path, server.url, "--max-retries", "0") == 3
    assert "--fresh" in capsys.readouterr().err


def wait_until(reached: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_same_from_python(tmp_path: Path, data: Path) -> None:
    from ares_eval import api

    with loopback.start(answers=ANSWERS) as server:
        done = api.evaluate(
            model_name="m",
            openai_base_url=server.url,
            datasets="gsm8k",
            dataset_dir=data,
            limit=5,
            output_dir=tmp_path / "runs",
            cache_dir=tmp_path / "cache",
        )
    assert done.exit_code == 0
    assert done.results["tasks"]["gsm8k"]["correct"] == 5
    assert len(list(api.load_run(done.folder).records())) == 5
    with pytest.raises(api.config.ConfigError, match="model_name"):
        api.evaluate(datasets="gsm8k")


def test_rescoring_makes_the_results_anew(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback.start(answers=ANSWERS, wrong=0.3) as server:
        assert ask(tmp_path, server.url) == 0
    first = shown(capsys)
    samples = Path(first["run"]) / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"value":"incorrect"', '"value":"correct"'))
    assert cli.main(["rescore", first["run"], "--write"]) == 0
    again = json.loads((Path(first["run"]) / "results.json").read_text())
    assert again["tasks"] == first["tasks"]
