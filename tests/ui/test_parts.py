"""The parts of the interface on their own, with generated data, by mouse and by keyboard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import Server, Watched
from workbench.video import write_mp4

COLUMNS = ["softmax", "R2", "R4", "R8", "R16", "linear"]
pytestmark = pytest.mark.browser


def cells(num_blocks: int, unmeasured: set[tuple[int, str]]) -> list[list[dict[str, float] | None]]:
    return [
        [None]
        + [
            None
            if (block, label) in unmeasured
            else {"error": 0.02 * place + 0.01 * block, "low": 0.01, "high": 0.3, "off": 0.2, "first": 0.5}
            for place, label in enumerate(COLUMNS[1:], start=1)
        ]
        for block in range(num_blocks)
    ]


@pytest.fixture
def painter(watched: Watched, bench: Server) -> Page:
    page = watched.page
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    table = {"columns": COLUMNS, "cells": cells(6, {(2, "R4"), (5, "linear")}), "start": ["softmax"] * 6}
    page.evaluate("table => place('painter', {value: [], table})", table)
    return page


def plan(page: Page) -> list[str]:
    result: list[str] = page.evaluate("() => [...props.value]")
    return result


def cell(page: Page, block: int, label: str) -> Any:
    return page.locator(f'.cell[data-block="{block}"][data-op="{label}"]')


def test_a_fresh_painter_is_all_softmax_and_tells_it(painter: Page) -> None:
    assert plan(painter) == ["softmax"] * 6
    assert painter.evaluate("told.length") == 1
    expect(painter.locator(".plan-name")).to_have_text("all softmax")


def test_click_drag_and_column_head_paint_measured_cells_only(painter: Page) -> None:
    cell(painter, 0, "R4").click()
    assert plan(painter)[0] == "R4"
    start, end = cell(painter, 1, "R8").bounding_box(), cell(painter, 4, "R8").bounding_box()
    painter.mouse.move(start["x"] + 10, start["y"] + 10)
    painter.mouse.down()
    painter.mouse.move(end["x"] + 10, end["y"] + 10, steps=12)
    painter.mouse.up()
    assert plan(painter) == ["R4", "R8", "R8", "R8", "R8", "softmax"]
    painter.locator('[data-column="R4"]').click()
    assert plan(painter) == ["R4", "R4", "R8", "R4", "R4", "R4"], "block 2 at R4 is not measured"
    expect(painter.locator(".plan-name")).to_have_text("5xR4+1xR8")
    cell(painter, 2, "R4").click(force=True)
    assert plan(painter)[2] == "R8"


def test_the_keyboard_does_all_of_it(painter: Page) -> None:
    cell(painter, 0, "R2").click()
    painter.keyboard.press("ArrowRight")
    painter.keyboard.press("ArrowDown")
    painter.keyboard.press("Enter")
    assert plan(painter)[:3] == ["R2", "R4", "softmax"]
    painter.keyboard.press("ArrowDown")
    painter.keyboard.press("Enter")
    assert plan(painter)[2] == "softmax", "an unmeasured cell cannot be painted by key either"
    painter.keyboard.press("Control+z")
    assert plan(painter)[:2] == ["R2", "softmax"]
    painter.keyboard.press("Control+y")
    assert plan(painter)[:2] == ["R2", "R4"]
    painter.keyboard.press("ArrowRight")
    painter.keyboard.press("Shift+ArrowDown")
    assert plan(painter)[2:4] == ["R8", "R8"]


def test_shift_click_paints_a_range(painter: Page) -> None:
    cell(painter, 1, "R2").click()
    cell(painter, 4, "R2").click(modifiers=["Shift"])
    assert plan(painter) == ["softmax", "R2", "R2", "R2", "R2", "softmax"]


def test_losses_of_running_cells_stand_in_them_until_they_are_measured(painter: Page) -> None:
    painter.evaluate(
        """() => import('/workbench/static/bus.js').then(({ tell }) =>
        tell('jobs', {jobs: [], rows: [{step: 3, cells: {'block-02-R4': 0.1234}}]}))"""
    )
    expect(cell(painter, 2, "R4")).to_have_text(".123")
    cell(painter, 2, "R4").click(force=True)
    assert plan(painter)[2] == "softmax"
    table = {"columns": COLUMNS, "cells": cells(6, set()), "start": ["softmax"] * 6}
    painter.evaluate("table => send({table})", table)
    cell(painter, 2, "R4").click()
    assert plan(painter)[2] == "R4"


def test_forty_blocks_repaint_within_a_frame(painter: Page) -> None:
    table = {"columns": COLUMNS, "cells": cells(40, set()), "start": ["softmax"] * 40}
    painter.evaluate("table => { props.value = []; send({table}); }", table)
    painter.locator('[data-column="R8"]').click()
    assert plan(painter) == ["R8"] * 40


def clip_value(bench: Server, frames: int) -> dict[str, Any]:
    folder = bench.workspace.folder("clips") / "made"
    folder.mkdir(exist_ok=True)
    ramp = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 12
    for name in ("a.mp4", "b.mp4"):
        write_mp4(folder / name, np.broadcast_to(ramp, (frames, 64, 64, 3)).copy(), fps=8)
    clips = [
        {
            "role": role,
            "name": name,
            "plan": operators,
            "url": f"/workbench/media/clips/made/{file}",
            "facts": [],
        }
        for role, name, operators, file in (
            ("teacher", "teacher", ["softmax"], "a.mp4"),
            ("student", "<img src=x onerror=window.broken=1>", ["R4"], "b.mp4"),
        )
    ]
    curves = {"psnr": [None] + [30.0 + f for f in range(frames - 1)], "ssim": [0.9] * frames}
    hostile = "<script>window.broken=1</script>"
    return {"prompt": hostile, "seed": 1, "fps": 8, "frames": frames, "clips": clips, "curves": curves}


def test_clips_step_together_and_the_curve_seeks(watched: Watched, bench: Server) -> None:
    page = watched.page
    page.emulate_media(reduced_motion="reduce")
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    page.evaluate("value => place('player', {value})", clip_value(bench, 9))
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
    note = page.locator(".frame-note")
    expect(note).to_have_text("frame 1 of 9")
    page.locator('[data-verb="forward"]').click()
    page.locator('[data-verb="forward"]').click()
    expect(note).to_have_text("frame 3 of 9")
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => !v.seeking)")
    times = page.evaluate("[...document.querySelectorAll('video')].map(v => v.currentTime)")
    assert times[0] == times[1] == pytest.approx(2.5 / 8, abs=1e-3)
    expect(page.locator('[data-score="1"]')).to_have_text("31.0 dB")
    chart = page.locator(".curve").bounding_box()
    page.mouse.click(chart["x"] + chart["width"] - 12, chart["y"] + 40)
    expect(note).to_have_text("frame 9 of 9")
    page.locator('[data-choice="Mode"] [data-value="difference"]').click()
    assert page.locator('[data-place="1"] video').count() == 2
    page.locator('[data-choice="Mode"] [data-value="wipe"]').click()
    expect(page.locator(".wipe-line")).to_be_visible()
    page.locator('[data-choice="Mode"] [data-value="side"]').click()
    assert page.locator('[data-place="0"] video').count() == 1
    assert page.evaluate("window.broken") is None
    assert not watched.faults


def test_clips_play_in_sync(watched: Watched, bench: Server) -> None:
    page = watched.page
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    page.evaluate("value => place('player', {value})", clip_value(bench, 17))
    page.wait_for_function("document.querySelector('video').currentTime > 0.5")
    times = page.evaluate("[...document.querySelectorAll('video')].map(v => v.currentTime)")
    apart = abs(times[0] - times[1])
    assert apart <= 1 / 8, "clips may drift at most one frame"
    page.wait_for_function("document.querySelector('video').currentTime > 1.6")
    page.wait_for_function("document.querySelector('video').currentTime < 0.8", timeout=5000)
