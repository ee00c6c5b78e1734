"""Worker processes that do tasks in the order of their needs; each has its own laboratory.

A task that fails takes those that need it with it and no other. With one worker all is done in this process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from workbench.errors import WorkbenchError
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.settings import Shared
from workbench.experiments.tasks import Row, Task
from workbench.models.loader import Device
from workbench.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its rows, or why it failed."""

    task: Task
    rows: list[Row]
    seconds: float
    failed: str = ""


def in_order(tasks: Sequence[Task], lab: Laboratory) -> list[Task]:
    """Return the tasks and all that they need, each once, needs first."""
    found: dict[str, Task] = {}

    def take(task: Task) -> None:
        if task.key not in found:
            for need in task.needs(lab):
                take(need)
            found[task.key] = task

    for task in tasks:
        take(task)
    return list(found.values())


def do_all(
    tasks: Sequence[Task], lab: Laboratory, *, workers: int, tell: Callable[[Outcome, int, int], None]
) -> None:
    """Do tasks and what they need.

    Args:
        tasks: in the order in which they are wanted.
        lab: of this process; worker processes open their own for the same workspace.
        workers: processes; 1 does everything here.
        tell: hears every outcome, how many are done, and of how many.

    Raises:
        WorkbenchError: a worker process ended unexpectedly.
    """
    waiting = in_order(tasks, lab)
    total, done = len(waiting), 0
    needs = {task.key: {need.key for need in task.needs(lab)} for task in waiting}
    finished: set[str] = set()
    failed: dict[str, str] = {}
    with _hands(lab, workers) as hands:
        while waiting or any(hand.task for hand in hands):
            for task in [task for task in waiting if needs[task.key] & failed.keys()]:
                waiting.remove(task)
                reason = failed[min(needs[task.key] & failed.keys())]
                failed[task.key] = reason
                done += 1
                tell(Outcome(task, [], 0.0, reason), done, total)
            for hand in hands:
                ready = next((task for task in waiting if needs[task.key] <= finished), None)
                if hand.task is None and ready is not None:
                    waiting.remove(ready)
                    hand.give(ready)
            for outcome in _outcomes(hands):
                done += 1
                if outcome.failed:
                    failed[outcome.task.key] = outcome.failed
                else:
                    finished.add(outcome.task.key)
                tell(outcome, done, total)


class _Hand:
    """One worker: this process, or another at the end of a pipe."""

    def __init__(self, lab: Laboratory, connection: Connection | None = None) -> None:
        self.lab = lab
        self.connection = connection
        self.task: Task | None = None
        self.started = 0.0

    def give(self, task: Task) -> None:
        self.task, self.started = task, time.monotonic()
        if self.connection is not None:
            self.connection.send(task)

    def take(self) -> Outcome:
        assert self.task is not None, "nothing was given"
        task = self.task
        try:
            rows, failed = _do(task, self.lab) if self.connection is None else self.connection.recv()
        except (EOFError, ConnectionError):
            raise WorkbenchError(
                f"The worker process ended while it did '{task.key}'; run the command again to go on."
            ) from None
        self.task = None
        return Outcome(task, rows, time.monotonic() - self.started, failed)


def _do(task: Task, lab: Laboratory) -> tuple[list[Row], str]:
    try:
        return task.run(lab), ""
    except WorkbenchError as error:
        return [], str(error)


def _outcomes(hands: Sequence[_Hand]) -> list[Outcome]:
    """Wait for at least one of the busy workers; nothing where none is busy."""
    busy = [hand for hand in hands if hand.task is not None]
    if not busy:
        return []
    here = [hand for hand in busy if hand.connection is None]
    if here:
        return [hand.take() for hand in here]
    ready = wait([hand.connection for hand in busy if hand.connection is not None])
    return [hand.take() for hand in busy if hand.connection in ready]


@contextmanager
def _hands(lab: Laboratory, workers: int) -> Iterator[list[_Hand]]:
    if workers == 1:
        yield [_Hand(lab)]
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    hands, processes = [], []
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            order = (theirs, lab.shared, str(lab.workspace.root), lab.device, threads)
            process = context.Process(target=_serve, args=order, daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            hands.append(_Hand(lab, ours))
        yield hands
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(connection: Any, shared: Shared, workspace: str, device: Device, threads: int) -> None:
    """Do tasks until the other end of the pipe is closed; Ctrl-C is the first process's to hear."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    lab = Laboratory(shared, Workspace.open(workspace), device=device)
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(_do(connection.recv(), lab))
