"""The parts of the interface on their own, with generated data, by mouse and by keyboard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import Server, Watched
from tests.ui.measures import PROMISES, TIMES, large_sprite
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


def clip_value(bench: Server, frames: int, *, rows: int = 1) -> dict[str, Any]:
    folder = bench.workspace.folder("clips") / "made"
    folder.mkdir(exist_ok=True)
    ramp = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 12
    for place, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_mp4(folder / name, np.broadcast_to(ramp + 10 * place, (frames, 64, 64, 3)).copy(), fps=8)
    curves = {"psnr": [None] + [30.0 + f for f in range(frames - 1)], "ssim": [0.9] * frames}
    clips = [
        {
            "role": "student" if place else "teacher",
            "column": place,
            "name": name,
            "plan": operators,
            "branch": branch,
            "url": f"/workbench/media/clips/made/{file}",
            "facts": [["time", "7.5", "s", "measured"]],
            "verdicts": [["colour", "right"], ["motion", "wrong"]],
            "curves": curves if place else None,
        }
        for place, (name, operators, branch, file) in enumerate(
            (
                ("teacher", ["softmax"], True, "a.mp4"),
                ("<img src=x onerror=window.broken=1>", ["R4"], True, "b.mp4"),
                ("branch off", ["R4"], False, "c.mp4"),
            )
        )
    ]
    hostile = "<script>window.broken=1</script>"
    return {
        "rows": [{"prompt": f"{hostile} {row}", "clips": clips} for row in range(rows)],
        "columns": ["teacher", "student", "branch off"],
        "seed": 1,
        "fps": 8,
        "frames": frames,
    }


def shades(page: Page) -> list[int]:
    """What the painted student clips show in the middle."""
    found: list[int] = page.evaluate(
        """() => [...document.querySelectorAll('.clip:not([hidden]) .over')].map(canvas =>
        canvas.getContext('2d').getImageData(canvas.width * .75, canvas.height / 2, 1, 1).data[0])"""
    )
    return found


def test_clips_step_together_in_every_mode(watched: Watched, bench: Server) -> None:
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
    expect(page.locator('.clip[data-column="1"] .clip-score')).to_have_text("31.0 dB")
    expect(page.locator('.clip[data-column="1"] .verdict[data-verdict="wrong"]')).to_contain_text("motion")
    page.locator('[data-choice="Mode"] [data-value="difference"]').click()
    page.wait_for_function("document.querySelector('.clip[data-column=\"1\"] .over').width === 64")
    assert shades(page)[0] == pytest.approx(10, abs=3), "the difference of two greys 10 apart"
    page.locator('[data-choice="Mode"] [data-value="wipe"]').click()
    expect(page.locator('.clip[data-column="1"] .wipe-line')).to_be_visible()
    assert shades(page)[0] == pytest.approx(34, abs=3), "right of the line is the student"
    page.locator(".player").focus()
    for _ in range(10):
        page.keyboard.press("Shift+ArrowRight")
    assert shades(page)[0] == pytest.approx(24, abs=3), "the line went past: the teacher"
    page.locator('[data-choice="Mode"] [data-value="flip"]').click()
    page.keyboard.press("f")
    expect(page.locator('.clip[data-column="1"]')).to_have_attribute("data-flipped", "true")
    page.locator('[data-choice="Mode"] [data-value="grid"]').click()
    chart = page.locator(".curve").bounding_box()
    page.mouse.click(chart["x"] + chart["width"] - 12, chart["y"] + 40)
    expect(note).to_have_text("frame 9 of 9")
    assert page.evaluate("window.broken") is None
    assert not watched.faults


def test_the_linear_branch_switches_between_twins(watched: Watched, bench: Server) -> None:
    page = watched.page
    page.emulate_media(reduced_motion="reduce")
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    page.evaluate("value => place('player', {value})", clip_value(bench, 5))
    expect(page.locator(".clip:visible")).to_have_count(2)
    page.locator(".branch-toggle").click()
    expect(page.locator(".clip:visible")).to_have_count(2)
    expect(page.locator(".clip:visible b").last).to_have_text("branch off")


def test_rows_of_clips_play_in_sync(watched: Watched, bench: Server) -> None:
    page = watched.page
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    page.evaluate("value => place('player', {value})", clip_value(bench, 17, rows=2))
    page.wait_for_function("document.querySelector('video').currentTime > 0.5")
    times = page.evaluate(
        """[...document.querySelectorAll('.clip-row:first-of-type .clip:not([hidden]) video')]
        .map(video => video.currentTime)"""
    )
    assert len(times) == 2 and abs(times[0] - times[1]) <= 1 / 8, "clips may drift at most one frame"
    page.wait_for_function("document.querySelector('video').currentTime > 1.6")
    page.wait_for_function("document.querySelector('video').currentTime < 0.8", timeout=5000)


def test_a_blind_vote_names_nothing_until_it_is_over(watched: Watched, bench: Server) -> None:
    page = watched.page
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    page.evaluate("value => place('vote', {value})", clip_value(bench, 5, rows=2))
    for pair in range(4):
        expect(page.locator(".hint")).to_contain_text(f"pair {pair + 1} of 4")
        assert "branch off" not in page.locator("#part").inner_text()
        page.keyboard.press("1")
    expect(page.locator("#part tbody tr")).to_have_count(3)
    with page.expect_download() as caught:
        page.locator('[data-verb="csv"]').click()
    lines = caught.value.path().read_text().strip().split("\n")
    assert len(lines) == 5 and lines[0].startswith('"prompt","left","right"')
    assert page.evaluate("window.broken") is None


PAYLOADS = (
    "<script>window.broken=1</script>",
    "</script><script>window.broken=1</script>",
    "<img src=x onerror=window.broken=1>",
    '"><img src=x onerror=window.broken=1>',
    "'><svg onload=window.broken=1>",
    "<svg/onload=window.broken=1>",
    "<iframe srcdoc='<script>parent.broken=1</script>'>",
    "[x](javascript:window.broken=1)",
    "javascript:window.broken=1",
    "<a href='javascript:window.broken=1'>x</a>",
    "${window.broken=1}",
    "{{constructor.constructor('window.broken=1')()}}",
)
"""Twelve ways to smuggle a script into a name or a prompt."""


@pytest.mark.parametrize("part", ["player", "vote", "heads", "jobs", "compare", "attention"])
def test_no_name_or_prompt_runs_as_script(watched: Watched, bench: Server, part: str) -> None:
    page = watched.page
    page.emulate_media(reduced_motion="reduce")
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    rows = [
        {
            "prompt": text,
            "clips": [
                {
                    "role": "student", "column": column, "name": text, "plan": [text], "branch": True,
                    "url": "", "facts": [[text, text, text, text]], "verdicts": [[text, text]],
                    "curves": None,
                }
                for column in (0, 1)
            ],
        }
        for text in PAYLOADS
    ]  # fmt: skip
    clips = {"rows": rows, "columns": list(PAYLOADS), "seed": 1, "fps": 8, "frames": 2, "id": "x"}
    named = [{"key": text, "name": text, "kind": text, "plan": text} for text in PAYLOADS]
    listed = [{"id": text, "prompt": text, "rows": 1, "columns": [text], "made": text} for text in PAYLOADS]
    heads = {
        "columns": [{"key": "a", "label": PAYLOADS[2], "digits": 2, "tip": PAYLOADS[3]}],
        "rows": [{"block": 0, "head": 0, "kind": text, "a": 0.5} for text in PAYLOADS],
    }
    page_value = {
        "ids": {"capture": "x"}, "model": PAYLOADS[2], "columns": named, "student": PAYLOADS[2], "steps": 2,
        "prompt": PAYLOADS[3], "vocabulary": None, "shown": clips, "listed": listed, "heads": heads,
        "sprite": {"fault": PAYLOADS[2]}, "overlay": {}, "playground": {},
    }  # fmt: skip
    value = {"player": clips, "vote": clips, "heads": heads}.get(part, page_value)
    jobs = [
        {
            "id": f"job-{at}", "kind": text, "title": text, "state": "failed", "stage": text, "step": 1,
            "steps": 2, "done": 0.5, "seconds": 1, "made": text, "message": text, "result": text,
        }
        for at, text in enumerate(PAYLOADS)
    ]  # fmt: skip
    things = [
        {"kind": "clips", "id": text, "name": text, "bytes": 1, "made": text, "used": text, "busy": [text]}
        for text in PAYLOADS
    ]
    answers = {
        "stocked": {"rows": things, "room": {"clips": 1}, "free": 1},
        "job": {
            "rows": [], "next": 0, "log": "\n".join(PAYLOADS), "command": " ".join(PAYLOADS), "memory": 1,
            "saved": 1, "samples": [{"step": text, "url": text} for text in PAYLOADS],
        },
    }  # fmt: skip
    page.evaluate("document.documentElement.dataset.page = 'runs'")
    page.evaluate("([part, value, answers]) => place(part, {value}, answers)", [part, value, answers])
    page.evaluate(
        """jobs => import('/workbench/static/bus.js').then(({ tell, say }) => {
          tell('jobs', { jobs, rows: [] });
          jobs.forEach(job => say(job.title, 'error'));
        })""",
        jobs,
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.broken") is None
    assert PAYLOADS[0] in page.locator("body").inner_text()


def test_a_large_sprite_is_small_and_drawn_in_five_times_the_promise(watched: Watched, bench: Server) -> None:
    watched.page.goto(bench.address)
    watched.page.wait_for_function("window.ready")
    seconds, size = large_sprite(watched.page)
    assert size <= PROMISES["sprite_bytes"] and seconds <= TIMES * PROMISES["sprite_s"]
    assert watched.faults == []
