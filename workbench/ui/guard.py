"""What stands before gradio: only our own page may talk to the server, and only as much as it needs.

Pure ASGI, knows nothing of gradio or of the workbench. Gradio's own rules protect JSON calls on localhost
alone; a foreign multipart upload would be stored even there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_BODY_BYTES = 1 << 20
IMPORT_PATH = "/workbench/import/"
MAX_IMPORT_BYTES = 64 << 20
# Parts of gradio that no page uses: files travel by the workspace's own routes, and nothing is uploaded.
CLOSED = ("/gradio_api/upload", "/gradio_api/proxy=", "/gradio_api/file", "/gradio_api/stream", "/monitoring")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
        b"font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
)


class Guard:
    """ASGI middleware: foreign Host 400, foreign or null Origin 403, closed routes 404, large bodies 413."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = refuse(scope)
        if refusal is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await _answer(send, *refusal)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        await self.app(scope, _bounded(receive, body_limit(scope["path"])), _with_headers(send))


def refuse(scope: Scope) -> tuple[int, str] | None:
    """Return the status and sentence with which a request is refused, or None."""
    headers = _headers(scope)
    host = headers.get("host", "")
    if host_name(host) not in LOOPBACK:
        return 400, "The workbench answers only on this machine's own address; open it as 127.0.0.1."
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin, host):
        return 403, "This request came from another page; the workbench answers its own page only."
    site = headers.get("sec-fetch-site", "none")
    navigates = scope.get("method") == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not navigates:
        return 403, "This request came from another page; the workbench answers its own page only."
    if scope["path"].startswith(CLOSED):
        return 404, "The workbench does not serve this address."
    length, limit = headers.get("content-length", "0"), body_limit(scope["path"])
    if not length.isdigit() or int(length) > limit:
        return 413, f"A request may hold at most {limit >> 20} MB here."
    return None


def body_limit(path: str) -> int:
    """Return how many bytes a request may hold: clips of one's own are larger than anything else."""
    return MAX_IMPORT_BYTES if path.startswith(IMPORT_PATH) else MAX_BODY_BYTES


def host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_own(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _bounded(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > limit else message

    return bounded


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", ())}
            message = {
                **message,
                "headers": [*message.get("headers", ()), *(pair for pair in HEADERS if pair[0] not in given)],
            }
        await send(message)

    return with_headers


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
