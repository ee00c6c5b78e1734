"""Kills, stops and wishes at random moments, dealt to workers and apps while jobs run."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.jobs.harness import AppProcess, a_queue, reference, wait_until
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.jobs.processes import holder_of, kill_worker

BLOWS = ("kill worker", "kill app", "stop worker", "stop app", "pause", "cancel", "save")
STEPS = 60


def chaos(folder: Path, *, jobs: int, blows: int, seed: int) -> dict[str, Any]:
    """Have two apps run jobs through the blows, and count the jobs whose result is exact.

    A job that was interrupted, paused or cancelled on the way is resumed, as a user would.
    """
    chance = random.Random(seed)
    dealt = dict.fromkeys(BLOWS, 0)
    with a_queue(folder) as queue:
        ids = [
            queue.submit("demo", {"steps": STEPS, "delay": 0.03, "seed": number}).id for number in range(jobs)
        ]
        apps = [AppProcess(folder) for _ in range(2)]
        try:
            for _ in range(blows):
                time.sleep(chance.uniform(0.2, 1.5))
                blow = chance.choice(BLOWS)
                dealt[blow] += _deal(queue, apps, blow, chance)
                _resume_stopped(queue)
            wait_until(lambda: _resume_stopped(queue) or _all_done(queue), seconds=600, what="all jobs")
        finally:
            for app in apps:
                app.kill()
        exact = sum(
            (queue.get(job_id).result or {}).get("sha256")
            == reference(queue.workspace, steps=STEPS, seed=number)
            for number, job_id in enumerate(ids)
        )
        litter = [entry.name for entry in queue.workspace.root.rglob(".tmp*")]
    twice = (folder / "TWICE").exists()
    return {"jobs": jobs, "exact": exact, "twice": twice, "litter": len(litter), "dealt": dealt}


def _deal(queue: Queue, apps: list[AppProcess], blow: str, chance: random.Random) -> int:
    """Deal one blow; 0 where there was nobody to take it."""
    if blow.endswith("app"):
        index = chance.randrange(len(apps))
        if blow == "stop app":
            return _stop_for_a_while(apps[index].process.pid, chance)
        apps[index].kill()
        apps[index] = AppProcess(queue.workspace.root)
        return 1
    running = queue.list(states=("starting", "running", "saving"))
    if not running:
        return 0
    job = chance.choice(running)
    if blow == "kill worker":
        return int(kill_worker(queue.folder(job.id)))
    if blow == "stop worker":
        holder = holder_of(queue.folder(job.id))
        return 0 if holder is None else _stop_for_a_while(holder.pid, chance)
    with suppress(InputError):
        getattr(queue, "save_now" if blow == "save" else blow)(job.id)
    return 1


def _stop_for_a_while(pid: int, chance: random.Random) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0.0, 0.6))
        os.kill(pid, signal.SIGCONT)
    return 1


def _resume_stopped(queue: Queue) -> None:
    for job in queue.list(states=("paused", "cancelled", "interrupted")):
        queue.resume(job.id)


def _all_done(queue: Queue) -> bool:
    return all(job.state == "done" for job in queue.list())
