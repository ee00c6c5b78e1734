"""`workbench jobs ...` and following a job, as a user of the command line meets them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.jobs.harness import reached_step, run_demo, wait_for, wait_until
from workbench.cli.jobs import app, follow
from workbench.errors import Cancelled, InputError, Paused, WorkbenchError
from workbench.jobs import Queue


def call(queue: Queue, *words: str) -> Any:
    """Run a command with --json and return its document."""
    result = CliRunner().invoke(app, [*words, "--workspace", str(queue.workspace.root), "--json"])
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_an_empty_list_is_an_empty_document(queue: Queue) -> None:
    assert call(queue, "list") == []


def test_the_verbs_answer_with_the_job(queue: Queue) -> None:
    job = queue.submit("demo", {"steps": 100_000, "delay": 0.02})
    (listed,) = call(queue, "list")
    assert {"id", "kind", "state", "step", "steps", "pid", "resumable"} <= set(listed)
    wait_until(lambda: reached_step(queue, job.id, 2), what="the command to have started it")
    assert call(queue, "save", job.id)["state"] in ("running", "saving")
    assert call(queue, "sample", job.id)["id"] == job.id
    assert call(queue, "pause", job.id)["state"] in ("pausing", "paused")
    wait_for(queue, job.id, "paused")
    shown = call(queue, "show", job.id)
    assert shown["state"] == "paused"
    assert any(job.id in line for line in shown["log"])
    assert call(queue, "resume", job.id)["state"] in ("queued", "starting", "running", "saving")
    wait_for(queue, job.id, "running", "saving")
    assert call(queue, "cancel", job.id)["state"] == "cancelled"
    twin = call(queue, "clone", job.id)
    assert twin["config"] == job.config
    assert call(queue, "mark-stopped", twin["id"])["state"] == "interrupted"
    assert call(queue, "delete", job.id) == {"id": job.id, "deleted": True}
    assert [other["id"] for other in call(queue, "list", "--state", "interrupted")] == [twin["id"]]


def test_bad_input_is_refused_in_a_sentence(queue: Queue) -> None:
    with pytest.raises(InputError, match="There is no job 'nothing'"):
        call(queue, "show", "nothing")
    with pytest.raises(InputError, match="There is no state 'runing'; known: queued"):
        call(queue, "list", "--state", "runing")


def test_following_a_job_to_its_end(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    job = queue.submit("demo", {"steps": 3, "two_stages": True})
    assert follow(queue, job).state == "done"
    output = capsys.readouterr()
    assert output.out == ""
    assert "done · second 3/3" in output.err


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ({"stepz": 1}, InputError, "did you mean 'steps'"),
        ({"raise_at": 1}, WorkbenchError, "KeyError"),
        ({"pause_at": 2}, Paused, "workbench jobs resume"),
        ({"nan_at": 2}, WorkbenchError, "loss became nan"),
    ],
)
def test_following_ends_as_the_work_ended(
    queue: Queue, config: dict[str, Any], kind: type[Exception], words: str
) -> None:
    job = run_demo(queue, **config)
    with pytest.raises(kind, match=words) as caught:
        follow(queue, job, quiet=True)
    assert isinstance(caught.value, InputError) == (kind is InputError)


def test_interrupting_the_wait_cancels_the_job(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    job = queue.submit("demo", {"steps": 100_000, "delay": 0.02})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 1), what="a step")
    from workbench.cli import jobs

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "_watch", interrupted)
    with pytest.raises(Cancelled):
        follow(queue, job)
    assert queue.get(job.id).state == "cancelled"
