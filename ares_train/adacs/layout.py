"""Where everything lies in a work folder W. Stages know each other only by these places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Pool: TypeAlias = Literal["estimator", "teacher"]
"""Who answered: the model whose pass rate is difficulty, or the model whose traces may be trained on."""

POOLS: tuple[Pool, ...] = ("estimator", "teacher")

SampleSet: TypeAlias = Literal["estimator", "resample", "teacher"]
"""What is asked apart: resample holds further draws of the pool estimator, numbered on from its first ones."""

SAMPLE_SETS: tuple[SampleSet, ...] = ("estimator", "resample", "teacher")


def pool_of(sample_set: SampleSet) -> Pool:
    """The pool whose replies a set of samples holds."""
    return "teacher" if sample_set == "teacher" else "estimator"


@dataclass(frozen=True, slots=True)
class Layout:
    """The places in the work folder ``work``. Parts are ``part-NNNNN.parquet`` (store.Stage)."""

    work: Path

    @property
    def config(self) -> Path:
        """The resolved configuration of the last command."""
        return self.work / "config.json"

    @property
    def questions(self) -> Path:
        """Stage folder of ingest, schema QUESTIONS."""
        return self.work / "questions"

    @property
    def pictures(self) -> Path:
        """Pictures that came inside of rows, by content: ``pictures/ab/SHA256.ext``."""
        return self.work / "pictures"

    @property
    def question_drops(self) -> Path:
        """Questions that ingest left out (duplicate, contaminated, ...), schema DROPPED."""
        return self.questions / "dropped.parquet"

    @property
    def quarantine(self) -> Path:
        """Rows that could not become questions, schema QUARANTINE."""
        return self.questions / "quarantine.parquet"

    @property
    def ingest_report(self) -> Path:
        """Counts of ingest by source and reason, JSON."""
        return self.questions / "report.json"

    @property
    def contamination_report(self) -> Path:
        """Matches with each benchmark, JSON (and .md beside it)."""
        return self.questions / "contamination.json"

    def samples(self, sample_set: SampleSet) -> Path:
        """Stage folder of sample, schema SAMPLES; its parts have the numbers of the questions' parts."""
        return self.work / "samples" / sample_set

    @property
    def rated(self) -> Path:
        """Stage folder of rate, schema RATED (narrow: no text); its parts have the numbers of the questions' parts."""
        return self.work / "rated"

    @property
    def rate_drops(self) -> Path:
        """Questions without a pass rate, schema DROPPED. They are not in ``rates``."""
        return self.rated / "dropped.parquet"

    @property
    def rate_report(self) -> Path:
        """Verdict counts, tokenizer, HWE threshold, JSON."""
        return self.rated / "report.json"

    @property
    def rates(self) -> Path:
        """One row a rateable question, schema RATES."""
        return self.work / "rates.parquet"

    @property
    def lengths(self) -> Path:
        """L(0) and L(1) per source, JSON."""
        return self.work / "lengths.json"

    @property
    def selected(self) -> Path:
        """The chosen responses, schema SELECTED."""
        return self.work / "selected.parquet"

    @property
    def vanilla(self) -> Path:
        """The control set, schema SELECTED."""
        return self.work / "vanilla.parquet"

    @property
    def dropped(self) -> Path:
        """Every rateable question that was not selected, and ``rate_drops``, schema DROPPED."""
        return self.work / "dropped.parquet"

    @property
    def selection(self) -> Path:
        """What select did, JSON: questions by tier (there, with a candidate, chosen), drops by reason."""
        return self.work / "selection.json"

    @property
    def sft_parts(self) -> Path:
        """Stage folder of write: the rows of both sets, checked; its parts have the numbers of the questions' parts."""
        return self.work / "sft" / "parts"

    @property
    def sft_report(self) -> Path:
        """Rows and tokens of each file, rows left out by reason, JSON."""
        return self.work / "sft" / "report.json"

    def sft(self, chosen: str, modality: str, split: str) -> Path:
        """verl's SFT rows of one set (adacs, vanilla), modality (text, image) and split (train, val), schema SFT."""
        return self.work / "sft" / chosen / f"{modality}-{split}.parquet"

    def maker(self, path: Path) -> str:
        """The stage that makes a file of the work folder."""
        first = path.relative_to(self.work).parts[0]
        known = {
            "questions": "ingest",
            "samples": "sample",
            "rated": "rate",
            self.rates.name: "rate",
            self.lengths.name: "lengths",
            "sft": "write",
            "report": "report",
        }
        return known.get(first, "select")

    @property
    def report(self) -> Path:
        """Folder of report.html, report.json and report.md."""
        return self.work / "report"
