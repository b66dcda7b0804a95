"""Where settings come from, and what makes two runs the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ares_eval import config
from ares_eval.config import ConfigError


def test_the_first_that_names_a_setting_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://environment/v1")
    file = tmp_path / "run.yaml"
    file.write_text("model-name: from-file\ntop_p: 0.5\nmax-tokens: 7\n")
    made = config.load({"config": str(file), "preset": "reasoning", "max_tokens": 9})
    assert (made.model_name, made.temperature, made.top_p, made.max_tokens) == ("from-file", 0.6, 0.5, 9)
    assert made.openai_base_url == "http://environment/v1"
    assert config.load({"openai_base_url": "http://flag/v1/chat/completions"}).openai_base_url == "http://flag/v1"


def test_defaults_are_those_of_the_original() -> None:
    made = config.load({"model_name": "m"})
    assert (made.max_tokens, made.min_pixels, made.max_pixels) == (8192, 262144, 1048576)
    assert (made.temperature, made.top_p, made.eval_threads, made.max_retries) == (0.3, 0.95, 8, 3)
    assert made.datasets == "all"


@pytest.mark.parametrize(
    "text",
    [
        b"tempratur: 1\n", b"- a\n", b"temperature: [\n", b"temperature: hot\n", b"max_pixels: 5\n", b"\xff\xfe",
        b"openai_api_key: 'sk-secret\n", b"openai_api_key: sk-secret: x\n", b"\x00",
    ],
)  # fmt: skip
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as error:
        config.load({"config": str(file)})
    assert "\n" not in str(error.value)
    assert "sk-secret" not in str(error.value)


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("temprature: 1\n")
    with pytest.raises(ConfigError, match="temperature"):
        config.load({"config": str(file)})


def test_secrets_show_nowhere() -> None:
    made = config.load({"model_name": "m", "openai_api_key": "sk-secret", "judge_api_key": "sk-judge"})
    text = f"{made!r}{made.settings()}{made.digest({}, None)}"
    assert "sk-secret" not in text
    assert "sk-judge" not in text


def test_the_digest_follows_what_changes_results_and_nothing_else() -> None:
    base = config.load({"model_name": "m"})
    same = {"openai_base_url": "http://x/v1", "openai_api_key": "k", "eval_threads": 3, "quiet": True, "stream": True}
    other = [{"temperature": 0.1}, {"seed": 1}, {"limit": 5}, {"extra_body": {"a": 1}}, {"max_pixels": 999_999}]
    tasks = {"gsm8k": "f"}
    assert config.load({"model_name": "m", **same}).digest(tasks, None) == base.digest(tasks, None)
    digests = [config.load({"model_name": "m", **change}).digest(tasks, None) for change in other]
    digests += [base.digest({"gsm8k": "g"}, None), base.digest(tasks, "w"), base.digest(tasks, None)]
    assert len(set(digests)) == len(digests)


def test_a_seed_makes_each_draw_its_own() -> None:
    made = config.load({"model_name": "m", "seed": 10})
    assert [made.sampling(draw).seed for draw in range(3)] == [10, 11, 12]
    assert config.load({"model_name": "m"}).sampling(1).seed is None
