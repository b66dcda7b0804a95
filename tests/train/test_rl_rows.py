"""verl's rows to AEPO's arrays and back: forks, masks, padding rows, and what reaches which token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from ares_eval.analysis.words import trigger_words
from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.state import AEPOState
from ares_train.aepo.step import Shaped, shape
from ares_train.rl import rows
from ares_train.rl.fields import KL_CLASS, KL_WEIGHT, RECORD, session_record


def nested(values: list[list[float]], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in values], layout=torch.jagged)


def queue_rows() -> tuple[list[str], list[dict[str, Any]], Any]:
    """Two questions in an order of their own; b's second row is a fork of its first at 2; one padding row."""
    sessions = [
        ("b", 1, session_record(base=False, parent=0, fork_at=2, truncated=True), 0.0, 0.0, 5),
        ("a", 0, session_record(base=True, quantile=1.5), 1.0, 1.0, 3),
        ("b", 0, session_record(base=True, quantile=0.5), 1.0, 1.0, 4),
        ("padx", 0, session_record(base=True, quantile=9.0), 0.0, 0.0, 1),
        ("a", 1, session_record(base=True), 0.0, 0.25, 2),
    ]
    keys = [f"{uid}_{session}_0" for uid, session, *_ in sessions]
    tags = [{"is_padding": True} if uid == "padx" else {} for uid, *_ in sessions]
    extra = [{RECORD: record, "reward_extra_info": {"acc": acc}} for _, _, record, acc, *_ in sessions]
    masks = [[0, 0, 1, 1, 1], [1, 1, 1], [1, 1, 1, 1], [0], [1, 1]]
    data = TensorDict(
        {
            "uid": NonTensorStack.from_list([NonTensorData(uid) for uid, *_ in sessions]),
            "response_mask": nested(masks, torch.int64),
            "rm_scores": nested([[0.0] * (length - 1) + [score] for *_, score, length in sessions]),
            "entropy": nested([[row + at / 10 for at in range(length)] for row, (*_, length) in enumerate(sessions)]),
            "extra_fields": NonTensorStack.from_list([NonTensorData(value) for value in extra]),
        },
        batch_size=len(sessions),
    )
    return keys, tags, data


def test_rows_become_arrays() -> None:
    made = rows.read(*queue_rows())
    assert made.places.tolist() == [0, 1, 2, 4]
    arrays = made.rollouts
    assert arrays.question.tolist() == [1, 0, 1, 0]
    assert arrays.parent.tolist() == [2, -1, -1, -1]
    assert arrays.fork_at.tolist() == [2, 0, 0, 0]
    assert arrays.base.tolist() == [False, True, True, True]
    assert arrays.truncated.tolist() == [True, False, False, False]
    assert arrays.correct.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert made.scores.tolist() == [0.0, 1.0, 1.0, 0.25]
    # The inherited prefix counts as written, but is not the fork's own.
    assert arrays.mask.sum(axis=1).tolist() == [5, 3, 4, 2]
    assert arrays.own[0].tolist() == [False, False, True, True, True]
    assert arrays.entropy[1].tolist() == pytest.approx([1.0, 1.1, 1.2, 0, 0])
    assert np.isnan(arrays.rollout_quantile).tolist() == [True, False, False, True]


def test_without_acc_the_score_decides() -> None:
    keys, tags, data = queue_rows()
    data["extra_fields"] = NonTensorStack.from_list([NonTensorData({}) for _ in keys])
    made = rows.read(keys, tags, data)
    assert made.rollouts.correct.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert made.rollouts.base.all()


def test_a_fork_without_its_parent_is_refused() -> None:
    keys, tags, data = queue_rows()
    keys[2] = "c_0_0"
    with pytest.raises(rows.BadRow, match="b_0_0"):
        rows.read(keys, tags, data)


def test_rewards_sit_on_the_last_token_and_padding_gets_none() -> None:
    made = rows.read(*queue_rows())
    values = rows.rewards(made, np.array([0.5, 1.0, -0.25, 0.0])).unbind()
    assert [row.tolist() for row in values] == [[0, 0, 0, 0, 0.5], [0, 0, 1.0], [0, 0, 0, -0.25], [0], [0, 0]]
    # Back and forth changes no bit: what verl logs as the score is what the reward function gave.
    assert torch.equal(rows.rewards(made, made.scores).values(), queue_rows()[2]["rm_scores"].values())


def test_advantages_leave_masked_tokens_out() -> None:
    made = rows.read(*queue_rows())
    mask = queue_rows()[2]["response_mask"]
    values = rows.advantages(made, np.array([2.0, -1.0, 0.5, 0.0]), mask).unbind()
    assert values[0].tolist() == [0, 0, 2, 2, 2]
    assert values[1].tolist() == [-1, -1, -1]
    assert values[3].tolist() == [0]


def test_kl_fields_reach_the_right_tokens() -> None:
    made = rows.read(*queue_rows())
    config = AEPOConfig.from_dict({"window": {"size": 2, "quantile": 0.5}, "kl": {"rho": 0.5}})
    shaped = shape(made.rollouts, AEPOState(), config)
    fields = rows.kl_fields(made, shaped)
    for place, number in zip(made.places.tolist(), range(4), strict=True):
        length = int(made.lengths[place])
        assert fields[KL_WEIGHT][place].tolist() == pytest.approx(shaped.kl_weight[number, :length].tolist())
        expected = [
            1 + 2 * int(shaped.bins[number]) + int(shaped.valid[number, at]) if made.rollouts.mask[number, at] else 0
            for at in range(length)
        ]
        assert fields[KL_CLASS][place].tolist() == expected
    assert fields[KL_WEIGHT][3].tolist() == [0] and fields[KL_CLASS][3].tolist() == [0]
    assert {0.5, 1.0} <= set(fields[KL_WEIGHT].values().tolist())


def test_dropped_questions_have_no_class() -> None:
    made = rows.read(*queue_rows())
    shaped: Shaped = shape(made.rollouts, AEPOState(), AEPOConfig())
    dropped = replace(shaped, keep=made.rollouts.question == 0)
    fields = rows.kl_fields(made, dropped)
    assert not fields[KL_CLASS][0].any() and not fields[KL_CLASS][2].any()
    assert fields[KL_CLASS][1].all()


def test_trigger_words_are_marked_across_tokens() -> None:
    keys, tags, data = queue_rows()
    texts = {1: " so", 2: " wa", 3: "it", 4: " the", 5: "re", 0: "-"}
    responses = [[4, 5, 2, 3, 1], [1, 1, 1], [2, 3, 4, 4], [0], [2, 4]]
    data["responses"] = nested(responses, torch.int64)
    made = rows.read(keys, tags, data, words=trigger_words(["wait"]), texts=lambda ids: [texts[token] for token in ids])
    assert made.rollouts.trigger is not None
    assert made.rollouts.trigger.astype(int).tolist() == [
        [0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0],
    ]  # fmt: skip
