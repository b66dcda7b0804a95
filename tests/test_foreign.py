"""Other harnesses' files as runs: scores, draws, failures, and refusals. The files are made here, in their schemas."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import pytest

from ares_eval import export_lm_eval
from ares_eval.cli import main
from ares_eval.compare import compare_paths
from ares_eval.foreign import ForeignError, inspect_log, load_any
from ares_eval.types import Json
from tests.comparison_runs import Row, write_run

TIME = "2026-01-02T03-04-05.678901"


def lm_eval_line(doc: int, right: float, **more: Json) -> dict[str, Json]:
    line: dict[str, Json] = {"doc_id": doc, "doc": {"question": "q", "level": 1 + doc % 3}, "target": "#### 7"}
    line |= {"arguments": {"gen_args_0": {"arg_0": "q", "arg_1": {}}}, "resps": [["7"]], "filtered_resps": ["7"]}
    line |= {"filter": "strict-match", "metrics": ["exact_match"], "doc_hash": "h", "prompt_hash": "h"}
    return line | {"target_hash": "h", "exact_match": right} | more


def lm_eval_folder(folder: Path, lines: list[dict[str, Json]], task: str = "t", time: str = TIME) -> Path:
    inner = folder / "org__model"
    inner.mkdir(parents=True, exist_ok=True)
    (inner / f"results_{time}.json").write_text(json.dumps({"results": {}, "model_name": "org/model"}))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (inner / f"samples_{task}_{time}.jsonl").write_text(text)
    return folder


def test_lm_eval_samples(tmp_path: Path) -> None:
    lines = [lm_eval_line(i, float(i % 2)) for i in range(6)]
    lines += [lm_eval_line(i, 1.0, filter="flexible-extract") for i in range(6)]
    found = load_any(lm_eval_folder(tmp_path / "o", lines, "gsm8k_cot"))
    assert (found.harness, found.model) == ("lm-eval", "org/model")
    task = found.tasks["gsm8k_cot"]
    assert [task.draws[str(i), 0].score for i in range(6)] == [1.0] * 6  # flexible-extract is preferred
    assert task.draws["4", 0].level == "2" and task.draws["4", 0].position == 4
    assert "there are also exact_match,strict-match" in found.notes[0]
    chosen = load_any(f"{tmp_path / 'o'}::exact_match,strict-match")
    assert [chosen.tasks["gsm8k_cot"].draws[str(i), 0].score for i in range(6)] == [0, 1, 0, 1, 0, 1]
    assert chosen.tasks["gsm8k_cot"].judges != task.judges


def test_the_newest_of_several_runs_counts_and_a_results_file_names_its_own(tmp_path: Path) -> None:
    lm_eval_folder(tmp_path, [lm_eval_line(0, 0.0)])
    lm_eval_folder(tmp_path, [lm_eval_line(0, 1.0)], time="2026-02-02T03-04-05.678901")
    assert load_any(tmp_path).tasks["t"].draws["0", 0].score == 1
    old = tmp_path / "org__model" / f"results_{TIME}.json"
    assert load_any(old).tasks["t"].draws["0", 0].score == 0
    assert load_any(old.with_name(f"samples_t_{TIME}.jsonl")).tasks["t"].draws["0", 0].score == 0


def test_lmms_eval_names(tmp_path: Path) -> None:
    line = {"doc_id": 0, "target": "7", "filtered_resps": "7", "exact_match": 1.0}
    (tmp_path / "20260102_030405_samples_mmmu_val.jsonl").write_text(json.dumps(line) + "\n")
    assert load_any(tmp_path).tasks["mmmu_val"].draws["0", 0].score == 1


def test_our_run_against_lm_eval(tmp_path: Path) -> None:
    """Ids are positions on both sides where the dataset has no id of its own; our `ares_` prefix does not matter."""
    ours = write_run(tmp_path / "ours", [Row(str(i), "correct", task="gsm8k") for i in range(12)])
    theirs = lm_eval_folder(tmp_path / "theirs", [lm_eval_line(i, float(i != 5)) for i in range(12)], "ares_gsm8k")
    (task,) = compare_paths(ours, theirs).tasks
    assert task.task == "gsm8k" and [pair.sample for pair in task.lost] == ["5"]
    assert task.tokens is None
    named = write_run(tmp_path / "named", [Row(f"test/{i}", task="gsm8k") for i in range(12)])
    (by_place,) = compare_paths(named, theirs, by="position").tasks
    assert [pair.sample for pair in by_place.lost] == ["000005"]
    policy = tmp_path / "p.yaml"
    policy.write_text("rules: [{kind: accuracy, margin: 60}]")
    assert main(["gate", "--candidate", str(theirs), "--baseline", str(ours), "--policy", str(policy)]) == 0


def test_our_own_export_comes_back_draw_by_draw(tmp_path: Path) -> None:
    outcomes = ("correct", "incorrect", "unverifiable")
    rows = [Row(f"q{i}", outcomes[(i + k) % 3], k, tokens=5 + i, truncated=i == 2) for i in range(4) for k in range(3)]
    run = write_run(tmp_path / "run", rows)
    manifest = json.loads((run / "run.json").read_text())
    metrics = {"primary": "accuracy", "draws": 3, "avg@3": 0.5, "avg@3_stderr": None, "accuracy": 0.5}
    results = {"tasks": {"t": {"n": 12, "metrics": metrics | {"accuracy_stderr": None}}}, "suites": {}}
    (run / "results.json").write_text(json.dumps(results))
    assert manifest["model"] == "m"
    exported = load_any(export_lm_eval.export(run, tmp_path / "out"))
    (task,) = compare_paths(run, tmp_path / "out").tasks
    assert task.measured == 12 and not task.lost and not task.gained
    assert task.tokens is not None and task.tokens.value == pytest.approx(1)
    assert (task.truncated_b, task.unverifiable_b) == (3, 4)
    assert exported.tasks["t"].draws["q2", 1].truncated


def vlm_folder(folder: Path, hits: list[Json], name: str = "MMStar", scored: bool = True) -> Path:
    inner = folder / "m" / "T20260102-030405"
    inner.mkdir(parents=True)
    head = ["index", "question", "answer", "level", "prediction"]
    body = [[i, "q", "A", "easy", "line\nbreak"] for i in range(len(hits))]
    tables = {f"m_{name}": (head, body)}
    if scored:
        tables[f"m_{name}_exact_matching_result"] = (
            [*head, "hit"],
            [[*row, hit] for row, hit in zip(body, hits, strict=True)],
        )
    for stem, (columns, rows) in tables.items():
        with (inner / f"{stem}.tsv").open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([columns, *rows])
    (inner / f"m_{name}_acc.json").write_text(json.dumps({"Overall": 0.5}))
    (inner / "status.json").write_text("{}")
    return folder / "m"


def test_vlmevalkit_tables(tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, [1, 0, "1.0", "0"])
    for path in (folder, folder / "T20260102-030405"):
        found = load_any(path)
        assert (found.harness, found.model, list(found.tasks)) == ("vlmevalkit", "m", ["MMStar"])
        assert [o.score for o in found.tasks["MMStar"].draws.values()] == [1, 0, 1, 0]
        assert found.tasks["MMStar"].draws["2", 0].level == "easy"
    with pytest.raises(ForeignError, match="no table beside it has scores"):
        load_any(vlm_folder(tmp_path / "raw", [1, 0], scored=False))
    with pytest.raises(ForeignError, match="no score between 0 and 1"):
        load_any(vlm_folder(tmp_path / "odd", [1, "great"]))


def test_a_failed_prediction_of_vlmevalkit_was_not_measured(tmp_path: Path) -> None:
    rows = [
        {"index": 0, "prediction": "A", "hit": 1, "answer": "A"},
        {"index": 1, "prediction": "Failed to obtain answer via API.", "hit": 0, "answer": "B"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "columns.json").write_text(json.dumps({k: {str(r["index"]): r[k] for r in rows} for k in rows[0]}))
    for name in ("rows.json", "columns.json"):
        (task,) = load_any(tmp_path / name).tasks.values()
        assert [o.measured for o in task.draws.values()] == [True, False]


def inspect_sample(number: int, value: Json, epoch: int = 1, **more: Json) -> dict[str, Json]:
    return {
        "id": number,
        "epoch": epoch,
        "input": "q",
        "target": "7",
        "metadata": {"level": 2},
        "scores": {"match": {"value": value}, "other": {"value": "C"}},
        "model_usage": {"judge/x": {"output_tokens": 999}, "openai/m": {"output_tokens": 40 + number}},
        "output": {"choices": [{"stop_reason": "max_tokens" if number == 2 else "stop"}]},
    } | more


HEADER: dict[str, Json] = {"version": 2, "status": "success", "eval": {"task": "evals/gsm8k", "model": "openai/m"}}


def eval_file(path: Path, samples: list[dict[str, Json]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(HEADER))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    return path


def test_inspect_logs(tmp_path: Path) -> None:
    samples = [inspect_sample(i, v, e) for i, v in ((1, "C"), (2, "I"), (3, 0.5)) for e in (1, 2)]
    samples += [inspect_sample(4, "C", 1, error={"message": "m"}), inspect_sample(4, "C", 2, scores=None)]
    plain = tmp_path / "log.json"
    plain.write_text(json.dumps(HEADER | {"samples": samples}))
    zipped = eval_file(tmp_path / "log.eval", samples)
    for path in (plain, zipped):
        found = load_any(path)
        draws = found.tasks["gsm8k"].draws
        assert (found.harness, found.model) == ("inspect", "openai/m")
        assert [draws[str(i), 1].score for i in (1, 2, 3)] == [1.0, 0.0, 0.5]
        assert draws["3", 0].tokens == 43 and draws["2", 0].truncated and draws["1", 0].level == "2"
        assert [draws["4", k].cause for k in (0, 1)] == ["server", "unscored"]
        assert "there are also other" in found.notes[0]
    assert compare_paths(plain, f"{zipped}::other", changed=True).tasks[0].measured == 6


def test_a_zip_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = eval_file(tmp_path / "log.eval", [inspect_sample(1, "C", input="x" * 200_000)])
    monkeypatch.setattr(inspect_log, "LARGEST_MEMBER", 100_000)
    with pytest.raises(ForeignError, match="unpacks to more than 100,000 bytes"):
        load_any(path)
    monkeypatch.setattr(inspect_log, "LARGEST_TOTAL", 100_000)
    with pytest.raises(ForeignError, match="more than 100,000"):
        load_any(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"samples_t_{TIME}.jsonl", '{"doc_id": 0, "exact_match": 1.0}\n{"doc_id": 1, "exa'),
        (f"samples_t_{TIME}.jsonl", '{"doc_id": 0, "perplexity": 17.5}\n'),
        (f"samples_t_{TIME}.jsonl", '{"doc_id": 0, "exact_match": 1.0}\n{"doc_id": 1, "exact_match": 9}\n'),
        (f"samples_t_{TIME}.jsonl", '{"doc_id": 0, "ares": {"draws": [{}]}, "doc": {"id": 1}, "acc": 1}\n'),
        (f"results_{TIME}.json", "{}"),
        ("log.json", '{"version": 2, "eval": 3}'),
        ("log.json", '{"version": 2, "eval": {}, "samples": [{"epoch": 1}]}'),
        ("log.json", '{"version": 2, "eval": {}, "samples": [{"id": 1, "epoch": "x"}]}'),
        ("log.json", "[" * 100_000),
        ("rows.json", '[{"index": 1, "hit": 1}, {"hit": 1}]'),
        ("table.tsv", "index\tprediction\n1\tA\n"),
        ("table.tsv", "a\tb\n"),
        ("other.txt", "text"),
    ],
)
def test_broken_files_are_errors_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert main(["compare", str(path), str(path)]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
