"""The main job by mouse in a real browser: capture, measure, paint, see both clips play."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.conftest import Server, Watched, watch
from tests.ui.measures import PROMISES, TIMES, actions, page_ready, percentile, streamed_steps
from workbench.jobs import Queue
from workbench.video import read_mp4, write_mp4

HOSTILE = '<img src=x onerror="window.broken=1">'
JOB_MS = 90_000
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("ui-app")]


def open_page(watched: Watched, server: Server, page: str) -> Page:
    watched.page.goto(f"{server.address}/#{page}")
    watched.page.wait_for_selector(".study-step")
    watched.page.wait_for_function("document.querySelector('.painter') !== null")
    return watched.page


def go(page: Page, name: str) -> None:
    page.locator(f'.page-links [data-page="{name}"]').click()
    expect(page.locator(f"#page-{name} h1")).to_be_visible()


@pytest.fixture(scope="module")
def whole_job(browser: Browser, server: Server) -> Watched:
    """Go through the whole job once; the tests look at what it left."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    watched = watch(context)
    page = open_page(watched, server, "attention")
    expect(page.locator("#page-attention .empty h3")).to_have_text("No capture yet")
    watched.shot("0-first-start")
    capture(watched)
    measure(watched)
    paint(watched)
    compare(watched)
    return watched


def capture(watched: Watched) -> None:
    page = watched.page
    page.locator("#page-attention").get_by_label("prompt").fill(HOSTILE)
    page.locator("#page-attention").get_by_label("steps").fill("2")
    page.locator("#capture-button").dblclick()
    expect(page.locator(".job-bar")).to_be_visible()
    shown = page.locator("#page-attention .empty h3")
    expect(shown).to_have_text(re.compile("Capturing|The capture is queued"))
    page.wait_for_selector(".sprite-part[data-ready]", timeout=JOB_MS)
    page.wait_for_selector(".overlay-part[data-ready]")
    page.locator(".sprite").click(position={"x": 24 + 60, "y": 16 + 60})
    expect(page.locator(".head-title")).to_have_text("Head 1")
    before = page.locator(".overlay-part").get_attribute("data-ready")
    page.locator(".frame-view").click(position={"x": 20, "y": 20})
    expect(page.locator(".overlay-part")).not_to_have_attribute("data-ready", str(before))
    expect(page.locator(".patch-text")).to_contain_text("token")
    watched.shot("1-attention")


def measure(watched: Watched) -> None:
    page = watched.page
    go(page, "plan")
    expect(page.locator('.cell[data-block="1"][data-op="R4"]')).to_have_class(re.compile("unmeasured"))
    form = page.locator(".measure-form")
    form.get_by_label("blocks to measure").fill("1")
    form.get_by_label("updates").fill("8")
    page.locator("#measure-button").click()
    expect(page.locator(".job-bar")).to_be_visible()
    watched.shot("2-measuring")
    page.reload()
    page.wait_for_selector(".study-step")
    page.wait_for_selector('.cell[data-block="1"][data-op="R4"]:not(.unmeasured)', timeout=JOB_MS)
    expect(page.locator('.cell[data-block="0"][data-op="R4"]')).to_have_class(re.compile("unmeasured"))


def paint(watched: Watched) -> None:
    page = watched.page
    page.locator('.cell[data-block="1"][data-op="R4"]').click()
    expect(page.locator(".plan-name")).to_have_text("1xR4")
    expect(page.locator(".plan-readouts")).to_contain_text("of softmax FLOPs")
    page.get_by_label("name", exact=True).fill(HOSTILE)
    watched.shot("3-painted")
    page.locator("#make-student").click()
    student = page.locator('.study-step[data-part="plan"]')
    expect(student).to_have_attribute("data-state", "done", timeout=JOB_MS)
    expect(student).to_contain_text(HOSTILE)


def compare(watched: Watched) -> None:
    page = watched.page
    go(page, "compare")
    page.locator("#page-compare").get_by_label("prompt").fill(HOSTILE)
    page.locator("#page-compare").get_by_label("steps").fill("2")
    page.locator("#compare-button").click()
    page.wait_for_selector(".player video", timeout=JOB_MS)
    page.wait_for_function("[...document.querySelectorAll('.player video')].every(v => v.currentTime > 0.1)")
    watched.shot("4-compare")


