"""The reply cache: whole replies only, shared between processes, asked once."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.inference.cache import FILE, Cache
from ares_eval.types import Reply, TokenTrace, Usage


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def trace(length: int) -> TokenTrace:
    values = np.linspace(0, 1, length, dtype=np.float32)
    return TokenTrace(tuple("t" * length), -values, values, values + 1, values / 2, 20, "topk-bounds", 49152, True)


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text(), st.one_of(st.none(), st.text(max_size=10)), st.integers(0, 2**40))
def test_a_reply_comes_back_as_it_was_put(text: str, reasoning: str, finish: str | None, tokens: int) -> None:
    import tempfile

    reply = Reply(text, reasoning, finish, Usage(3, tokens, None, True), "m", "fp", 1.5)
    with tempfile.TemporaryDirectory() as folder, closing(Cache(Path(folder))) as cache:
        cache.put([(key(1), "m", reply)])
        found = cache.get([key(1), key(2)])
    assert list(found) == [key(1)]
    back = found[key(1)]
    assert (back.text, back.reasoning, back.finish_reason, back.usage) == (text, reasoning, finish, reply.usage)
    assert back.cached


def test_traces_come_back(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        cache.put([(key(1), "m", Reply("x", trace=trace(7)))])
        back = cache.get([key(1)])[key(1)].trace
    assert back is not None
    assert back.tokens == tuple("t" * 7)
    np.testing.assert_array_equal(back.entropy_high, trace(7).entropy_high)
    assert (back.top, back.estimator, back.vocabulary, back.end) == (20, "topk-bounds", 49152, True)


def test_many_keys_at_once(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        cache.put((key(i), "m", Reply(str(i))) for i in range(2500))
        found = cache.get([key(i) for i in range(3000)])
    assert len(found) == 2500
    assert all(found[key(i)].text == str(i) for i in range(0, 2500, 97))


def test_a_corrupt_entry_is_dropped_and_counted(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        cache.put([(key(1), "m", Reply("right")), (key(2), "m", Reply("also right"))])
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        value = bytearray(db.execute("SELECT value FROM replies WHERE key = ?", (key(1),)).fetchone()[0])
        value[3] ^= 1
        db.execute("UPDATE replies SET value = ? WHERE key = ?", (bytes(value), key(1)))
    with closing(Cache(tmp_path)) as cache:
        assert list(cache.get([key(1), key(2)])) == [key(2)]
        assert cache.dropped == 1
        assert cache.stats().entries == 1


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"rubbish " * 4096)
    with closing(Cache(tmp_path)) as cache:
        cache.put([(key(1), "m", Reply("new"))])
        assert cache.get([key(1)])[key(1)].text == "new"
    assert [path.read_bytes()[:7] for path in tmp_path.glob(f"{FILE}.broken-*")] == [b"rubbish"]


def test_a_claim_is_exclusive_and_given_back(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as one, closing(Cache(tmp_path)) as other:
        assert one.claim(key(1))
        assert not other.claim(key(1))
        assert other.claim(key(2))
        one.release(key(1))
        assert other.claim(key(1))


def test_a_killed_process_gives_its_claims_back(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ares_eval.inference.cache import Cache\n"
        f"c = Cache(Path({str(tmp_path)!r})); assert c.claim({key(1)!r}); print('claimed', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "claimed\n"
    with closing(Cache(tmp_path)) as cache:
        assert not cache.claim(key(1))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert cache.claim(key(1))


def test_export_import_and_prune(tmp_path: Path) -> None:
    with closing(Cache(tmp_path / "a")) as cache:
        cache.put([(key(i), f"m{i % 2}", Reply(str(i), trace=trace(3))) for i in range(10)])
        lines = list(cache.export())
        assert cache.prune(model="m0") == 5
        assert cache.stats().models == {"m1": 5}
    damaged = lines[0].replace(b'"checksum":', b'"checksum":1')
    with closing(Cache(tmp_path / "b")) as cache:
        assert cache.load([*lines[1:], damaged, b"{}\n", b"rubbish"]) == (9, 3)
        assert cache.load(lines[1:]) == (0, 0)
        assert cache.stats().entries == 9


def test_nothing_secret_is_stored(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        cache.put([(key(1), "m", Reply("answer"))])
    assert b"sk-" not in (tmp_path / FILE).read_bytes()
    assert set(Reply.__dataclass_fields__).isdisjoint({"key", "base_url", "headers"})


def test_an_unusable_folder_is_one_clear_error(tmp_path: Path) -> None:
    from ares_eval.inference.cache import CacheError

    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="--cache-dir"):
        Cache(tmp_path / "file" / "cache")
