"""The widgets in a real JupyterLab page: they draw, a click reaches the kernel, nothing is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.ui.conftest import ARTIFACTS, ROOT, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]
RUN_MS = 300_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab on a copy of the notebooks, as `make lab` opens it."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    port = free_port()
    command = [
        sys.executable, "-m", "jupyter", "lab", str(folder / "notebooks"), "--no-browser", "--allow-root",
        f"--port={port}", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
    ]  # fmt: skip
    environment = os.environ | {
        "WORKBENCH_PRESET": "smoke",
        "WORKBENCH_WORKSPACE": str(folder / "workspace"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
    }
    process = subprocess.Popen(command, env=environment, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=30)


@pytest.mark.parametrize(
    ("name", "part"),
    [("01_attention", ".sprite"), ("02_plan_and_surgery", ".painter"), ("04_compare", ".player")],
)
def test_widgets_draw_in_jupyterlab(lab: str, browser: Browser, name: str, part: str) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    outside: list[str] = []
    context.on(
        "request",
        lambda request: (
            outside.append(request.url)
            if urlsplit(request.url).scheme.startswith(("http", "ws"))
            and urlsplit(request.url).hostname != "127.0.0.1"
            else None
        ),
    )
    page = context.new_page()
    page.goto(f"{lab}/lab/tree/{name}.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    # Run before the kernel is there, JupyterLab would ask which one to take.
    page.get_by_text("| Idle").first.wait_for(timeout=60_000)
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    widget = page.locator(f".workbench-widget {part}").first
    widget.wait_for(state="attached", timeout=RUN_MS)
    widget.scroll_into_view_if_needed()
    expect(widget).to_be_visible()
    if name == "01_attention":
        page.locator(".frame-view").first.click(position={"x": 8, "y": 8})
        expect(page.locator(".patch-text").first).to_contain_text("token", timeout=30_000)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"lab-{name}.png")
    assert outside == []
    context.close()
