"""The live view of a job in a notebook: it follows, it obeys, it shows foreign text as text."""

from __future__ import annotations

import pytest

from tests.jobs.harness import reached_step, wait_for, wait_until
from workbench.errors import InputError
from workbench.jobs import Queue, attach
from workbench.jobs.notebook import JobView


def test_a_view_follows_a_job_and_takes_only_what_is_new(queue: Queue) -> None:
    job = queue.submit("demo", {"steps": 30, "delay": 0.02}, title="<img src=x onerror=alert(1)>")
    view = JobView(queue, job.id)
    assert "<img" not in view.head.value
    assert "&lt;img" in view.head.value
    wait_until(lambda: view.refresh().ended, what="the view to see the end, having started the job")
    assert len(view.losses) == 30
    cursor = view.cursor
    view.refresh()
    assert (len(view.losses), view.cursor) == (30, cursor)
    assert (view.bar.value, view.bar.max) == (30, 30)
    assert "<polyline" in view.curve.value
    assert view.said.value.startswith("done")
    assert {verb for verb, button in view.buttons.items() if not button.disabled} == {"clone", "delete"}
    view.buttons["clone"].click()
    twin = queue.list()[-1]
    assert twin.config == job.config
    assert twin.id in view.answer.value
    view.buttons["delete"].click()
    assert queue.get(job.id).state == "done", "deleting asks once more"
    view.buttons["delete"].click()
    assert [left.id for left in queue.list()] == [twin.id]
    assert all(button.disabled for button in view.buttons.values())


def test_a_view_attached_again_controls_the_same_job(queue: Queue) -> None:
    job = queue.submit("demo", {"steps": 100_000, "delay": 0.02})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 3), what="some steps")
    view = attach(job.id, queue.workspace)
    assert len(view.losses) >= 3, "what happened before is shown too"
    view.buttons["save now"].click()
    view.buttons["sample now"].click()
    wait_until(lambda: view.refresh() and view.sample.children, what="a sample")
    assert "sample.safetensors" in view.sample.children[0].value
    view.buttons["pause"].click()
    paused = wait_for(queue, job.id, "paused")
    view.refresh()
    assert not view.buttons["resume"].disabled
    view.buttons["resume"].click()
    wait_until(lambda: reached_step(queue, job.id, paused.step + 1), what="it to go on")
    view.buttons["cancel"].click()
    wait_for(queue, job.id, "cancelled")


def test_attaching_to_nothing_is_refused(queue: Queue) -> None:
    with pytest.raises(InputError, match="There is no job 'x'"):
        attach("x", queue.workspace.root)


def test_a_waiting_job_shows_its_place_and_a_stopped_worker_can_be_given_up(queue: Queue) -> None:
    first = queue.submit("demo", {"steps": 100_000, "delay": 0.02})
    second = queue.submit("demo", {})
    queue.dispatch()
    waiting = JobView(queue, second.id)
    assert waiting.said.value.startswith("queued, 1 before it")
    view = JobView(queue, first.id)
    wait_for(queue, first.id, "running", "saving")
    view.refresh()
    view.buttons["mark stopped"].click()
    assert queue.get(first.id).state == "interrupted"
    assert not view.buttons["resume"].disabled
    wait_for(queue, second.id, "done")
