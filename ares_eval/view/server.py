"""The viewer's web server: a page that is written here, and JSON for it. Nothing changes anything.

What the page may do is bound by its Content-Security-Policy: scripts, styles, fonts and pictures of this server only,
nothing inline, nothing evaluated. Requests are answered only under the host names that the server was started for, so
that a foreign page cannot reach it by a name of its own (DNS rebinding), and never to a page of another origin.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ares_eval.records import Run, RunError
from ares_eval.types import Json
from ares_eval.verify import Verifier
from ares_eval.view import index, sample
from ares_eval.view.index import Files
from ares_eval.view.library import Library, UnknownRun
from ares_eval.view.pictures import NoPicture, Pictures
from ares_eval.view.query import FACETS, BadQuery, Filters, Queries

STATIC = Path(__file__).resolve().parent / "static"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """What the routes work with."""

    library: Library
    queries: Queries
    pictures: Pictures
    verifier: Verifier


def application(page: Page, host: str) -> web.Application:
    """The routes, for a server that listens on ``host``."""
    app = web.Application(middlewares=[_guard(host), _errors])
    views = _Views(page)
    app.router.add_get("/", _index)
    app.router.add_static("/static/", STATIC)
    app.router.add_get("/api/runs", views.runs)
    app.router.add_get("/api/records", views.records)
    app.router.add_get("/api/facets", views.facets)
    app.router.add_get("/api/record", views.record)
    app.router.add_get("/api/stages", views.stages)
    app.router.add_get("/api/picture", views.picture)
    return app


def is_loopback(host: str) -> bool:
    """Whether a server on ``host`` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guard(host: str) -> Any:
    """Refuse other names and other origins, and put HEADERS on every answer."""
    names = {"localhost", host.lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def known(name: str) -> bool:
        bare = name.strip("[]").lower()
        if bare in names:
            return True
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(host)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not known(_without_port(request.host)):
            response: web.StreamResponse = web.Response(status=403, text="this server does not go by that name")
        elif request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            response = web.Response(status=403, text="not for pages of other origins")
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=error.reason)
        response.headers.update(HEADERS)
        return response

    return guard


def _without_port(host: str) -> str:
    head, colon, port = host.rpartition(":")
    return head if colon and port.isdigit() and (":" not in head or head.startswith("[")) else host


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except UnknownRun as error:
        return _json({"error": str(error)}, 404)
    except NoPicture as error:
        return _json({"error": str(error)}, 404)
    except BadQuery as error:
        return _json({"error": f"bad request: {error}"}, 400)
    except RunError as error:
        return _json({"error": str(error)}, 500)


async def _index(_: web.Request) -> web.StreamResponse:
    return web.FileResponse(STATIC / "index.html")


def _json(value: Json, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _needed(request: web.Request, name: str) -> str:
    value = request.query.get(name)
    if value is None:
        raise BadQuery(f"{name} is missing")
    return value


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 9:
        raise BadQuery(f"{name} is no number")
    return int(text)


async def _apart(work: Callable[[], T]) -> T:
    """Files and queries block, so they are not for the event loop."""
    return await asyncio.to_thread(work)


class _Views:
    """The routes below /api."""

    def __init__(self, page: Page) -> None:
        self.library, self.queries = page.library, page.queries
        self.pictures, self.verifier = page.pictures, page.verifier

    async def runs(self, _: web.Request) -> web.Response:
        """Every run with its results."""

        def work() -> Json:
            found = [_described(name, run) for name, run in self.library.runs()]
            return {"folder": str(self.library.folder), "runs": found}

        return _json(await _apart(work))

    async def records(self, request: web.Request) -> web.Response:
        """One page of a run's records."""

        def work() -> Json:
            ask = request.query
            run = self._run(request)
            files = self.library.files(run)
            page: dict[str, Json] = self.queries.page(
                files,
                self._filters(request),
                sort=ask.get("sort", "row"),
                descending=ask.get("order") == "desc",
                first=_number(request, "first", 0),
                size=_number(request, "size", 50),
            )
            return {**page, "hwe": self.library.state(run)}

        return _json(await _apart(work))

    async def facets(self, request: web.Request) -> web.Response:
        """The values to filter by, with counts."""

        def work() -> Json:
            files = self.library.files(self._run(request))
            return self.queries.facets(files, self._filters(request))

        return _json(await _apart(work))

    async def record(self, request: web.Request) -> web.Response:
        """One record, whole."""

        def work() -> Json:
            run, files, place, key = self._place(request)
            record = index.read_record(run.folder, place["offset"], place["length"])
            shown: dict[str, Json] = sample.shown(
                run, record, place["tau"], place["estimate"], index.token_options(run)
            )
            messages = sample.prompt(run.folder, self.queries.prompt(files, key[0], key[1]))
            draws = self.queries.draws(files, key[0], key[1])
            return {
                **shown,
                "tier": place["tier"],
                "model": run.manifest.get("model"),
                "messages": messages,
                "draws": draws,
                "hwe": self.library.state(run),
            }

        return _json(await _apart(work))

    async def stages(self, request: web.Request) -> web.Response:
        """How a record is judged, stage by stage."""

        def work() -> Json:
            run, files, place, key = self._place(request)
            record = index.read_record(run.folder, place["offset"], place["length"])
            asked = sample.question(sample.prompt(run.folder, self.queries.prompt(files, key[0], key[1])))
            return sample.stages(record, asked, self.verifier)

        return _json(await _apart(work))

    async def picture(self, request: web.Request) -> web.Response:
        """One picture of a question, by its digest."""

        def work() -> tuple[str, bytes]:
            task, sample_id, digest = (_needed(request, name) for name in ("task", "sample", "digest"))
            return self.pictures.find(self._run(request), task, sample_id, digest)

        kind, body = await _apart(work)
        return web.Response(body=body, content_type=kind)

    def _run(self, request: web.Request) -> Run:
        return self.library.run(_needed(request, "run"))

    def _place(self, request: web.Request) -> tuple[Run, Files, Json, tuple[str, str, int]]:
        key = (_needed(request, "task"), _needed(request, "sample"), _number(request, "draw", 0))
        run = self._run(request)
        files = self.library.files(run)
        place = self.queries.place(files, *key)
        if place is None:
            raise UnknownRun(f"{run.folder.name} has no draw {key[2]} of {key[0]}/{key[1]}")
        return run, files, place, key

    def _filters(self, request: web.Request) -> Filters:
        ask = request.query
        other = ask.get("with")
        return Filters(
            values={name: ask[name] for name in FACETS if ask.get(name)},
            search=ask.get("search", "")[:200],
            truncated=ask.get("truncated") == "1",
            flip=ask.get("flip", ""),
            other=self.library.files(self.library.run(other)) if other else None,
        )


def _described(name: str, run: Run) -> Json:
    tasks: Json = (run.results or {}).get("tasks", {})
    return {
        "name": name,
        "model": run.manifest.get("model"),
        "status": run.manifest.get("status"),
        "created": run.manifest.get("created"),
        "tasks": {
            task: {
                "n": found["n"],
                "accuracy": found["metrics"].get("accuracy"),
                "ci95": found["metrics"].get("accuracy_ci95"),
                "tokens": found["metrics"].get("completion_tokens_mean"),
                "not_measured": sum(found["not_measured"].values()),
            }
            for task, found in tasks.items()
        }
        or dict.fromkeys(run.manifest.get("tasks", {})),
    }
