"""Runs: every job of the workspace, its progress, loss, log and exact command."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import JOBS, title
from workbench.ui.context import Context, answering
from workbench.ui.presenters.study import job_view, loss_rows

LOG_LINES = 40


def build(context: Context) -> None:
    """Build the page."""

    @answering
    def job(question: dict[str, Any]) -> dict[str, Any]:
        """Answer what is new of one job: metric rows behind the cursor, the end of its log, its command."""
        chosen = find_job(context, question)
        after = question.get("after", 0)
        if not isinstance(after, int) or after < 0:
            raise InputError(f"The cursor of a job's metrics must be a number from 0, got {after!r}.")
        rows, following = context.queue.metrics(chosen.id, after=after)
        log = "\n".join(context.queue.log_tail(chosen.id, LOG_LINES))
        return {
            **job_view(chosen),
            "rows": loss_rows(rows),
            "next": following,
            "log": log,
            "command": chosen.command,
        }

    with gr.Column(elem_id="page-runs", elem_classes="page-column"):
        title("Runs")
        JOBS.build({}, calls=[job, cancel_call(context)])


def find_job(context: Context, question: dict[str, Any]) -> Any:
    """Return the job a script asks about.

    Raises:
        InputError: no such job.
    """
    name = question.get("id")
    if not isinstance(name, str):
        raise InputError("A job is named by its id.")
    return context.queue.get(name)


def cancel_call(context: Context) -> Any:
    """Return the function with which a script cancels a job."""

    @answering
    def cancel(question: dict[str, Any]) -> dict[str, Any]:
        """Ask a job to stop; one that has ended stays as it is."""
        chosen = find_job(context, question)
        context.queue.cancel(chosen.id)
        return {"id": chosen.id}

    return cancel
