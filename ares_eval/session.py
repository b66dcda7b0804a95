"""One process's part of a run: ask what is not yet recorded, judge each reply, append it.

A reply that failed is never judged, and what was recorded is never asked again. Verdicts come from other threads; what
goes wrong there is raised in the run's own thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ares_eval import interrupts, manifest, plan, records, results, tasks
from ares_eval.connection import allow_open_files, endpoint_of, secrets_of, transport_of
from ares_eval.inference.cache import Cache
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.inference.transport import Endpoint
from ares_eval.progress import Progress
from ares_eval.task_metrics import GROUP_METRICS
from ares_eval.tasks import official, scoring
from ares_eval.types import Failure, Json, PictureError, Record, Reply, Request, Sample, TextPart, Verdict
from ares_eval.verify import Verifier

if TYPE_CHECKING:
    from ares_eval.config import RunConfig
    from ares_eval.inference.servers import RunningServer

VERDICTS_UNDER_WAY = 2000
"""Replies that may wait for their verdict before no further request is sent: bounds memory when answers are slow."""


@dataclass(slots=True)
class TaskSet:
    """The tasks of a run and what is asked of each."""

    tasks: dict[str, tasks.Task]
    unavailable: dict[str, str]
    """Task to its one-line cause and mend."""
    planned: dict[str, int] = field(default_factory=dict)
    """Draws of each task."""
    questions: Counter[str] = field(default_factory=Counter)
    """Questions seen while asking."""


@dataclass(slots=True)
class _Asked:
    sample: Sample
    prompt: str


class Session:
    """Everything between opening a run's folder and summing up its records."""

    def __init__(
        self,
        config: RunConfig,
        whole: TaskSet,
        model: plan.ModelIdentity,
        writer: records.RunWriter,
        progress: Progress,
        warn: Callable[[str], None],
    ) -> None:
        self.config, self.whole, self.model = config, whole, model
        self.writer, self.progress, self.warn = writer, progress, warn
        self.manifest: dict[str, Json] = {}
        self.resumed = 0
        self.fatal: Failure | None = None
        self.interrupted = False
        self._done: set[tuple[str, str, int]] = set()
        self._asked: dict[tuple[str, str, int], _Asked] = {}
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._verdicts = threading.Semaphore(VERDICTS_UNDER_WAY)
        self._server: RunningServer | None = None
        self._began = time.monotonic()

    def begin(self, digest: str) -> None:
        """Write the manifest, or take up an earlier one."""
        config, whole = self.config, self.whole
        fresh = manifest.create(config, digest, whole.tasks, whole.planned, whole.unavailable)
        path = self.writer.folder / records.MANIFEST
        if path.exists():
            before = records.load_run(self.writer.folder).manifest
            for name, task in whole.tasks.items():
                was = before.get("tasks", {}).get(name, {}).get("dataset_digest")
                if was != task.dataset_digest:
                    raise records.RunError(
                        f"the data of {name} have changed since {self.writer.folder} was begun; "
                        "use --fresh for a new run"
                    )
            fresh["created"] = before.get("created", fresh["created"])
            fresh["timing"] = before.get("timing", {})
        self.manifest = fresh
        self.writer.write(records.MANIFEST, fresh)

    def measure(self) -> None:
        """Ask for every draw that has no measured record yet."""
        before = [r for r in records.read_records(self.writer.folder / records.SAMPLES) if r.measured]
        self._done.update((record.task, record.sample, record.draw) for record in before)
        self.resumed = len(self._done)
        self.progress.start(self.whole.planned, before)
        del before
        config = self.config
        with contextlib.ExitStack() as stack:
            stack.callback(self.progress.stop)
            allow_open_files(config.eval_threads)
            cache = None
            if not config.no_cache:
                cache = stack.enter_context(contextlib.closing(Cache(config.cache_folder())))
            verifier = stack.enter_context(Verifier())
            engine = Engine(
                config.model_name,
                lambda: transport_of(config, self._endpoint()),
                EngineOptions(
                    threads=config.eval_threads,
                    max_retries=config.max_retries,
                    secrets=secrets_of(config, self._endpoint()),
                ),
                cache=cache,
                before_first=lambda: self._meet(engine, stack),
                note=self.warn,
            )
            engine.vocabulary = config.vocabulary_size
            stack.enter_context(engine)
            with interrupts.asked_to_stop(lambda: self._drain(engine)):
                for request, outcome in engine.run(self._requests()):
                    self._take(request, outcome, verifier)
                    status = engine.status
                    self.progress.status(status.in_flight, status.waiting, status.retries, status.limit)
            self._settle()
            self.fatal = engine.fatal
            if self.fatal is not None and self._server is not None and (death := self._server.death()) is not None:
                self.fatal = dataclasses.replace(self.fatal, message=death)
            self.manifest["changes"] = {
                **dataclasses.asdict(engine.changes),
                "max_tokens_lowered": len(engine.lowered),
                "pictures_refused": engine.pictures_refused,
            }
            self.manifest["timing"] = {
                "seconds": round(self.manifest["timing"].get("seconds", 0.0) + time.monotonic() - self._began, 3),
                "requests": self.manifest["timing"].get("requests", 0) + engine.status.sent,
                "retries": self.manifest["timing"].get("retries", 0) + engine.status.retries,
                "from_cache": self.manifest["timing"].get("from_cache", 0) + engine.status.from_cache,
            }
            if cache is not None and cache.dropped:
                self.warn(f"{cache.dropped} entries of the cache were corrupt: dropped and asked for again")

    # ------------------------------------------------------------ what is asked

    def _requests(self) -> Iterator[Request]:
        for name, task in self.whole.tasks.items():
            count = plan.draws(task, self.config)
            for sample in self._samples(task):
                self.whole.questions[name] += 1
                todo = [draw for draw in range(count) if (name, sample.id, draw) not in self._done]
                if not todo:
                    continue
                settings = plan.settings(task, sample, self.config)
                try:
                    asked = plan.prompt(sample, settings)
                except (PictureError, OSError) as error:
                    for draw in todo:
                        self._keep_failure(sample, draw, "", Failure("picture", str(error), attempts=0), "")
                    continue
                self.writer.append_prompt(name, sample.id, asked.digest, asked.messages)
                for request in plan.requests(sample, asked, self.model, settings, iter(todo)):
                    self._asked[name, sample.id, request.draw] = _Asked(sample, asked.digest)
                    yield request

    def _samples(self, task: tasks.Task) -> Iterator[Sample]:
        """The task's samples; a row that cannot be read ends this task, not the run."""
        try:
            yield from task.samples()
        except tasks.TaskError as error:
            self.whole.unavailable[task.name] = str(error)
            self.warn(str(error))

    def metas(self) -> dict[str, results.TaskMeta]:
        """What the results need to know of each task."""
        metas = {}
        asked = set(self.config.datasets.replace(" ", "").split(","))
        named = {suite: held for suite, held in tasks.suites(self.config.include_path).items() if suite in asked}
        for name, task in self.whole.tasks.items():
            seen = self.whole.questions[name]
            groups = dict(Counter(s.group for s in self._samples(task))) if GROUP_METRICS & set(task.metrics) else {}
            metas[name] = results.TaskMeta(
                name=name,
                suites=tuple(sorted(suite for suite, held in named.items() if name in held)),
                metrics=task.metrics,
                questions=max(seen, task.size or 0),
                draws=plan.draws(task, self.config),
                groups=groups,
                own=self._own_metrics(task, max(seen, task.size or 0)),
                scoring=f"official:{rule}" if (rule := plan.official_rule(task, self.config)) else "sound",
                judged=getattr(task, "judged_officially", False),
            )
        return metas

    def _own_metrics(self, task: tasks.Task, questions: int) -> Mapping[str, Json]:
        """What the task's own scorer sums up, where it has one; scores that it knows only now are recorded anew."""
        scorer = task.scorer
        if scorer is None:
            return {}
        found = records.read_records(self.writer.folder / records.SAMPLES)
        kept = {(r.sample, r.draw): r for r in records.latest(r for r in found if r.task == task.name)}
        draws = plan.draws(task, self.config)
        try:
            summary = scorer.summarise(kept.values(), questions=questions, draws=draws)
        except scoring.ScoringFailed as error:
            self.whole.unavailable[task.name] = str(error)
            self.warn(str(error))
            return dict.fromkeys(task.metrics[:1])
        for name, score in summary.scores.items():
            fields = {**kept[name].fields, **score.fields}
            scored = dataclasses.replace(kept[name], verdict=score.verdict, fields=fields)
            if scored != kept[name]:
                self.writer.append(scored)
        return summary.metrics

    # ------------------------------------------------------------ who is asked

    def _endpoint(self) -> Endpoint:
        return endpoint_of(self.config, self._server.base_url if self._server else None)

    def _meet(self, engine: Engine, stack: contextlib.ExitStack) -> None:
        """Before the first request: start the server where we serve; who is it, and does it take pictures?"""
        from ares_eval.inference import probe

        if self.config.serve is not None:
            from ares_eval.inference import servers

            self._server = stack.enter_context(
                servers.start(
                    self.config.serve,
                    extra_args=self.config.serve_args,
                    log_dir=self.writer.folder,
                    model_name=self.config.model_name,
                    notify=self.progress.note,
                )
            )
            engine.vocabulary = engine.vocabulary or self._server.vocabulary
        pictures = any("image" in task.modality for task in self.whole.tasks.values())
        met = probe.meet(self._endpoint(), self.config.model_name, pictures=pictures)
        self.manifest["server"] = dict(self._server.identity) if self._server else {}
        self.manifest["server"]["probe"] = dataclasses.asdict(met)
        self.writer.write(records.MANIFEST, self.manifest)
        if pictures and met.pictures is False:
            engine.pictures_refused = "the server takes no pictures"
            self.warn(f"{self.config.model_name} takes no pictures: such questions are not measured")

    # ------------------------------------------------------------ what comes back

    def _take(self, request: Request, outcome: Reply | Failure, verifier: Verifier) -> None:
        asked = self._asked.pop((request.task, request.sample, request.draw))
        if isinstance(outcome, Failure):
            self._keep_failure(asked.sample, request.draw, request.key, outcome, asked.prompt)
            return
        self._raise_kept_errors()
        self._verdicts.acquire()
        sample = asked.sample
        scorer = self.whole.tasks[request.task].scorer
        future: Future[Verdict] | Future[scoring.Score]
        if scorer is not None:
            future = scorer.submit(sample, request.draw, outcome)
        else:
            future = verifier.submit(outcome.text, sample.reference, sample.answer, question=_question(sample))
        future.add_done_callback(lambda done: self._judged(request, asked, outcome, done))

    def _judged(self, request: Request, asked: _Asked, reply: Reply, done: Future[Any]) -> None:
        """Keep a judged reply; runs in whichever thread the verdict came from."""
        try:
            found: Verdict | scoring.Score = done.result()
            score = scoring.Score(found) if isinstance(found, Verdict) else found
            score = self._officially(request, asked.sample, reply, score)
            record = _record(request, asked, reply, score)
            self.writer.append(record, reply.trace)
            self.progress.record(record)
        except BaseException as error:  # noqa: BLE001 - carried to the run's own thread, which raises it
            self._errors.put(error)
        finally:
            self._verdicts.release()

    def _officially(self, request: Request, sample: Sample, reply: Reply, score: scoring.Score) -> scoring.Score:
        """With `--scoring official`: the score as the benchmark's own script has it, where that differs from ours."""
        rule = plan.official_rule(self.whole.tasks[request.task], self.config)
        if rule is None:
            return score
        seed = f"{request.task}/{request.sample}/{request.draw}"
        verdict = official.decide(rule, reply.text, score.verdict, sample.reference, sample.answer, seed)
        return dataclasses.replace(score, verdict=verdict)

    def _keep_failure(self, sample: Sample, draw: int, key: str, failure: Failure, prompt: str) -> None:
        record = Record(
            task=sample.task,
            sample=sample.id,
            draw=draw,
            group=sample.group,
            key=key,
            prompt=prompt,
            level=sample.level,
            fields=sample.fields,
            reference=sample.reference,
            answer=sample.answer,
            attempts=failure.attempts,
            cause=failure.cause,
            message=failure.message,
            status=failure.status,
        )
        self.writer.append(record)
        self.progress.record(record)

    def _settle(self) -> None:
        """Wait for the verdicts under way."""
        for _ in range(VERDICTS_UNDER_WAY):
            self._verdicts.acquire()
        self._raise_kept_errors()

    def _raise_kept_errors(self) -> None:
        if not self._errors.empty():
            raise self._errors.get()

    def _drain(self, engine: Engine) -> None:
        self.interrupted = True
        self.warn(interrupts.DRAINING)
        engine.drain()


def _record(request: Request, asked: _Asked, reply: Reply, score: scoring.Score) -> Record:
    sample = asked.sample
    return Record(
        task=sample.task,
        sample=sample.id,
        draw=request.draw,
        group=sample.group,
        key=request.key,
        prompt=asked.prompt,
        level=sample.level,
        fields={**sample.fields, **score.fields},
        reference=sample.reference,
        answer=sample.answer,
        text=reply.text,
        reasoning=reply.reasoning,
        finish_reason=reply.finish_reason,
        truncated=reply.finish_reason == "length",
        usage=reply.usage,
        latency=reply.latency,
        attempts=reply.attempts,
        cached=reply.cached,
        served_by=reply.model,
        verdict=score.verdict,
    )


def _question(sample: Sample) -> str:
    return "".join(part.text for part in sample.messages[-1].parts if isinstance(part, TextPart))
