"""A worker's second thread: ends the process where the work does not look up, and notes its peak memory.

Long work looks for wishes at each step; loading a model or a long step does not. Being killed is safe at
any moment, so a cancel that was not obeyed within a second is carried out by ending the process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.jobs import memory, processes
from workbench.jobs.table import Table

POLL_SECONDS = 0.2
CANCEL_SECONDS = 1.0
TERMINATE_SECONDS = 10.0


class Watchdog(threading.Thread):
    """Watches one job's row and its process until `stop`."""

    def __init__(
        self,
        table: Table,
        folder: Path,
        *,
        terminated: threading.Event,
        on_cancel: Callable[[], None],
    ) -> None:
        """Prepare the thread.

        Args:
            table: the job table.
            folder: `jobs/<id>`.
            terminated: set once the system asked the process to end.
            on_cancel: writes that the job was cancelled and starts the next one; returns only if this thread
                is the one to end the process.
        """
        super().__init__(name="watchdog", daemon=True)
        self._table = table
        self._folder = folder
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
            peak = processes.peak_bytes()
            if peak > noted * 1.02:
                noted = peak
                memory.note_memory(self._folder, peak=peak)
            if self._terminated.is_set():
                terminate_seen = terminate_seen or now
                if now - terminate_seen > TERMINATE_SECONDS:
                    end_group()
            if self._wants_cancel():
                cancel_seen = cancel_seen or now
                if now - cancel_seen > CANCEL_SECONDS and not self._over.is_set():
                    self._on_cancel()
                    end_group()

    def _wants_cancel(self) -> bool:
        try:
            rows = self._table.read("SELECT stop FROM jobs WHERE id = ?", (self._folder.name,))
        except WorkbenchError:
            return False
        return not rows or rows[0]["stop"] == "cancel"


def end_group() -> None:
    """End this process at once, with all that it started if it leads its own group."""
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
