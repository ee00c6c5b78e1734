"""Compare: the same prompt and seed through teacher and student, in sync, with figures per frame."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.ui.components import Player, Progress
from workbench.ui.context import Context, Refresh, refusing, whole_number
from workbench.ui.pages.runs import cancel_call
from workbench.ui.session import Study


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    facts = context.facts
    with gr.Column(elem_id="page-compare", elem_classes="page-column"):
        with gr.Row(elem_classes="page-head"):
            gr.HTML("<h1>Compare</h1>", elem_classes="page-title workbench", apply_default_css=False)
            prompt = gr.Textbox(
                "a red ball", label="prompt", max_lines=1, elem_classes="grow", interactive=True
            )
            seed = gr.Number(0, label="seed", precision=0, elem_classes="narrow", interactive=True)
            steps = gr.Number(
                facts.default_steps, label="steps", precision=0, elem_classes="narrow", interactive=True
            )
            student = gr.Dropdown([], label="student", interactive=True)
            start = gr.Button("Compare", variant="primary", elem_id="compare-button")
        Progress({"kinds": ["compare", "generate"]}, calls=[cancel_call(context)])
        player = Player({})
