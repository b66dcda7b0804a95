"""The Hugging Face hub's protocol over a folder of ORG/NAME/files: enough for `datasets.load_dataset`.

Dataset info, revisions, trees, paths-info, resolve with ETag and commit headers, HEAD and ranges; gated datasets
answer 401 without a token and 403 with one that was not granted, missing ones 404, as the hub does with a token.
One revision (`main`), no large-file redirects.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tests.loopback.http import HttpRequest, Response
from tests.loopback.options import Options

DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Entry:
    """One file of a dataset."""

    path: str
    file: Path

    @cached_property
    def oid(self) -> str:
        """Git's object id, the ETag."""
        data = self.file.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.file.stat().st_size

    def as_json(self) -> dict[str, Any]:
        """As trees and paths-info list it."""
        return {"type": "file", "path": self.path, "size": self.size, "oid": self.oid}


@dataclass(frozen=True)
class Dataset:
    """One dataset: its name and its files."""

    name: str
    files: dict[str, Entry]

    @cached_property
    def commit(self) -> str:
        """The revision's hash."""
        text = "\n".join(f"{entry.oid} {path}" for path, entry in self.files.items())
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def folders(self) -> set[str]:
        """All folders with files in them."""
        return {str(parent) for path in self.files for parent in Path(path).parents if str(parent) != "."}


class Hub:
    """Answers the hub's requests."""

    def __init__(self, options: Options) -> None:
        self.root = Path(options.hub)
        self.gated = frozenset(filter(None, options.hub_gated.split(",")))
        self.token = options.hub_token
        self.datasets: dict[str, Dataset] = {}

    def answer(self, request: HttpRequest) -> Response:
        """The reply to one request."""
        path = request.path.strip("/").split("/")
        match path:
            case ["api", "datasets", org, name, *rest]:
                return self._api(request, f"{org}/{name}", rest)
            case ["datasets", org, name, "resolve", revision, *rest]:
                dataset = self._open(request, f"{org}/{name}", revision)
                if isinstance(dataset, Response):
                    return dataset
                return resolve(request, dataset, "/".join(rest))
        return error(404, "Sorry, we can't find the page you are looking for.")

    def _api(self, request: HttpRequest, name: str, rest: list[str]) -> Response:
        revision = rest[1] if len(rest) > 1 else "main"
        dataset = self._open(request, name, revision)
        if isinstance(dataset, Response):
            return dataset
        match rest:
            case [] | ["revision", _]:
                return _json(self._info(dataset))
            case ["tree", _, *folder]:
                return tree(dataset, "/".join(folder), recursive=request.query.get("recursive", "").lower() == "true")
            case ["paths-info", _]:
                return _json(paths_info(dataset, asked_paths(request)))
        return error(404, "Not found")

    def _info(self, dataset: Dataset) -> dict[str, Any]:
        return {
            "_id": dataset.commit[:24],
            "id": dataset.name,
            "author": dataset.name.split("/")[0],
            "sha": dataset.commit,
            "lastModified": DATE,
            "createdAt": DATE,
            "private": False,
            "gated": "manual" if dataset.name in self.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in dataset.files],
        }

    def _open(self, request: HttpRequest, name: str, revision: str) -> Dataset | Response:
        """The dataset if it is there and may be read, else the refusal."""
        folder = self.root / name
        if not folder.is_dir() or ".." in name:
            return error(404, "Repository not found", "RepoNotFound")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if name in self.gated and not (self.token and given == self.token):
            message = f"Access to dataset {name} is restricted."
            if not given:
                return error(
                    401, f"{message} You must have access to it and be authenticated to access it.", "GatedRepo"
                )
            return error(403, f"{message} You are not in the authorized list.", "GatedRepo")
        if name not in self.datasets:
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            entries = {str(file.relative_to(folder)): Entry(str(file.relative_to(folder)), file) for file in files}
            self.datasets[name] = Dataset(name, entries)
        dataset = self.datasets[name]
        if revision not in ("main", dataset.commit):
            return error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return dataset


def resolve(request: HttpRequest, dataset: Dataset, path: str) -> Response:
    """A file, or a part of it."""
    entry = dataset.files.get(path)
    common = {"X-Repo-Commit": dataset.commit, "Accept-Ranges": "bytes"}
    if entry is None:
        reply = error(404, "Entry not found", "EntryNotFound")
        reply.headers = {**reply.headers, **common}
        return reply
    headers = {**common, "ETag": f'"{entry.oid}"', "Content-Disposition": f'inline; filename="{entry.file.name}"'}
    kind = "application/octet-stream"
    if request.method == "HEAD":
        return Response(200, b"", {**headers, "Content-Length": str(entry.size)}, kind)
    data = entry.file.read_bytes()
    wanted = request.headers.get("range", "")
    if wanted.startswith("bytes="):
        first, _, last = wanted[6:].partition("-")
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last), len(data) - 1) if first and last else len(data) - 1
        if start >= len(data):
            return Response(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"}, kind)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return Response(206, data[start : end + 1], headers, kind)
    return Response(200, data, headers, kind)


def tree(dataset: Dataset, folder: str, recursive: bool) -> Response:
    """The files and folders below a folder."""
    prefix = f"{folder}/" if folder else ""
    if folder and folder not in dataset.folders():
        return error(404, f'{folder} does not exist on "main"', "EntryNotFound")
    listed = [_folder(dataset, each) for each in sorted(dataset.folders()) if _within(each, prefix, recursive)]
    listed += [entry.as_json() for path, entry in dataset.files.items() if _within(path, prefix, recursive)]
    return _json(listed)


def paths_info(dataset: Dataset, paths: list[str]) -> list[dict[str, Any]]:
    """What is known of these paths; those that are not there are left out."""
    made = []
    for path in paths:
        if path in dataset.files:
            made.append(dataset.files[path].as_json())
        elif path in dataset.folders():
            made.append(_folder(dataset, path))
    return made


def asked_paths(request: HttpRequest) -> list[str]:
    """The paths of a paths-info request: a form or JSON."""
    if request.headers.get("content-type", "").startswith("application/json"):
        paths = msgspec.json.decode(request.body)["paths"]
        return [paths] if isinstance(paths, str) else paths
    return parse_qs(request.body.decode()).get("paths", [])


def _folder(dataset: Dataset, path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": dataset.commit}


def _within(path: str, prefix: str, recursive: bool) -> bool:
    return path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])


def error(status: int, message: str, code: str = "") -> Response:
    """A refusal as the hub words it, in the header that its client reads."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Response(status, msgspec.json.encode({"error": message}), headers)


def _json(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value))
