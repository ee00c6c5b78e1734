"""One job as a reader sees it: a frozen copy of its row. Knows nothing of processes or files."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, fields
from typing import Any

from workbench.jobs.states import ACTIVE, ENDED, RESUMABLE, State

_JSON_COLUMNS = ("config", "result", "versions")


@dataclass(frozen=True)
class Job:
    """State of one job when it was read.

    Attributes:
        id: sortable, also the name of the folder `jobs/<id>`.
        kind: the step of the workflow that it runs; `config` is that step's configuration.
        state: one of `states.STATES`; `message` says in one sentence why it is so.
        stage, step, steps: where it is: `step` of `steps` of the named stage are done.
        checkpoint_step: steps done, counted over all stages, in the newest checkpoint; None without one.
        attempts: how often it was started again by itself after its worker died (at most 3).
        pid: process of the worker, None when none runs.
        created, started, finished: UTC, ISO 8601.
        seconds: time spent running, over all attempts, by a monotonic clock.
        command: the command line that asked for the job.
        device: jobs of one device run one after the other.
        versions: of Python and the packages that matter; under "device" what the worker ran on.
        peak_bytes: largest resident memory of the worker.
        refused: it failed because of its input; `message` then says what was expected.
        result: what the step made, once done: paths and figures.
    """

    id: str
    kind: str
    title: str
    state: State
    stage: str
    step: int
    steps: int
    checkpoint_step: int | None
    attempts: int
    pid: int | None
    created: str
    started: str | None
    finished: str | None
    seconds: float
    command: str
    device: str
    peak_bytes: int
    message: str
    refused: bool
    config: dict[str, Any]
    versions: dict[str, str]
    result: dict[str, Any] | None

    @property
    def active(self) -> bool:
        """Whether a worker has it, or should have."""
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it unless somebody asks."""
        return self.state in ENDED

    @property
    def resumable(self) -> bool:
        return self.state in RESUMABLE

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "resumable": self.resumable}


COLUMNS = tuple(field.name for field in fields(Job))


def job_of(row: sqlite3.Row) -> Job:
    """Build a Job from a row that holds all of `COLUMNS`."""
    values = {name: row[name] for name in COLUMNS}
    for name in _JSON_COLUMNS:
        values[name] = None if values[name] is None else json.loads(values[name])
    values["refused"] = bool(values["refused"])
    return Job(**values)
