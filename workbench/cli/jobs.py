"""`workbench jobs ...`: look at the queue and ask things of it; and `follow`, which every long command uses.

Prose goes to stderr and, without `--json`, the answer to stdout; with `--json` stdout holds one document.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from workbench.cli.options import JsonOption, WorkspaceOption
from workbench.errors import Cancelled, InputError, Paused, WorkbenchError
from workbench.jobs import STATES, Estimate, Job, Queue
from workbench.workspace import Workspace

POLL_SECONDS = 0.2
LINE_SECONDS = 10.0
CANCEL_SECONDS = 20.0
NOTHING = Estimate(0, None, None)

app = typer.Typer(name="jobs", help="Look at the queue and ask things of it.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="JOB_ID", help="As `workbench jobs list` shows it.")]


def follow(queue: Queue, job: Job, *, quiet: bool = False) -> Job:
    """Wait for a job, showing its progress on stderr; Ctrl+C cancels it.

    Args:
        queue: the queue of its workspace.
        job: a job in any state.
        quiet: show nothing.

    Returns:
        the job once it is done.

    Raises:
        Cancelled, Paused: somebody asked for that.
        InputError: the work refused its input; the sentence is the work's.
        WorkbenchError: it failed, ran out of memory, diverged or was interrupted.
    """
    try:
        ended = _watch(queue, job.id, quiet=quiet)
    except KeyboardInterrupt:
        sys.stderr.write("\nCancelling.\n")
        queue.cancel(job.id)
        ended = _wait_for_end(queue, job.id, seconds=CANCEL_SECONDS)
    if ended.state != "done":
        _raise(ended)
    return ended


@app.command(name="list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option("--state", help="Only these states; repeatable.")] = None,
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all jobs, oldest first."""
    unknown = sorted(set(state or ()) - set(STATES))
    if unknown:
        raise InputError(f"There is no state {unknown[0]!r}; known: {', '.join(STATES)}.")
    queue = _open(workspace)
    jobs = [job for job in queue.list() if not state or job.state in state]
    estimates = queue.estimates()
    rows = [f"{job.id}  {job.state:<11} {_place(job, estimates.get(job.id))}  {job.title}" for job in jobs]
    facts = [{**job.to_json(), **estimates.get(job.id, NOTHING)._asdict()} for job in jobs]
    _answer(facts, as_json=as_json, prose="\n".join(rows) or "No jobs.")


@app.command()
def show(
    job_id: IdArgument,
    lines: Annotated[int, typer.Option("--lines", help="Lines of the log to show.")] = 20,
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything known of a job, with the end of its log."""
    queue = _open(workspace)
    job = queue.get(job_id)
    facts = {**job.to_json(), **queue.estimate(job_id)._asdict()}
    log = queue.log_tail(job_id, lines)
    prose = [f"{name}: {value}" for name, value in facts.items() if value not in (None, "", {})]
    _answer({**facts, "log": log}, as_json=as_json, prose="\n".join([*prose, *log]))


@app.command()
def watch(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Follow a job to its end; Ctrl+C stops watching, the job goes on."""
    queue = _open(workspace)
    _show(_watch(queue, queue.get(job_id).id, quiet=False), as_json=as_json)


@app.command()
def cancel(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Stop a job; its last checkpoint is kept."""
    queue = _open(workspace)
    queue.cancel(job_id)
    _show(_wait_for_end(queue, job_id, seconds=CANCEL_SECONDS), as_json=as_json)


@app.command()
def pause(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Save a job's state and stop it, to be resumed."""
    _show(_open(workspace).pause(job_id), as_json=as_json)


@app.command()
def resume(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Queue a stopped job again; it goes on from its last checkpoint."""
    queue = _open(workspace)
    queue.resume(job_id)
    _dispatch_and_show(queue, job_id, as_json=as_json)


@app.command()
def save(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Ask a running job for a checkpoint now."""
    _show(_open(workspace).save_now(job_id), as_json=as_json)


@app.command()
def sample(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Ask a running job for a clip from its present weights."""
    _show(_open(workspace).sample_now(job_id), as_json=as_json)


@app.command()
def clone(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Queue a new job with the same configuration."""
    queue = _open(workspace)
    _dispatch_and_show(queue, queue.clone(job_id).id, as_json=as_json)


@app.command()
def delete(job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Remove a job with its log and checkpoints; what it made stays."""
    _open(workspace).delete(job_id)
    _answer({"id": job_id, "deleted": True}, as_json=as_json, prose=f"{job_id} deleted")


@app.command(name="mark-stopped")
def mark_stopped(
    job_id: IdArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Give up on a job that does not answer: kill its worker and mark it interrupted."""
    queue = _open(workspace)
    queue.mark_stopped(job_id)
    _dispatch_and_show(queue, job_id, as_json=as_json)


def _open(workspace: Path | None) -> Queue:
    queue = Queue(Workspace.open(workspace))
    queue.recover()
    queue.tend()
    return queue


def _watch(queue: Queue, job_id: str, *, quiet: bool) -> Job:
    """Wait for the end; on a terminal one line is redrawn, elsewhere lines tell of changes and each 10 s."""
    terminal = sys.stderr.isatty()
    shown, shown_at = "", 0.0
    while True:
        job = queue.get(job_id)
        line = _line(queue, job)
        key = line if terminal else f"{job.state}{job.stage}{job.message}"
        if not quiet and (key != shown or time.monotonic() - shown_at > LINE_SECONDS):
            shown, shown_at = key, time.monotonic()
            sys.stderr.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
            sys.stderr.flush()
        if job.ended:
            sys.stderr.write("\n" if terminal and not quiet else "")
            return job
        queue.tend()
        time.sleep(POLL_SECONDS)


def _wait_for_end(queue: Queue, job_id: str, *, seconds: float) -> Job:
    until = time.monotonic() + seconds
    while not (job := queue.get(job_id)).ended and time.monotonic() < until:
        queue.tend()
        time.sleep(POLL_SECONDS / 4)
    return job


def _raise(job: Job) -> NoReturn:
    message = job.message or f"Job {job.id} is {job.state}."
    if job.state == "cancelled":
        raise Cancelled(message)
    if job.state == "paused":
        raise Paused(f"{message} `workbench jobs resume {job.id}` goes on.")
    raise InputError(message) if job.refused else WorkbenchError(message)


def _line(queue: Queue, job: Job) -> str:
    estimate = None if job.ended else queue.estimate(job.id)
    message = f" · {job.message}" if job.message and not job.ended else ""
    return f"{job.state} · {_place(job, estimate)}{message}"


def _place(job: Job, estimate: Estimate | None) -> str:
    """Return where a job stands: in the queue, or in its work with the estimated rest."""
    place = f"{job.stage} {job.step:,}/{job.steps:,}" if job.steps else job.stage
    if estimate is None:
        return place
    if job.state == "queued":
        when = f", starts in about {estimate.starts_in:,.0f} s" if estimate.starts_in is not None else ""
        return f"{estimate.position} before it{when}"
    return f"{place}, about {estimate.ends_in:,.0f} s left" if estimate.ends_in is not None else place


def _dispatch_and_show(queue: Queue, job_id: str, *, as_json: bool) -> None:
    queue.dispatch()
    _show(queue.get(job_id), as_json=as_json)


def _show(job: Job, *, as_json: bool) -> None:
    message = f": {job.message}" if job.message else ""
    _answer(job.to_json(), as_json=as_json, prose=f"{job.id} is {job.state}{message}")


def _answer(document: Any, *, as_json: bool, prose: str) -> None:
    typer.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else prose)
