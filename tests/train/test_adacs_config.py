"""AdaCS's settings: what cannot be is refused with the reason, overrides reach everything, keys are never stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ares_eval.config import ConfigError
from ares_train.adacs import config as adacs_config
from ares_train.adacs import store
from ares_train.adacs.config import from_dict
from tests.train.adacs_corpus import configured


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["ingest.sources.0.feilds.id=x"], "unknown setting 'ingest.sources\\[0\\].feilds'; did you mean fields"),
        (["sample.estimator.ask.temprature=1"], "did you mean temperature"),
        (["sample.estimator.ask.datasets=all"], "does not say how a model is asked"),
        (["rate.min_valid=0"], "rate.min_valid: expected `int` >= 1"),
        (["ingest.sources.0.hub=a/b"], "give either path or hub"),
        (["select.zero=resample"], "sample.resample asks for no further draws"),
        (["sample.estimator.engine=vllm"], "needs sample.executor ray"),
        (['sample.estimator.traces=[{"path": "x"}]'], "give either ask or traces"),
        (["sample"], "must be section.key=value"),
        (["ingest.sources.7.name=x"], "has no entry 7"),
    ],
)
def test_settings_that_cannot_be(changes: list[str], told: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(configured(tmp_path / "a.jsonl").settings()))
    with pytest.raises(ConfigError, match=told):
        adacs_config.load(file, changes).sample.estimator.run_config()


def test_overrides_reach_everything_and_settings_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(configured(tmp_path / "a.jsonl").settings()))
    changes = [
        "ingest.sources.0.limit=3",
        "rate.tokenizer=t",
        "sample.estimator.ask.temperature=0.7",
        "write.val_share=0.1",
    ]
    loaded = adacs_config.load(file, changes)
    assert loaded.ingest.sources[0].limit == 3
    assert loaded.sample.estimator.run_config().temperature == 0.7
    assert (loaded.rate.tokenizer, loaded.write.val_share) == ("t", 0.1)
    assert from_dict(loaded.settings()) == loaded


def test_a_default_that_is_given_is_the_same_setting(tmp_path: Path) -> None:
    least = {"ingest": {"sources": [{"name": "a", "path": "x"}]}}
    given = from_dict(
        {
            "ingest": {"sources": [{"name": "a", "path": "x", "split": "train", "fields": {"answer": "answer"}}]},
            "lengths": {"min_questions": 20},
            "select": {"seed": 0},
        }
    )
    left_out = from_dict(least)
    assert left_out.settings() == given.settings()
    assert store.fingerprint(left_out) == store.fingerprint(given)
    shown = left_out.settings()
    assert shown["rate"]["min_valid"] == 4
    assert shown["ingest"]["sources"][0]["fields"]["question"] == "question"
    assert store.fingerprint(from_dict({**least, "lengths": {"min_questions": 21}})) != store.fingerprint(given)


def test_the_example_configuration_loads() -> None:
    file = Path(__file__).resolve().parents[2] / "configs" / "train" / "adacs.yaml"
    loaded = adacs_config.load(file)
    assert loaded.sample.estimator.run_config().eval_threads == 256
    assert loaded.sample.teacher is not None
    assert loaded.sample.teacher.run_config().model_name == "teacher"
    assert loaded.ingest.contamination.require_all


def test_keys_are_never_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    config = configured(tmp_path / "a", sample={"teacher": {"ask": {"model_name": "t"}, "api_key_env": "TEACHER_KEY"}})
    assert config.sample.teacher is not None
    key = config.sample.teacher.run_config().openai_api_key
    assert key is not None
    assert key.value == "sk-secret"
    assert "sk-secret" not in json.dumps(config.settings())
