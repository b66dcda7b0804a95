"""The run's folder: appended whole, repaired after a crash, written by one process."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval import records, traces
from ares_eval.records import RunError, RunWriter, latest, load_run, read_records
from ares_eval.types import AnswerSpec, Record, TokenTrace, Usage, Verdict, WireMessage


def record(sample: str, draw: int = 0, **more: object) -> Record:
    base: dict[str, object] = {
        "text": "the answer is 4",
        "verdict": Verdict("correct", "box>number:exact", span=(1, 2)),
    }
    return Record(task="t", sample=sample, draw=draw, group=sample, key="k", prompt="p", **(base | more))


def failed(sample: str, cause: str = "server") -> Record:
    return record(sample, text=None, verdict=None, cause=cause)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.integers(0, 5)), max_size=8))
def test_records_come_back_as_they_went(rows: list[tuple[str, str, int]]) -> None:
    import tempfile

    spec = AnswerSpec("choice", {"multi": True}, ("one", "two"))
    with tempfile.TemporaryDirectory() as folder:
        written = [record(sample, draw, text=text, answer=spec, usage=Usage(1, 2)) for sample, text, draw in rows]
        with RunWriter(Path(folder)) as writer:
            for one in written:
                writer.append(one)
        assert list(read_records(Path(folder) / records.SAMPLES)) == written


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with RunWriter(Path(folder)) as writer:
            for i in range(4):
                writer.append(record(str(i)))
        path = Path(folder) / records.SAMPLES
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert len(list(read_records(path))) == kept
        with RunWriter(Path(folder)) as writer:
            writer.append(record("new"))
        assert [one.sample for one in read_records(path)] == [*map(str, range(kept)), "new"]


def test_a_measured_record_is_never_replaced_by_a_failure() -> None:
    rows = [failed("a"), record("a", text="first"), failed("a"), failed("b"), failed("b", "timeout")]
    kept = {one.sample: one for one in latest(rows)}
    assert kept["a"].text == "first"
    assert kept["b"].cause == "timeout"


def test_a_line_that_is_no_record_names_file_and_line(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.append(record("a"))
    with (tmp_path / records.SAMPLES).open("ab") as file:
        file.write(b'{"task": 1}\n')
    with pytest.raises(RunError, match=r"samples.jsonl, line 2"):
        list(read_records(tmp_path / records.SAMPLES))


def test_traces_lie_beside_and_come_back(tmp_path: Path) -> None:
    values = np.array([0.5, 1.5], dtype=np.float32)
    trace = TokenTrace(("a", "b"), -values, values, values * 2, values / 4, 5, "topk-bounds", None, False)
    with RunWriter(tmp_path) as writer:
        first = writer.append(record("a"), trace)
        writer.append(record("b"), trace)
        writer.write(records.MANIFEST, {"status": "complete"})
    run = load_run(tmp_path)
    for one in run.records():
        back = run.trace(one)
        assert back is not None
        np.testing.assert_array_equal(back.logprob, -values)
    assert first.trace is not None
    broken = first.trace.__class__(first.trace.file, first.trace.offset + 1, first.trace.length)
    with pytest.raises(RunError, match="no trace"):
        records.read_trace(tmp_path, broken)


def test_a_trace_of_foreign_bytes_is_refused() -> None:
    for rubbish in (b"", b"\x00" * 40, b"\x99" + b"\xc0" * 9):
        with pytest.raises(ValueError, match="not a token trace"):
            traces.unpack(rubbish)


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    with RunWriter(tmp_path), pytest.raises(RunError, match="another process"):
        RunWriter(tmp_path)
    with RunWriter(tmp_path) as writer:
        writer.append(record("a"))


def test_prompts_are_written_once(tmp_path: Path) -> None:
    messages = [WireMessage("user", ("What is 2 + 2?",))]
    for _ in range(2):
        with RunWriter(tmp_path) as writer:
            writer.append_prompt("t", "a", "digest", messages)
            writer.append_prompt("t", "a", "digest", messages)
    assert len((tmp_path / records.PROMPTS).read_bytes().splitlines()) == 1


def test_a_full_disk_is_one_clear_error_and_keeps_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with room for a few more bytes."""

        def __init__(self, file: object) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            self.file.write(data[:10])  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")

    with RunWriter(tmp_path) as writer:
        writer.append(record("a"))
        monkeypatch.setattr(writer._samples, "_file", Full(writer._samples._file))
        with pytest.raises(RunError, match="no space left"):
            writer.append(record("b"))
    assert [one.sample for one in read_records(tmp_path / records.SAMPLES)] == ["a"]
    assert (tmp_path / records.SAMPLES).read_bytes().endswith(b"\n")


def test_a_folder_without_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run"):
        load_run(tmp_path)
