"""lm-eval's own evaluator on recorded replies, in a process of its own: what our results are compared with.

Reads JSON from standard input: ``tasks`` (a list of name, include_path, chat, limit, and the recorded replies as
[task, document, draw, text]); writes, for each, the prompts it would have sent, in order, and its results.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections import defaultdict
from typing import Any


def evaluate(asked: dict[str, Any]) -> dict[str, Any]:
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    recorded: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for task, doc, draw, text in asked["replies"]:
        recorded[task, doc][draw] = text
    prompts: list[Any] = []

    class Recorded(LM):
        MULTIMODAL = True
        tokenizer_name = ""

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return json.dumps(chat_history)

        def chat_template(self, chat_template: Any = False) -> str:
            return ""

        def answer(self, requests: list[Any]) -> Any:
            draws: dict[int, int] = defaultdict(int)
            for one in requests:
                yield one, recorded[one.task_name, one.doc_id][draws[id(one)]]
                draws[id(one)] += 1

        def generate_until(self, requests: list[Any]) -> list[str]:
            out = []
            for one, text in self.answer(requests):
                visual = one.args[2]["visual"] if len(one.args) > 2 else []
                prompts.append(
                    [one.task_name, one.doc_id, json.loads(one.args[0]), one.args[1], list(map(png, visual))]
                )
                out.append(text)
            return out

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            out = []
            for one, text in self.answer(requests):
                prompts.append([one.task_name, one.doc_id, list(one.args), None, []])
                out.append(tuple(json.loads(text)[one.idx]))
            return out

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise NotImplementedError

    folder = asked["include_path"]
    manager = TaskManager(include_path=folder, include_defaults=False) if folder else all_tasks()
    found = lm_eval.simple_evaluate(
        model=Recorded(),
        tasks=[asked["name"]],
        limit=asked["limit"],
        task_manager=manager,
        apply_chat_template=asked["chat"],
        fewshot_as_multiturn=asked["chat"],
        bootstrap_iters=asked["bootstrap_iters"],
        log_samples=True,
    )
    samples = {
        name: [[s["doc_id"], s["filter"], s["doc_hash"], {m: s[m] for m in s["metrics"]}] for s in rows]
        for name, rows in found["samples"].items()
    }
    return {"prompts": prompts, "results": found["results"], "groups": found.get("groups", {}), "samples": samples}


_KEPT: list[Any] = []


def all_tasks() -> Any:
    """The manager with lm-eval's own tasks, built once: it takes ten seconds."""
    from lm_eval.tasks import TaskManager

    if not _KEPT:
        _KEPT.append(TaskManager())
    return _KEPT[0]


def png(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers = [evaluate(asked) for asked in json.load(sys.stdin)]
    json.dump(answers, out, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    out.close()
