"""What is installed here, and what a server can do.

Without a server only the installation is shown. With --openai-base-url (or $OPENAI_BASE_URL) some twenty requests of a
few tokens find out: is the model listed, does it take pictures, are there log-probs and how many, several choices in
one request, where does reasoning go, how long is the context.

examples:
  ares-eval doctor
  ares-eval doctor --openai-base-url http://127.0.0.1:8000/v1 --json
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

from ares_eval import __version__

if TYPE_CHECKING:
    from ares_eval.inference.probe import ServerProbe

PROGRAMS = {
    "llama-server": ("ARES_LLAMA_SERVER", ("llama-server",)),
    "vllm": ("ARES_VLLM_PYTHON", ("vllm",)),
    "lmdeploy": ("ARES_LMDEPLOY_PYTHON", ("lmdeploy",)),
    "chromium (browser tests)": ("", ("chromium", "chromium-browser", "google-chrome")),
}
"""Program -> the environment variable that names it or its environment, and its names on the PATH."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--openai-base-url", metavar="URL", help="server to probe (also $OPENAI_BASE_URL)")
    parser.add_argument("--openai-api-key", metavar="KEY", help="its key (also $OPENAI_API_KEY)")
    parser.add_argument("--model-name", metavar="NAME", help="model to probe [the only one listed]")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0: all is told; 2: the URL is wrong or no model is named; 4: no server there, or it answers no chat."""
    from ares_eval.inference import probe
    from ares_eval.inference.transport import Endpoint

    url = args.openai_base_url or os.environ.get("OPENAI_BASE_URL")
    found = None
    try:
        endpoint = Endpoint(url, args.openai_api_key or os.environ.get("OPENAI_API_KEY")) if url else None
    except ValueError as error:
        print(f"ares-eval doctor: {error}", file=sys.stderr)
        return 2
    here = installation()
    if endpoint is not None:
        found = probe.probe(endpoint, args.model_name)
    if args.json:
        print(json.dumps({**here, "server": dataclasses.asdict(found) if found else None}, indent=2))
    else:
        _show(here, endpoint.base_url if endpoint else None, found)
    if found is None or found.chat:
        return 0
    print(f"ares-eval doctor: {found.error or 'the server cannot be used'}", file=sys.stderr)
    return 2 if found.reachable and found.chat is None else 4


def installation() -> dict[str, Any]:
    """Versions of Python and ares, of each extra's packages (None: not installed), programs' paths, embedded model."""
    from ares_eval.inference.servers import embedded_model, weights
    from ares_eval.inference.servers.process import available_cores

    model = weights.cache_folder() / "models" / embedded_model.MEMBER.rpartition("/")[2]
    return {
        "ares": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": available_cores(),
        "extras": {extra: {name: _version(name) for name in names} for extra, names in _extras().items()},
        "programs": {name: _program(variable, names) for name, (variable, names) in PROGRAMS.items()},
        "embedded_model": str(model) if model.is_file() else None,
    }


def _extras() -> dict[str, list[str]]:
    """Extra -> its packages, from our own metadata; "core" holds what every installation needs."""
    found: dict[str, list[str]] = {"core": []}
    for line in importlib.metadata.requires("ares") or []:
        requirement, _, marker = line.partition(";")
        name = _REQUIREMENT.match(requirement)
        extra = _EXTRA.search(marker)
        if name:
            found.setdefault(extra[1] if extra else "core", []).append(name[1])
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _program(variable: str, names: tuple[str, ...]) -> str | None:
    chosen = os.environ.get(variable) if variable else None
    return shutil.which(chosen) if chosen else next((path for name in names if (path := shutil.which(name))), None)


def _show(here: dict[str, Any], url: str | None, found: ServerProbe | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(f"ares {here['ares']}, Python {here['python']}, {here['platform']}, {here['cores']} cores")
    table = Table("extra", "", "packages", title="installed", title_justify="left")
    for extra, packages in here["extras"].items():
        missing = [name for name, version in packages.items() if version is None]
        words = [f"{name} {version or '-'}" for name, version in packages.items()]
        state = "yes" if not missing else "no" if len(missing) == len(packages) else "in part"
        table.add_row(extra, state, escape(", ".join(words)))
    console.print(table)
    for name, path in here["programs"].items():
        console.print(f"{name}: {path or 'not found'}", markup=False, highlight=False)
    model = here["embedded_model"] or "not fetched yet (93 MB at its first use)"
    console.print(f"embedded model: {model}", markup=False, highlight=False)
    if found is None:
        console.print("no server probed; --openai-base-url URL names one")
        return
    table = Table("of the server", "", title=escape(str(url)), title_justify="left")
    for name, value in describe(found):
        table.add_row(name, escape(value))
    console.print(table)


def describe(found: ServerProbe) -> list[tuple[str, str]]:
    """The rows of the server's table."""

    def truth(value: bool | None, yes: str = "yes", no: str = "no") -> str:
        return "not known" if value is None else yes if value else no

    rows = [("reachable", truth(found.reachable))]
    if not found.reachable:
        return [*rows, ("error", found.error or "")]
    top = "not known" if found.top_logprobs is None else f"{found.top_logprobs} alternatives"
    rows += [
        ("program", " ".join(filter(None, (found.family, found.version))) or "not known"),
        ("models", ", ".join(found.models) or "none listed"),
        ("model listed", truth(found.listed)),
        ("context", f"{found.context} tokens" if found.context else "not known"),
        ("chat", truth(found.chat)),
        ("pictures", truth(found.pictures, "taken", "refused")),
        ("log-probs", "none" if found.top_logprobs == 0 else top),
        ("log-probs are", truth(found.raw_logprobs, "raw (temperature does not change them)", "after temperature")),
        ("n choices", truth(found.n)),
        ("reasoning in", found.reasoning_field or "no field of its own seen"),
        ("same seed, same reply", truth(found.seeded)),
        ("parameters refused", ", ".join(found.refused) or "none of those tried"),
    ]
    return [*rows, ("error", found.error)] if found.error else rows
