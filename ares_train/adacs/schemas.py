"""The columns of every parquet file of a work folder.

``qid`` is the question's content hash (questions.py), ``draw`` numbers the replies of one question and pool from 0.
Tokens are counted by the one tokenizer that ``rate.tokenizer`` names, unless a column says otherwise.
"""

from __future__ import annotations

import pyarrow as pa

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

QUESTIONS = pa.schema(
    [
        ("qid", pa.string()),
        ("source", pa.string()),
        ("modality", pa.string()),  # text | image
        ("messages", pa.list_(MESSAGE)),  # the prompt; each `<image>` stands for the next of `images`
        ("images", pa.list_(pa.string())),  # paths or URLs; [] for text
        ("references", pa.list_(pa.string())),  # accepted answers, any of them
        ("answer_type", pa.string()),
        ("answer_policy", pa.string()),  # JSON object
        ("choices", pa.list_(pa.string())),
        ("extra", pa.string()),  # JSON object: the columns that were asked to be kept
    ]
)

SAMPLES = pa.schema(
    [
        ("qid", pa.string()),
        ("source", pa.string()),
        ("draw", pa.int16()),
        ("text", pa.string()),  # null where not measured; "" where a recorded verdict came without text
        ("reasoning", pa.string()),  # thinking that the server returned apart, "" where none
        ("finish_reason", pa.string()),
        ("completion_tokens", pa.int32()),  # as the server counted; null where it did not say
        ("cause", pa.string()),  # why it was not measured; null where it was
        ("seed", pa.int64()),
        ("key", pa.string()),  # hash of the request; of the row for ready-made traces
        ("entropy", pa.list_(pa.float32())),  # nats a token, lower bound from log-probs; null without
        ("correct", pa.int8()),  # recorded verdict as in RATED; null: rate decides
        ("tokens", pa.int32()),  # recorded length under rate.tokenizer; null: rate counts
        ("think_tokens", pa.int32()),  # recorded with `tokens`; null: rate counts, or 0 where there is no text
    ]
)

RIGHT, WRONG, UNVERIFIABLE, NOT_MEASURED = 1, 0, -1, -2
"""Values of ``correct``."""

RATED = pa.schema(
    [
        ("qid", pa.string()),
        ("pool", pa.string()),  # estimator | teacher
        ("draw", pa.int16()),
        ("source", pa.string()),
        ("modality", pa.string()),
        ("tokens", pa.int32()),  # the whole response; null where not measured
        ("think_tokens", pa.int32()),  # its thinking, tags left out; null where not measured
        ("correct", pa.int8()),  # RIGHT, WRONG, UNVERIFIABLE or NOT_MEASURED
        ("reason", pa.string()),  # of a verdict other than right, or the cause of -2
        ("truncated", pa.bool_()),  # ended by the token limit: its length is censored
        ("well_formed", pa.bool_()),
        ("triggers", pa.int32()),  # trigger words of ares_eval/analysis/trigger_words.txt
        ("hwe", pa.int32()),  # high-window-entropy tokens; null without entropy
        ("sample_part", pa.string()),  # file that holds the text, relative to W (samples/estimator/part-00000.parquet)
    ]
)

RATES = pa.schema(
    [
        ("qid", pa.string()),
        ("source", pa.string()),
        ("modality", pa.string()),
        ("n_valid", pa.int16()),
        ("n_correct", pa.int16()),
        ("p", pa.float64()),
        ("tier", pa.int8()),  # round half up of 8 p, 0 to 8
        ("flags", pa.string()),  # words with commas: few_valid (n_valid below the draws asked for)
    ]
)

DROPPED = pa.schema([("qid", pa.string()), ("reason", pa.string())])

QUARANTINE = pa.schema(
    [("source", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("id", pa.string())]
)

SELECTED = pa.schema(
    [
        ("qid", pa.string()),
        ("pool", pa.string()),
        ("draw", pa.int16()),
        ("source", pa.string()),
        ("tier", pa.int8()),
        ("p", pa.float64()),
        ("target", pa.float64()),  # tokens; null where there is no length rule
        ("tokens", pa.int32()),
        ("set", pa.string()),  # adacs | vanilla
    ]
)

SFT = pa.schema(
    [
        ("messages", pa.list_(MESSAGE)),
        ("images", pa.list_(pa.struct([("image", pa.string())]))),  # [] and never null, for verl
        ("qid", pa.string()),
        ("source", pa.string()),
        ("pool", pa.string()),
        ("draw", pa.int16()),
        ("tier", pa.int8()),
        ("p", pa.float64()),
        ("target", pa.float64()),
        ("tokens", pa.int32()),
    ]
)