def test_the_whole_job_ends_with_both_clips_playing(whole_job: Watched, server: Server) -> None:
    page = whole_job.page
    sources = page.evaluate("[...document.querySelectorAll('.player video')].map(v => v.getAttribute('src'))")
    assert len(sources) == 2 and all(source.startswith("/workbench/media/comparisons/") for source in sources)
    expect(page.locator('.clip[data-column="1"] .clip-score')).to_have_text(re.compile(r"dB|equal"))
    jobs = [job for job in Queue(server.workspace).list() if job.kind != "render"]
    states = [(job.kind, job.state) for job in jobs]
    assert states == [(kind, "done") for kind in ("capture", "measure", "surgery", "compare")], (
        "a double click queues one job"
    )


def test_no_request_left_the_machine_and_no_script_failed(whole_job: Watched) -> None:
    assert whole_job.outside == []
    assert whole_job.faults == []


def test_markup_in_prompts_and_names_is_text(whole_job: Watched) -> None:
    page = whole_job.page
    for name in ("home", "runs", "train", "attention", "plan", "compare"):
        go(page, name)
    assert page.evaluate("window.broken") is None
    expect(page.locator(".row-prompt b")).to_have_text(HOSTILE)


def test_a_reload_shows_the_same_study_and_jobs(whole_job: Watched, server: Server) -> None:
    page = whole_job.page
    go(page, "plan")
    page.locator('.cell[data-block="1"][data-op="linear"]').click()
    page.get_by_label("dense first steps").fill("1")
    page.reload()
    page.wait_for_selector(".study-step")
    expect(page.locator(".plan-name")).to_have_text("1xlinear")
    expect(page.get_by_label("dense first steps")).to_have_value("1")
    expect(page.locator('[data-part="plan"]')).to_contain_text("painted: 1xlinear")
    page.get_by_label("dense first steps").fill("0")
    go(page, "runs")
    expect(page.locator("tr[data-job]", has_text="surgery")).to_have_count(1)
    page.locator("tr[data-job]", has_text="measure").click()
    expect(page.locator(".command-text")).to_contain_text("workbench measure")
    expect(page.locator(".job-loss .loss-chart svg")).to_be_visible()
    whole_job.shot("5-runs")


