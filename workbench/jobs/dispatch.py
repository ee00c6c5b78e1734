"""Claim the next job and start its worker; find jobs whose worker died. Both only under the dispatch lock."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import WorkbenchError
from workbench.jobs import memory, processes
from workbench.jobs.faults import fault_point
from workbench.jobs.locks import JobLock, is_held, read_holder
from workbench.jobs.manifests import newest_manifest, sweep_checkpoints
from workbench.jobs.metrics import MetricsWriter, last_row
from workbench.jobs.states import ACTIVE, MAX_ATTEMPTS
from workbench.jobs.table import Table
from workbench.workspace import Workspace, disk_error

KILL_SECONDS = 10.0
LOG_LINES = 10
MIN_FREE_BYTES = 2_000_000
_ACTIVE = ", ".join(f"'{state}'" for state in ACTIVE)
_NEXT = (
    f"SELECT id, claim, cwd, device FROM jobs WHERE state = 'queued' AND device NOT IN "
    f"(SELECT device FROM jobs WHERE state IN ({_ACTIVE})) ORDER BY turn, seq"
)


class Started(NamedTuple):
    """A job that was claimed, and its worker's process; no process where the system refused one."""

    id: str
    process: subprocess.Popen[bytes] | None


def now_text() -> str:
    """Return the time to show: UTC, ISO 8601, whole milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def claim_next(table: Table, *, only: str = "") -> sqlite3.Row | None:
    """Claim the first queued job whose device is free; safe among any number of claimers.

    Args:
        table: the job table.
        only: claim this job or none.

    Returns:
        id, claim (the number of this claim), cwd and device of the job; None when nothing can start.
    """
    with table.write() as connection:
        row = next((row for row in connection.execute(_NEXT) if only in ("", row["id"])), None)
        if row is None:
            return None
        connection.execute(
            "UPDATE jobs SET state = 'starting', stop = NULL, save_asked = 0, sample_asked = 0, "
            "message = '', refused = 0, stage = 'loading', step = 0, steps = 0, claim = claim + 1, "
            "finished = NULL, pid = NULL, started = COALESCE(started, ?) WHERE id = ? AND state = 'queued'",
            (now_text(), row["id"]),
        )
        query = "SELECT id, claim, cwd, device FROM jobs WHERE id = ?"
        claimed: sqlite3.Row = connection.execute(query, (row["id"],)).fetchone()
        return claimed


def start_next(table: Table, workspace: Workspace) -> Started | None:
    """Claim and start one job; the caller holds the dispatch lock. None when nothing can start."""
    waiting = table.read(_NEXT)
    if waiting and shutil.disk_usage(workspace.root).free < MIN_FREE_BYTES:
        _tell(table, waiting[0]["id"], workspace)
        return None
    for candidate in waiting:
        folder = workspace.folder("jobs") / candidate["id"]
        folder.mkdir(parents=True, exist_ok=True)
        lock = JobLock.take_patiently(folder)
        if lock is None:
            continue
        try:
            row = claim_next(table, only=candidate["id"])
            if row is not None:
                return _start(table, workspace, row, lock)
        finally:
            lock.release()
    return None


def recover(table: Table, workspace: Workspace) -> list[str]:
    """Deal with every job whose row says that it runs; the caller holds the dispatch lock.

    A job whose lock is held runs. One whose lock is free lost its worker: it is queued again from its last
    checkpoint, at most three times. A worker that ignores a cancel for ten seconds is killed.

    Returns:
        ids of the jobs that had lost their worker.
    """
    lost: list[str] = []
    for row in table.read(f"SELECT * FROM jobs WHERE state IN ({_ACTIVE}) ORDER BY seq"):
        folder = workspace.folder("jobs") / row["id"]
        folder.mkdir(parents=True, exist_ok=True)
        if _is_overdue(row):
            _kill_and_wait(workspace, row)
        lock = JobLock.take(folder)
        if lock is None:
            continue
        try:
            processes.kill_stray(row["pid"], row["id"], workspace)
            if _mark_dead(table, folder, row):
                lost.append(row["id"])
        finally:
            lock.release()
    return lost


def _start(table: Table, workspace: Workspace, row: sqlite3.Row, lock: JobLock) -> Started:
    fault_point("claimed")
    try:
        process = processes.start_worker(row["id"], workspace, lock=lock, claim=row["claim"], cwd=row["cwd"])
    except WorkbenchError as error:
        _fail(table, row["id"], str(error))
        return Started(row["id"], None)
    fault_point("spawned")
    with table.write() as connection:
        connection.execute(
            "UPDATE jobs SET pid = ? WHERE id = ? AND claim = ? AND pid IS NULL AND state = 'starting'",
            (process.pid, row["id"], row["claim"]),
        )
    return Started(row["id"], process)


def _tell(table: Table, job_id: str, workspace: Workspace) -> None:
    """Say in a waiting job's row that the disk has no room to start it; raise it where not even that fits."""
    full = disk_error(workspace.root / "jobs", OSError(28, "No space left on device"), needed=MIN_FREE_BYTES)
    try:
        with table.write() as connection:
            connection.execute(
                "UPDATE jobs SET message = ? WHERE id = ? AND state = 'queued' AND message != ?",
                (str(full), job_id, str(full)),
            )
    except WorkbenchError:
        raise full from None


