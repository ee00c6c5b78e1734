"""Start a worker in its own session, and stop one without ever signalling a stranger."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from workbench.errors import WorkbenchError
from workbench.jobs.locks import HOLDER_NAME, Holder, JobLock, read_holder, write_holder
from workbench.workspace import Workspace

LOG_NAME = "log.txt"
MODULE = "workbench.worker"
PRIORITY = 10
AUTOGROUP = Path("/proc/self/autogroup")
CHECKOUT = Path(__file__).resolve().parents[2]

SPINS = "3000"
"""How often a thread of OpenMP looks for work before it sleeps. The usual 300,000 keep a job's own threads
from cores that other programs use too: half the pace there, nothing gained on a quiet machine
(`docs/log.md`).
"""


def worker_command(job_id: str, workspace: Workspace) -> list[str]:
    """Return the command line that runs a job."""
    return [sys.executable, "-P", "-m", MODULE, job_id, "--workspace", str(workspace.root)]


def start_worker(
    job_id: str, workspace: Workspace, *, lock: JobLock, claim: int, cwd: str
) -> subprocess.Popen[bytes]:
    """Start the worker of a claimed job and hand it the job's lock.

    Raises:
        WorkbenchError: the system refused another process.
    """
    folder = workspace.folder("jobs") / job_id
    extra = ["--lock-descriptor", str(lock.descriptor), "--claim", str(claim)]
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    environment = {
        "GOMP_SPINCOUNT": SPINS,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }
    try:
        with (folder / LOG_NAME).open("ab") as log:
            process = subprocess.Popen(
                [*worker_command(job_id, workspace), *extra],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd if os.path.isdir(cwd) else folder,
                env=environment,
                pass_fds=(lock.descriptor,),
                start_new_session=True,
            )
        write_holder(folder / HOLDER_NAME, pid=process.pid)
        return process
    except OSError as error:
        raise WorkbenchError(f"No worker could be started for {job_id} ({error.strerror}).") from error


def shown_command(job_id: str, workspace: Workspace) -> str:
    """Return the worker's command line as text for a terminal."""
    return shlex.join(worker_command(job_id, workspace))


def lower_priority() -> None:
    """Make room for the app and the desktop; a system out of memory is to kill this process first.

    Where Linux groups processes by session for its scheduler, niceness counts inside a group alone; a worker
    is a session of its own, so its group is made nice as well.
    """
    with suppress(OSError):
        os.nice(max(0, PRIORITY - os.nice(0)))
    with suppress(OSError):
        AUTOGROUP.write_text(str(PRIORITY), encoding="ascii")
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def holder_of(job_folder: Path) -> Holder | None:
    """Return the live worker of a job on this host, None where none can be named for certain."""
    holder = read_holder(job_folder / HOLDER_NAME)
    return holder if holder is not None and holder.alive else None


def kill_worker(job_folder: Path) -> bool:
    """Kill a job's worker and all it started; False where the process cannot be named for certain."""
    holder = holder_of(job_folder)
    if holder is None:
        return False
    with suppress(OSError):
        if os.getpgid(holder.pid) == holder.pid:
            os.killpg(holder.pid, signal.SIGKILL)
        else:
            os.kill(holder.pid, signal.SIGKILL)
    return True


def kill_stray(pid: int | None, job_id: str, workspace: Workspace) -> bool:
    """Kill a worker whose lock was removed from under it, if its command line names job and workspace."""
    if not pid:
        return False
    try:
        command = psutil.Process(pid).cmdline()
    except (psutil.Error, OSError):
        return False
    if not {MODULE, job_id, str(workspace.root)} <= set(command):
        return False
    with suppress(OSError):
        (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
    return True


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
