"""What the tests of the jobs share: a queue whose worker knows the demo step, and waiting with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.jobs.demo import DemoConfig, run
from workbench.jobs import ENDED, Job, Queue
from workbench.jobs.locks import is_held
from workbench.jobs.processes import CHECKOUT, kill_worker
from workbench.types import SilentReporter
from workbench.workspace import Workspace

ENVIRONMENT = {
    "WORKBENCH_STEPS": "tests.jobs.demo:STEPS",
    "OMP_NUM_THREADS": "1",
    "WORKBENCH_SAVE_SECONDS": "0",
}
PATIENCE = 90.0


@contextmanager
def a_queue(folder: Path, **environment: str) -> Iterator[Queue]:
    """Open a queue with the demo step; no worker outlives the block."""
    kept = dict(os.environ)
    os.environ.update({**ENVIRONMENT, **environment})
    queue = Queue(Workspace.open(folder))
    try:
        yield queue
    finally:
        for job in queue.list():
            kill_worker(queue.folder(job.id))
        queue.table.close()
        os.environ.clear()
        os.environ.update(kept)


def wait_until(reached: Callable[[], Any], *, seconds: float = PATIENCE, what: str = "it") -> Any:
    """Poll until `reached` gives something true, and return that."""
    until = time.monotonic() + seconds
    while not (value := reached()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.01)
    return value


def wait_for(queue: Queue, job_id: str, *states: str, seconds: float = PATIENCE) -> Job:
    """Tend the queue until the job is in one of the states (default: any in which it has ended)."""

    def reached() -> Job | None:
        queue.tend()
        job = queue.get(job_id)
        return job if job.state in (states or ENDED) else None

    try:
        job: Job = wait_until(reached, seconds=seconds)
    except AssertionError:
        job = queue.get(job_id)
        log = "\n".join(queue.log_tail(job_id, 30))
        raise AssertionError(f"job is {job.state} ({job.message}), wanted {states or ENDED}\n{log}") from None
    return job


def run_demo(queue: Queue, **config: Any) -> Job:
    """Submit the demo and wait for its end."""
    job = queue.submit("demo", config)
    queue.dispatch()
    return wait_for(queue, job.id)


def reached_step(queue: Queue, job_id: str, done: int) -> bool:
    """Whether the metrics of a job show that many steps."""
    return any(row.get("done", 0) >= done for row in queue.metrics(job_id).rows)


def reference(workspace: Workspace, **config: Any) -> str:
    """Return the sha256 of an uninterrupted run in this process, on one thread."""
    import torch

    torch.set_num_threads(1)
    apart = Workspace.open(workspace.root / "reference")
    return run(DemoConfig(**config), apart, SilentReporter()).sha256


class AppProcess:
    """Stands for the app: submits a job once, keeps tending the queue, can be killed."""

    def __init__(self, workspace: Path, config: str = "", *, fault: str = "") -> None:
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(CHECKOUT)}
        environment.pop("WORKBENCH_FAULT", None)
        if fault:
            environment["WORKBENCH_FAULT"] = fault
        command = [sys.executable, "-m", "tests.jobs.app_process", str(workspace), config]
        self.process = subprocess.Popen(command, env=environment, cwd=CHECKOUT)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def dead_but_running(queue: Queue) -> list[str]:
    """Return jobs whose row says that they run although nobody holds their lock."""
    return [job.id for job in queue.list() if job.active and not is_held(queue.folder(job.id))]