def _fail(table: Table, job_id: str, message: str) -> None:
    with table.write() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'failed', message = ?, finished = ?, pid = NULL "
            "WHERE id = ? AND state = 'starting'",
            (message, now_text(), job_id),
        )


def _is_overdue(row: sqlite3.Row) -> bool:
    if row["state"] != "cancelling" or row["asked_to_stop"] is None:
        return False
    return abs(time.monotonic() - float(row["asked_to_stop"])) > KILL_SECONDS


def _kill_and_wait(workspace: Workspace, row: sqlite3.Row) -> None:
    """Kill the worker and give the system a moment to free its lock."""
    folder = workspace.folder("jobs") / row["id"]
    if processes.kill_worker(folder) or processes.kill_stray(row["pid"], row["id"], workspace):
        for _ in range(100):
            if not is_held(folder):
                return
            time.sleep(0.02)


def _mark_dead(table: Table, folder: Path, row: sqlite3.Row) -> bool:
    """Write what becomes of a job without a worker; the caller holds its lock."""
    sweep_checkpoints(folder / "checkpoints")
    (folder / "ballast").unlink(missing_ok=True)
    manifest = newest_manifest(folder / "checkpoints")
    values = _verdict(folder, row, manifest)
    values |= {"checkpoint_step": manifest["done"] if manifest else None, "pid": None, "stop": None}
    names = ", ".join(f"{name} = ?" for name in values)
    with table.write() as connection:
        cursor = connection.execute(
            f"UPDATE jobs SET {names} WHERE id = ? AND claim = ? AND state IN ({_ACTIVE})",
            (*values.values(), row["id"], row["claim"]),
        )
        changed = cursor.rowcount == 1
    if changed:
        writer = MetricsWriter(folder)
        log = log_tail(folder, lines=LOG_LINES)
        writer.append({"event": "interrupted", "text": values["message"], "log": log})
        writer.close()
    return changed


def _verdict(folder: Path, row: sqlite3.Row, manifest: dict[str, Any] | None) -> dict[str, Any]:
    last = last_row(folder)
    reached = int(last["done"]) if last else 0
    kept = int(manifest["done"]) if manifest else 0
    place = f"at step {row['step']:,} of {row['steps']:,}, {row['stage']}" if row["steps"] else "at loading"
    whence = f"from step {kept:,}" if manifest else "from the start"
    loss = f"{max(0, reached - kept):,} steps lost"
    ended = {"finished": now_text()}
    if row["state"] == "cancelling":
        return {**ended, "state": "cancelled", "message": f"Cancelled; its worker was already gone, {loss}."}
    if row["state"] == "pausing":
        return {**ended, "state": "paused", "message": f"Paused; its worker died before it saved, {loss}."}
    if memory_text := memory.killed_for_memory(folder, read_holder(folder / "worker.json")):
        return {**ended, "state": "oom", "message": f"{memory_text} It can go on {whence}, {loss}."}
    if row["attempts"] >= MAX_ATTEMPTS:
        return {
            **ended,
            "state": "interrupted",
            "message": f"Interrupted {place}: its worker died, as in {MAX_ATTEMPTS} attempts before; "
            f"it is not started again by itself. Resume goes on {whence}, {loss}.",
        }
    return {
        "state": "queued",
        "attempts": row["attempts"] + 1,
        "message": f"Interrupted {place}: its worker died. Queued again {whence}, {loss} "
        f"(attempt {row['attempts'] + 1} of {MAX_ATTEMPTS}).",
    }


def log_tail(folder: Path, *, lines: int) -> list[str]:
    """Return the last lines of a job's log, without terminal codes."""
    try:
        with (folder / processes.LOG_NAME).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 256 * 1024))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [clean_line(line) for line in text.split("\n") if line.strip()][-lines:] if lines > 0 else []


def clean_line(line: str) -> str:
    """Return a line with control characters made visible; of a redrawn line, its last state."""
    last = line.rstrip("\r").rpartition("\r")[2]
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in last)
