"""The guard: who may talk to the server, on every route. No gradio is needed to prove it."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from workbench.ui.guard import MAX_BODY_BYTES, Guard, host_name

OWN = "http://127.0.0.1:7860"


@pytest.fixture
def client() -> TestClient:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route("/{rest:path}", answer, methods=["GET", "POST", "OPTIONS"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Guard)]), base_url=OWN)


@pytest.mark.parametrize("path", ["/", "/gradio_api/run/capture", "/workbench/media/clips/a/clip.mp4"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OWN}, 200),
        ({"host": "localhost:9999"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "attacker.example"}, 400),
        ({"host": "127.0.0.1.attacker.example"}, 400),
        ({"host": "192.168.1.5:7860"}, 400),
        ({"host": ""}, 400),
        ({"origin": "null"}, 403),
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 403),
        ({"origin": "http://localhost:7860"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
    ],
)
def test_only_the_own_page_is_answered(
    client: TestClient, path: str, headers: dict[str, str], status: int
) -> None:
    assert client.post(path, headers=headers, content=b"{}").status_code == status
    assert client.options(path, headers=headers).status_code == status


def test_a_link_from_elsewhere_may_open_the_page_and_nothing_more(client: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.post("/", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x", "/monitoring"],
)
def test_what_no_page_uses_is_closed(client: TestClient, path: str) -> None:
    assert client.post(path, files={"files": ("a.html", b"<script>")}).status_code == 404
    assert client.get(path).status_code == 404


def test_large_bodies_are_refused(client: TestClient) -> None:
    answer = client.post("/", content=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413 and "MB" in answer.text


def test_every_answer_carries_the_headers(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/", headers={"host": "x.example"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "connect-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "name"), [("127.0.0.1:80", "127.0.0.1"), ("[::1]:80", "::1"), ("a@b", "b"), ("[", "")]
)
def test_host_names(host: str, name: str) -> None:
    assert host_name(host) == name
