"""Attention: capture one sampling run, see every head, where one patch looks, and what a cell makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.jobs import Job
from workbench.ui.components import ATTENTION
from workbench.ui.context import Context, Refresh, answering, asked_of, refusing, whole_number
from workbench.ui.media import media_url
from workbench.ui.presenters import maps, prompts
from workbench.ui.presenters import playground as refitting
from workbench.ui.readers import read_bank, read_capture
from workbench.ui.session import Study

Question = dict[str, Any]
Answer = dict[str, Any]


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    calls = [*form_calls(context), *picture_calls(context), *prompts.builder_calls(context)]
    with gr.Column(elem_id="page-attention", elem_classes="page-column"):
        part = ATTENTION.build({}, calls=calls)
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))

    @refusing
    def capture(prompt: str, seed: float, steps: float) -> str:
        """Queue a capture of one sampling run."""
        here, _ = asked_of(context, {})
        return str(queue_capture(here, {"prompt": prompt, "seed": seed, "steps": steps}).id)

    gr.api(capture, api_name="capture", concurrency_limit=None)


def page_value(context: Context, chosen: Study) -> Answer:
    """Return all that the page shows of a study."""
    here = context.at(chosen)
    sprite, overlay, heads = _pictures(here, chosen)
    shown = sprite.get("capture", "")
    return {
        "ids": chosen.model_dump(),
        "model": here.facts.name,
        "prompt": prompts.usual_prompt(here.facts),
        "vocabulary": prompts.vocabulary(here.facts),
        "steps": here.facts.default_steps,
        "sprite": sprite,
        "overlay": overlay,
        "heads": heads,
        "playground": {"capture": shown, "grid": sprite["grid"], **refitting.first()} if shown else {},
    }


def _pictures(here: Context, chosen: Study) -> list[Answer]:
    if not chosen.capture:
        return maps.no_capture()
    try:
        capture = read_capture(here, chosen.capture)
        addresses = [media_url(here.workspace, path) if path.is_file() else None for path in capture.frames]
        return maps.attention_page(capture, addresses=addresses, bank=read_bank(here, chosen))
    except InputError as error:
        return maps.no_capture(str(error))


def queue_capture(here: Context, question: Question) -> Job:
    """Queue what a form asks for."""
    prompt = str(question.get("prompt", ""))
    settings = {
        "model": here.model,
        "prompt": prompt,
        "seed": whole_number(question.get("seed"), what="Seed"),
        "steps": whole_number(question.get("steps"), what="Steps"),
    }
    return here.submit("capture", settings, title=prompt)


def form_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what queues a capture, and what tells its price."""

    @answering
    def capture(question: Question) -> Answer:
        """Queue a capture of one sampling run."""
        here, _ = asked_of(context, question)
        return {"job": queue_capture(here, question).id}

    @answering
    def capture_price(question: Question) -> Answer:
        """Answer the word on the button, with what it should take where an earlier capture tells."""
        here, _ = asked_of(context, question)
        return {"verb": here.price("Capture", "capture", {"steps": question.get("steps")})}

    return [capture, capture_price]


def picture_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what the pictures ask."""

    @answering
    def sprite(question: Question) -> Answer:
        """Answer the pooled maps of every block and head at one captured step, as bytes."""
        return maps.sprite(read_capture(context, question.get("capture")), question)

    @answering
    def row(question: Question) -> Answer:
        """Answer where one patch looks: mass on every patch of every frame, as bytes."""
        capture = read_capture(context, question.get("capture"))
        bank = None
        if question.get("view", "softmax") != "softmax":
            here, chosen = asked_of(context, question)
            bank = read_bank(here, chosen)
        return maps.attention_row(capture, question, bank=bank)

    @answering
    def playground(question: Question) -> Answer:
        """Answer one head refitted: rows, error, denominators."""
        return refitting.answer(read_capture(context, question.get("capture")), question)

    return [sprite, row, playground]