def test_dark_and_phone(browser: Browser, server: Server, whole_job: Watched) -> None:
    for width, height, scheme in ((1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark")):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        other = watch(context)
        page = open_page(other, server, "attention")
        for name in ("home", "attention", "plan", "train", "compare", "runs"):
            go(page, name)
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{name} is {overflow} px too wide at {width}"
            other.shot(f"6-{name}-{width}-{scheme}")
        assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
        context.close()


def test_two_tabs_see_one_cancel(browser: Browser, server: Server, whole_job: Watched) -> None:
    page = whole_job.page
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    second = watch(context)
    open_page(second, server, "runs")
    go(page, "attention")
    page.locator("#page-attention").get_by_label("prompt").fill("a second tab")
    page.locator("#page-attention").get_by_label("steps").fill("500")
    page.locator("#capture-button").click()
    row = second.page.locator("tr[data-job]", has_text="a second tab")
    expect(row).to_contain_text(re.compile("starting|running"), timeout=JOB_MS)
    row.locator("[data-act=cancel]").click()
    expect(row).to_contain_text("cancelled", timeout=20_000)
    expect(page.locator(".job-bar")).to_be_hidden(timeout=20_000)
    context.close()


def test_pages_answer_within_five_times_the_promise_while_a_job_runs(
    browser: Browser, server: Server, whole_job: Watched
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    other = watch(context)
    ready = page_ready(other.page, f"{server.address}/#attention")
    assert ready <= TIMES * PROMISES["page_ready_s"]
    queue = Queue(server.workspace)
    config = queue.list()[0].config | {"steps": 800}
    job = queue.submit("capture", config, title="runs meanwhile")
    queue.dispatch()
    other.page.wait_for_selector(".overlay-part[data-ready]")
    taken = actions(other.page, 2)
    queue.cancel(job.id)
    assert percentile(taken, 0.95) <= TIMES * PROMISES["action_p95_s"]
    assert other.outside == [] and other.faults == []
    context.close()


def test_an_own_clip_comes_in_and_every_export_goes_out_by_mouse(
    whole_job: Watched, server: Server, tmp_path: Path
) -> None:
    page = whole_job.page
    go(page, "compare")
    made = next(iter(server.workspace.folder("comparisons").glob("*/comparison.json"))).parent
    frames = read_mp4(next(made.glob("*.mp4")))
    write_mp4(tmp_path / "my own.mp4", 255 - frames, fps=8)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a clip").click()
    chooser.value.set_files(tmp_path / "my own.mp4")
    expect(page.locator('.clip[data-column="2"] .clip-name')).to_contain_text("my own", timeout=30_000)
    page.wait_for_function("[...document.querySelectorAll('.player video')].every(v => v.readyState > 1)")
    whole_job.shot("7-imported")
    starts = {"html": b"PK", "vote": b"PK", "mp4": b"ftyp", "gif": b"GIF89a", "json": b"{"}
    for form, begins in starts.items():
        page.locator(".menu summary").click()
        with page.expect_download(timeout=60_000) as download:
            page.locator(f'.menu-list a[href$="/{form}"]').click()
        assert begins in download.value.path().read_bytes()[:12], form
    (tmp_path / "no clip.mp4").write_bytes(b"<script>")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a clip").click()
    chooser.value.set_files(tmp_path / "no clip.mp4")
    expect(page.locator(".toast.error", has_text="not an MP4")).to_be_visible()


def test_the_study_bar_names_the_comparison_that_is_opened(whole_job: Watched, server: Server) -> None:
    page = whole_job.page
    folder = server.workspace.folder("comparisons")
    first = min(path for path in folder.iterdir() if (path / "comparison.json").is_file())
    other = folder / "20250101-000000-earlier-0000"
    shutil.copytree(first, other)
    document = json.loads((other / "comparison.json").read_text())
    document["settings"]["prompt"] = "an earlier prompt"
    (other / "comparison.json").write_text(json.dumps(document))
    page.reload()
    page.wait_for_selector(".study-step")
    go(page, "compare")
    step = page.locator('.study-step[data-part="comparison"]')
    expect(step).not_to_contain_text("an earlier prompt")
    page.get_by_label("Comparisons").select_option(other.name)
    expect(step).to_contain_text("an earlier prompt")
    expect(page.locator(".compare-part")).to_have_attribute("data-shown", other.name)
    page.reload()
    expect(step).to_contain_text("an earlier prompt")
    expect(page.locator(".compare-part")).to_have_attribute("data-shown", other.name)


def test_the_loss_streams_without_being_fetched_twice(whole_job: Watched, server: Server) -> None:
    queue = Queue(server.workspace)
    config = next(job.config for job in queue.list() if job.kind == "measure")
    job = queue.submit("measure", {**config, "updates": 5000, "extend": None}, title="streams")
    queue.dispatch()
    go(whole_job.page, "plan")
    whole_job.page.wait_for_selector(".losses-slot .loss-chart svg", timeout=JOB_MS)
    steps = streamed_steps(whole_job.page, seconds=4)
    queue.cancel(job.id)
    assert steps and len(steps) == len(set(steps))


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("capture", ["", 0, 2], "prompt is empty"),
        ("capture", ["a ball", 0.5, 2], "Seed must be a whole number"),
        ("capture", ["a ball", 0, 0], "'steps'"),
        ("capture", ["a ball", None, 2], "Seed must be a whole number"),
        ("capture", ["a ball", 0, 10**9], "'steps'"),
        ("measure", ["99", ["R4"], 8], "Block 99 does not exist"),
        ("measure", ["0", [], 8], "No rate is chosen"),
        ("cost", [["R4"], 0], "one operator for each of the 3 blocks"),
        ("cost", [["R4", "R0", "R4"], 0], "'R0' is not a whole number"),
        ("compare", ["a ball", 0, 2, "student/../../x"], "No student is chosen"),
    ],
)
def test_bad_input_through_the_api_is_the_sentence_of_the_form(
    server: Server, name: str, values: list[Any], sentence: str
) -> None:
    before = len(Queue(server.workspace).list())
    assert sentence in call(server, name, values)
    assert len(Queue(server.workspace).list()) == before


def call(server: Server, name: str, values: list[Any]) -> str:
    """Call a named endpoint as a script would, and return the whole stream of its answer."""
    address = f"{server.address}/gradio_api/call/{name}"
    request = urllib.request.Request(
        address, json.dumps({"data": values}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}/{event}", timeout=30) as stream:
        text: str = stream.read().decode()
    return text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "attacker.example"}, 400),
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/component_server",
        "/workbench/import/x/0",
        "/workbench/export/x/html",
    ],
)
def test_foreign_pages_are_refused_on_real_routes(
    server: Server, path: str, headers: dict[str, str], status: int
) -> None:
    request = urllib.request.Request(server.address + path, b"{}", headers, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == status
