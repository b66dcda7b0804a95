"""Recorded replies are found by question, options and picture; nothing is guessed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import aiohttp
import pytest

from tests.loopback.recorded import Recordings, native, picture_files

SHARED = Path(os.environ.get("ARES_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_draws_in_turn_or_by_seed(tmp_path):
    file = write(
        tmp_path / "r.jsonl", [{"id": "0", "question": "How many legs has a spider?", "responses": list("abc")}]
    )
    recordings = Recordings([str(file)])
    found = recordings.find("Answer briefly.\nHow many  legs has\na spider?\nThink first.", [])
    assert [recordings.draw(found, None) for _ in range(4)] == ["a", "b", "c", "a"]
    assert recordings.draw(found, 4) == "b"
    assert recordings.find("How many legs has a horse?", []) is None


def test_same_text_is_told_apart_by_picture_and_by_options(tmp_path):
    base = tmp_path / "bench"
    (base / "images").mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (base / "images" / name).write_bytes(name.encode())
    rows = [{"id": n, "question": "<image1> What comes next?", "image": f"images/{n}.png"} for n in (1, 2)]
    rows += [{"id": n, "question": "Which one is it?", "options": [f"the {n}th", "none"]} for n in (3, 4)]
    write(base / "data" / "test.jsonl", rows)
    replies = write(tmp_path / "r.jsonl", [{"id": str(n), "response": f"reply {n}"} for n in (1, 2, 3, 4)])
    recordings = Recordings([f"{replies}={base}"])
    assert recordings.find("What comes next?", [data_url(b"2.png")]).responses == ["reply 2"]
    assert recordings.find("What comes next?", [data_url(b"3.png")]) is None
    assert recordings.find("What comes next?", []) is None
    assert recordings.find("Which one is it? (A) the 4th (B) none", []).responses == ["reply 4"]
    with pytest.raises(ValueError, match="join"):
        Recordings([str(replies)])


def test_a_server_answers_as_recorded(start_loopback, tmp_path):
    said = "Eight. \\boxed{8} ∠ 中文\n\n  done "
    rows = [{"id": "0", "question": "How many legs has a spider?", "response": said}, {"id": "1", "question": "Silence?", "response": ""}]  # fmt: skip # noqa: E501
    server = start_loopback(recorded=[write(tmp_path / "r.jsonl", rows)])

    async def ask(question: str) -> tuple[int, dict]:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/chat/completions", json=body) as reply,
        ):
            return reply.status, await reply.json()

    _, reply = asyncio.run(ask("How many legs has a spider?"))
    assert reply["choices"][0]["message"]["content"] == said
    _, reply = asyncio.run(ask("Silence?"))
    assert (reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]) == ("", 1)
    assert asyncio.run(ask("Who knows?"))[0] == 422


@pytest.mark.parametrize(
    ("file", "folder", "share"),
    [
        ("gsm8k/175b_verification.jsonl", "", 1.0),
        ("math/math_cot_8samples.jsonl", "", 1.0),
        ("mathvision/Gemini-Pro-CoT.jsonl", "mathvision", 1.0),
        ("mmlu_pro/Qwen1.5-72B-Chat.jsonl", "mmlu_pro", 0.99),
        ("logicvista/GPT4.jsonl", "logicvista", 0.99),
        ("bbh/code-davinci-002-cot.jsonl", "bbh", 1.0),
    ],
)
def test_real_recordings_are_found(file, folder, share):
    path, base = SHARED / "recorded" / file, SHARED / "benchmarks" / folder
    if not path.exists():
        pytest.skip(f"no recorded replies at {path}")
    recordings = Recordings([f"{path}={base}" if folder else str(path)])
    known = native(base) if folder else {}
    pictures = picture_files(base) if folder else {}
    rows = [row for row in map(json.loads, path.open(encoding="utf-8")) if row.get("same_options") is not False][:400]
    hits = 0
    for row in rows:
        source = known.get(str(row["id"]), row)
        question = source.get("question") or source.get("input")
        options = "\n".join(map(str, source.get("options") or []))
        name = Path(str(source.get("image") or source.get("imagename"))).name
        urls = [data_url(pictures[name].read_bytes())] if name in pictures else []
        found = recordings.find(f"Please answer.\n{question}\n{options}\n", urls)
        if found is not None:
            assert found.responses == (row.get("responses") or [row["response"]])
            hits += 1
    assert hits >= share * len(rows)
