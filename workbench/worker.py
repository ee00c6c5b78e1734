"""Run one job in this process: `python -m workbench.worker JOB_ID --workspace DIR`.

Takes over the lock and the row, runs the step of the workflow, writes how it ended and starts the next job.
For extensions and tests, `WORKBENCH_STEPS=module:NAME` names other steps than `workflow.STEPS`.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib
import io
import json
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from workbench.errors import Cancelled, Diverged, InputError, Paused, WorkbenchError
from workbench.jobs import Job, Queue, memory, processes
from workbench.jobs.dispatch import MIN_FREE_BYTES, claim_next, now_text
from workbench.jobs.faults import fault_point
from workbench.jobs.locks import HOLDER_NAME, JobLock, dispatch_lock, write_holder
from workbench.jobs.room import require_disk
from workbench.types import Reporter, StrictModel
from workbench.workspace import DISK_FULL, DiskFull, Workspace, disk_error, read_json, write_json

if TYPE_CHECKING:
    from workbench.jobs.reporter import JobReporter

SAVE_ENVIRONMENT = "WORKBENCH_SAVE_SECONDS"
STEPS_ENVIRONMENT = "WORKBENCH_STEPS"
RESULT_NAME = "result.json"


class Result(Protocol):
    """What a step made."""

    def to_json(self) -> dict[str, Any]: ...


class Step(Protocol):
    """One kind of work: its configuration, and the function that does it."""

    @property
    def config(self) -> type[StrictModel]: ...

    @property
    def run(self) -> Callable[[Any, Workspace, Reporter], Result]: ...


def main(arguments: list[str] | None = None) -> int:
    """Run the job named on the command line; 0 when the row says how it ended, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="workbench.worker", description="Run one job of a workspace.")
    parser.add_argument("job_id")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--lock-descriptor", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--claim", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        inherited = JobLock.inherited(options.lock_descriptor) if options.lock_descriptor >= 0 else None
        workspace = Workspace(Path(options.workspace).absolute())
        queue = Queue(workspace)
        job = queue.get(options.job_id)
        lock, claim = (inherited, options.claim) if inherited else _claim_by_hand(queue, job)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return Worker(queue, job, lock=lock, claim=claim).run()


def _claim_by_hand(queue: Queue, job: Job) -> tuple[JobLock, int]:
    """Take a job that nobody handed over."""
    with dispatch_lock(queue.workspace):
        lock = JobLock.take(queue.folder(job.id))
        if lock is None:
            raise InputError(f"Job {job.id} already has a worker; `workbench jobs watch {job.id}` shows it.")
        row = claim_next(queue.table, only=job.id)
    if row is None:
        lock.release()
        raise InputError(f"Job {job.id} is {job.state} or its device is busy; only a queued job can be run.")
    return lock, int(row["claim"])


