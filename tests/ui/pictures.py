"""Make the pictures of the README by doing the main job in a real browser on the embedded model.

    python -m tests.ui.pictures [--out docs/images]

Captures, paints a plan over the shipped bank, makes the student and compares it with the teacher; writes
screenshots and main-job.gif. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import FLAGS, find_browser
from tests.ui.conftest import ROOT, Server, free_port, start_app, watch
from workbench.workspace import Workspace

PROMPT = "a red checked ball grows to the right of a small green striped cone over the sea"
PAINTED = {0: "linear", 1: "linear", 2: "linear", 3: "R16", 4: "R2", 5: "R4"}
STEPS = 12
WIDTH, HEIGHT = 1280, 860
JOB_MS = 300_000
COLOURS, GIF_WIDTH = 200, 960


class Film:
    """Screenshots that become a GIF.

    Args:
        page: What is filmed.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []

    def take(self, milliseconds: int) -> None:
        """Add the page as it looks now, shown for so long."""
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        size = (GIF_WIDTH, round(picture.height * GIF_WIDTH / picture.width))
        self.frames.append(picture.resize(size, Image.Resampling.LANCZOS))
        self.milliseconds.append(milliseconds)

    def save(self, path: Path) -> None:
        """Write the GIF with one palette for all frames."""
        width, height = self.frames[0].size
        sample = Image.new("RGB", (width, height * 4))
        for place, frame in enumerate(self.frames[:: max(1, len(self.frames) // 4)][:4]):
            sample.paste(frame, (0, height * place))
        palette = sample.quantize(COLOURS)
        flat = [frame.quantize(COLOURS, palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        flat[0].save(
            path, save_all=True, append_images=flat[1:], duration=self.milliseconds, loop=0, optimize=True
        )


def go(page: Page, name: str) -> None:
    page.locator(f'.page-links [data-page="{name}"]').click()
    expect(page.locator(f"#page-{name} h1")).to_be_visible()


def close_toasts(page: Page) -> None:
    """Close what the page says at its lower edge."""
    while page.locator(".toast").count():
        page.locator(".toast button").first.click()


def capture(page: Page, film: Film) -> None:
    form = page.locator("#page-attention")
    form.get_by_role("textbox", name="prompt").fill(PROMPT)
    form.get_by_label("steps").fill(str(STEPS))
    page.locator("#capture-button").click()
    page.wait_for_selector(".sprite-part[data-ready]", timeout=JOB_MS)
    page.wait_for_selector(".overlay-part[data-ready]")
    close_toasts(page)
    film.take(1400)
    for column, row in ((70, 90), (150, 170)):
        before = page.locator(".overlay-part").get_attribute("data-ready")
        page.locator(".sprite").click(position={"x": 24 + column, "y": 16 + row})
        expect(page.locator(".overlay-part")).not_to_have_attribute("data-ready", str(before))
        film.take(1100)
    before = page.locator(".overlay-part").get_attribute("data-ready")
    page.locator(".frame-view").click(position={"x": 60, "y": 70})
    expect(page.locator(".overlay-part")).not_to_have_attribute("data-ready", str(before))
    film.take(1600)


def paint(page: Page, film: Film) -> None:
    go(page, "plan")
    page.wait_for_selector('.cell[data-block="1"][data-op="R4"]:not(.unmeasured)')
    page.get_by_text("follow the painter").click()  # no live previews: they would hold up the student
    film.take(900)
    for block, label in PAINTED.items():
        page.locator(f'.cell[data-block="{block}"][data-op="{label}"]').click()
        film.take(450)
    film.take(1400)


def compare(page: Page, film: Film) -> None:
    page.locator("#make-student").click()
    student = page.locator('.study-step[data-part="plan"]')
    expect(student).to_have_attribute("data-state", "done", timeout=JOB_MS)
    go(page, "compare")
    page.locator("#page-compare").get_by_role("textbox", name="prompt").fill(PROMPT)
    page.locator("#page-compare").get_by_label("steps").fill(str(STEPS))
    page.locator("#compare-button").click()
    page.wait_for_selector(".player video", timeout=JOB_MS)
    page.wait_for_function("[...document.querySelectorAll('.player video')].every(v => v.currentTime > 0.1)")
    close_toasts(page)
    for _ in range(14):
        film.take(140)
        page.wait_for_timeout(60)
    film.take(1200)


@contextmanager
def running(browser: Browser) -> Iterator[tuple[Server, Page]]:
    with tempfile.TemporaryDirectory() as folder:
        server = start_app(Workspace.open(Path(folder)), Path("embedded"), free_port())
        try:
            context = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", device_scale_factor=1
            )
            yield server, watch(context).page
        finally:
            server.process.terminate()
            server.process.wait(timeout=20)


def main() -> None:
    """Do the job and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.ui.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        with running(browser) as (server, page):
            page.goto(f"{server.address}/#attention")
            page.wait_for_selector(".study-step")
            film = Film(page)
            for name, act in (("attention", capture), ("plan", paint), ("compare", compare)):
                act(page, film)
                close_toasts(page)
                page.screenshot(path=out / f"{name}-light.png")
            page.emulate_media(color_scheme="dark")
            page.wait_for_timeout(400)
            page.screenshot(path=out / "compare-dark.png")
            film.save(out / "main-job.gif")
        browser.close()


if __name__ == "__main__":
    main()
