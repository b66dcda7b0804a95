"""What is known of one benchmark for comparison: its questions' hashes and its pictures' likenesses, never its texts.

Made once for a task's definition, data and settings, and kept as arrays in a cache folder.

N-grams that stand in more than SHARED questions of the benchmark (groups of variants count once) are its boilerplate
("Hint: please answer with the letter ..."): they say nothing of a question and are left out. ``own`` is the number of a
question's words that no boilerplate n-gram covers; the fewer they are, the less its text alone says (contamination.py).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ares_eval.tasks import Task
from ares_eval.types import Picture, PictureError, PicturePart, Sample, TextPart
from ares_train.adacs import pictures, store
from ares_train.adacs.grams import WordHasher, Words, exact_key, gram_starts, grams

VERSION = 1
SHARED = 10
BATCH = 2048


@dataclass(frozen=True, slots=True)
class Postings:
    """N-grams of one size: ``hashes`` uint64 [M] sorted, ``questions`` int32 [M]; ``sizes`` int32 [S] kept n-grams of
    each question."""

    hashes: np.ndarray
    questions: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True, slots=True)
class BenchmarkIndex:
    """S questions and P pictures of one benchmark.

    ``exact`` uint64 [S]; ``own`` int32 [S] words without boilerplate; ``image`` bool [S]; pictures: ``sha256`` uint8
    [P, 32], ``dhash`` uint64 [P], ``aspect`` f64 [P], ``thumbnails`` uint8 [P, K], ``alike`` bool [P] (has a likeness),
    ``shown_by`` int32 [P] the question. ``unreadable``: pictures that could not be read.
    """

    task: str
    ids: tuple[str, ...]
    exact: np.ndarray
    own: np.ndarray
    image: np.ndarray
    long: Postings
    short: Postings
    sha256: np.ndarray
    dhash: np.ndarray
    aspect: np.ndarray
    thumbnails: np.ndarray
    alike: np.ndarray
    shown_by: np.ndarray
    unreadable: int

    @property
    def questions(self) -> int:
        """S."""
        return len(self.ids)


def index_of(task: Task, ngram: int, short_ngram: int, folder: Path) -> BenchmarkIndex:
    """The index of a task from the cache ``folder``, or made and kept there. Raises TaskError for bad rows."""
    key = store.fingerprint(VERSION, task.name, task.fingerprint, task.dataset_digest, ngram, short_ngram)
    path = folder / f"{task.name.replace(':', '_').replace('/', '_')}-{key[:16]}.npz"
    known = _read(task.name, path) if path.is_file() else None
    if known is not None:
        return known
    made = made_of(task.name, task.samples(), ngram, short_ngram)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(temporary, **_arrays(made))
    temporary.replace(path)
    return made


def question_text(sample: Sample) -> str:
    """All text that the user says in a benchmark's question."""
    return "\n".join(
        "".join(part.text for part in message.parts if isinstance(part, TextPart))
        for message in sample.messages
        if message.role == "user"
    )


def made_of(name: str, samples: Iterator[Sample], ngram: int, short_ngram: int) -> BenchmarkIndex:
    """The index of a benchmark's questions; each picture is decoded once."""
    hasher = WordHasher()
    ids: list[str] = []
    groups: list[str] = []
    exact: list[int] = []
    image: list[bool] = []
    batches: list[Words] = []
    texts: list[str] = []
    seen = _Pictures()
    for number, sample in enumerate(samples):
        text = question_text(sample)
        shown = [part.picture for m in sample.messages for part in m.parts if isinstance(part, PicturePart)]
        ids.append(sample.id)
        groups.append(sample.group)
        exact.append(exact_key(text))
        image.append(bool(shown))
        texts.append(text)
        for picture in shown:
            seen.add(picture, number)
        if len(texts) == BATCH:
            batches.append(hasher(texts))
            texts = []
    batches.append(hasher(texts))
    words = _joined(batches)
    _, group = np.unique(np.array(groups, dtype=str), return_inverse=True) if groups else (None, np.zeros(0, int))
    long, covered = _postings(words, group, ngram)
    short, _ = _postings(words, group, short_ngram, shorter_than=2 * ngram)
    own = np.add.reduceat(np.append(~covered, False), words.offsets[:-1]) if ids else np.zeros(0)
    own = np.where(words.lengths > 0, own, 0)
    return BenchmarkIndex(
        task=name,
        ids=tuple(ids),
        exact=np.array(exact, dtype=np.uint64),
        own=own.astype(np.int32),
        image=np.array(image, dtype=np.bool_),
        long=long,
        short=short,
        sha256=np.array(seen.sha256, dtype=np.uint8).reshape(-1, 32),
        dhash=np.array(seen.dhash, dtype=np.uint64),
        aspect=np.array(seen.aspect, dtype=np.float64),
        thumbnails=np.array(seen.thumbnails, dtype=np.uint8).reshape(-1, pictures.SIDE**2),
        alike=np.array(seen.alike, dtype=np.bool_),
        shown_by=np.array(seen.shown_by, dtype=np.int32),
        unreadable=seen.unreadable,
    )