class Worker:
    """One job in this process, from taking over to starting the next."""

    def __init__(self, queue: Queue, job: Job, *, lock: JobLock, claim: int) -> None:
        self.queue = queue
        self.job = job
        self.lock = lock
        self.claim = claim
        self.folder = queue.folder(job.id)
        self._ending = threading.Lock()

    def run(self) -> int:
        """Run the job; always leaves a row that says how it ended, unless the process is killed."""
        from workbench.jobs.watchdog import Watchdog, end_group

        write_holder(self.folder / HOLDER_NAME)
        processes.lower_priority()
        memory.note_memory(self.folder, peak=processes.peak_bytes())
        faulthandler.enable()
        sys.stdout = sys.stderr = PatientStream(sys.stderr)
        terminated = threading.Event()
        signal.signal(signal.SIGTERM, _set_when_signalled(terminated))
        watchdog = Watchdog(
            self.queue.table, self.folder, lock=self.lock, claim=self.claim,
            terminated=terminated, on_cancel=self._cancelled_by_watchdog,
        )  # fmt: skip
        watchdog.start()
        ending = self._work(terminated)
        if ending is None:
            return 143
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()
        watchdog.stop()
        self._end(ending)
        self._hand_over()
        if threading.active_count() > 2:
            end_group()
        return 0

    def _work(self, terminated: threading.Event) -> dict[str, Any] | None:
        """Return the last values of the row; None when the system ended the process."""
        try:
            self._take_over()
            fault_point("loading")
            return self._run_step(terminated)
        except SystemExit:
            return None
        except BaseException as error:  # noqa: BLE001 - the outermost boundary of the process
            return self._ending_of(error)

    def _take_over(self) -> None:
        values = (os.getpid(), json.dumps(_versions()), self.job.id, self.claim)
        with self.queue.table.write() as connection:
            cursor = connection.execute(
                "UPDATE jobs SET pid = ?, versions = ?, "
                "state = CASE state WHEN 'starting' THEN 'running' ELSE state END WHERE id = ? AND claim = ?",
                values,
            )
            if cursor.rowcount != 1:
                raise SystemExit(1)
        self._say(f"job {self.job.id} · {self.job.kind} · claim {self.claim} · {now_text()}")

    def _run_step(self, terminated: threading.Event) -> dict[str, Any]:
        from workbench.jobs.checkpoints import Owner
        from workbench.jobs.reporter import SAVE_SECONDS, JobReporter

        step = _find_step(self.job.kind)
        config = step.config.parse(self.job.config, what=f"The configuration of {self.job.kind!r}")
        text = json.dumps(self.job.config, sort_keys=True)
        self._note_device()
        owner = Owner(self.job.kind, hashlib.sha256(text.encode()).hexdigest())
        save_seconds = float(os.environ.get(SAVE_ENVIRONMENT, SAVE_SECONDS))
        reporter = JobReporter(
            self.queue.table, self.folder, claim=self.claim, owner=owner,
            save_seconds=save_seconds, terminated=terminated,
        )  # fmt: skip
        kept = self.folder / RESULT_NAME
        try:
            if not kept.exists():
                made = self._make(step, config, reporter)
                reporter.until_room(lambda: write_json(kept, made))
            fault_point("result")
            made = read_json(kept, what=f"{RESULT_NAME} of {self.job.id}")
            return {"state": "done", "message": "", "result": json.dumps(made), **reporter.facts()}
        except Exception as error:  # noqa: BLE001 - to add what the reporter knows
            return {**self._ending_of(error), **reporter.facts()}
        finally:
            reporter.close()

    def _note_device(self) -> None:
        """Keep the accelerator's name with the versions; without one, that of the processor architecture."""
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}"
        with suppress(WorkbenchError), self.queue.table.write() as connection:
            connection.execute(
                "UPDATE jobs SET versions = ? WHERE id = ? AND claim = ?",
                (json.dumps({**_versions(), "device": name}), self.job.id, self.claim),
            )

    def _make(self, step: Step, config: StrictModel, reporter: JobReporter) -> dict[str, Any]:
        """Return what the step made; a full disk holds the work, which then goes on from its checkpoint."""
        while True:
            try:
                require_disk(self.folder, MIN_FREE_BYTES, what=f"Work of the kind {self.job.kind!r}")
                result = step.run(config, self.queue.workspace, reporter).to_json()
                finite: dict[str, Any] = json.loads(json.dumps(result), parse_constant=lambda _: None)
                return finite
            except DiskFull as error:
                reporter.wait_for_room(error)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                self._say(traceback.format_exc())
                reporter.wait_for_room(_as_disk_full(self.folder, error))

    def _ending_of(self, error: BaseException) -> dict[str, Any]:
        """Return state and sentence for what ended the work; unexpected errors go to the log in full."""
        if isinstance(error, Cancelled | Paused | Diverged):
            return {"state": type(error).__name__.lower(), "message": str(error)}
        text = "".join(traceback.format_exception(error))
        traceback.clear_frames(error.__traceback__)
        self._say(text)
        if memory.is_out_of_memory(error):
            first = str(error).strip().partition("\n")[0][:160]
            peak = f"peak {processes.peak_bytes() / 1e9:.1f} GB of {memory.memory_limit() / 1e9:.1f} GB"
            return {
                "state": "oom",
                "message": f"Out of memory ({first or type(error).__name__}); {peak}. {memory.ADVICE}",
            }
        if isinstance(error, WorkbenchError):
            return {"state": "failed", "message": str(error), "refused": isinstance(error, InputError)}
        return {
            "state": "failed",
            "message": f"{type(error).__name__}: {str(error)[:300]} (the log has the details)",
        }

    def _end(self, values: Mapping[str, Any]) -> None:
        """Write the last state; tried until the disk has room, since nothing else can say it."""
        fault_point("ended")
        names = ", ".join(f"{name} = ?" for name in values)
        wait = threading.Event()
        while True:
            try:
                with self.queue.table.write() as connection:
                    connection.execute(
                        f"UPDATE jobs SET {names}, finished = ?, pid = NULL, stop = NULL "
                        "WHERE id = ? AND claim = ?",
                        (*values.values(), now_text(), self.job.id, self.claim),
                    )
                return
            except WorkbenchError as error:
                if not self.lock.stands(self.folder):
                    return
                self._say(str(error))
                wait.wait(1.0)

    def _cancelled_by_watchdog(self) -> None:
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()
        message = "Cancelled; the work did not look up for a second, so its process was ended."
        self._end({"state": "cancelled", "message": message})
        self._hand_over()

    def _hand_over(self) -> None:
        """Free the lock and start the next job."""
        self.lock.release()
        try:
            self.queue.dispatch()
        except WorkbenchError as error:
            self._say(f"The next job was not started: {error}")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


class PatientStream(io.TextIOBase):
    """Standard output of a worker: a log on a full disk loses lines, the work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def writable(self) -> bool:
        return True


def _set_when_signalled(event: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        event.set()

    return handle


def _as_disk_full(folder: Path, error: OSError) -> DiskFull:
    full = disk_error(folder / "what the step makes", error, needed=MIN_FREE_BYTES)
    return full if isinstance(full, DiskFull) else DiskFull(str(full), folder=folder)


def _find_step(kind: str) -> Step:
    module_name, _, name = os.environ.get(STEPS_ENVIRONMENT, "workbench.workflow:STEPS").partition(":")
    steps: Mapping[str, Step] = getattr(importlib.import_module(module_name), name or "STEPS")
    if kind not in steps:
        raise InputError(f"There is no kind of work called {kind!r}; known: {', '.join(sorted(steps))}.")
    return steps[kind]


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for package in ("linearization-workbench", "torch", "diffusers", "safetensors"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


if __name__ == "__main__":
    sys.exit(main())
