"""Jobs and the study bar as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.jobs import Job, Queue
from workbench.ui.presenters import OPERATORS
from workbench.ui.session import Study

if TYPE_CHECKING:
    from workbench.models import ModelFacts
    from workbench.planning.bank import Bank

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


def study_bar(
    study: Study, facts: ModelFacts, *, model: str, bank: Bank | None, texts: Mapping[str, str]
) -> dict[str, Any]:
    """Return the study bar: each part done or missing, and the one next action.

    Args:
        texts: what the parts of the study are called, by part.
    """
    wanted = facts.num_blocks * (len(OPERATORS) - 1)
    measured = len(bank.cells) if bank else 0
    steps = [_step("model", "attention", f"{model} · {facts.num_blocks} × {facts.num_heads}")]
    steps.append(_step("capture", "attention", texts.get("capture", "")))
    steps.append(_step("bank", "plan", f"{measured} of {wanted} cells" if bank else ""))
    steps.append(_step("student", "plan", texts.get("student", "")))
    steps.append(_step("comparison", "compare", texts.get("comparison", "")))
    nexts = {
        "capture": ("See what each head does, for one prompt.", "Capture", "attention"),
        "bank": ("Measure cells; then every choice shows its error.", "Measure", "plan"),
        "student": ("Paint a plan over the measured cells.", "Paint", "plan"),
        "comparison": ("Set teacher and student side by side.", "Compare", "compare"),
    }
    missing = next((step["name"] for step in steps if step["state"] == "missing"), None)
    chosen = nexts.get(missing or "")
    return {
        "steps": steps,
        "next": dict(zip(("sentence", "verb", "page"), chosen, strict=True)) if chosen else None,
        "ids": study.model_dump(),
    }


def _step(name: str, page: str, text: str) -> dict[str, str]:
    return {
        "name": name,
        "page": page,
        "state": "done" if text else "missing",
        "text": text or "not made yet",
    }
