"""Stands in for another environment's Python: real ares-eval, but it asks a loopback server instead of starting one.

``loop_evaluator.py -m ares_eval.cli run --config FILE ...``, as ares_train.loop.child calls it. The folder that was to
be served tells how good the "model" is (``huggingface/quality.json``); ``$LOOP`` names a folder with ``urls.json``, the
``journal`` of what was evaluated, and files that make it misbehave once: ``fail`` (exit code), ``resave`` and ``prune``
(paths, see below).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(os.environ["LOOP"])


def main(words: list[str]) -> int:
    """Exit code of ares-eval, or of a planned failure."""
    assert words[:3] == ["-m", "ares_eval.cli", "run"], words
    from ares_eval import cli

    if "--dry-run" in words:
        return cli.main(words[2:])
    file = Path(words[words.index("--config") + 1])
    settings = json.loads(file.read_text())
    kind, _, served = settings.pop("serve").partition(":")
    assert kind == "hf"
    quality = json.loads((Path(served) / "quality.json").read_text())
    with (HERE / "journal").open("a") as journal:
        journal.write(json.dumps({"served": served, "revision": settings["model_revision"], **quality}) + "\n")
    if (code := _once("fail")) is not None:
        print(f"planned failure {code}", file=sys.stderr)
        return int(code)
    urls = json.loads((HERE / "urls.json").read_text())
    changed = file.with_name("loopback.yaml")
    changed.write_text(json.dumps({**settings, "openai_base_url": urls["right" if quality["right"] else "wrong"]}))
    code = cli.main(["run", "--config", str(changed), *words[words.index("--config") + 2 :]])
    if (path := _once("prune")) is not None:
        shutil.rmtree(path)
    if (path := _once("resave")) is not None:
        # In place, as torch.save and safetensors do it: every hard link sees it.
        Path(path).write_bytes(b"weights of another training")
    return code


def _once(name: str) -> str | None:
    """The first line of a plan, which is then taken off; None where nothing is planned."""
    plan = HERE / name
    lines = plan.read_text().splitlines() if plan.exists() else []
    plan.write_text("\n".join(lines[1:]))
    return lines[0] if lines else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
