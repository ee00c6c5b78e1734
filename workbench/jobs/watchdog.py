"""A worker's second thread: ends the process where the work does not look up, and notes its peak memory.

Long work looks for wishes at each step; loading a model or a long step does not. Being killed is safe at
any moment, so a cancel that was not obeyed within a second is carried out by ending the process. So is a
worker whose job was given to another one, or whose folder was removed: it must not run beside its successor.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from workbench.errors import WorkbenchError
from workbench.jobs import memory, processes
from workbench.jobs.locks import JobLock
from workbench.jobs.table import Table

POLL_SECONDS = 0.2
CANCEL_SECONDS = 1.0
TERMINATE_SECONDS = 10.0


class _Wish(NamedTuple):
    """Whose the job is, and how it is to stop."""

    claim: int
    stop: str | None


class Watchdog(threading.Thread):
    """Watches one job's row and its process until `stop`."""

    def __init__(
        self,
        table: Table,
        folder: Path,
        *,
        lock: JobLock,
        claim: int,
        terminated: threading.Event,
        on_cancel: Callable[[], None],
    ) -> None:
        """Prepare the thread.

        Args:
            table: the job table.
            folder: `jobs/<id>`.
            lock: the job's lock, which this process holds.
            claim: number of the claim that this worker was started for.
            terminated: set once the system asked the process to end.
            on_cancel: writes that the job was cancelled and starts the next one; returns only if this thread
                is the one to end the process.
        """
        super().__init__(name="watchdog", daemon=True)
        self._table = table
        self._folder = folder
        self._lock = lock
        self._claim = claim
        self._terminated = terminated
        self._on_cancel = on_cancel
        self._over = threading.Event()

    def stop(self) -> None:
        """Let the thread end."""
        self._over.set()

    def run(self) -> None:
        cancel_seen = terminate_seen = None
        noted = 0
        while not self._over.wait(POLL_SECONDS):
            now = time.monotonic()
            if not self._lock.stands(self._folder) and not self._over.is_set():
                end_group()
            peak = processes.peak_bytes()
            if peak > noted * 1.02:
                noted = peak
                memory.note_memory(self._folder, peak=peak)
            if self._terminated.is_set():
                terminate_seen = terminate_seen or now
                if now - terminate_seen > TERMINATE_SECONDS:
                    end_group()
            row = self._look()
            if row.claim != self._claim and not self._over.is_set():
                end_group()
            if row.stop == "cancel":
                cancel_seen = cancel_seen or now
                if now - cancel_seen > CANCEL_SECONDS and not self._over.is_set():
                    self._on_cancel()
                    end_group()

    def _look(self) -> _Wish:
        """Return what the row asks for; a deleted job is to end, an unreadable table asks nothing."""
        try:
            rows = self._table.read("SELECT claim, stop FROM jobs WHERE id = ?", (self._folder.name,))
        except WorkbenchError:
            return _Wish(self._claim, None)
        return _Wish(rows[0]["claim"], rows[0]["stop"]) if rows else _Wish(self._claim, "cancel")


def end_group() -> None:
    """End this process at once, with all that it started if it leads its own group."""
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
