"""Which training questions are benchmark questions: by equal text, by shared n-grams, by equal or like pictures.

A question matches a benchmark's question

- ``exact``: their texts have the same normal form (grams.normal), with or without the options;
- ``ngram``: at least ``overlap`` of the n-grams (13 words or signs) of the one that has fewer stand in the other too;
  benchmark questions of less than two such n-grams' length are compared by shorter ones (7), of which
  ``short_overlap`` must agree;
- ``picture_exact``: a picture has the same bytes;
- ``picture_near``: dHashes differ by at most ``picture_bits``, shapes are alike, and thumbnails correlate.

What a benchmark's question asks of its picture may be said in a few words that any other says too ("Find the value of
x."): where fewer than ``ngram`` words of it are its own, only the picture counts. The share of n-grams is counted
against those that are no boilerplate (benchmark_index.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ares_eval import tasks
from ares_eval.config import user_cache
from ares_train.adacs import pictures, store
from ares_train.adacs.benchmark_index import BenchmarkIndex, Postings, index_of
from ares_train.adacs.config import ContaminationConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.grams import WordHasher, Words, exact_key, grams
from ares_train.adacs.pictures import Seen

Kind: TypeAlias = Literal["exact", "ngram", "picture_exact", "picture_near"]
KINDS: tuple[Kind, ...] = ("exact", "ngram", "picture_exact", "picture_near")

ASPECT = 0.05
"""Natural logarithm of the ratio of two pictures' shapes up to which they may be the same picture, scaled."""


@dataclass(frozen=True, slots=True)
class Match:
    """A question's match with one benchmark. ``score``: share of n-grams, or correlation of thumbnails; 1 for equal."""

    kind: Kind
    task: str
    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Checked:
    """A benchmark that was held against: its questions and pictures, and where its data came from."""

    questions: int
    pictures: int
    unreadable: int
    source: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was compared: benchmarks checked, and those that were not with the cause."""

    checked: dict[str, Checked]
    unchecked: dict[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A training question: its text, the same with its options, and its pictures."""

    text: str
    with_options: str
    seen: Sequence[Seen]


def benchmarks(config: ContaminationConfig) -> tuple[str, ...]:
    """The tasks that are checked. Raises UnknownTask."""
    if config.tasks.strip().lower() == "none":
        return ()
    if config.tasks.strip().lower() == "all":
        return tuple(name for name in tasks.names() if not name.startswith("smoke"))
    return tasks.resolve(config.tasks)


def gather(config: ContaminationConfig, note: Callable[[str], None]) -> tuple[tuple[BenchmarkIndex, ...], Coverage]:
    """The indexes of all benchmarks whose data can be had, and which they are.

    Raises AdacsError where ``require_all`` is set and one cannot be had.
    """
    folder = config.cache_dir or user_cache() / "contamination"
    found: list[BenchmarkIndex] = []
    checked: dict[str, Checked] = {}
    unchecked: dict[str, str] = {}
    try:
        names = benchmarks(config)
    except tasks.UnknownTask as error:
        raise AdacsError(f"ingest.contamination.tasks: {error}") from error
    for name in names:
        try:
            task = tasks.load(name, dataset_dir=config.dataset_dir)
            index = index_of(task, config.ngram, config.short_ngram, folder)
        except tasks.TaskError as error:
            unchecked[name] = getattr(error, "cause", str(error))
            continue
        found.append(index)
        checked[name] = Checked(index.questions, len(index.dhash), index.unreadable, task.source)
    if unchecked:
        note(f"decontamination: {len(unchecked)} of {len(names)} benchmarks are NOT checked: {', '.join(unchecked)}")
        if config.require_all:
            first = next(iter(unchecked.items()))
            raise AdacsError(
                f"contamination.require_all: {len(unchecked)} benchmarks cannot be had ({first[0]}: {first[1]}); "
                "give contamination.dataset_dir"
            )
    return tuple(found), Coverage(checked, unchecked)


