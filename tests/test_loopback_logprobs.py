"""Log-probs are a distribution, the same in streams and plain replies, and written in each server's way."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback import chat, logprobs
from tests.loopback.options import DIALECTS
from tests.loopback.text import BLOCK, filler, joined, tokenise

# Letters, digits, white space, and characters of two, three and four bytes.
TEXT = st.text(st.sampled_from("ab Z09.\n\\{}é∠😀中"), max_size=60)


@given(TEXT)
def test_tokens_are_the_text(text):
    assert joined(tokenise(text)) == text


@given(st.integers(0, 300), st.integers(0, 20))
def test_filler_has_its_length_and_no_answer(length, variant):
    assert len(filler(length, variant)) == length
    assert not any(character in joined(list(filler(length, variant))) for character in "\\{}0123456789=")


@given(TEXT.filter(bool), st.text(max_size=4))
def test_top_is_sorted_and_less_than_one(text, key):
    for position in logprobs.positions(tokenise(text), key):
        top = position.top(20)
        values = [logprob for _, logprob in top]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1
        assert len({token for token, _ in top}) == 20
        assert (position.token in {token for token, _ in top}) == (position.rank < 20)


def test_entropy_in_closed_form_is_the_sum():
    for position in logprobs.positions(tokenise("a few words to look at"), "k"):
        exact = sum(-math.exp(x) * x for x in (position.logprob(rank) for rank in range(2000)))
        assert position.entropy() == pytest.approx(exact, abs=1e-4)


def _form(dialect: str, **more) -> chat.Form:
    return chat.Form(dialect, "m", "id", logprobs=True, top=3, key="0", **more)


def _choice(text: str, length: int = 2 * BLOCK + 3) -> chat.Choice:
    return chat.Choice((), filler(length, 1), tuple(tokenise(text)), "stop")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("step", [1, 5])
def test_stream_carries_the_same_entries(dialect, step):
    choice = _choice(" ∠😀 done é.")
    plain = json.loads(chat.whole(_form(dialect), [choice]))["choices"][0]
    entries, text = [], ""
    for event, _ in chat.chunks(_form(dialect, chunk_tokens=step), [choice], include_usage=False):
        if event.startswith(b"data: {"):
            part = json.loads(event[6:])["choices"][0]
            entries += part["logprobs"]["content"] if part["logprobs"] else []
            text += part["delta"].get("content") or ""
    assert text == plain["message"]["content"]
    assert entries == plain["logprobs"]["content"]


def _entries(dialect: str, text: str, k: int | None = 3, **more) -> list[dict]:
    form = chat.Form(dialect, "m", "id", logprobs=True, top=k, key="0", **more)
    entries = json.loads(chat.whole(form, [_choice(text)]))["choices"][0]["logprobs"]
    return entries and entries["content"]


def test_openai_rebuilds_the_text_from_bytes():
    choice = _choice(" ∠😀 done é.")
    entries = _entries("openai", " ∠😀 done é.")
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == choice.text
    assert len(entries) == choice.tokens
    assert _entries("openai", "x", k=None)[0]["top_logprobs"] == []


def test_vllm_puts_the_sampled_token_first_and_ends_with_the_end():
    entries = _entries("vllm", " ∠ done.")
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
    assert {len(entry["top_logprobs"]) for entry in entries} == {3}
    assert any(
        entry["top_logprobs"] != sorted(entry["top_logprobs"], key=lambda each: -each["logprob"]) for entry in entries
    )
    assert (entries[-1]["token"], bytes(entries[-1]["bytes"]).decode()) == (logprobs.END, logprobs.END)
    assert len(entries) == _choice(" ∠ done.").tokens + 1
    halves = [number for number, entry in enumerate(entries) if entry["token"] == "" and entry["bytes"] == []]
    assert [bytes(entries[number + 1]["bytes"]).decode().strip() for number in halves] == ["∠"]
    assert _entries("vllm", "x", k=None)[0]["top_logprobs"] == []
    assert _entries("vllm", "x", token_ids=True)[0]["token"].startswith("token_id:")


def test_llamacpp_merges_characters_and_gives_twenty_unasked():
    entries = _entries("llamacpp", " ∠😀 done.")
    assert "".join(entry["token"] for entry in entries) == _choice(" ∠😀 done.").text
    assert len(entries) - 1 == _choice(" ∠😀 done.").tokens - 2
    assert (entries[-1]["token"], entries[-1]["bytes"]) == ("", [])
    assert {len(entry["top_logprobs"]) for entry in _entries("llamacpp", "x", k=None)} == {20}
    assert _entries("llamacpp", "x", k=0) is None
    listed = [any(each["id"] == entry["id"] for each in entry["top_logprobs"]) for entry in entries[:-1]]
    assert any(listed)
    assert not all(listed)


def test_lmdeploy_leaves_the_sampled_token_out_and_shows_raw_pieces():
    entries = _entries("lmdeploy", " done\n.")
    assert all(entry["token"] not in {each["token"] for each in entry["top_logprobs"]} for entry in entries)
    assert {len(entry["top_logprobs"]) for entry in entries} == {2, 3}
    assert [entry["token"] for entry in entries[-4:]] == ["Ġdone", "Ċ", ".", logprobs.END]
    assert bytes(entries[-4]["bytes"]).decode() == "Ġdone"
