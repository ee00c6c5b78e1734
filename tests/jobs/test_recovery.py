"""Kills at every named stage, and disks that fill up: nothing is lost, nothing lies, nothing runs twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import matrices
from tests.jobs.demo import let_go
from tests.jobs.harness import reached_step, reference, run_demo, wait_for, wait_until
from tests.jobs.matrices import STAGES, StageKill, Target, stage_kill
from workbench.jobs import Queue
from workbench.jobs.locks import is_held
from workbench.jobs.processes import kill_worker
from workbench.workspace import Workspace

TARGETS: tuple[Target, ...] = ("worker", "app", "both")


def check(seen: StageKill) -> None:
    assert seen.state == ("cancelled" if seen.stage == "stopping" else "done")
    assert seen.exact
    assert not seen.twice
    assert seen.artefacts == (0 if seen.stage == "stopping" else 1)
    assert seen.seconds_to_truth < 25.0


@pytest.mark.parametrize(("number", "stage"), enumerate(STAGES))
def test_a_kill_at_a_stage(tmp_path: Path, number: int, stage: str) -> None:
    check(stage_kill(tmp_path, stage, target=TARGETS[number % 3]))


def test_a_job_outlives_its_app_and_is_adopted(queue: Queue) -> None:
    config = {"steps": 20}
    job = queue.submit("demo", {**config, "hold_at": 3})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 2), what="two steps")
    pid = queue.get(job.id).pid
    restarted = Queue(Workspace.open(queue.workspace.root))
    assert restarted.recover() == []
    assert restarted.dispatch() == []
    assert restarted.get(job.id).pid == pid
    let_go(queue.workspace)
    assert (wait_for(restarted, job.id).result or {})["sha256"] == reference(queue.workspace, **config)


def test_the_steps_lost_are_counted_and_said(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_SAVE_SECONDS", "3600")
    job = queue.submit("demo", {"steps": 100_000, "delay": 0.02})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 5), what="5 steps")
    queue.save_now(job.id)
    wait_until(lambda: queue.get(job.id).checkpoint_step is not None, what="the checkpoint")
    kept = queue.get(job.id).checkpoint_step or 0
    wait_until(lambda: reached_step(queue, job.id, kept + 10), what="10 more steps")
    kill_worker(queue.folder(job.id))
    wait_until(lambda: not is_held(queue.folder(job.id)), what="its end")
    reached = max(row.get("done", 0) for row in queue.metrics(job.id).rows)
    (lost,) = queue.recover()
    assert (lost.state, lost.attempts, lost.checkpoint_step) == ("queued", 1, kept)
    assert f"Queued again from step {kept:,}, {reached - kept:,} steps lost (attempt 1 of 3)" in lost.message


def test_cancelling_a_dead_workers_job_ends_it_at_once(queue: Queue) -> None:
    job = queue.submit("demo", {"steps": 100_000, "delay": 0.02})
    queue.dispatch()
    wait_until(lambda: reached_step(queue, job.id, 2), what="two steps")
    kill_worker(queue.folder(job.id))
    wait_until(lambda: not is_held(queue.folder(job.id)), what="its end")
    assert queue.cancel(job.id).state == "cancelled"
    assert queue.get(job.id).checkpoint_step is not None


def test_a_damaged_newest_checkpoint_costs_one_save_not_the_job(queue: Queue) -> None:
    job = run_demo(queue, steps=12, pause_at=6)
    folder = queue.folder(job.id) / "checkpoints"
    newest = max(folder.iterdir())
    (newest / "tensors.safetensors").write_bytes(b"damaged")
    queue.resume(job.id)
    queue.dispatch()
    done = wait_for(queue, job.id)
    assert (done.result or {})["sha256"] == reference(queue.workspace, steps=12)
    notes = [row["text"] for row in queue.metrics(job.id).rows if row.get("event") == "note"]
    assert len(notes) == 1
    assert "was passed over: tensors.safetensors" in notes[0]


def test_another_configurations_checkpoint_is_refused_by_name(queue: Queue) -> None:
    job = run_demo(queue, steps=12, pause_at=6)
    with queue.table.write() as connection:
        connection.execute("""UPDATE jobs SET config = '{"steps": 13}' WHERE id = ?""", (job.id,))
    queue.resume(job.id)
    queue.dispatch()
    ended = wait_for(queue, job.id)
    assert (ended.state, ended.refused) == ("failed", True)
    assert "belongs to other work" in ended.message


def test_work_is_held_while_files_cannot_grow_and_then_goes_on(queue: Queue) -> None:
    config = {"steps": 6, "width": 512}
    job = queue.submit("demo", {**config, "small_files_at": 3})
    queue.dispatch()
    wait_until(lambda: "No room for" in queue.get(job.id).message, what="a word about the room")
    held = queue.get(job.id)
    assert (held.state, held.checkpoint_step) == ("saving", 2)
    assert "in 'checkpoints' (" in held.message
    assert "MB" in held.message
    assert "needs 4.1 MB" in held.message
    let_go(queue.workspace)
    done = wait_for(queue, job.id)
    assert (done.result or {})["sha256"] == reference(queue.workspace, **config)


def test_a_disk_that_fills_up_at_several_points(tmp_path: Path) -> None:
    place = tmp_path / "small disk"
    if not matrices.small_disk(place, megabytes=1):
        pytest.skip(
            "mounting a small disk is not allowed here; the test with small files covers the same code"
        )
    matrices.unmount(place)
    result = matrices.full_disk(place, free_megabytes=(0.0, 5.0, 10.0))
    assert result == {"points": 3, "held_for_room": 3, "wrong": []}
