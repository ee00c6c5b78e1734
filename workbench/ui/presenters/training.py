"""Finetuning as plain data: presets, the settings of the form, their price, a running job, its samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.jobs import Job
from workbench.jobs.metrics import seconds_per_step
from workbench.ui.context import Context, whole_number
from workbench.ui.media import media_url
from workbench.ui.presenters.commands import command_line, notebook_cell
from workbench.ui.presenters.study import job_view, loss_rows
from workbench.ui.session import newest

if TYPE_CHECKING:
    from workbench.distillation import FinetuneConfig
    from workbench.models import ModelFacts
    from workbench.surgery import Student

TITLES = {
    "1min": ("1 minute", "is it alive?"),
    "10min": ("10 minutes", "good enough to judge"),
    "overnight": ("overnight", "the best this device can do"),
    "24gb": ("24 GB", "one GPU of that size"),
}
"""What the presets are called where they take as long as their names say; elsewhere they keep their names."""
AIMS = {"1min": 60, "10min": 600, "overnight": 30_000}
"""Seconds that presets aim at with the embedded model on two cores."""
METHODS = ("lora", "maps", "full")
WHOLE = ("updates", "accumulate", "rank", "num_prompts", "num_held_out", "steps", "seed", "sample_every")
FRACTIONS = ("lr", "maps_lr")
CARRIED = (
    "ema", "objective", "clips", "precision", "guidance", "frames", "height", "width",
    "gradient_checkpointing", "cache_megabytes", "memory_gb",
)  # fmt: skip
"""Settings without a field of their own, which a preset or a restored job brings along and the form names."""
LOG_LINES = 12
SEED = 0


def preset_data(facts: ModelFacts) -> list[dict[str, Any]]:
    """Return every preset that fits a model, defaults written out.

    One that bounds a GPU's memory is left out for a model that needs none of that.
    """
    from workbench.distillation import PRESETS, FinetuneConfig, preset
    from workbench.models.prompts import has_closed_vocabulary

    small = has_closed_vocabulary(facts)
    data = []
    for key in PRESETS:
        config = FinetuneConfig(model="student", **preset(key))
        title, why = TITLES.get(key, (key, ""))
        if key in AIMS and not small:
            title, why = key, "named after the embedded model"
        if config.memory_gb is None or not small:
            data.append({"key": key, "title": title, "why": why, "settings": form_settings(config)})
    return data


def form_settings(config: FinetuneConfig) -> dict[str, Any]:
    """Return what the fields of the form hold for settings, and what it carries along beside them."""
    settings = {name: getattr(config, name) for name in (*WHOLE, "method", "sample_prompt")}
    settings |= {"lr": config.peak_lr, "maps_lr": config.maps_lr}
    usual = type(config).model_fields
    carried = {name: getattr(config, name) for name in CARRIED}
    return settings | {
        "carried": {name: one for name, one in carried.items() if name == "ema" or one != usual[name].default}
    }


def restored(settings: object) -> dict[str, Any]:
    """Return the form that made a finetuning: the student, and what the fields hold.

    Raises:
        InputError: no settings of a finetuning.
    """
    from workbench.distillation import FinetuneConfig

    config = FinetuneConfig.parse(settings if isinstance(settings, dict) else {}, what="finetune settings")
    return {"student": Path(config.model).name, "settings": form_settings(config)}


def students_data(students: Mapping[str, Student]) -> list[dict[str, Any]]:
    """Return the students that can be trained, newest first."""
    from workbench.operators import label

    return [
        {
            "id": name,
            "name": student.name,
            "plan": [label(spec) for spec in student.plan.operators],
            "short": student.plan.short_name,
            "from": student.manifest.provenance.get("finetuned_from", ""),
            "error": student.manifest.provenance.get("velocity_error"),
        }
        for name, student in students.items()
    ]


def settings_of(here: Context, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a finetuning from the words of the form.

    Raises:
        InputError: no student, or a field that is no number.
    """
    student = question.get("student")
    if not isinstance(student, str) or student not in newest(here.workspace, "student", here.facts):
        raise InputError("No student is chosen; paint a plan and make a student on the Plan page first.")
    form = question.get("settings")
    if not isinstance(form, dict):
        raise InputError("The settings of a finetuning are named fields.")
    settings: dict[str, Any] = {"model": str(here.workspace.folder("students") / student)}
    settings["method"] = form.get("method", METHODS[0])
    for name in WHOLE:
        settings[name] = whole_number(form.get(name), what=name.replace("_", " ").capitalize())
    for name in FRACTIONS:
        value = form.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name} must be a number, got {str(value)[:40]!r}.")
        settings[name] = float(value)
    carried = form.get("carried")
    if isinstance(carried, dict):
        settings |= {name: carried[name] for name in CARRIED if carried.get(name) is not None}
    if settings["method"] != "lora":
        del settings["rank"]
    settings["sample_prompt"] = str(form.get("sample_prompt") or "")
    return settings


def price(here: Context, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a finetuning should take, with the command and the cell that do the same.

    Raises:
        InputError: one sentence that names the setting.
    """
    from workbench.workflow import check

    check("finetune", dict(settings))
    earlier = here.estimate("finetune", settings)
    seconds, basis = earlier, "by the last finetuning here"
    if earlier is None:
        seconds, basis = _aim(here, settings), "the preset's aim on two CPU cores"
    return {
        "seconds": seconds,
        "basis": basis if seconds is not None else "no finetuning has run here yet",
        "memory": _peak(here),
        "disk": _size(Path(str(settings["model"]))),
        "command": command_line("finetune", settings, here.workspace),
        "cell": notebook_cell("finetune", settings, here.workspace),
    }


def job_data(here: Context, job: Job, *, after: int) -> dict[str, Any]:
    """Return what is new of a finetuning: state, loss rows behind the cursor, samples, end of the log."""
    rows, following = here.queue.metrics(job.id, after=after)
    samples = [
        {"step": row.get("step", row.get("done", 0)), "url": _clip_url(here, row.get("path"))}
        for row in rows
        if row.get("event") == "sample"
    ]
    view = job_view(job)
    if not job.ended:
        view["left"] = here.queue.estimate(job.id).ends_in
    return {
        **view,
        "student": Path(str(job.config.get("model", ""))).name,
        "prompt": job.config.get("sample_prompt") or "",
        "rows": [row for row in loss_rows(rows) if row["cells"]],
        "samples": [sample for sample in samples if sample["url"]],
        "pace": seconds_per_step(here.queue.folder(job.id), job.stage),
        "next": following,
        "log": "\n".join(here.queue.log_tail(job.id, LOG_LINES)),
        "command": job.command,
        "resumable": job.resumable,
    }


def _clip_url(here: Context, path: Any) -> str:
    if not isinstance(path, str) or path.startswith("/") or ".." in path or path.count("/") != 2:
        return ""
    return media_url(here.workspace, here.workspace.root / path)


def _aim(here: Context, settings: Mapping[str, Any]) -> float | None:
    from workbench.distillation import preset

    if here.facts.name != "embedded":
        return None
    for key, seconds in AIMS.items():
        if preset(key).get("updates") == settings.get("updates"):
            return float(seconds)
    return None


def _peak(here: Context) -> int | None:
    peaks = [job.peak_bytes for job in here.queue.list(states=("done",)) if job.kind == "finetune"]
    return max(peaks, default=None)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