class Matcher:
    """Holds batches of training questions against all indexes at once. Remembers words, nothing else."""

    def __init__(self, indexes: Sequence[BenchmarkIndex], config: ContaminationConfig) -> None:
        self._config = config
        self._tasks = [index.task for index in indexes]
        self._ids = [question for index in indexes for question in index.ids]
        sizes = np.array([index.questions for index in indexes], dtype=np.int64)
        self._base = np.concatenate([[0], np.cumsum(sizes)])
        joined = [(index, int(base)) for index, base in zip(indexes, self._base, strict=False)]
        self._says = _concat([~index.image | (index.own >= config.ngram) for index in indexes], np.bool_)
        enough = _concat([index.own >= config.short_ngram for index in indexes], np.bool_)
        self._long = _merged([(index.long, base) for index, base in joined], self._says & enough)
        self._short = _merged([(index.short, base) for index, base in joined], self._says & enough)
        exact = _concat([index.exact for index in indexes], np.uint64)
        told = np.flatnonzero(self._says & (exact != 0))
        order = told[np.argsort(exact[told], kind="stable")]
        self._exact, self._exact_question = exact[order], order
        self._sha256: dict[bytes, list[int]] = {}
        for index, base in joined:
            for digest, shown in zip(index.sha256, index.shown_by, strict=True):
                self._sha256.setdefault(digest.tobytes(), []).append(int(shown) + base)
        alike = [index.alike for index in indexes]
        self._dhash = _concat([i.dhash[a] for i, a in zip(indexes, alike, strict=True)], np.uint64)
        self._aspect = _concat([i.aspect[a] for i, a in zip(indexes, alike, strict=True)], np.float64)
        thumbnails = [i.thumbnails[a] for i, a in zip(indexes, alike, strict=True)]
        self._thumbnails = np.concatenate([np.zeros((0, pictures.SIDE**2), np.uint8), *thumbnails])
        self._shown_by = _concat([i.shown_by[i.alike] + base for i, base in joined], np.int64)
        self._hasher = WordHasher()

    def match(self, asked: Sequence[Asked]) -> list[list[Match]]:
        """For each question its best match with each benchmark, in the order of KINDS within one."""
        if not self._ids:
            return [[] for _ in asked]
        found: list[dict[int, tuple[Kind, int, float]]] = [{} for _ in asked]
        words = self._hasher([one.with_options for one in asked])
        self._equal_texts(asked, found)
        self._shared(words, self._config.ngram, self._long, self._config.overlap, found)
        self._shared(words, self._config.short_ngram, self._short, self._config.short_overlap, found)
        for number, one in enumerate(asked):
            for seen in one.seen:
                self._pictures(seen, found[number])
        return [[self._match(hit) for _, hit in sorted(hits.items())] for hits in found]

    def _match(self, hit: tuple[Kind, int, float]) -> Match:
        kind, question, score = hit
        return Match(kind, self._tasks[self._task_of(question)], self._ids[question], round(score, 4))

    def _task_of(self, question: int) -> int:
        return int(np.searchsorted(self._base, question, side="right")) - 1

    def _put(self, hits: dict[int, tuple[Kind, int, float]], kind: Kind, question: int, score: float) -> None:
        """Keep the best match with the question's benchmark: by kind, then by score."""
        task = self._task_of(question)
        known = hits.get(task)
        if known is None or (KINDS.index(kind), -score, question) < (KINDS.index(known[0]), -known[2], known[1]):
            hits[task] = (kind, question, score)

    def _equal_texts(self, asked: Sequence[Asked], found: Sequence[dict[int, tuple[Kind, int, float]]]) -> None:
        texts = [(number, text) for number, one in enumerate(asked) for text in {one.text, one.with_options}]
        keys = np.array([exact_key(text) for _, text in texts], dtype=np.uint64)
        left = np.searchsorted(self._exact, keys, side="left")
        right = np.searchsorted(self._exact, keys, side="right")
        for hit in np.flatnonzero(right > left).tolist():
            for place in range(left[hit], right[hit]):
                self._put(found[texts[hit][0]], "exact", int(self._exact_question[place]), 1.0)

    def _shared(
        self,
        words: Words,
        n: int,
        held: Postings,
        threshold: float,
        found: Sequence[dict[int, tuple[Kind, int, float]]],
    ) -> None:
        hashes, owners = grams(words, n)
        if not len(hashes) or not len(held.hashes):
            return
        left = np.searchsorted(held.hashes, hashes, side="left")
        there = np.flatnonzero(held.hashes[np.minimum(left, len(held.hashes) - 1)] == hashes)
        if not len(there):
            return
        left, owners_there = left[there], owners[there]
        counts = np.searchsorted(held.hashes, hashes[there], side="right") - left
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        questions = held.questions[np.repeat(left, counts) + within].astype(np.int64)
        pairs, shared = np.unique(np.repeat(owners_there, counts) * len(held.sizes) + questions, return_counts=True)
        owner, question = np.divmod(pairs, len(held.sizes))
        own_grams = np.maximum(words.lengths - n + 1, 1)
        share = np.minimum(shared / np.minimum(own_grams[owner], held.sizes[question]), 1.0)
        for hit in np.flatnonzero(share >= threshold).tolist():
            self._put(found[owner[hit]], "ngram", int(question[hit]), float(share[hit]))

    def _pictures(self, seen: Seen, hits: dict[int, tuple[Kind, int, float]]) -> None:
        for question in self._sha256.get(bytes.fromhex(seen.sha256), ()):
            self._put(hits, "picture_exact", question, 1.0)
        like = seen.likeness
        if like is None or not len(self._dhash):
            return
        near = np.bitwise_count(self._dhash ^ np.uint64(like.dhash)) <= self._config.picture_bits
        places = np.flatnonzero(near & (np.abs(self._aspect - like.aspect) <= ASPECT))
        if not len(places):
            return
        scores = pictures.correlation(like.thumbnail, self._thumbnails[places])
        for place, score in zip(places.tolist(), scores.tolist(), strict=True):
            if score >= self._config.picture_correlation:
                self._put(hits, "picture_near", int(self._shown_by[place]), score)


def digest(config: ContaminationConfig, coverage: Coverage, indexes: Sequence[BenchmarkIndex]) -> str:
    """Of all that decides over a match: for the fingerprints of what is filtered by it."""
    settings = [
        config.ngram,
        config.short_ngram,
        config.overlap,
        config.short_overlap,
        config.picture_bits,
        config.picture_correlation,
    ]
    content = [
        [i.task, i.ids, store.fingerprint(i.exact.tolist()), store.fingerprint(i.dhash.tolist())] for i in indexes
    ]
    return store.fingerprint(settings, content, sorted(coverage.unchecked))


def _concat(arrays: Sequence[np.ndarray], kind: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *arrays])


def _merged(parts: Sequence[tuple[Postings, int]], counted: np.ndarray) -> Postings:
    """The postings of all benchmarks in one sorted list, of those questions whose text counts."""
    hashes = _concat([postings.hashes for postings, _ in parts], np.uint64)
    questions = _concat([postings.questions.astype(np.int64) + base for postings, base in parts], np.int64)
    sizes = _concat([postings.sizes for postings, _ in parts], np.int32)
    kept = counted[questions] if len(questions) else np.zeros(0, np.bool_)
    hashes, questions = hashes[kept], questions[kept]
    order = np.argsort(hashes, kind="stable")
    return Postings(hashes[order], questions[order].astype(np.int32), sizes)
