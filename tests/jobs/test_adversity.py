"""What nobody should do and somebody will: folders removed under running work, stopped processes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tests.jobs.demo import let_go
from tests.jobs.harness import a_queue, reference, wait_for, wait_until
from tests.jobs.matrices import make_read_only, small_disk, unmount
from tests.jobs.random_blows import chaos
from workbench import workspace as workspaces
from workbench.errors import InputError, WorkbenchError
from workbench.jobs import Queue, locks
from workbench.jobs import queue as queue_module
from workbench.jobs.locks import dispatch_lock, is_held
from workbench.workspace import Workspace


def start_held(queue: Queue, **config: int) -> tuple[str, psutil.Process]:
    """Start a job that waits at its third step; return its id and its worker."""
    job = queue.submit("demo", {"hold_at": 3, **config})
    queue.dispatch()
    wait_until(lambda: queue.get(job.id).checkpoint_step == 2, what="the checkpoint of the second step")
    wait_for(queue, job.id, "running")
    pid = wait_until(lambda: queue.get(job.id).pid, what="the worker")
    return job.id, psutil.Process(pid)


def is_gone(worker: psutil.Process) -> bool:
    try:
        return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_job_whose_folder_was_removed_starts_again_and_never_runs_twice(queue: Queue) -> None:
    job_id, worker = start_held(queue, steps=8)
    shutil.rmtree(queue.folder(job_id))
    wait_until(lambda: queue.tend() or is_gone(worker), what="the end of the first worker")
    let_go(queue.workspace)
    done = wait_for(queue, job_id)
    assert (done.state, done.attempts) == ("done", 1)
    assert (done.result or {})["sha256"] == reference(queue.workspace, steps=8)
    assert not (queue.workspace.root / "TWICE").exists()


def test_a_removed_table_is_made_again_and_its_workers_end(queue: Queue) -> None:
    _, worker = start_held(queue)
    for file in queue.workspace.root.glob("workbench.sqlite*"):
        file.unlink()
    assert queue.list() == []
    let_go(queue.workspace)
    wait_until(lambda: is_gone(worker), what="the end of the worker whose row is gone")
    job = queue.submit("demo", {"steps": 2})
    assert wait_for(queue, job.id).state == "done"


def test_a_worker_does_not_outlive_its_workspace(tmp_path: Path) -> None:
    with a_queue(tmp_path / "gone") as queue:
        _, worker = start_held(queue)
        shutil.rmtree(queue.workspace.root, ignore_errors=True)
        shutil.rmtree(queue.workspace.root, ignore_errors=True)
        wait_until(lambda: is_gone(worker), what="the end of the worker")
        with pytest.raises(WorkbenchError):
            queue.list()
        Workspace.open(queue.workspace.root)
        assert queue.list() == []


def test_a_stopped_worker_that_lost_its_note_is_still_ended(queue: Queue) -> None:
    job_id, worker = start_held(queue)
    (queue.folder(job_id) / locks.HOLDER_NAME).unlink()
    os.kill(worker.pid, signal.SIGSTOP)
    queue.cancel(job_id)
    with queue.table.write() as connection:
        connection.execute("UPDATE jobs SET asked_to_stop = asked_to_stop - 11 WHERE id = ?", (job_id,))
    assert wait_for(queue, job_id).state == "cancelled"
    wait_until(lambda: is_gone(worker), what="the end of the worker")


def test_a_stopped_dispatcher_delays_the_others_and_loses_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "DISPATCH_SECONDS", 0.1)
    job = queue.submit("demo", {"steps": 2})
    with dispatch_lock(queue.workspace) as mine:
        assert mine
        assert queue.dispatch() == []
        assert queue.recover() == []
        assert queue.get(job.id).state == "queued"
    assert wait_for(queue, job.id).state == "done"


def test_order_and_place_do_not_come_from_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(Workspace.open(tmp_path))
    ids = []
    for days in (0, -400, 400, -1):
        jump = timedelta(days=days)

        class Jumped(datetime):
            @classmethod
            def now(cls, tz: object = None, jump: timedelta = jump) -> datetime:  # type: ignore[override]
                return datetime.now(UTC) + jump

        monkeypatch.setattr(workspaces, "datetime", Jumped)
        ids.append(queue.submit("demo", {}).id)
    assert ids != sorted(ids)
    assert [job.id for job in queue.list()] == ids
    assert [queue.position(job_id) for job_id in ids] == [0, 1, 2, 3]


def test_two_jobs_of_one_second_get_two_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["same", "same", "same", "other"])
    monkeypatch.setattr(queue_module, "new_id", lambda _: next(ids))
    queue = Queue(Workspace.open(tmp_path))
    assert [queue.submit("demo", {}).id for _ in range(2)] == ["same", "other"]


def test_a_job_that_others_look_at_can_be_deleted(tmp_path: Path) -> None:
    queue = Queue(Workspace.open(tmp_path))
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for job in queue.list():
                is_held(queue.folder(job.id))

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(20):
            job = queue.submit("demo", {})
            queue.cancel(job.id)
            queue.delete(job.id)
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
    assert queue.list() == []


def test_a_workspace_that_becomes_read_only_is_named_and_keeps_its_jobs(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    if not small_disk(place, megabytes=32):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with a_queue(place) as queue:
            job = queue.submit("demo", {"steps": 2})
            queue.table.close()
            if not make_read_only(place, on=True):
                pytest.skip("remounting is not allowed here")
            with pytest.raises(InputError, match=r"'disk' cannot be written .*choose a writable folder"):
                Workspace.open(place)
            with pytest.raises(InputError, match=r"Cannot write 'workbench.sqlite'"):
                queue.submit("demo", {})
            with pytest.raises(InputError, match=r"Cannot write '\.dispatch\.lock'"):
                queue.dispatch()
            assert not is_held(queue.folder(job.id))
            assert make_read_only(place, on=False)
            assert [kept.id for kept in queue.list()] == [job.id]
            assert wait_for(queue, job.id).state == "done"
    finally:
        unmount(place)


def test_kills_stops_and_wishes_at_random(tmp_path: Path) -> None:
    counts = chaos(tmp_path, jobs=3, blows=8, seed=0)
    assert (counts["exact"], counts["twice"]) == (3, False), counts
