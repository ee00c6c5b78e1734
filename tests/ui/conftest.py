"""A real headless Chromium, and a real server in its own process, for the tests of the interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, Request
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from workbench.ui.media import routes
from workbench.workspace import Workspace

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "artifacts" / "ui"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running workbench."""

    address: str
    workspace: Workspace
    process: subprocess.Popen[bytes]


@dataclass
class Watched:
    """A page whose requests and errors are kept."""

    page: Page
    outside: list[str]
    faults: list[str]

    def shot(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


def watch(context: BrowserContext) -> Watched:
    """Open a page that keeps every request to another host and every script error."""
    page = context.new_page()
    watched = Watched(page, [], [])

    def note(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            watched.outside.append(request.url)

    context.on("request", note)
    page.on("pageerror", lambda error: watched.faults.append(str(error)))
    return watched


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield watch(context)
    context.close()


def start_app(
    workspace: Workspace, model: Path, port: int, environment: Mapping[str, str] | None = None
) -> Server:
    """Start the real app the way a user starts it, and wait until it answers."""
    command = [
        sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(port),
        "--workspace", str(workspace.root), "--model", str(model),
    ]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO_", "HF_"))}
    process = subprocess.Popen(
        command, cwd=ROOT, env=inherited | {"OMP_NUM_THREADS": "1"} | dict(environment or {})
    )
    address = f"http://127.0.0.1:{port}"
    wait_until_up(address, process)
    return Server(address, workspace, process)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, micro_model_folder: Path) -> Iterator[Server]:
    """The real app on the tiny model."""
    workspace = Workspace.open(tmp_path_factory.mktemp("app") / "work space é")
    running = start_app(workspace, micro_model_folder, free_port())
    yield running
    running.process.terminate()
    running.process.wait(timeout=20)


def wait_until_up(address: str, process: subprocess.Popen[bytes], *, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert process.poll() is None, "the server ended before it answered"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not answer within {seconds} s")


BENCH = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/workbench/static/workbench.css">
<body class="workbench"><div class="toasts"></div>
<main style="max-width:760px;margin:24px auto"><div id="part" class="part"></div></main>
<script type="module">
  window.place = async (script, props, answers = {}) => {
    const { mount } = await import(`/workbench/static/${script}.js`);
    const element = document.getElementById('part');
    element.className = `part ${script}-part`;
    const watchers = [];
    window.told = [];
    window.asked = [];
    window.answers = answers;
    window.props = props;
    window.send = change => { Object.assign(props, change); watchers.forEach(act => act()); };
    mount(element, {
      get: (name = 'value') => props[name],
      set: value => { props.value = value; },
      emit: name => window.told.push([name, JSON.parse(JSON.stringify(props.value))]),
      watch: act => watchers.push(act),
      call: async (name, question) => {
        window.asked.push([name, JSON.parse(JSON.stringify(question ?? {}))]);
        return window.answers[name] ?? {};
      },
    });
  };
  window.ready = true;
</script>"""


def start_bench(workspace: Workspace) -> tuple[Server, Callable[[], None]]:
    """Serve a page with one part on it, without gradio; returns it and what stops it."""
    app = Starlette(routes=[Route("/", lambda _: HTMLResponse(BENCH)), *routes(workspace)])
    port = free_port()
    runner = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.02)

    def stop() -> None:
        runner.should_exit = True
        thread.join(timeout=10)

    return Server(f"http://127.0.0.1:{port}", workspace, process=None), stop  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page with one part on it and generated data: parts are tested on their own, without gradio."""
    server, stop = start_bench(Workspace.open(tmp_path_factory.mktemp("bench")))
    yield server
    stop()
