"""`python -m benchmarks.adacs_ingest`: how fast questions are taken in and held against benchmarks.

Questions of 60 words are compared with a synthetic benchmark of 30,000 questions of the same length, about as many as
`tasks/` have; pictures of a megapixel are decoded, hashed and compared with 20,000 likenesses; the whole stage is run
over text questions. Seconds are CPU seconds of one core. Run it in the training environment.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ares_eval.types import AnswerSpec, Message, Sample, TextPart
from ares_train.adacs import benchmark_index, ingest, pictures
from ares_train.adacs.benchmark_index import BenchmarkIndex
from ares_train.adacs.config import ContaminationConfig, from_dict
from ares_train.adacs.contamination import Asked, Matcher

WORDS = 60
VOCABULARY = 30_000
HELD = 30_000
PICTURES = 20_000


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=50_000)
    parser.add_argument("--pictures", type=int, default=200)
    asked = parser.parse_args()
    config = ContaminationConfig()
    indexes: list[BenchmarkIndex] = []
    rate("benchmark questions indexed", HELD, lambda: indexes.append(index(config)))
    matcher = Matcher(indexes, config)
    texts = list(questions(1, asked.questions))
    rows = [Asked(text, text, ()) for text in texts]

    def compare() -> None:
        for start in range(0, len(rows), 1024):
            matcher.match(rows[start : start + 1024])

    rate("questions compared by text", len(rows), compare)
    files = [
        drawing(seed, kind) for seed, kind in zip(range(asked.pictures), ("JPEG", "PNG") * asked.pictures, strict=False)
    ]
    seen: list[pictures.Seen] = []
    rate("pictures of 1024 x 1024 decoded and hashed", len(files), lambda: seen.extend(map(pictures.look, files)))
    shown = [Asked("x", "x", [one]) for one in seen]
    rate("pictures compared", len(shown), lambda: matcher.match(shown))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "questions.jsonl"
        lines = (json.dumps({"question": text, "answer": "1"}) for text in texts)
        source.write_text("\n".join(lines), encoding="utf-8")
        whole = from_dict(
            {"ingest": {"sources": [{"name": "s", "path": str(source)}], "contamination": {"tasks": "none"}}}
        )
        rate(
            "rows through ingest, comparison apart", len(texts), lambda: ingest.run(whole, Path(folder) / "w", _silent)
        )
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def rate(what: str, count: int, work: Callable[[], object]) -> None:
    """Do ``work`` and print how many a CPU second it did."""
    began = time.process_time()
    work()
    seconds = time.process_time() - began
    print(f"{what}: {count / seconds:,.0f} a second ({count:,} in {seconds:.1f} s)", flush=True)


def questions(seed: int, count: int) -> Iterator[str]:
    """Texts of WORDS words, which occur as often as words do (Zipf)."""
    chance = np.random.default_rng(seed)
    drawn = np.minimum(chance.zipf(1.2, size=(count, WORDS)), VOCABULARY)
    for row in drawn.tolist():
        yield " ".join(f"w{word}" for word in row)


def index(config: ContaminationConfig) -> BenchmarkIndex:
    """The index of a benchmark of HELD questions and PICTURES likenesses, all made up."""
    samples = (
        Sample("held", str(n), (Message("user", (TextPart(text),)),), "1", AnswerSpec(), str(n))
        for n, text in enumerate(questions(0, HELD))
    )
    made = benchmark_index.made_of("held", samples, config.ngram, config.short_ngram)
    chance = np.random.default_rng(0)
    fields = {
        "sha256": chance.integers(0, 256, (PICTURES, 32), dtype=np.uint8),
        "dhash": chance.integers(0, 2**63, PICTURES).astype(np.uint64),
        "aspect": np.zeros(PICTURES),
        "thumbnails": chance.integers(0, 256, (PICTURES, pictures.SIDE**2), dtype=np.uint8),
        "alike": np.ones(PICTURES, dtype=np.bool_),
        "shown_by": np.arange(PICTURES, dtype=np.int32),
    }
    return BenchmarkIndex(**{**{name: getattr(made, name) for name in made.__dataclass_fields__}, **fields})


def drawing(seed: int, kind: str) -> bytes:
    """A picture of coloured boxes."""
    from PIL import Image

    chance = random.Random(seed)
    image = Image.new("RGB", (1024, 1024), "white")
    for _ in range(60):
        x, y = chance.randrange(1024), chance.randrange(1024)
        colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        image.paste(colour, (x, y, x + chance.randrange(20, 300), y + chance.randrange(20, 300)))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def _silent(_line: str) -> None:
    return None


if __name__ == "__main__":
    main()
