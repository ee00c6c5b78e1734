"""A live view of a job in a notebook: progress, loss, verbs. The job does not need it and outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from workbench.errors import WorkbenchError
from workbench.jobs.job import Job
from workbench.jobs.queue import Queue

REFRESH_SECONDS = 0.5
KEPT_POINTS = 400
WIDTH, HEIGHT = 480, 80
MAX_CLIP_BYTES = 20_000_000
VERBS: dict[str, Callable[[Job], bool]] = {
    "pause": lambda job: job.state in ("queued", "starting", "running", "saving"),
    "resume": lambda job: job.resumable,
    "cancel": lambda job: job.state in ("queued", "paused", "interrupted") or job.active,
    "save now": lambda job: job.state in ("starting", "running", "saving"),
    "sample now": lambda job: job.state in ("starting", "running", "saving"),
    "clone": lambda _: True,
    "mark stopped": lambda job: job.active,
    "delete": lambda job: job.ended,
}


class JobView:
    """Widget of one job; `widget` is what a notebook shows, `refresh` takes what is new."""

    def __init__(self, queue: Queue, job_id: str) -> None:
        self.queue = queue
        self.job_id = queue.get(job_id).id
        self.cursor = 0
        self.losses: list[float] = []
        self.head = ipywidgets.HTML()
        self.bar = ipywidgets.IntProgress(min=0, max=1, layout=ipywidgets.Layout(width=f"{WIDTH}px"))
        self.curve = ipywidgets.HTML()
        self.said = ipywidgets.HTML()
        self.answer = ipywidgets.HTML()
        self.sample = ipywidgets.VBox()
        self.buttons = {verb: self._button(verb) for verb in VERBS}
        row = ipywidgets.HBox(list(self.buttons.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.widget = ipywidgets.VBox(
            [self.head, self.bar, self.curve, row, self.said, self.answer, self.sample]
        )
        self._following = threading.Event()
        self.refresh()

    def refresh(self) -> Job:
        """Show the present state and the new points of the loss; start the next job where one waits.

        Raises:
            InputError: the job was deleted.
        """
        self.queue.tend()
        job = self.queue.get(self.job_id)
        fresh = self.queue.metrics(self.job_id, after=self.cursor)
        self.cursor = fresh.next
        self.losses += [row["loss"] for row in fresh.rows if isinstance(row.get("loss"), float)]
        samples = [row["path"] for row in fresh.rows if row.get("event") == "sample"]
        if samples:
            self._show_sample(str(samples[-1]))
        self.head.value = f"<b>{escape(job.title)}</b> · {escape(job.kind)} · {escape(job.id)}"
        self.bar.max, self.bar.value = max(job.steps, 1), job.step
        self.curve.value = _curve(self.losses)
        self.said.value = f"{escape(self._line(job))}<br>{escape(job.message)}"
        for verb, button in self.buttons.items():
            button.disabled = not VERBS[verb](job)
        return job

    def start(self) -> None:
        """Refresh from a thread of the kernel until the job has ended."""
        if not self._following.is_set():
            self._following.set()
            threading.Thread(target=self._follow, name=f"view-{self.job_id}", daemon=True).start()

    def _follow(self) -> None:
        pause = threading.Event()
        try:
            while not self.refresh().ended:
                pause.wait(REFRESH_SECONDS)
        except WorkbenchError as error:
            self.answer.value = escape(str(error))
        finally:
            self._following.clear()

    def _line(self, job: Job) -> str:
        """Return state, place and, while it waits or runs, the estimate."""
        if job.ended:
            return f"{job.state} · {_place(job)} · {job.seconds:,.0f} s"
        ahead, starts_in, ends_in = self.queue.estimate(job.id)
        if job.state == "queued":
            when = f", starts in about {starts_in:,.0f} s" if starts_in is not None else ""
            return f"queued, {ahead} before it{when}"
        left = f", about {ends_in:,.0f} s left" if ends_in is not None else ""
        return f"{job.state} · {_place(job)} · {job.seconds:,.0f} s{left}"

    def _show_sample(self, path: str) -> None:
        clip = self.queue.workspace.root / path / "clip.mp4"
        label = ipywidgets.HTML(f"sample: {escape(path)}")
        if _is_showable(clip):
            self.sample.children = (label, ipywidgets.Video.from_file(clip, width=WIDTH, loop=True))
        else:
            self.sample.children = (label,)

    def _button(self, verb: str) -> ipywidgets.Button:
        button = ipywidgets.Button(description=verb, layout=ipywidgets.Layout(width="auto"))
        button.on_click(lambda _: self._ask(verb))
        return button

    def _ask(self, verb: str) -> None:
        """Carry out a verb; deleting asks once more."""
        button = self.buttons[verb]
        if verb == "delete" and button.description == verb:
            button.description = "delete its log and checkpoints?"
            return
        try:
            made = getattr(self.queue, verb.replace(" ", "_"))(self.job_id)
            self.answer.value = ""
            if verb == "delete":
                self._close()
                return
            if verb == "clone":
                self.queue.dispatch()
                self.answer.value = f"cloned: attach({escape(made.id)!r})"
            self.refresh()
            if verb == "resume":
                self.start()
        except WorkbenchError as error:
            self.answer.value = escape(str(error))

    def _close(self) -> None:
        self.answer.value = "deleted; what it made stays"
        for button in self.buttons.values():
            button.disabled = True


def _place(job: Job) -> str:
    return f"{job.stage} {job.step:,}/{job.steps:,}" if job.steps else job.stage


def _is_showable(clip: Path) -> bool:
    return clip.is_file() and clip.stat().st_size <= MAX_CLIP_BYTES


def _curve(losses: list[float]) -> str:
    """Return the loss as an inline drawing; long streams are thinned."""
    points: list[float] = losses[:: max(1, len(losses) // KEPT_POINTS)]
    if len(points) < 2:
        return ""
    low, high = min(points), max(points)
    scale: Any = (HEIGHT - 4) / ((high - low) or 1.0)
    line = " ".join(
        f"{index * WIDTH / (len(points) - 1):.1f},{HEIGHT - 2 - (value - low) * scale:.1f}"
        for index, value in enumerate(points)
    )
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}"><polyline points="{line}" fill="none" stroke="currentColor" '
        f'stroke-width="1.5"/></svg><br>loss {points[0]:.4g} → {losses[-1]:.4g}'
    )
