"""Runs: every job with its verbs, loss, log and exact command; everything that the workspace holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import JOBS, title
from workbench.ui.context import Context, answering
from workbench.ui.media import ID, media_url
from workbench.ui.presenters import stock
from workbench.ui.presenters.study import job_view, loss_rows

LOG_LINES = 40
VERBS = ("cancel", "pause", "resume", "save_now", "sample_now", "clone", "delete", "mark_stopped")

Question = dict[str, Any]
Answer = dict[str, Any]


def build(context: Context) -> None:
    """Build the page."""
    with gr.Column(elem_id="page-runs", elem_classes="page-column"):
        title("Runs")
        JOBS.build({}, calls=[*job_calls(context), *stock_calls(context)])


def job_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what shows one job, and what can be done with it."""

    @answering
    def job(question: Question) -> Answer:
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
            "config": chosen.config,
            "memory": chosen.peak_bytes,
            "saved": chosen.checkpoint_step,
            "samples": samples(context, rows),
        }

    @answering
    def act(question: Question) -> Answer:
        """Do one of the verbs to a job; answer what to say."""
        chosen = find_job(context, question)
        verb = question.get("verb")
        if verb not in VERBS:
            raise InputError(f"There is no verb {str(verb)[:40]!r}; known: {', '.join(VERBS)}.")
        made = getattr(context.queue, str(verb))(chosen.id)
        if verb in ("resume", "clone"):
            context.queue.dispatch()
        return {"id": made.id if made is not None else "", "say": SAID[str(verb)]}

    return [job, act]


SAID = {
    "cancel": "Cancelling; what was saved is kept.",
    "pause": "Pausing after this step; resume goes on from there.",
    "resume": "Queued again; it goes on from its last checkpoint.",
    "save_now": "A checkpoint is written at the next step.",
    "sample_now": "A sample is made at the next step.",
    "clone": "Queued once more with the same settings.",
    "delete": "Deleted with its log and checkpoints; what it made stays.",
    "mark_stopped": "Marked as stopped; resume goes on from the last checkpoint.",
}


def stock_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what shows and changes the things of the workspace."""
    workspace, queue = context.workspace, context.queue

    @answering
    def stocked(_: Question) -> Answer:
        """Answer everything the workspace holds, with the room it takes."""
        return stock.shown(workspace, queue)

    @answering
    def rename(question: Question) -> Answer:
        """Give a thing another name."""
        return {"name": stock.rename(workspace, question)}

    @answering
    def discard(question: Question) -> Answer:
        """Delete a thing that nothing is using."""
        stock.delete(workspace, queue, question)
        return {"say": "Deleted."}

    @answering
    def form(question: Question) -> Answer:
        """Answer the kind and settings of the form that made a thing, or a job."""
        if isinstance(question.get("job"), str):
            chosen = find_job(context, {"id": question["job"]})
            return {"kind": chosen.kind, "settings": chosen.config}
        kind, settings = stock.form_of(stock.find(workspace, question), queue.list())
        return {"kind": kind, "settings": settings}

    @answering
    def clear_cache(_: Question) -> Answer:
        """Empty the cache."""
        return {"bytes": stock.clear_cache(workspace, queue)}

    return [stocked, rename, discard, form, clear_cache]


def samples(context: Context, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the clips that a job showed on the way, by step, where the browser may read them."""
    shown = []
    for row in rows:
        if row.get("event") != "sample":
            continue
        path = context.workspace.root / str(row.get("path", ""))
        clip = path / "clip.mp4" if path.is_dir() else path
        inside = clip.parent.parent == context.workspace.folder("clips")
        if inside and clip.suffix == ".mp4" and clip.is_file():
            step = row.get("step", row.get("done", 0))
            shown.append({"step": step, "url": media_url(context.workspace, clip)})
    return shown


def find_job(context: Context, question: Question) -> Any:
    """Return the job a script asks about.

    Raises:
        InputError: no such job.
    """
    name = question.get("id")
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise InputError("A job is named by its id.")
    return context.queue.get(name)


def cancel_call(context: Context) -> Any:
    """Return the function with which a script cancels a job."""

    @answering
    def cancel(question: Question) -> Answer:
        """Ask a job to stop; one that has ended stays as it is."""
        chosen = find_job(context, question)
        context.queue.cancel(chosen.id)
        return {"id": chosen.id}

    return cancel
