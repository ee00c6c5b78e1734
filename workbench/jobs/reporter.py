"""How a running job talks to the table, the metrics stream and its checkpoints; the job side of `Reporter`.

Every step appends its metrics and looks whether the user asked for something (one indexed read of
microseconds); a checkpoint is written when one is due, asked for, or the job is to stop.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from workbench.errors import Cancelled, Diverged, Paused, WorkbenchError
from workbench.jobs.checkpoints import Checkpoint, Owner, load_newest, save_checkpoint
from workbench.jobs.faults import fault_point
from workbench.jobs.manifests import sweep_checkpoints
from workbench.jobs.metrics import MetricsWriter
from workbench.jobs.processes import peak_bytes
from workbench.jobs.randomness import capture_randomness, restore_randomness
from workbench.jobs.table import Table
from workbench.types import CheckpointState
from workbench.workspace import DiskFull

ROW_SECONDS = 0.5
SAVE_SECONDS = 30.0
SAVE_SHARE = 0.05
RETRY_SECONDS = 60.0
AMPLE_SECONDS = 5.0
POLL_SECONDS = 0.25
BALLAST_BYTES = 256 * 1024


class JobReporter:
    """Reporter of one worker; also owns the job's row while the worker lives.

    Work that is to go on exactly builds everything first and calls `restore` last, just before its loop:
    `restore` also sets the random generators and the number of threads.
    """

    def __init__(
        self,
        table: Table,
        folder: Path,
        *,
        claim: int,
        owner: Owner,
        terminated: threading.Event,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        """Take over the row of the job whose folder is `folder`.

        Args:
            table: the job table.
            folder: `jobs/<id>`.
            claim: number of the claim that this worker was started for.
            owner: what its checkpoints belong to.
            terminated: set once the system asked the process to end.
            save_seconds: longest time without a checkpoint where the work offers one; 0 saves at every step.
        """
        self.table = table
        self.folder = folder
        self.claim = claim
        self.terminated = terminated
        self._owner = owner
        self._save_seconds = save_seconds
        self._metrics = MetricsWriter(folder)
        self._begun = self._saved_at = self._row_at = time.monotonic()
        self._seconds_before = float(self._row()["seconds"])
        self._save_took = 0.0
        self._stage = ""
        self._steps = 0
        self._step = 0
        self._base = 0
        self._saved_done = -1
        self._restored: Checkpoint | None = None
        self._sampler: Callable[[], Path] | None = None
        self._sample_every = 0
        self._make_ballast()

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def done(self) -> int:
        """Steps done over all stages."""
        return self._base + self._step

    @property
    def seconds(self) -> float:
        """Seconds of work over all attempts."""
        return self._seconds_before + time.monotonic() - self._begun

    def stage(self, name: str, steps: int) -> None:
        """Start a named stage of `steps` steps."""
        if name != self._stage:
            self._base = self.done
        if self._restored is not None and self._restored.stage == name:
            self._base = self._restored.done - self._restored.step
            self._restored = None
        self._stage, self._steps, self._step = name, steps, 0
        self._write_progress(always=True)
        if self._look()["stop"] == "cancel":
            raise Cancelled(f"Cancelled at {self._place()}.")

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        """Report `step` finished steps of the stage; see `workbench.types.Reporter`.

        Raises:
            Cancelled, Paused: when asked, after saving where `state` was given.
            Diverged: a loss is not finite; the last checkpoint stands.
        """
        self._step = step
        row = {"stage": self._stage, "step": step, "done": self.done, "seconds": round(self.seconds, 3)}
        self._metrics.append({**row, **{name: float(value) for name, value in metrics.items()}})
        fault_point("step")
        self._refuse_non_finite(metrics)
        self._obey(state)
        self._write_progress()

    def restore(self) -> CheckpointState | None:
        """Return the state of the newest whole checkpoint and set random generators and threads, or None."""
        found = load_newest(self.folder / "checkpoints", owner=self._owner)
        for sentence in found.skipped:
            self.note(sentence)
        checkpoint = found.checkpoint
        if checkpoint is None:
            return None
        self._saved_done = checkpoint.done
        self._saved_at = time.monotonic()
        self._base = checkpoint.done
        self._step = 0
        if self._stage == checkpoint.stage:
            self._base = checkpoint.done - checkpoint.step
        else:
            self._restored = checkpoint
        self._event("resumed", stage=checkpoint.stage, step=checkpoint.step, done=checkpoint.done)
        torch.set_num_threads(int(checkpoint.process["threads"]))
        restore_randomness(checkpoint.process["random"])
        return checkpoint.state

    def note(self, text: str) -> None:
        """Show one sentence to the user."""
        self._event("note", text=text)
        self._try_update({"message": text})

    def offer_sample(self, make: Callable[[], Path], every: int = 0) -> None:
        """Register what "sample now", and every so many steps, call between two steps: it returns a clip."""
        self._sampler, self._sample_every = make, every

    def facts(self) -> dict[str, Any]:
        """Return where the work stands, as columns of the job's row."""
        return {
            "stage": self._stage,
            "step": self._step,
            "steps": self._steps,
            "seconds": round(self.seconds, 3),
            "peak_bytes": peak_bytes(),
        }

    def wait_for_room(self, error: DiskFull) -> None:
        """Hold the work until the disk has room again.

        Raises:
            Cancelled: when the user asked for it meanwhile.
        """
        self._drop_ballast()
        self._event("disk full", text=str(error))
        self._try_update({"message": f"{error} The work is held and tried again each minute."})
        begun = time.monotonic()
        free_then = _free(error.folder)
        while time.monotonic() - begun < RETRY_SECONDS:
            time.sleep(POLL_SECONDS)
            if self.terminated.is_set():
                raise SystemExit(143)
            if self._row()["stop"] == "cancel":
                raise Cancelled("Cancelled while the disk was full; the last checkpoint stands.")
            free = _free(error.folder)
            ample = free > error.needed + 2 * BALLAST_BYTES
            if ample and (free > free_then or time.monotonic() - begun > AMPLE_SECONDS):
                break
        self._make_ballast()
        self._try_update({"message": ""})

    def until_room(self, write: Callable[[], object]) -> None:
        """Write something, as often as a full disk makes it necessary."""
        while True:
            try:
                write()
                return
            except DiskFull as error:
                self.wait_for_room(error)

    def _look(self) -> Any:
        row = self._row()
        if row["claim"] != self.claim:
            raise Cancelled("The job was given to another worker.")
        return row

    def _obey(self, state: Callable[[], CheckpointState] | None) -> None:
        row = self._look()
        stop: str | None = row["stop"]
        is_due = self._sample_every and self._step and self._step % self._sample_every == 0
        if row["sample_asked"] or is_due:
            self._sample()
        if state is not None and (stop or row["save_asked"] or self.terminated.is_set() or self._is_due()):
            self._save(state)
        if stop:
            fault_point("stopping")
            kept = (
                "" if state is not None else " Nothing was saved at this point; the last checkpoint stands."
            )
            ending = Cancelled if stop == "cancel" else Paused
            raise ending(f"{'Cancelled' if stop == 'cancel' else 'Paused'} at {self._place()}.{kept}")
        if self.terminated.is_set():
            raise SystemExit(143)

    def _is_due(self) -> bool:
        wait = max(self._save_seconds, self._save_took / SAVE_SHARE if self._save_seconds else 0.0)
        return self.done != self._saved_done and time.monotonic() - self._saved_at >= wait

    def _save(self, build: Callable[[], CheckpointState]) -> None:
        if self.done == self._saved_done:
            self._try_update({"save_asked": 0})
            return
        begun = time.monotonic()
        self._try_update({"state": "saving"}, only_in="running")
        checkpoint = Checkpoint(
            stage=self._stage,
            step=self._step,
            done=self.done,
            state=build(),
            process={"threads": torch.get_num_threads(), "random": capture_randomness()},
        )
        try:
            self.until_room(
                lambda: save_checkpoint(self.folder / "checkpoints", checkpoint, owner=self._owner)
            )
        except Diverged as error:
            raise Diverged(f"{error} This was at {self._place()}; {self._last_good()}.") from None
        self._saved_done, self._saved_at = self.done, time.monotonic()
        self._save_took = self._saved_at - begun
        self._event("saved", stage=self._stage, step=self._step, done=self.done)
        self.until_room(lambda: self._update({"checkpoint_step": self.done, "save_asked": 0}))
        self._try_update({"state": "running"}, only_in="saving")

    def _sample(self) -> None:
        self._try_update({"sample_asked": 0})
        if self._sampler is None:
            self.note("This step of the work has no sample to show.")
            return
        kept = capture_randomness()
        try:
            path = self._relative(self._sampler())
            self._event("sample", path=path, step=self._step, done=self.done)
        finally:
            restore_randomness(kept)

    def _relative(self, path: Path) -> str:
        root = self.folder.parents[1]
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _refuse_non_finite(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if "loss" in name and not math.isfinite(value):
                raise Diverged(
                    f"{name} became {value} at {self._place()}; {self._last_good()}. "
                    "Try a lower learning rate."
                )

    def _last_good(self) -> str:
        if self._saved_done < 0:
            return "there was no checkpoint yet"
        return f"the checkpoint of step {self._saved_done:,} is the last finite one"

    def _place(self) -> str:
        return f"step {self._step:,} of {self._steps:,}, {self._stage or 'loading'}"

    def _write_progress(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or now - self._row_at >= ROW_SECONDS:
            self._row_at = now
            self._try_update(self.facts())

    def _event(self, event: str, **facts: Any) -> None:
        self._metrics.append({"event": event, "seconds": round(self.seconds, 3), **facts})

    def _row(self) -> Any:
        query = "SELECT claim, stop, save_asked, sample_asked, seconds FROM jobs WHERE id = ?"
        rows = self.table.read(query, (self.id,))
        if not rows:
            raise Cancelled("The job was deleted.")
        return rows[0]

    def _update(self, values: dict[str, Any], *, only_in: str = "") -> bool:
        names = ", ".join(f"{name} = ?" for name in values)
        where = " AND state = ?" if only_in else ""
        extra = (only_in,) if only_in else ()
        with self.table.write() as connection:
            cursor = connection.execute(
                f"UPDATE jobs SET {names} WHERE id = ? AND claim = ?{where}",
                (*values.values(), self.id, self.claim, *extra),
            )
            return cursor.rowcount == 1

    def _try_update(self, values: dict[str, Any], *, only_in: str = "") -> None:
        """Update what only informs: a full disk or a busy table must not stop the work."""
        with suppress(WorkbenchError):
            self._update(values, only_in=only_in)

    def _make_ballast(self) -> None:
        """Keep a little room on the disk, given up when it is full so that the table can still say so."""
        with suppress(OSError):
            (self.folder / "ballast").write_bytes(b"\1" * BALLAST_BYTES)

    def _drop_ballast(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Close the stream and give up the ballast and litter."""
        self._metrics.close()
        self._drop_ballast()
        sweep_checkpoints(self.folder / "checkpoints")


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