def _joined(batches: Sequence[Words]) -> Words:
    values = np.concatenate([batch.values for batch in batches])
    lengths = np.concatenate([batch.lengths for batch in batches])
    return Words(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _postings(words: Words, group: np.ndarray, n: int, shorter_than: int | None = None) -> tuple[Postings, np.ndarray]:
    """The n-grams that are no boilerplate; bool [N], the words that boilerplate covers."""
    hashes, owners = grams(words, n)
    starts = gram_starts(words, n)
    shared, counts = np.unique(_pairs(hashes, group[owners])[0], return_counts=True)
    boilerplate = np.isin(hashes, shared[counts > SHARED])
    covered = np.zeros(len(words.values) + 1, dtype=np.int64)
    np.add.at(covered, starts[boilerplate], 1)
    np.add.at(covered, starts[boilerplate] + n, -1)
    kept = ~boilerplate
    if shorter_than is not None:
        kept &= (words.lengths < shorter_than)[owners]
    sizes = np.bincount(owners[kept], minlength=len(words.lengths)).astype(np.int32)
    once, questions = _pairs(hashes[kept], owners[kept])
    return Postings(once, questions.astype(np.int32), sizes), np.cumsum(covered)[:-1] > 0


def _pairs(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs, sorted by hash."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    first = np.ones(len(hashes), dtype=np.bool_)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[first], owners[first]


class _Pictures:
    """The pictures of a benchmark, gathered."""

    def __init__(self) -> None:
        self.sha256: list[list[int]] = []
        self.dhash: list[int] = []
        self.aspect: list[float] = []
        self.thumbnails: list[np.ndarray] = []
        self.alike: list[bool] = []
        self.shown_by: list[int] = []
        self.unreadable = 0
        self._known: set[str] = set()

    def add(self, picture: Picture, question: int) -> None:
        try:
            seen = pictures.look(picture.read())
        except (PictureError, OSError):
            self.unreadable += 1
            return
        if seen.sha256 in self._known:
            return
        self._known.add(seen.sha256)
        like = seen.likeness
        self.sha256.append(list(bytes.fromhex(seen.sha256)))
        self.dhash.append(like.dhash if like else 0)
        self.aspect.append(like.aspect if like else 0.0)
        self.thumbnails.append(like.thumbnail if like else np.zeros(pictures.SIDE**2, dtype=np.uint8))
        self.alike.append(like is not None)
        self.shown_by.append(question)


_PLAIN = ("exact", "own", "image", "sha256", "dhash", "aspect", "thumbnails", "alike", "shown_by")


def _arrays(index: BenchmarkIndex) -> dict[str, Any]:
    arrays: dict[str, Any] = {name: getattr(index, name) for name in _PLAIN}
    for name in ("long", "short"):
        postings: Postings = getattr(index, name)
        arrays |= {f"{name}_hashes": postings.hashes, f"{name}_questions": postings.questions}
        arrays[f"{name}_sizes"] = postings.sizes
    return {**arrays, "ids": np.array(index.ids, dtype=str), "unreadable": np.array(index.unreadable)}


def _read(task: str, path: Path) -> BenchmarkIndex | None:
    """A kept index; None for a file that is broken, so that it is made anew."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        return _of_arrays(task, arrays)
    except (OSError, EOFError, ValueError, TypeError, LookupError, BadZipFile, zlib.error):
        return None


def _of_arrays(task: str, arrays: dict[str, Any]) -> BenchmarkIndex:
    postings: dict[str, Any] = {
        name: Postings(arrays[f"{name}_hashes"], arrays[f"{name}_questions"], arrays[f"{name}_sizes"])
        for name in ("long", "short")
    }
    return BenchmarkIndex(
        task=task,
        ids=tuple(arrays["ids"].tolist()),
        unreadable=int(arrays["unreadable"]),
        **postings,
        **{name: arrays[name] for name in _PLAIN},
    )
