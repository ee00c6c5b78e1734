"""Durable jobs: a row in SQLite, a folder and a process each, so that nothing that took long can be lost.

Reading the queue needs neither torch nor a lock. Knows nothing of what the jobs do: the worker is started by
module name and looks the work up.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.jobs.job import Job
from workbench.jobs.locks import server_lock
from workbench.jobs.metrics import NewRows
from workbench.jobs.queue import Estimate, Queue
from workbench.jobs.states import ACTIVE, ENDED, RESUMABLE, STATES, State
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.jobs.notebook import JobView

__all__ = [
    "ACTIVE", "ENDED", "RESUMABLE", "STATES", "Estimate", "Job", "NewRows", "Queue", "State", "attach",
    "server_lock",
]  # fmt: skip


def attach(job_id: str, workspace: Workspace | str | Path | None = None) -> JobView:
    """Show a live widget of a job in a notebook; also after the kernel was restarted.

    Args:
        job_id: the job, in any state.
        workspace: its workspace or folder; None takes the default one.

    Returns:
        the view: `.widget` is on show, `.queue` and `.job_id` are for asking more.

    Raises:
        InputError: there is no such job.
    """
    from IPython.display import display

    from workbench.jobs.notebook import JobView

    opened = workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)
    view = JobView(Queue(opened), job_id)
    display(view.widget)
    view.start()
    return view
