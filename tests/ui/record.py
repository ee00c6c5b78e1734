"""Measure what the interface promises and write docs/results/ui.json; run on a quiet machine.

    python -m tests.ui.record [--rounds 23]

Uses the embedded model: a capture, a few cells, a student and a comparison are made first (minutes), then the
pages are measured idle and while a job trains.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, sync_playwright

from tests.browser import FLAGS, find_browser
from tests.ui.conftest import ROOT, Server, free_port, start_app, start_bench, watch
from tests.ui.measures import (
    PROMISES,
    actions,
    drift,
    heap,
    large_sprite,
    page_ready,
    painter_frames,
    percentile,
    streamed_steps,
)
from workbench.jobs import Queue
from workbench.workspace import Workspace

RESULT = ROOT / "docs" / "results" / "ui.json"
PROMPT = "a big red ball moves right over sand"
PAINTER = (40, ["softmax", "R2", "R4", "R8", "R16", "T3o1", "T2o1", "linear"])


def prepare(workspace: Workspace) -> None:
    """Make a capture, a bank, a student and a comparison of three clips."""
    from workbench import workflow
    from workbench.planning import load_bank, plan_blocks, save

    run = workflow.STEPS
    clip = {"model": "embedded", "prompt": PROMPT, "seed": 7, "steps": 8}
    _run(run, "capture", {**clip, "query_stride": 8}, workspace)
    measured = {
        "model": "embedded",
        "blocks": [2, 5],
        "rates": ["R4", "linear"],
        "updates": 60,
        "num_prompts": 2,
    }
    bank = load_bank(_run(run, "measure", {**measured, "steps": 4}, workspace))
    sides = []
    for rate in ("R4", "linear"):
        path = workspace.folder("plans") / f"2x{rate}.json"
        save(plan_blocks("2,5", rate, bank.facts), path)
        sides.append({"plan": str(path), "bank": str(bank.folder)})
    _queue("surgery", {**sides[0], "name": "middle blocks"}, workspace)
    _run(run, "compare", {**clip, "sides": sides}, workspace)


def _run(steps: Any, kind: str, settings: dict[str, Any], workspace: Workspace) -> Path:
    from workbench.types import SilentReporter
    from workbench.workflow import check

    path: Path = steps[kind].run(check(kind, settings), workspace, SilentReporter()).path
    return path


def _queue(kind: str, settings: dict[str, Any], workspace: Workspace) -> None:
    """Run a step as a job, so that the Runs page has a row while nothing runs."""
    from workbench.workflow import check

    queue = Queue(workspace)
    job = queue.submit(kind, check(kind, settings).model_dump(mode="json"), title=kind)
    queue.dispatch()
    while queue.get(job.id).state not in ("done", "failed"):
        time.sleep(0.2)


def measure_pages(browser: Browser, server: Server, *, rounds: int) -> dict[str, Any]:
    """Measure the app itself: ready, actions idle and under a job, memory, traffic of the loss, requests."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = watch(context)
    page = watched.page
    ready = [page_ready(page, f"{server.address}/#attention") for _ in range(7)]
    page.wait_for_selector(".overlay-part[data-ready]")
    idle = actions(page, 3)
    queue = Queue(server.workspace)
    job = queue.submit("measure", _long_measuring(), title="trains meanwhile")
    queue.dispatch()
    while queue.get(job.id).state != "running" or "distilling" not in queue.get(job.id).stage:
        time.sleep(0.5)
    sent: list[int] = []
    page.on("response", lambda answer: sent.append(int(answer.headers.get("content-length", 0))))
    heap_before, process = heap(page), psutil.Process(server.process.pid)
    server_before = process.memory_info().rss
    busy = actions(page, rounds)
    heap_after, server_after = heap(page), process.memory_info().rss
    rows, _ = queue.metrics(job.id)
    steps = streamed_steps(page, seconds=10)
    queue.cancel(job.id)
    result = {
        "page_ready_s": percentile(ready, 0.5),
        "page_ready_worst_s": max(ready),
        "actions": len(busy),
        "action_p95_s": percentile(busy, 0.95),
        "action_p95_idle_s": percentile(idle, 0.95),
        "heap_growth": heap_after / heap_before - 1,
        "server_growth": server_after / server_before - 1,
        "loss_rows": len(rows),
        "loss_rows_streamed": len(steps),
        "loss_rows_sent_twice": len(steps) - len(set(steps)),
        "outside_requests": watched.outside,
        "script_faults": watched.faults,
    }
    context.close()
    return result


def _long_measuring() -> dict[str, Any]:
    from workbench.workflow import check

    settings = {"model": "embedded", "rates": ["R2", "R4", "R8"], "updates": 5000}
    return check("measure", settings).model_dump(mode="json")


def measure_parts(browser: Browser, server: Server) -> dict[str, Any]:
    """Measure parts with generated data: the painter of 40 × 8 and the sprite of 30 × 12 × 32 × 32."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_function("window.ready")
    blocks, columns = PAINTER
    cell = {"error": 0.1, "low": 0.05, "high": 0.2, "off": 0.3, "first": 0.6}
    rows = [[None, *[cell] * (len(columns) - 1)] for _ in range(blocks)]
    table = {"columns": columns, "cells": rows, "start": ["softmax"] * blocks}
    page.evaluate("table => place('painter', {value: [], table})", table)
    frames = painter_frames(page)
    page.reload()
    page.wait_for_function("window.ready")
    sprite, size = large_sprite(page)
    context.close()
    return {
        "painter_cells": f"{blocks} x {len(columns)}",
        "painter_frame_p95_ms": percentile(frames, 0.95),
        "painter_frames_per_second": 1000 * len(frames) / sum(frames),
        "sprite_s": sprite,
        "sprite_bytes": size,
    }


def measure_clips(browser: Browser, server: Server) -> dict[str, Any]:
    """Measure how far three real clips drift apart over ten seconds of play."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{server.address}/#compare")
    page.wait_for_function("(document.querySelector('.player video')?.currentTime ?? 0) > 0.2")
    apart = drift(page, seconds=10, fps=8)
    context.close()
    return {"clips": 3, "drift_frames": apart}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=23, help="rounds of nine actions while a job trains")
    rounds = parser.parse_args().rounds
    path = find_browser()
    if path is None:
        sys.stderr.write("No Chromium was found; run `make browser` or set WORKBENCH_CHROMIUM.\n")
        return 2
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Workspace.open(Path(folder) / "workspace")
        prepare(workspace)
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        server = start_app(workspace, Path("embedded"), free_port())
        bench, stop = start_bench(workspace)
        try:
            found = measure_parts(browser, bench) | measure_clips(browser, server)
            found |= measure_pages(browser, server, rounds=rounds)
        finally:
            stop()
            server.process.terminate()
            server.process.wait(timeout=30)
            browser.close()
        document = {
            "measured": found,
            "promised": PROMISES,
            "kept": kept(found),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "threads": threading.active_count(),
            "versions": {name: version(name) for name in ("gradio", "playwright", "torch")},
            "browser": browser.version,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(document["kept"], indent=2) + f"\n{RESULT}\n")
    return 0


def kept(found: dict[str, Any]) -> dict[str, bool]:
    """Return which promises hold."""
    held = {name: found[name] <= limit for name, limit in PROMISES.items() if name in found}
    held["memory_growth"] = max(found["heap_growth"], found["server_growth"]) <= PROMISES["memory_growth"]
    held["loss_streams"] = found["loss_rows_sent_twice"] == 0
    return held | {"no_outside_request": not found["outside_requests"]}


if __name__ == "__main__":
    sys.exit(main())
