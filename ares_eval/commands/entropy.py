"""Token entropies of a finished run, computed over its recorded replies.

  ares-eval entropy RUN --scorer hf:PATH     exact, by a forward pass of the checkpoint at PATH (extra [hf])
  ares-eval entropy RUN --scorer URL         bounds, from the prompt log-probs of a vLLM server at URL

They are written beside the run's own traces, which stay as they are, and `ares-eval analyze` prefers them. The scorer
must be the model that replied; where the run has log-probs of its own, both are compared and a mismatch is said.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ares_eval.analysis.scoring import Scorer, ScoringReport
    from ares_eval.records import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval entropy``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--scorer", required=True, help="hf:PATH (a folder or a name on the hub), or a server's URL")
    parser.add_argument("--device", help="hf: as torch names it (default: cuda where there is one, else cpu)")
    parser.add_argument("--temperature", type=float, default=1.0, help="hf: of the distribution (default: 1)")
    parser.add_argument("--model-name", help="URL: the server's name of the model (default: the run's)")
    parser.add_argument("--top", type=int, default=20, help="URL: prompt log-probs at each token (default: 20)")
    parser.add_argument("--vocabulary-size", type=int, help="URL: tokens of the vocabulary, which bounds the tail")
    parser.add_argument("--openai-api-key", help="URL: the key (default: OPENAI_API_KEY)")


def run(args: argparse.Namespace) -> int:
    """Score; 0 when all replies have entropies, 3 when some were skipped, 2 for usage, 4 when none could be scored."""
    from ares_eval.analysis.score_server import ScorerRefused
    from ares_eval.analysis.scoring import score_run
    from ares_eval.inference.servers.ask import Unreachable
    from ares_eval.records import RunError, load_run

    try:
        found = load_run(args.run)
        scorer = _scorer(args, found)
    except ImportError as error:
        print(f"ares-eval entropy: {error}; install the extra: pip install 'ares[hf]'", file=sys.stderr)
        return 2
    except (RunError, ValueError, OSError) as error:
        print(f"ares-eval entropy: {error}", file=sys.stderr)
        return 2
    try:
        report = score_run(found, scorer, _show if sys.stderr.isatty() else None)
    except RunError as error:
        print(f"ares-eval entropy: {error}", file=sys.stderr)
        return 2
    except (ScorerRefused, Unreachable) as error:
        print(f"ares-eval entropy: {args.scorer}: {error}", file=sys.stderr)
        return 4
    _print(report)
    if report.scored + report.kept == 0:
        return 4
    return 3 if report.skipped else 0


def _scorer(args: argparse.Namespace, found: Run) -> Scorer:
    kind, _, path = args.scorer.partition(":")
    if kind == "hf" and path:
        from ares_eval.analysis.score_hf import HfScorer

        return HfScorer(path, temperature=args.temperature, device=args.device)
    if kind not in ("http", "https"):
        raise ValueError(f"--scorer {args.scorer}: give hf:PATH or the URL of a vLLM server")
    from ares_eval.analysis.score_server import ServerScorer
    from ares_eval.inference.transport import Endpoint

    endpoint = Endpoint(args.scorer, args.openai_api_key or os.environ.get("OPENAI_API_KEY"))
    model = args.model_name or str(found.manifest.get("model"))
    return ServerScorer(endpoint, model, top=args.top, vocabulary=args.vocabulary_size)


def _show(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done}/{total} replies", end=end, file=sys.stderr, flush=True)


def _print(report: ScoringReport) -> None:
    from ares_eval.analysis.scoring import SLACK

    print(f"{report.scored} replies scored, {report.kept} were scored before")
    for reason, count in sorted(report.skipped.items()):
        print(f"{count} not scored: {reason}")
    if report.logprob_difference is not None:
        print(f"log-probs differ from the recorded ones by {report.logprob_difference:.4f} nats (median)")
    if report.inside is not None:
        print(f"{100 * report.inside:.2f} % of entropies lie within the recorded bounds, to {SLACK} nats")
    if report.suspicious:
        print("the scorer seems not to be the model that replied, or renders the questions otherwise", file=sys.stderr)
