"""Locks that the system frees the moment their holder dies, and who holds them.

A job's lock, held by its worker for life, is the only sign that the job runs. The dispatcher takes it before
it claims the job and hands the open file to the worker, so that there is no moment at which it is free.
The facts beside a lock (pid, host, since) are for messages, and for never signalling a stranger.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import psutil
from filelock import FileLock, Timeout, lock_descriptor

from workbench.errors import InputError
from workbench.workspace import Workspace, disk_error

LOCK_NAME = "worker.lock"
HOLDER_NAME = "worker.json"
DISPATCH_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """Who took a lock: process, host, when (UTC) and a number that no other process ever has."""

    pid: int
    host: str
    identity: str
    since: str

    @classmethod
    def of(cls, pid: int) -> Holder:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(pid, socket.gethostname(), identity(pid), now)

    @property
    def alive(self) -> bool:
        """Whether that very process still lives on this host."""
        return self.host == socket.gethostname() and identity(self.pid) == self.identity != ""


def identity(pid: int) -> str:
    """Return what tells a process from a later one with its pid: boot and start time; "" if there is none."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
        return "" if fields[0] in "ZX" else f"{_boot_id()}:{fields[19]}"
    except OSError:
        with suppress(psutil.Error):
            return f"created:{psutil.Process(pid).create_time()}"
    return ""


@lru_cache(maxsize=1)
def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"boot:{psutil.boot_time():.0f}"


def write_holder(path: Path, *, pid: int = 0) -> Holder:
    """Note beside a lock that a process (this one by default) holds it; the lock itself is what counts."""
    holder = Holder.of(pid or os.getpid())
    with suppress(OSError):
        path.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    return holder


def read_holder(path: Path) -> Holder | None:
    """Return who noted itself beside a lock, None if nobody did."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class JobLock:
    """The lock of one job, on an open file that can be handed to a child process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, job_folder: Path) -> JobLock | None:
        """Return the lock, or None while another process holds it.

        Raises:
            InputError: the folder is missing or cannot be written.
        """
        place = job_folder / LOCK_NAME
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(place, error) from error
        if lock_descriptor(descriptor, blocking=False):
            return cls(descriptor)
        os.close(descriptor)
        return None

    @classmethod
    def take_patiently(cls, job_folder: Path) -> JobLock | None:
        """Take the lock of a job without a worker; somebody who only looks holds it for microseconds."""
        for _ in range(10):
            if (lock := cls.take(job_folder)) is not None:
                return lock
            time.sleep(0.005)
        return None

    @classmethod
    def inherited(cls, descriptor: int) -> JobLock:
        """Take over the lock that the parent process opened."""
        os.set_inheritable(descriptor, False)
        return cls(descriptor)

    def stands(self, job_folder: Path) -> bool:
        """Whether the folder still has the file that is locked here; False once somebody removed it."""
        try:
            there = os.stat(job_folder / LOCK_NAME)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return os.path.samestat(there, os.fstat(self.descriptor))

    def release(self) -> None:
        """Close the file here; the lock is free once every process that was handed it has closed it."""
        os.close(self.descriptor)


def is_held(job_folder: Path) -> bool:
    """Whether a live process holds the job's lock; a missing folder has no holder."""
    try:
        descriptor = os.open(job_folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not lock_descriptor(descriptor, blocking=False)
    finally:
        os.close(descriptor)


@contextmanager
def dispatch_lock(workspace: Workspace) -> Iterator[bool]:
    """Hold the right to start and recover jobs; yields False when another process keeps it for 10 s."""
    lock = FileLock(workspace.root / ".dispatch.lock")
    try:
        lock.acquire(timeout=DISPATCH_SECONDS, poll_interval=0.01)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise disk_error(workspace.root / ".dispatch.lock", error) from error
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def server_lock(workspace: Workspace) -> Iterator[Holder]:
    """Hold the right to serve this workspace on the web; queueing and reading need no lock.

    Raises:
        InputError: another server has it; the sentence names its process, host and start.
    """
    place = workspace.root / ".server.json"
    lock = FileLock(workspace.root / ".server.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = read_holder(place)
        who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "another process"
        raise InputError(
            f"Workspace {workspace.root.name!r} is already served by {who}; "
            "use that page, stop that server, or choose another --workspace."
        ) from None
    except OSError as error:
        raise disk_error(workspace.root / ".server.lock", error) from error
    try:
        yield write_holder(place)
    finally:
        place.unlink(missing_ok=True)
        lock.release()
