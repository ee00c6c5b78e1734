"""Train: finetune a student, see its price first and its loss live, and what it makes of one prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import TRAIN
from workbench.ui.context import Context, Refresh, answering, asked_of, whole_number
from workbench.ui.presenters import previews, training
from workbench.ui.readers import find_student
from workbench.ui.session import Study, newest

Question = dict[str, Any]
Answer = dict[str, Any]
MAX_SHOWN = 40
VERBS = ("pause", "resume", "save_now", "sample_now", "cancel")


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    with gr.Column(elem_id="page-train", elem_classes="page-column"):
        part = TRAIN.build({}, calls=[*form_calls(context), *job_calls(context)])
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))


def page_value(context: Context, chosen: Study) -> Answer:
    """Return all that the page shows of a study."""
    here = context.at(chosen)
    names = newest(here.workspace, "student", here.facts)[:MAX_SHOWN]
    found = {name: student for name in names if (student := find_student(here, name))}
    return {
        "ids": chosen.model_dump(),
        "model": here.facts.name,
        "student": chosen.student,
        "students": training.students_data(found),
        "presets": training.preset_data(here.facts),
        "methods": list(training.METHODS),
        "prompt": previews.first(here.facts)["prompt"],
    }


def form_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what the form asks: its price, and to start."""

    @answering
    def finetune_price(question: Question) -> Answer:
        """Answer what the finetuning should take, and the command and cell that do the same."""
        here, _ = asked_of(context, question)
        return training.price(here, training.settings_of(here, question))

    @answering
    def finetune(question: Question) -> Answer:
        """Queue the finetuning of a student."""
        here, _ = asked_of(context, question)
        settings = training.settings_of(here, question)
        student = find_student(here, str(question.get("student")))
        name = student.name if student else ""
        title = f"{name}, {settings['updates']:,} updates"
        return {"job": here.submit("finetune", settings, title=title).id}

    @answering
    def finetune_form(question: Question) -> Answer:
        """Answer what the fields hold for the settings of an earlier finetuning."""
        return training.restored(question.get("settings"))

    return [finetune_price, finetune, finetune_form]


def job_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what follows a finetuning, and what can be asked of it."""

    @answering
    def finetuning(question: Question) -> Answer:
        """Answer what is new of a finetuning, the newest where none is named; empty where none is."""
        here, _ = asked_of(context, question)
        wanted = question.get("job") or ""
        jobs = [job for job in here.queue.list() if job.kind == "finetune"]
        found = next((job for job in jobs if job.id == wanted), jobs[-1] if jobs else None)
        if found is None:
            return {"id": ""}
        after = whole_number(question.get("after", 0), what="The cursor")
        return training.job_data(here, found, after=after if found.id == wanted else 0)

    @answering
    def finetuning_verb(question: Question) -> Answer:
        """Pause, resume, save, sample or cancel a finetuning."""
        verb, name = question.get("verb"), question.get("job")
        if verb not in VERBS or not isinstance(name, str):
            raise InputError(f"A finetuning can be asked to {', '.join(VERBS)}.")
        job = getattr(context.queue, verb)(name)
        context.queue.dispatch()
        return {"id": job.id, "state": job.state}

    return [finetuning, finetuning_verb]
