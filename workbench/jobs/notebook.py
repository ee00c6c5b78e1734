"""A live view of a job in a notebook: progress, loss, verbs. The job does not need it and outlives it."""

from __future__ import annotations

import threading
from html import escape
from typing import Any

import ipywidgets

from workbench.errors import WorkbenchError
from workbench.jobs.job import Job
from workbench.jobs.queue import Queue

REFRESH_SECONDS = 0.5
KEPT_POINTS = 400
WIDTH, HEIGHT = 480, 80


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
        self.buttons = {verb: self._button(verb) for verb in ("pause", "resume", "cancel", "save_now")}
        row = ipywidgets.HBox(list(self.buttons.values()))
        self.widget = ipywidgets.VBox([self.head, self.bar, self.curve, row, self.said])
        self.refresh()

    def refresh(self) -> Job:
        """Show the present state and the new points of the loss; start the next job where one waits."""
        self.queue.tend()
        job = self.queue.get(self.job_id)
        fresh = self.queue.metrics(self.job_id, after=self.cursor)
        self.cursor = fresh.next
        self.losses += [row["loss"] for row in fresh.rows if isinstance(row.get("loss"), float)]
        self.head.value = f"<b>{escape(job.title)}</b> · {escape(job.kind)} · {escape(job.id)}"
        self.bar.max, self.bar.value = max(job.steps, 1), job.step
        self.curve.value = _curve(self.losses)
        place = f"{job.stage} {job.step:,}/{job.steps:,}" if job.steps else job.stage
        self.said.value = f"{job.state} · {escape(place)} · {job.seconds:,.0f} s<br>{escape(job.message)}"
        for verb, button in self.buttons.items():
            button.disabled = not (job.resumable if verb == "resume" else job.active or job.state == "queued")
        return job

    def start(self) -> None:
        """Refresh from a thread of the kernel until the job has ended."""
        threading.Thread(target=self._follow, name=f"view-{self.job_id}", daemon=True).start()

    def _follow(self) -> None:
        pause = threading.Event()
        while not self.refresh().ended:
            pause.wait(REFRESH_SECONDS)

    def _button(self, verb: str) -> ipywidgets.Button:
        button = ipywidgets.Button(description=verb.replace("_", " "), layout=ipywidgets.Layout(width="auto"))
        button.on_click(lambda _: self._ask(verb))
        return button

    def _ask(self, verb: str) -> None:
        try:
            getattr(self.queue, verb)(self.job_id)
            if verb == "resume":
                self.start()
            self.refresh()
        except WorkbenchError as error:
            self.said.value = escape(str(error))


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
