"""Durable jobs: a row in SQLite, a folder and a process each, so that nothing that took long can be lost.

Reading the queue needs neither torch nor a lock. Knows nothing of what the jobs do: the worker is started by
module name and looks the work up.
"""

from workbench.jobs.job import Job
from workbench.jobs.locks import server_lock
from workbench.jobs.metrics import NewRows
from workbench.jobs.queue import Estimate, Queue
from workbench.jobs.states import ACTIVE, ENDED, RESUMABLE, STATES, State

__all__ = [
    "ACTIVE", "ENDED", "RESUMABLE", "STATES", "Estimate", "Job", "NewRows", "Queue", "State", "server_lock",
]  # fmt: skip
