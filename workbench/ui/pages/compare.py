"""Compare: the same prompts and seed through teacher and students, in sync, with figures and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.jobs import Job
from workbench.ui.components import COMPARE
from workbench.ui.context import Context, Refresh, answering, asked_of, refusing
from workbench.ui.pages.runs import cancel_call, find_job
from workbench.ui.presenters import clips, prompts
from workbench.ui.session import Study

Question = dict[str, Any]
Answer = dict[str, Any]


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    calls = [
        *form_calls(context),
        *show_calls(context),
        *prompts.builder_calls(context),
        cancel_call(context),
    ]
    with gr.Column(elem_id="page-compare", elem_classes="page-column"):
        part = COMPARE.build({}, calls=calls)
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))

    @refusing
    def compare(prompt: str, seed: float, steps: float, column: str) -> str:
        """Queue a comparison of one prompt with one student (`student/<id>` or `plan/<file>`)."""
        here, chosen = asked_of(context, {})
        question = {"prompts": [prompt], "seed": seed, "steps": steps, "columns": [column]}
        return str(queue_comparison(here, chosen, question).id)

    gr.api(compare, api_name="compare", concurrency_limit=None)


def page_value(context: Context, chosen: Study) -> Answer:
    """Return all that the page shows of a study."""
    here = context.at(chosen)
    return {
        "ids": chosen.model_dump(),
        "model": here.facts.name,
        "columns": clips.columns(here),
        "student": f"student/{chosen.student}" if chosen.student else "",
        "prompt": prompts.usual_prompt(here.facts),
        "vocabulary": prompts.vocabulary(here.facts),
        "steps": here.facts.default_steps,
        "shown": clips.shown(here, chosen),
        "listed": clips.listed(here),
    }


def queue_comparison(here: Context, chosen: Study, question: Question) -> Job:
    """Queue what a form asks for."""
    settings = clips.settings_of(here, chosen, question)
    count = len(settings["sides"])
    title = settings["prompt"] + (
        f" and {len(settings['more_prompts'])} more" if settings["more_prompts"] else ""
    )
    return here.submit("compare", settings, title=f"{title} · {count} beside the teacher")


def form_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what queues a comparison, tells its price, and follows it."""

    @answering
    def compare(question: Question) -> Answer:
        """Queue the clips of all prompts and columns."""
        here, chosen = asked_of(context, question)
        return {"job": queue_comparison(here, chosen, question).id}

    @answering
    def price(question: Question) -> Answer:
        """Answer what that should take where an earlier comparison tells, and how many clips it is."""
        here, chosen = asked_of(context, question)
        try:
            settings = clips.settings_of(here, chosen, question)
        except InputError:
            return {"seconds": None}
        return {"seconds": here.estimate("compare", settings)}

    @answering
    def live(question: Question) -> Answer:
        """Answer how a running comparison looks so far."""
        job = find_job(context, question)
        if job.kind != "compare":
            raise InputError("Only a comparison has a preview here.")
        return clips.live(context, job, ask=question.get("ask") is True)

    return [compare, price, live]


def show_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what shows one comparison, or the scores of all."""

    @answering
    def open_comparison(question: Question) -> Answer:
        """Answer the clips of one comparison."""
        here, _ = asked_of(context, question)
        return {"shown": clips.clips_of(here, *clips.open_comparison(here, question.get("id")))}

    @answering
    def scores(question: Question) -> Answer:
        """Answer how good and how dear each student is, over all its clips."""
        here, _ = asked_of(context, question)
        return {"scores": clips.score_rows(here)}

    @answering
    def listed(question: Question) -> Answer:
        """Answer the comparisons of the model."""
        here, _ = asked_of(context, question)
        return {"listed": clips.listed(here)}

    return [open_comparison, scores, listed]
