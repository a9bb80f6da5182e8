"""A Hugging Face hub on this machine: as much of its protocol as ``datasets`` and ``huggingface_hub`` use.

It can also play a hub that is slow, answers with an error, or stops in the middle of a file.
"""

import hashlib
import http.server
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repositories import Repository


@dataclass
class Fault:
    """What goes wrong with the requests whose method and path match a pattern."""

    where: str
    status: int = 0
    """Answers with this status; 0 does not."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Answers only after so many seconds."""
    cut: float | None = None
    """Closes the connection after this share of the file."""
    stall: float = 0.0
    """Waits for so many seconds after half of the file."""
    times: int = 10**9
    """Number of requests that it strikes."""


class LocalHub:
    """The repositories of a hub by kind (``datasets`` or ``models``), and what goes wrong."""

    def __init__(self, datasets: Mapping[str, Repository], models: Mapping[str, Repository] | None = None):
        self.repositories = {"datasets": dict(datasets), "models": dict(models or {})}
        self.renamed = {"roberta-base": "FacebookAI/roberta-base"}
        """Present names of repositories, by their former ones."""
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        """Number of requests, by method and path."""
        self.address = ""

    def fault(self, request: str) -> Fault | None:
        """Returns what goes wrong with a request."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.where, request):
                fault.times -= 1
                return fault
        return None

    @contextmanager
    def running(self) -> Iterator["LocalHub"]:
        """Serves in threads while the context is open."""
        handler = type("Bound", (_Handler,), {"hub": self})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.address = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield self
            server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_GET

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests[request] += 1
        length = int(self.headers.get("Content-Length") or 0)
        form = parse_qs(self.rfile.read(length).decode()) if length else {}
        fault = self.hub.fault(request)
        if fault:
            time.sleep(fault.delay)
            if fault.status:
                self._send(fault.status, b'{"error": "made up"}', fault.headers)
                return
        api = re.fullmatch(r"/api/(datasets|models)/(.+?)(?:/(revision|tree|paths-info|refs)(?:/(.+))?)?", path)
        file = re.fullmatch(r"/(?:(datasets)/)?([^/]+(?:/[^/]+)??)/resolve/([^/]+)/(.+)", path)
        former = (api or file) and (api or file)[2]
        if former in self.hub.renamed:
            self._send(307, b"", {"Location": path.replace(f"/{former}", f"/{self.hub.renamed[former]}", 1)})
        elif api:
            self._answer(*api.groups(), form)
        elif file:
            self._file(file[1] or "models", *file.groups()[1:], fault)
        else:
            self._send(200 if path == "/" else 404)

    def _find(self, kind: str, name: str, revision: str | None) -> tuple[Repository, str] | None:
        """Returns a repository and the commit that a revision names; answers with an error if there is none."""
        repository = self.hub.repositories[kind].get(name)
        if repository is None:
            # As on the hub: whoever is not logged in cannot tell a private repository from none.
            self._error(401, "RepoNotFound", "Repository not found")
            return None
        commit = repository.commit_of(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, commit

    def _answer(self, kind: str, name: str, what: str | None, rest: str | None, form: Mapping[str, list[str]]) -> None:
        revision, _, folder = (rest or "main").partition("/")
        found = self._find(kind, name, revision if what != "refs" else None)
        if found is None:
            return
        repository, commit = found
        if what == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag in repository.tags]
            self._json({"branches": [branch], "tags": tags, "converts": []})
        elif what == "tree":
            self._json(_tree(repository, folder, recursive="recursive=true" in self.path.lower()))
        elif what == "paths-info":
            entries = _tree(repository, "", recursive=True)
            self._json([entry for entry in entries if entry["path"] in form.get("paths", ())])
        else:
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            about = {"id": name, "sha": commit, "private": False, "gated": repository.gated, "tags": []}
            self._json({**about, "siblings": siblings, "downloads": 0, "likes": 0})

    def _file(self, kind: str, name: str, revision: str, path: str, fault: Fault | None) -> None:
        found = self._find(kind, name, revision)
        if found is None:
            return
        repository = found[0]
        commit = {"X-Repo-Commit": found[1]}
        if repository.gated and path != "README.md":
            self._error(401, "GatedRepo", f"Access to {name} is restricted", commit)
            return
        content = repository.files.get(path)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found", commit)
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {**commit, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        self._send(206 if wanted else 200, content, headers, fault)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {**(headers or {}), "X-Error-Code": code, "X-Error-Message": message})

    def _send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and (fault.cut is not None or fault.stall):
            self.wfile.write(body[: int(len(body) * (fault.cut if fault.cut is not None else 0.5))])
            self.wfile.flush()
            time.sleep(fault.stall)
            self.close_connection = True
            return
        self.wfile.write(body)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _tree(repository: Repository, folder: str, *, recursive: bool) -> list[dict]:
    """Returns the files and folders in a folder, as the hub lists them."""
    start = f"{folder}/" if folder else ""
    inside = {path: content for path, content in repository.files.items() if path.startswith(start)}
    folders = sorted(
        {path[: at.start() + len(start)] for path in inside for at in re.finditer("/", path[len(start) :])}
    )
    entries = [{"type": "directory", "oid": _oid(path.encode()), "size": 0, "path": path} for path in folders]
    entries += [
        {"type": "file", "oid": _oid(content), "size": len(content), "path": path} for path, content in inside.items()
    ]
    return [entry for entry in entries if recursive or "/" not in str(entry["path"])[len(start) :]]
