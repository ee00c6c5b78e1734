"""The states of a job and the ways between them; the one list, which the documentation repeats.

queued → starting → running ⇄ saving → done
running → pausing → paused → queued
any of the above but done → cancelling → cancelled
starting, running, saving → failed | oom | diverged
starting, running, saving, pausing → interrupted        (only when the worker's lock is free)
paused, cancelled, failed, oom, diverged, interrupted → queued        (resume)
"""

from __future__ import annotations

from typing import Literal, get_args

State = Literal[
    "queued", "starting", "running", "saving", "pausing", "paused", "cancelling",
    "done", "failed", "cancelled", "oom", "diverged", "interrupted",
]  # fmt: skip
STATES: tuple[State, ...] = get_args(State)
ACTIVE: tuple[State, ...] = ("starting", "running", "saving", "pausing", "cancelling")
RESUMABLE: tuple[State, ...] = ("paused", "cancelled", "failed", "oom", "diverged", "interrupted")
ENDED: tuple[State, ...] = ("done", *RESUMABLE)
MAX_ATTEMPTS = 3
