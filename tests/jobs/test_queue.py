"""The queue without workers: submitting, verbs on jobs that do not run, claims, migration, damage, locks."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.harness import wait_until
from tests.jobs.matrices import concurrent_claims
from workbench.errors import InputError
from workbench.jobs import STATES, Queue, memory, server_lock, states
from workbench.jobs.dispatch import claim_next, clean_line
from workbench.jobs.locks import Holder, JobLock, is_held, read_holder, write_holder
from workbench.jobs.metrics import MetricsWriter, last_row, read_metrics
from workbench.jobs.processes import CHECKOUT
from workbench.jobs.randomness import capture_randomness
from workbench.workspace import Workspace


@pytest.fixture
def idle(tmp_path: Path) -> Queue:
    """A queue that starts nothing."""
    return Queue(Workspace.open(tmp_path))


def test_a_submitted_job_waits_and_is_listed_in_order(idle: Queue) -> None:
    jobs = [idle.submit("demo", {"steps": number}, title=f"job {number}") for number in range(4)]
    assert [job.state for job in idle.list()] == ["queued"] * 4
    assert [job.id for job in idle.list()] == [job.id for job in jobs]
    assert [idle.position(job.id) for job in jobs] == [0, 1, 2, 3]
    first = idle.get(jobs[0].id).to_json()
    assert {"id", "kind", "state", "step", "steps", "pid", "resumable"} <= set(first)
    assert json.loads(json.dumps(first)) == first
    assert idle.folder(jobs[0].id).joinpath("config.json").exists()


def test_the_same_key_gives_the_same_job(idle: Queue) -> None:
    ids = {idle.submit("demo", {}, key="form 1").id for _ in range(20)}
    assert len(ids) == 1
    assert idle.submit("demo", {}, key="form 2").id not in ids


@pytest.mark.parametrize(
    "config", [{"a": float("nan")}, {"a": object()}, {"a": "x" * 2_000_000}, {"a": "\ud800"}]
)
def test_what_is_not_plain_data_is_refused(idle: Queue, config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="configuration of 'demo'"):
        idle.submit("demo", config)
    assert idle.list() == []


def test_unknown_jobs_are_named_with_near_ones(idle: Queue) -> None:
    job = idle.submit("demo", {})
    with pytest.raises(InputError, match=f"no job '{job.id[:-1]}' in this workspace; near: {job.id}"):
        idle.get(job.id[:-1])
    for verb in ("cancel", "pause", "resume", "save_now", "sample_now", "clone", "delete", "mark_stopped"):
        with pytest.raises(InputError, match="There is no job"):
            getattr(idle, verb)("../../x")


def test_verbs_on_waiting_jobs(idle: Queue) -> None:
    job = idle.submit("demo", {"steps": 3}, title="mine")
    other = idle.submit("demo", {})
    assert idle.pause(job.id).state == "paused"
    assert idle.get(job.id).resumable
    assert idle.resume(job.id).state == "queued"
    assert idle.position(job.id) == 1, "a resumed job goes to the end"
    assert idle.cancel(job.id).state == "cancelled"
    assert idle.cancel(job.id).state == "cancelled"
    twin = idle.clone(job.id)
    assert (twin.state, twin.config, twin.title) == ("queued", {"steps": 3}, "mine")
    for verb in ("save_now", "sample_now"):
        with pytest.raises(InputError, match="only a running job"):
            getattr(idle, verb)(job.id)
    with pytest.raises(InputError, match="only a queued or running"):
        idle.pause(job.id)
    idle.delete(job.id)
    assert [left.id for left in idle.list()] == [other.id, twin.id]
    assert not idle.folder(job.id).exists()


def test_one_claim_per_device_at_a_time(idle: Queue) -> None:
    first, second = idle.submit("demo", {}), idle.submit("demo", {})
    elsewhere = idle.submit("demo", {}, device="cuda:1")
    claimed = [row["id"] for row in (claim_next(idle.table), claim_next(idle.table)) if row is not None]
    assert claimed == [first.id, elsewhere.id]
    assert claim_next(idle.table) is None
    assert idle.get(second.id).state == "queued"


def test_claims_from_four_processes_never_meet(tmp_path: Path) -> None:
    assert concurrent_claims(tmp_path, jobs=500) == {"claims": 500, "double": 0, "once": 500}


def test_waiting_for_a_busy_table_leaves_the_random_generators_alone(idle: Queue) -> None:
    before = capture_randomness()
    other = sqlite3.connect(idle.table.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    waiting.start()
    started = time.monotonic()
    idle.submit("demo", {})
    assert time.monotonic() - started > 0.1
    waiting.join()
    other.close()
    assert capture_randomness() == before


def test_the_estimate_learns_from_the_kind_and_the_pace(idle: Queue) -> None:
    ids = [idle.submit("demo", {}).id for _ in range(4)]
    assert idle.estimate(ids[3]) == (3, None, None)
    with idle.table.write() as connection:
        connection.execute("UPDATE jobs SET state = 'done', seconds = 10 WHERE id = ?", (ids[0],))
        connection.execute(
            "UPDATE jobs SET state = 'running', seconds = 6, stage = 'train', step = 1, steps = 5 "
            "WHERE id = ?",
            (ids[1],),
        )
    writer = MetricsWriter(idle.folder(ids[1]))
    writer.append({"stage": "loading", "step": 1, "done": 1, "seconds": 3})
    for step, seconds in ((1, 104), (2, 110), (3, 116)):
        writer.append({"stage": "train", "step": step, "done": step + 1, "seconds": seconds})
    writer.close()
    assert idle.estimate(ids[1]) == (0, 0.0, 24.0), "by the pace of its present stage alone"
    assert idle.estimate(ids[3]) == (2, 24.0 + 10.0, 44.0)
    assert idle.estimates()[ids[3]] == idle.estimate(ids[3])
    with idle.table.write() as connection:
        connection.execute("UPDATE jobs SET config = '{\"other\": 1}' WHERE id = ?", (ids[2],))
        connection.execute("UPDATE jobs SET state = 'done', seconds = 70 WHERE id = ?", (ids[2],))
    assert idle.estimate(ids[3]) == (1, 24.0, 34.0), "earlier jobs with the same settings count first"


def test_the_list_of_states_is_the_documented_one() -> None:
    assert " ".join(STATES) == (
        "queued starting running saving pausing paused cancelling "
        "done failed cancelled oom diverged interrupted"
    )
    assert set(states.ACTIVE) | set(states.ENDED) | {"queued"} == set(STATES)
    assert all(state in (states.__doc__ or "") for state in STATES)
    page = (CHECKOUT / "docs" / "jobs.md").read_text(encoding="utf-8")
    assert f"\n{' '.join(STATES)}\n" in page
    assert (states.__doc__ or "").partition("\n\n")[2].strip() in page


def test_metrics_are_read_once_and_survive_a_torn_line(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.append({"step": 1, "done": 1, "loss": 0.5})
    writer.append({"step": 2, "done": 2, "loss": float("inf")})
    rows, cursor = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["loss"] is None
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "do')
    assert read_metrics(tmp_path, after=cursor) == ([], cursor)
    writer = MetricsWriter(tmp_path)
    writer.append({"step": 3, "done": 3})
    writer.append({"event": "note", "text": "x", "done": 9})
    rows, _ = read_metrics(tmp_path, after=cursor)
    assert [row["step"] for row in rows if "step" in row] == [3]
    assert (last_row(tmp_path) or {})["done"] == 3


def test_log_lines_carry_no_terminal_codes(idle: Queue) -> None:
    job = idle.submit("demo", {}, title="a\nb\x1b[2Jc")
    assert job.title == "a b\\x1b[2Jc"
    idle.folder(job.id).joinpath("log.txt").write_bytes(b"one\n 10%\r 99%\r100%\n\xff\x1b[31mred\x00\n")
    assert idle.log_tail(job.id, 2) == ["100%", "\ufffd\\x1b[31mred\\x00"]
    assert clean_line("tab\tstays <b>") == "tab\tstays <b>"


def test_a_damaged_or_newer_table_is_refused_in_a_sentence(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    workspace.database.write_bytes(b"this is no database" * 300)
    with pytest.raises(InputError, match=r"'workbench.sqlite' is damaged; move it away"):
        Queue(workspace)
    workspace.database.unlink()
    Queue(workspace).table.close()
    with sqlite3.connect(workspace.database) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="made by a newer workbench"):
        Queue(workspace)


def test_an_older_table_is_copied_before_it_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(tmp_path)
    old = Queue(workspace)
    job = old.submit("demo", {})
    old.table.close()
    from workbench.jobs import table

    monkeypatch.setattr(table, "MIGRATIONS", (*table.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour TEXT"))
    migrated = Queue(workspace)
    assert migrated.get(job.id).state == "queued"
    assert migrated.table.read("SELECT colour FROM jobs")[0]["colour"] is None
    copy = workspace.database.with_name("workbench.sqlite.schema-1")
    assert sqlite3.connect(copy).execute("SELECT COUNT(*) FROM jobs").fetchone() == (1,)


def test_a_lock_is_free_the_moment_its_holder_dies(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from workbench.jobs.locks import JobLock\n"
        "lock = JobLock.take(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        assert JobLock.take(tmp_path) is None
        holder.kill()
        holder.wait()
        assert not is_held(tmp_path)


def test_a_process_with_a_dead_ones_pid_is_not_taken_for_it(tmp_path: Path) -> None:
    me = write_holder(tmp_path / "worker.json")
    assert me.alive
    assert read_holder(tmp_path / "worker.json") == me
    assert not Holder(me.pid, me.host, "another boot:1", me.since).alive
    assert not Holder(me.pid, "elsewhere", me.identity, me.since).alive


def test_a_second_web_server_is_told_who_holds_the_workspace(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    code = (
        "import sys, time\nfrom workbench.jobs import server_lock\n"
        "from workbench.workspace import Workspace\n"
        "with server_lock(Workspace.open(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as server:
        assert server.stdout is not None
        server.stdout.readline()
        with (
            pytest.raises(InputError, match=rf"already served by process {server.pid} on \S+ since 20"),
            server_lock(workspace),
        ):
            pass
        Queue(workspace).submit("demo", {})
        server.kill()
        server.wait()
    with server_lock(workspace) as holder:
        assert holder.alive


def test_a_kill_by_the_system_is_told_from_other_kills(tmp_path: Path) -> None:
    memory.note_memory(tmp_path, peak=1000)
    holder = write_holder(tmp_path / "worker.json")
    assert memory.killed_for_memory(tmp_path, holder) == ""
    data = json.loads((tmp_path / "memory.json").read_text())
    for change in ({"kills": data["kills"] - 1}, {"peak": int(data["limit"] * 0.9)}):
        (tmp_path / "memory.json").write_text(json.dumps(data | change))
        assert "probably out of memory; its peak was" in memory.killed_for_memory(tmp_path, holder)
    assert memory.killed_for_memory(tmp_path, None) == ""
    assert memory.is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert memory.is_out_of_memory(MemoryError())
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))


def test_looking_at_the_queue_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, workbench.jobs, workbench.cli.jobs, workbench.worker; sys.exit('torch' in sys.modules)"
    )
    assert wait_until(lambda: subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == 0)
