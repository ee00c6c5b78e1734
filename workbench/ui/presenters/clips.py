"""Comparisons as plain data: what can stand beside the teacher, what is shown, how the students score."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.ui.context import Context, whole_number
from workbench.ui.media import media_url
from workbench.ui.readers import find_comparison, find_student, read_bank, saved_plans
from workbench.ui.session import Study, newest

if TYPE_CHECKING:
    from workbench.comparison import Comparison
    from workbench.jobs import Job

NO_STUDENT = {
    "title": "No student yet",
    "why": "A comparison sets the untouched model beside a student. Paint a plan and make a student first.",
    "page": "#plan",
    "verb": "Go to Plan",
}
NO_CLIPS = {
    "title": "No comparison yet",
    "why": "Choose what stands beside the teacher, then press Generate: all clips play here in sync.",
}
MAX_LISTED = 60
MAX_PREVIEW_BYTES = 4 << 20


def columns(context: Context) -> list[dict[str, str]]:
    """Return what can stand beside the teacher: students of its model, and saved plans."""
    found = [(name, find_student(context, name)) for name in newest(context.workspace, "student")]
    made = [
        {"key": f"student/{name}", "name": student.name, "kind": "student", "plan": student.plan.short_name}
        for name, student in found
        if student
    ]
    return made + [
        {
            "key": f"plan/{file}",
            "name": plan.name or plan.short_name,
            "kind": "plan",
            "plan": plan.short_name,
        }
        for file, plan in saved_plans(context)
    ]


def settings_of(context: Context, chosen: Study, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the comparison that a form asks for.

    Args:
        context: of the model.
        chosen: the study, for the bank that a plan takes its cells from.
        question: `prompts`, `seed`, `steps`, `columns` (keys of `columns`), `branch_off`.

    Raises:
        InputError: nothing is chosen, it is gone, or a plan lacks measured cells.
    """
    asked = question.get("prompts")
    prompts = [str(one).strip() for one in asked] if isinstance(asked, list) else []
    keys = question.get("columns")
    if not isinstance(keys, list) or not keys:
        raise InputError("No student is chosen; choose one, or make one on the Plan page first.")
    sides = [side(context, chosen, key) for key in keys]
    if question.get("branch_off") is True:
        sides += [{**one, "linear_branch": False} for one in sides]
    rows = [prompt for prompt in prompts if prompt] or [""]
    return {
        "model": context.model,
        "prompt": rows[0],
        "more_prompts": rows[1:],
        "sides": sides,
        "seed": whole_number(question.get("seed"), what="Seed"),
        "steps": whole_number(question.get("steps"), what="Steps"),
    }


def side(context: Context, chosen: Study, key: Any) -> dict[str, Any]:
    """Return one column as a setting: a student folder, or a plan with the bank of the study."""
    kind, _, name = key.partition("/") if isinstance(key, str) else ("", "", "")
    if kind == "student" and name in newest(context.workspace, "student"):
        return {"model": str(context.workspace.folder("students") / name)}
    if kind == "plan" and name in dict(saved_plans(context)):
        bank = read_bank(context, chosen)
        if bank is None:
            raise InputError("A plan needs measured cells; measure them on the Plan page first.")
        return {"plan": str(context.workspace.folder("plans") / name), "bank": str(bank.folder)}
    raise InputError("No student is chosen; choose one, or make one on the Plan page first.")


def shown(context: Context, chosen: Study) -> dict[str, Any]:
    """Return what the player shows of a study."""
    comparison = find_comparison(context, chosen)
    folder = chosen.folder(context.workspace, "comparison")
    if comparison is None or folder is None:
        return NO_CLIPS if columns(context) else NO_STUDENT
    return clips_of(context, comparison, folder)


def clips_of(context: Context, comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Return the player's value of one comparison."""
    from workbench.comparison import player_data

    return {
        **player_data(comparison, lambda name: media_url(context.workspace, folder / name)),
        "page": media_url(context.workspace, folder / "index.html"),
        "id": folder.name,
        "notes": list(comparison.notes),
    }


def listed(context: Context) -> list[dict[str, Any]]:
    """Return the comparisons of the model, newest first."""
    from workbench.comparison import read

    rows = []
    for name in newest(context.workspace, "comparison", context.facts)[:MAX_LISTED]:
        try:
            record = read(context.workspace.folder("comparisons") / name)
        except InputError:
            continue
        rows.append(
            {
                "id": name,
                "prompt": record.prompts[0],
                "rows": len(record.prompts),
                "columns": [column.name for column in record.columns[1:]],
                "made": record.made.get("created", "")[:16].replace("T", " "),
            }
        )
    return rows


def open_comparison(context: Context, name: object) -> tuple[Comparison, Path]:
    """Return a comparison by the id that a script sends.

    Raises:
        InputError: it is not in the workspace, or damaged.
    """
    from workbench.comparison import read

    if not isinstance(name, str) or name not in newest(context.workspace, "comparison"):
        raise InputError("That comparison is no longer in the workspace.")
    folder = context.workspace.folder("comparisons") / name
    return read(folder), folder


def score_rows(context: Context) -> list[dict[str, Any]]:
    """Return the scores of all students of the model, as plain data."""
    from workbench.comparison import scores

    folders = [
        context.workspace.folder("comparisons") / name
        for name in newest(context.workspace, "comparison", context.facts)
    ]
    return [asdict(score) for score in scores(folders)]


def live(context: Context, job: Job, *, ask: bool) -> dict[str, Any]:
    """Return the newest preview of a running comparison, and ask for the next one.

    Args:
        context: any.
        job: the running job.
        ask: ask the worker for a new preview at its next step.
    """
    rows, _ = context.queue.metrics(job.id)
    events = [row for row in rows if row.get("event") == "sample"]
    image, made = "", 0
    if events:
        path = context.workspace.root / str(events[-1]["path"])
        made = len(events)
        inside = path.resolve().is_relative_to(context.workspace.folder("comparisons").resolve())
        if inside and path.suffix == ".png" and path.is_file() and path.stat().st_size < MAX_PREVIEW_BYTES:
            image = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    if ask and job.state == "running":
        context.queue.sample_now(job.id)
    return {"image": image, "made": made, "stage": job.stage, "step": job.step, "steps": job.steps}
