"""Attention: capture one sampling run, see every head, and where one patch looks."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import HEADS, OVERLAY, SPRITE, title
from workbench.ui.context import Context, Refresh, answering, refusing, whole_number
from workbench.ui.media import media_url
from workbench.ui.presenters import maps
from workbench.ui.readers import read_capture
from workbench.ui.session import Study

PROMPT = "a red ball"
QUIET: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    facts = context.facts

    @answering
    def sprite(question: dict[str, Any]) -> dict[str, Any]:
        """Answer the pooled maps of every block and head at one captured step, as bytes."""
        return maps.sprite(read_capture(context, question.get("capture")), question)

    @answering
    def row(question: dict[str, Any]) -> dict[str, Any]:
        """Answer where one patch looks: mass on every patch of every frame, as bytes."""
        return maps.attention_row(read_capture(context, question.get("capture")), question)

    @refusing
    def capture(prompt: str, seed: float, steps: float) -> None:
        """Queue a capture of one sampling run."""
        settings = {
            "model": context.model,
            "prompt": prompt,
            "seed": whole_number(seed, what="Seed"),
            "steps": whole_number(steps, what="Steps"),
        }
        context.submit("capture", settings, title=prompt)

    def price(steps: float) -> Any:
        """Answer the button with its price."""
        return gr.update(value=context.price("Capture", "capture", {"steps": steps}))

    with gr.Column(elem_id="page-attention", elem_classes="page-column"):
        with gr.Row(elem_classes="page-head"):
            title("Attention")
            prompt = gr.Textbox(PROMPT, label="prompt", max_lines=1, elem_classes="grow", interactive=True)
            seed = gr.Number(0, label="seed", elem_classes="narrow", interactive=True)
            steps = gr.Number(facts.default_steps, label="steps", elem_classes="narrow", interactive=True)
            start = gr.Button("Capture", variant="primary", elem_id="capture-button")
        with gr.Row(elem_classes="rack attention-rack"):
            sprites = SPRITE.build({}, calls=[sprite])
            overlay = OVERLAY.build({}, calls=[row])
        heads = HEADS.build({})

    asked = [prompt, seed, steps]
    start.click(capture, asked, None, api_name="capture", **QUIET)
    prompt.submit(capture, asked, None, api_visibility="private", **QUIET)

    steps.change(price, steps, start, api_visibility="private", trigger_mode="always_last", **QUIET)

    def show(chosen: Study) -> list[Any]:
        if not chosen.capture:
            return [*maps.no_capture(), price(facts.default_steps)]
        try:
            read = read_capture(context, chosen.capture)
            addresses = [
                media_url(context.workspace, path) if path.is_file() else None for path in read.frames
            ]
            shown = maps.attention_page(read, addresses=addresses)
        except InputError as error:
            shown = maps.no_capture(str(error))
        return [*shown, price(facts.default_steps)]

    context.refreshes.append(Refresh(show, [sprites, overlay, heads, start]))
