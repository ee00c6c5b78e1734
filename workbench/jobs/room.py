"""Check before the start that the disk and the memory have room for what is planned."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from workbench.errors import InputError
from workbench.jobs.memory import ADVICE, memory_limit
from workbench.workspace import DiskFull


def require_disk(folder: Path, num_bytes: int, *, what: str) -> None:
    """Check the file system that `folder` is really on.

    Raises:
        DiskFull: what is needed and what is free, in MB; a job that meets it waits for room.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskFull(
            f"{what} needs {num_bytes / 1e6:,.0f} MB on the disk of {folder.name!r}, "
            f"{free / 1e6:,.0f} MB are free; nothing was started, "
            "free some space or choose another --workspace.",
            folder=folder,
            needed=num_bytes,
        )


def require_memory(num_bytes: int, *, what: str) -> None:
    """Check the memory that this machine or container can still give.

    Raises:
        InputError: what is needed and what is free, in GB.
    """
    free = min(psutil.virtual_memory().available, memory_limit())
    if free < num_bytes:
        raise InputError(
            f"{what} needs about {num_bytes / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free. {ADVICE}"
        )
