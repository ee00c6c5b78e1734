"""A hub on 127.0.0.1 that speaks the part of the Hugging Face hub's HTTP that a download needs.

It serves a folder as the repository `someone/micro`; `behaviour` says what goes wrong.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/micro"


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection; a client that was killed may reset it at any time."""

    server: Any
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        hub = self.server.hub
        path = self.path.partition("?")[0]
        hub.requests.append(path)
        if hub.behaviour == "silent":
            hub.released.wait(30)
            return
        if hub.behaviour == "gated":
            return self.refuse(403, "GatedRepo")
        if hub.behaviour == "broken":
            return self.refuse(500, "")
        if hub.behaviour == "nonsense":
            return self.send(b"<html>hello</html>", {"Content-Type": "text/html"}, body=body)
        if f"/{REPOSITORY}" not in path:
            return self.refuse(404, "RepoNotFound")
        if path.startswith("/api/models/"):
            return self.send_json(hub.tree() if "/tree/" in path else hub.info(), body=body)
        name = path.partition(f"/resolve/{REVISION}/")[2] or path.partition("/resolve/main/")[2]
        file = hub.folder / name
        if not name or not file.is_file():
            return self.refuse(404, "EntryNotFound")
        data = file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": REVISION,
            "Accept-Ranges": "bytes",
        }
        if hub.behaviour == "cut" and body and name.endswith(".safetensors"):
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            hub.half_sent.set()
            hub.released.wait(30)
            self.close_connection = True
            return None
        return self.send(data, headers, body=body)

    def refuse(self, code: int, kind: str) -> None:
        self.send(b"{}", {"X-Error-Code": kind, "X-Error-Message": "no"}, code=code)

    def send_json(self, data: Any, *, body: bool) -> None:
        self.send(json.dumps(data).encode(), {"Content-Type": "application/json"}, body=body)

    def send(self, data: bytes, headers: dict[str, str], *, code: int = 200, body: bool = True) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


class FakeHub:
    """What the server serves and how; `requests` are the paths that were asked for."""

    def __init__(self, folder: Path, behaviour: str) -> None:
        self.folder = folder
        self.behaviour = behaviour
        self.requests: list[str] = []
        self.half_sent = threading.Event()
        self.released = threading.Event()
        self.url = ""
        self.claimed_bytes: int | None = None

    def files(self) -> list[Path]:
        return [file for file in sorted(self.folder.rglob("*")) if file.is_file()]

    def info(self) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": str(file.relative_to(self.folder)),
                "size": self.claimed_bytes or file.stat().st_size,
            }
            for file in self.files()
        ]
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": REVISION, "siblings": siblings, "tags": []}

    def tree(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": str(file.relative_to(self.folder)),
                "size": file.stat().st_size,
                "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
            }
            for file in self.files()
        ]


@contextmanager
def serve(folder: Path, behaviour: str = "") -> Iterator[FakeHub]:
    """Serve `folder` until the end of the block."""
    hub = FakeHub(folder, behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub  # type: ignore[attr-defined]
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
