"""Jobs and the study bar as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.jobs import Job, Queue
from workbench.ui.presenters import OPERATORS, fraction
from workbench.ui.session import Part, Study

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.comparison import Comparison
    from workbench.models import ModelFacts
    from workbench.planning.bank import Bank
    from workbench.surgery import Student

MAX_JOBS = 200
"""Ended jobs beyond these newest stay in the table and are not shown."""


def job_view(job: Job) -> dict[str, Any]:
    """Return a job as the job table shows it; `left` is an estimate from the stage's own pace."""
    seconds = job.seconds
    if job.active and job.started:
        seconds = max(seconds, (datetime.now(UTC) - datetime.fromisoformat(job.started)).total_seconds())
    done = job.step / job.steps if job.steps else 0.0
    return {
        "id": job.id,
        "kind": job.kind,
        "title": job.title or job.kind,
        "state": job.state,
        "stage": job.stage,
        "step": job.step,
        "steps": job.steps,
        "done": 1.0 if job.state == "done" else min(1.0, done),
        "seconds": round(seconds, 1) if job.started else None,
        "made": short_time(job.created),
        "message": job.message,
        "result": made_of(job),
    }


def made_of(job: Job) -> str:
    """Return the name of what a job made, "" where it made nothing."""
    paths = [Path(value) for value in (job.result or {}).values() if isinstance(value, str) and "/" in value]
    if not paths:
        return ""
    return paths[0].parent.name if paths[0].suffix else paths[0].name


def short_time(text: str) -> str:
    """Return a UTC time as local clock time, with the day where it is not today."""
    moment = datetime.fromisoformat(text).astimezone()
    today = datetime.now().astimezone().date()
    return moment.strftime("%H:%M") if moment.date() == today else moment.strftime("%d %b %H:%M")


def loss_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a metrics stream as points of the loss chart: step, and the value of each cell."""
    points = []
    for row in rows:
        losses = {
            name: value
            for name, value in row.items()
            if (name.startswith("block-") or "loss" in name) and isinstance(value, int | float)
        }
        if losses and "event" not in row:
            points.append({"step": row.get("step", 0), "cells": losses})
    return points


def jobs_view(queue: Queue) -> list[dict[str, Any]]:
    """Return the newest jobs and all that are under way, newest first, with the time these have left."""
    views = []
    for place, job in enumerate(reversed(queue.list())):
        if job.ended and place >= MAX_JOBS:
            continue
        view = job_view(job)
        if not job.ended:
            view["left"] = queue.estimate(job.id).ends_in
        views.append(view)
    return views


def digest(views: list[dict[str, Any]]) -> str:
    """Return a short text that changes when any of the jobs does, so that nothing is sent twice."""
    return hashlib.sha256(json.dumps(views, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StudyParts:
    """A study with its artefacts read, None where there is none.

    Attributes:
        columns: labels of the operators that the painter shows for it, softmax first.
        outdated: parts of which there is only one of other weights of the model.
    """

    study: Study
    facts: ModelFacts
    capture: Capture | None
    bank: Bank | None
    student: Student | None
    comparison: Comparison | None
    columns: tuple[str, ...] = OPERATORS
    outdated: frozenset[Part] = frozenset()


NEXTS = {
    "capture": ("See what each head does, for one prompt.", "Capture", "attention"),
    "bank": ("Measure the cells; then every choice shows its error.", "Measure", "plan"),
    "plan": ("Paint a plan over the measured cells and make its student.", "Paint", "plan"),
    "comparison": ("Set teacher and student side by side.", "Compare", "compare"),
    "tune": ("Finetune the student, then compare again.", "Finetune", "train"),
}
"""What to do where a part is missing or stale, the first of these that is."""


def study_bar(parts: StudyParts) -> dict[str, Any]:
    """Return the study bar: six parts, each done, stale or missing, and the one next action."""
    facts, bank, student, comparison = parts.facts, parts.bank, parts.student, parts.comparison
    stale = dict.fromkeys(parts.outdated, "of other weights")
    wanted = facts.num_blocks * (len(parts.columns) - 1)
    tuned = student is not None and bool(student.manifest.provenance.get("finetuned_from"))
    steps = [
        _step("model", "home", f"{facts.name} · {facts.num_blocks} × {facts.num_heads}"),
        _step(
            "capture",
            "attention",
            parts.capture.manifest.config.prompt if parts.capture else "",
            stale.get("capture"),
        ),
        _step("bank", "plan", f"{len(bank.cells)} of {wanted} cells" if bank else "", stale.get("bank")),
        _step("plan", "plan", student.name if student else "", stale.get("student")),
        _step("tune", "train", _tuning(student) if student and tuned else ""),
        _comparison_step(student, comparison, stale.get("comparison")),
    ]
    states = {step["name"]: step["state"] for step in steps}
    chosen = next((NEXTS[name] for name in NEXTS if states[name] != "done"), None)
    return {
        "steps": steps,
        "next": dict(zip(("sentence", "verb", "page"), chosen, strict=True)) if chosen else None,
        "ids": parts.study.model_dump(),
        "plan": student.plan.short_name if student else "",
        "device": f"{facts.name} · {facts.num_blocks} × {facts.num_heads}",
    }


def _tuning(student: Student) -> str:
    made = student.manifest.provenance
    error = made.get("velocity_error")
    shown = f", velocity error {fraction(float(error))}" if isinstance(error, int | float) else ""
    return f"{made.get('updates', '?')} updates{shown}"


def _comparison_step(
    student: Student | None, comparison: Comparison | None, outdated: str | None
) -> dict[str, str]:
    if comparison is None:
        return _step("comparison", "compare", "", outdated)
    shown = f"{comparison.plan}, {comparison.settings.prompt}"
    stale = None
    if student is not None and comparison.student:
        mine = comparison.student in (student.name, student.folder.name)
        stale = None if mine else f"of {comparison.student}"
    elif student is not None and comparison.plan != student.plan.short_name:
        stale = f"of {comparison.plan}"
    return _step("comparison", "compare", shown, stale)


def _step(name: str, page: str, text: str, stale: str | None = None) -> dict[str, str]:
    state = "stale" if stale else "done" if text else "missing"
    return {"name": name, "page": page, "state": state, "text": stale or text or "not made yet"}
