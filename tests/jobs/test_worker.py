"""Real workers: a job's life, its verbs, exact resume, and every way in which work can end badly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.demo import let_go
from tests.jobs.harness import a_queue, reached_step, reference, wait_for, wait_until
from tests.jobs.matrices import cancel_latency, not_a_number, resume_exact
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.jobs.locks import is_held
from workbench.jobs.manifests import checkpoint_numbers
from workbench.jobs.processes import holder_of
from workbench.jobs.tensors import load_tensors
from workbench.worker import main


def test_jobs_run_one_after_the_other_and_leave_everything_behind(queue: Queue) -> None:
    first = queue.submit(
        "demo", {"steps": 5, "artefact": True}, title="<b>mine</b>", command="workbench demo"
    )
    second = queue.submit("demo", {"steps": 2})
    assert [job.id for job in queue.dispatch()] == [first.id]
    assert queue.dispatch() == []
    wait_until(lambda: queue.get(second.id).state == "done", what="the worker to start the next job")
    done = queue.get(first.id)
    assert (done.state, done.step, done.steps, done.stage, done.pid) == ("done", 5, 5, "train", None)
    assert done.result is not None
    assert done.result["sha256"] == reference(queue.workspace, steps=5)
    assert done.title == "<b>mine</b>"
    assert done.command == "workbench demo"
    assert "workbench.worker" in queue.get(second.id).command
    assert {"python", "torch", "safetensors", "device"} <= set(done.versions)
    assert done.peak_bytes > 50e6
    assert done.seconds > 0
    assert done.finished is not None
    assert "\n".join(queue.log_tail(first.id)).count(first.id) == 1
    rows, cursor = queue.metrics(first.id)
    assert [row["done"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    assert queue.metrics(first.id, after=cursor).rows == []
    bank = queue.workspace.root / done.result["artefact"]
    assert set(load_tensors(bank / "weights.safetensors")) == {
        "tensor/weight", "tensor/average", "tensor/momentum",
    }  # fmt: skip
    assert not is_held(queue.folder(first.id))
    assert not (queue.workspace.root / "TWICE").exists()


def test_pause_and_resume_are_exact_in_a_new_process(tmp_path: Path) -> None:
    result = resume_exact(tmp_path, stops=(1, 7, 20, 33, 40))
    assert result == {"stops": 5, "differing": [], "without_random_state_differs": True}


def test_a_later_stage_goes_on_where_it_was(queue: Queue) -> None:
    config = {"steps": 4, "two_stages": True}
    job = queue.submit("demo", {**config, "hold_at": 6})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 5), what="the second stage")
    queue.pause(job.id)
    let_go(queue.workspace)
    paused = wait_for(queue, job.id, "paused")
    assert (paused.stage, paused.checkpoint_step) == ("second", 4 + paused.step)
    queue.resume(job.id)
    queue.dispatch()
    done = wait_for(queue, job.id)
    assert (done.result or {})["sha256"] == reference(queue.workspace, **config)
    assert [row["done"] for row in queue.metrics(job.id).rows if "loss" in row] == list(range(1, 9))


def test_cancel_is_obeyed_while_loading_and_while_running(tmp_path: Path) -> None:
    assert cancel_latency(tmp_path, repeats=4)["repeats"] == 4


def test_work_that_does_not_look_up_is_ended(queue: Queue) -> None:
    job = queue.submit("demo", {"ignore_wishes_at": 3})
    follower = queue.submit("demo", {"steps": 1})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 2), what="the second step")
    queue.cancel(job.id)
    ended = wait_for(queue, job.id, "cancelled")
    assert ended.checkpoint_step == 2
    assert "did not look up" in ended.message
    wait_until(lambda: queue.get(follower.id).state == "done", what="the next job")


def test_a_worker_that_cannot_move_is_killed_or_marked_stopped(queue: Queue) -> None:
    job = queue.submit("demo", {"ignore_wishes_at": 3})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 2), what="a step")
    wait_until(lambda: queue.get(job.id).checkpoint_step == 2, what="the checkpoint")
    wait_for(queue, job.id, "running")
    holder = wait_until(lambda: holder_of(queue.folder(job.id)))
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(InputError, match="cancel it first"):
        queue.delete(job.id)
    queue.cancel(job.id)
    with queue.table.write() as connection:
        connection.execute("UPDATE jobs SET asked_to_stop = asked_to_stop - 11 WHERE id = ?", (job.id,))
    assert wait_for(queue, job.id).state == "cancelled"
    assert holder_of(queue.folder(job.id)) is None

    queue.resume(job.id)
    queue.dispatch()
    wait_for(queue, job.id, "running", "saving")
    stopped = queue.mark_stopped(job.id)
    assert (stopped.state, stopped.resumable) == ("interrupted", True)
    wait_until(lambda: not is_held(queue.folder(job.id)), what="the lock")
    queue.delete(job.id)
    assert queue.list() == []


def test_save_now_and_sample_now(tmp_path: Path) -> None:
    with a_queue(tmp_path, WORKBENCH_SAVE_SECONDS="3600") as queue:
        config = {"steps": 20}
        job = queue.submit("demo", {**config, "hold_at": 4})
        queue.dispatch()
        wait_until(lambda: reached_step(queue, job.id, 2), what="a step")
        assert checkpoint_numbers(queue.folder(job.id) / "checkpoints") == []
        queue.save_now(job.id)
        queue.sample_now(job.id)
        let_go(queue.workspace)
        done = wait_for(queue, job.id)
        events = {row["event"]: row for row in queue.metrics(job.id).rows if "event" in row}
        assert events["saved"]["done"] == done.checkpoint_step
        sample = queue.workspace.root / events["sample"]["path"]
        assert set(load_tensors(sample)) == {"clip"}
        assert (done.result or {})["sha256"] == reference(queue.workspace, **config), (
            "sampling changed the run"
        )


def test_not_a_number_stops_within_the_step_and_keeps_the_good_checkpoint(tmp_path: Path) -> None:
    assert not_a_number(tmp_path, steps=(5, 3)) == {"runs": 2, "wrong": []}


def test_running_out_of_memory_three_ways(queue: Queue) -> None:
    kinds = {"limit": "Out of memory", "cuda": "Out of memory", "killed for memory": "killed by the system"}
    jobs = {kind: queue.submit("demo", {"memory": kind}) for kind in kinds}
    after = queue.submit("demo", {"steps": 1})
    queue.dispatch()
    for kind, words in kinds.items():
        ended = wait_for(queue, jobs[kind].id)
        assert (ended.state, ended.checkpoint_step, ended.resumable) == ("oom", 1, True), ended.message
        assert words in ended.message
        assert "fewer frames" in ended.message
    assert wait_for(queue, after.id).state == "done"


def test_a_job_that_kills_every_worker_is_started_three_times_again_and_no_more(queue: Queue) -> None:
    job = queue.submit("demo", {"memory": "killed"})
    queue.dispatch()
    ended = wait_for(queue, job.id)
    assert (ended.state, ended.attempts, ended.resumable) == ("interrupted", 3, True)
    assert "not started again by itself" in ended.message
    events = [row for row in queue.metrics(job.id).rows if row.get("event") == "interrupted"]
    assert len(events) == 4
    assert "0 steps lost (attempt 1 of 3)" in events[0]["text"] or "1 steps lost" in events[0]["text"]
    assert any(job.id in line for line in events[0]["log"])
    assert queue.get(job.id).checkpoint_step is not None


def test_mistakes_and_bad_input_end_in_a_sentence_and_the_log(queue: Queue) -> None:
    mistake, refused, unknown = (
        queue.submit("demo", {"raise_at": 2}),
        queue.submit("demo", {"stepz": 2}),
        queue.submit("nonsense", {}),
    )
    queue.dispatch()
    ended = wait_for(queue, mistake.id)
    assert (ended.state, ended.refused) == ("failed", False)
    assert ended.message.startswith("KeyError: ")
    assert "Traceback" in "\n".join(queue.log_tail(mistake.id, 60))
    ended = wait_for(queue, refused.id)
    assert (ended.state, ended.refused) == ("failed", True)
    assert "'stepz' is not a known field; did you mean 'steps'?" in ended.message
    ended = wait_for(queue, unknown.id)
    assert "no kind of work called 'nonsense'; known: demo" in ended.message


def test_a_polite_end_by_the_system_saves_first_and_goes_on_at_the_next_start(tmp_path: Path) -> None:
    with a_queue(tmp_path, WORKBENCH_SAVE_SECONDS="3600") as queue:
        config = {"steps": 20}
        job = queue.submit("demo", {**config, "hold_at": 4})
        queue.dispatch()
        wait_until(lambda: reached_step(queue, job.id, 3), what="a step")
        holder = wait_until(lambda: holder_of(queue.folder(job.id)))
        os.kill(holder.pid, signal.SIGTERM)
        let_go(queue.workspace)
        wait_until(lambda: not is_held(queue.folder(job.id)), what="the worker's end")
        (lost,) = queue.recover()
        assert lost.state == "queued"
        assert ", 0 steps lost" in lost.message
        queue.dispatch()
        assert (wait_for(queue, job.id).result or {})["sha256"] == reference(queue.workspace, **config)


def test_a_worker_started_by_hand_refuses_in_a_sentence(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(queue.workspace.root)
    assert main(["nothing", "--workspace", folder]) == 2
    assert "There is no job 'nothing'" in capsys.readouterr().err
    job = queue.submit("demo", {})
    queue.cancel(job.id)
    assert main([job.id, "--workspace", folder]) == 2
    assert "is cancelled or its device is busy" in capsys.readouterr().err


def test_a_worker_gives_way_to_everything_else() -> None:
    """Niceness, and that of its session where the scheduler groups by session."""
    code = (
        "import os; from workbench.jobs import processes; processes.lower_priority();"
        "group = processes.AUTOGROUP;"
        "print(os.nice(0), group.read_text().split()[-1] if group.exists() else os.nice(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert done.stdout.split() == ["10", "10"]
