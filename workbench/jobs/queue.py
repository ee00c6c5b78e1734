"""The queue of one workspace: put work in, ask for things, look. Every call is short; workers do the work.

Any process may call any of it at any time. A verb writes a wish into the job's row; the worker obeys at its
next step. Only a free lock, never a clock or a process id, is taken to mean that a worker is dead.
"""

from __future__ import annotations

import builtins
import difflib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.jobs import processes
from workbench.jobs.dispatch import clean_line, log_tail, now_text, recover, start_next
from workbench.jobs.faults import fault_point
from workbench.jobs.job import COLUMNS, Job, job_of
from workbench.jobs.locks import JobLock, dispatch_lock, is_held
from workbench.jobs.metrics import NewRows, read_metrics, seconds_per_step
from workbench.jobs.states import ACTIVE, RESUMABLE, State
from workbench.jobs.table import Table
from workbench.workspace import DiskFull, Workspace, new_id, write_json

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"
MAX_CONFIG_BYTES = 1_000_000
DEFAULT_DEVICE = "default"


class Estimate(NamedTuple):
    """Jobs ahead on the same device, and seconds until start and end; None where nothing is known yet."""

    position: int
    starts_in: float | None
    ends_in: float | None


class Queue:
    """The jobs of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        """Open the job table, making or migrating it.

        Raises:
            InputError: the table is damaged, made by a newer version, or cannot be written.
        """
        self.workspace = workspace
        self.table = Table(workspace.database)
        self._children: list[subprocess.Popen[bytes]] = []

    def submit(
        self,
        kind: str,
        config: Mapping[str, Any],
        *,
        key: str | None = None,
        title: str = "",
        command: str = "",
        device: str = DEFAULT_DEVICE,
    ) -> Job:
        """Put a job at the end of the queue; `dispatch` starts it when its turn comes.

        Args:
            kind: the step of the workflow.
            config: that step's configuration as JSON data.
            key: a text chosen by the caller: a second submit with it returns the first job.
            title: what the user calls it; any text.
            command: the command line that asked for it, kept for the user.
            device: jobs of one device run one after the other.

        Raises:
            InputError: the configuration is not plain JSON data or too large; or there is no room.
        """
        try:
            text = json.dumps(config, allow_nan=False, ensure_ascii=False)
            text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"The configuration of {kind!r} is not plain JSON data ({error}).") from None
        if len(text) > MAX_CONFIG_BYTES:
            raise InputError(f"The configuration of {kind!r} is above {MAX_CONFIG_BYTES >> 10:,} kB.")
        job_id = new_id(kind)
        shown_title = clean_line(title.replace("\n", " "))[:200] or kind
        with self.table.write() as connection:
            if key is not None:
                first = connection.execute("SELECT id FROM jobs WHERE key = ?", (key,)).fetchone()
                if first is not None:
                    return self.get(first["id"])
            while connection.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is not None:
                job_id = new_id(kind)
            connection.execute(
                "INSERT INTO jobs (id, key, kind, title, config, device, command, cwd, turn, state, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(turn), 0) + 1 FROM jobs), 'queued', ?)",
                (job_id, key, kind, shown_title, text, device,
                 command or processes.shown_command(job_id, self.workspace), os.getcwd(), now_text()),
            )  # fmt: skip
            job = self.get(job_id)
        fault_point("submitted")
        folder = self.folder(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"kind": kind, "title": shown_title, "config": dict(config)})
        return job

    def list(self, *, states: Sequence[State] = ()) -> builtins.list[Job]:
        """Return all jobs, or those in the given states, oldest first."""
        marks = ", ".join("?" for _ in states)
        where = f" WHERE state IN ({marks})" if states else ""
        return [job_of(row) for row in self.table.read(f"{_SELECT}{where} ORDER BY seq", tuple(states))]

    def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            InputError: there is no such job; near ids are named.
        """
        rows = self.table.read(f"{_SELECT} WHERE id = ?", (job_id,))
        if not rows:
            known = [row["id"] for row in self.table.read("SELECT id FROM jobs ORDER BY seq DESC LIMIT 500")]
            near = difflib.get_close_matches(job_id, known, n=3)
            hint = f"near: {', '.join(near)}" if near else "`workbench jobs list` shows all"
            raise InputError(f"There is no job {job_id[:80]!r} in this workspace; {hint}.")
        return job_of(rows[0])

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job: its log, metrics and checkpoints."""
        return self.workspace.folder("jobs") / job_id

    def cancel(self, job_id: str) -> Job:
        """Stop a job and keep its last checkpoint; cancelling again, or an ended job, changes nothing."""
        with self.table.write() as connection:
            job = self.get(job_id)
            if job.state in ("queued", "paused", "interrupted"):
                self._set(connection, job_id, state="cancelled", finished=now_text(), message="Cancelled.")
            elif job.active and job.state != "cancelling":
                self._set(
                    connection, job_id, state="cancelling", stop="cancel", asked_to_stop=time.monotonic()
                )
        if job.active and not is_held(self.folder(job_id)):
            self.recover()
        return self.get(job_id)

    def pause(self, job_id: str) -> Job:
        """Save a job's state and stop it; `resume` goes on from there."""
        with self.table.write() as connection:
            job = self.get(job_id)
            if job.state == "queued":
                self._set(connection, job_id, state="paused", message="Paused before it started.")
            elif job.state in ("starting", "running", "saving"):
                self._set(connection, job_id, state="pausing", stop="pause", asked_to_stop=time.monotonic())
            elif job.state not in ("pausing", "paused"):
                raise InputError(f"Job {job_id} is {job.state}; only a queued or running job can be paused.")
        return self.get(job_id)

    def resume(self, job_id: str) -> Job:
        """Put a stopped job at the end of the queue, to go on from its last checkpoint."""
        with self.table.write() as connection:
            job = self.get(job_id)
            if job.state in RESUMABLE:
                last = connection.execute("SELECT MAX(turn) FROM jobs").fetchone()[0]
                self._set(
                    connection, job_id, state="queued", stop=None, turn=last + 1, attempts=0, finished=None,
                    message=f"Goes on from step {job.checkpoint_step:,}." if job.checkpoint_step else "",
                )  # fmt: skip
            elif job.state != "queued":
                raise InputError(f"Job {job_id} is {job.state}; only a stopped job can be resumed.")
        return self.get(job_id)

    def save_now(self, job_id: str) -> Job:
        """Ask a running job for a checkpoint at its next step."""
        return self._ask(job_id, "save_asked", "saved")

    def sample_now(self, job_id: str) -> Job:
        """Ask a running job for a clip from its present weights; a row "sample" of its metrics names it."""
        return self._ask(job_id, "sample_asked", "sampled")

    def clone(self, job_id: str) -> Job:
        """Queue a new job with the same kind and configuration."""
        job = self.get(job_id)
        return self.submit(job.kind, job.config, title=job.title, command=job.command, device=job.device)

    def delete(self, job_id: str) -> None:
        """Remove a job with its log, metrics and checkpoints; what it made elsewhere stays.

        Raises:
            InputError: it runs, or a worker still holds it.
        """
        folder = self.folder(job_id)
        self.get(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        lock = JobLock.take_patiently(folder)
        if lock is None:
            raise InputError(f"Job {job_id} has a running worker; cancel it first.")
        try:
            with self.table.write() as connection:
                job = self.get(job_id)
                if job.active:
                    raise InputError(f"Job {job_id} is {job.state}; cancel it first.")
                connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            gone = folder.with_name(f".tmp-deleted-{job_id}")
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            lock.release()

    def mark_stopped(self, job_id: str) -> Job:
        """Give up on a job that does not answer: kill its worker where that is certain, and mark it."""
        if not processes.kill_worker(self.folder(job_id)):
            processes.kill_stray(self.get(job_id).pid, job_id, self.workspace)
        with self.table.write() as connection:
            job = self.get(job_id)
            if job.active:
                connection.execute("UPDATE jobs SET claim = claim + 1 WHERE id = ?", (job_id,))
                self._set(
                    connection, job_id, state="interrupted", pid=None, stop=None, finished=now_text(),
                    message=f"Marked stopped while {job.state}; resume goes on from the last checkpoint.",
                )  # fmt: skip
        return self.get(job_id)

    def recover(self) -> builtins.list[Job]:
        """Find jobs whose worker died and queue them again, at most three times each; sweep litter.

        Returns:
            the jobs that had lost their worker, as they are now.
        """
        with dispatch_lock(self.workspace) as mine:
            lost = recover(self.table, self.workspace) if mine else []
            self.workspace.sweep()
        return [self.get(job_id) for job_id in lost]

    def dispatch(self) -> builtins.list[Job]:
        """Recover, then start every job whose turn it is; call it after `submit` and now and then.

        Returns:
            the jobs that were started.

        Raises:
            DiskFull: the disk has no room to start a job, nor to say so in its row.
        """
        self._children = [child for child in self._children if child.poll() is None]
        started: list[str] = []
        with dispatch_lock(self.workspace) as mine:
            if mine:
                recover(self.table, self.workspace)
            while mine and (one := start_next(self.table, self.workspace)) is not None:
                started.append(one.id)
                if one.process is not None:
                    self._children.append(one.process)
        return [self.get(job_id) for job_id in started]

    def tend(self) -> None:
        """Dispatch if there is reason to: cheap enough to call at every look at the queue.

        A full disk only means that nothing is started; `dispatch` says so.
        """
        jobs = self.list(states=("queued", *ACTIVE))
        busy = {job.device for job in jobs if job.active}
        dead = any(job.active and not is_held(self.folder(job.id)) for job in jobs)
        if dead or any(
            job.state == "cancelling" or (job.state == "queued" and job.device not in busy) for job in jobs
        ):
            with suppress(DiskFull):
                self.dispatch()

    def metrics(self, job_id: str, *, after: int = 0) -> NewRows:
        """Return the rows behind the cursor `after`, and the next cursor; see `workbench.jobs.metrics`."""
        self.get(job_id)
        return read_metrics(self.folder(job_id), after=after)

    def log_tail(self, job_id: str, lines: int = 50) -> builtins.list[str]:
        """Return the last lines of a job's log, control characters made visible."""
        self.get(job_id)
        return log_tail(self.folder(job_id), lines=lines)

    def position(self, job_id: str) -> int:
        """Return how many jobs of the same device come before a queued one; 0 for any other."""
        return self.estimate(job_id).position

    def estimate(self, job_id: str) -> Estimate:
        """Estimate when a job starts and ends, from its own pace and earlier jobs of the same kind."""
        job = self.get(job_id)
        nothing = Estimate(0, None, None)
        return nothing if job.ended else self.estimates().get(job_id, nothing)

    def estimates(self) -> dict[str, Estimate]:
        """Return the estimate of every job that runs or waits, by id."""
        marks = ", ".join("?" for _ in ACTIVE)
        rows = self.table.read(
            f"{_SELECT} WHERE state = 'queued' OR state IN ({marks}) ORDER BY state = 'queued', turn, seq",
            ACTIVE,
        )
        found: dict[str, Estimate] = {}
        ahead: dict[str, builtins.list[float | None]] = {}
        before: dict[tuple[str, str], float | None] = {}
        for job in map(job_of, rows):
            alike = (job.kind, json.dumps(job.config, ensure_ascii=False))
            if alike not in before:
                before[alike] = self._usual_seconds(*alike)
            own = self._remaining(job, usual=before[alike])
            waits = ahead.setdefault(job.device, [])
            starts = 0.0 if job.active else _total(waits)
            found[job.id] = Estimate(0 if job.active else len(waits), starts, _total([starts, own]))
            waits.append(own)
        return found

    def _remaining(self, job: Job, *, usual: float | None) -> float | None:
        """Return the seconds that a job still takes: by its pace or by earlier jobs, whichever is longer."""
        by_kind = None if usual is None else max(0.0, usual - job.seconds)
        pace = seconds_per_step(self.folder(job.id), job.stage) if job.active else None
        by_pace = None if pace is None else pace * max(0, job.steps - job.step)
        known = [value for value in (by_kind, by_pace) if value is not None]
        return max(known, default=None)

    def _usual_seconds(self, kind: str, config: str) -> float | None:
        """Return what the last jobs with this configuration took; without one, the last of this kind."""
        rows = self.table.read(
            "SELECT seconds, config = ? AS same FROM jobs WHERE kind = ? AND state = 'done' "
            "ORDER BY same DESC, seq DESC LIMIT 5",
            (config, kind),
        )
        alike = [row["seconds"] for row in rows if row["same"] == rows[0]["same"]]
        return median(alike) if alike else None

    def _ask(self, job_id: str, column: str, done_word: str) -> Job:
        with self.table.write() as connection:
            job = self.get(job_id)
            if job.state not in ("starting", "running", "saving"):
                raise InputError(f"Job {job_id} is {job.state}; only a running job can be {done_word}.")
            self._set(connection, job_id, **{column: 1})
        return job

    def _set(self, connection: sqlite3.Connection, job_id: str, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*values.values(), job_id))


def _total(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
