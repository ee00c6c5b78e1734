"""Train: finetune a student, see its price first and its loss live."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.ui.components import TRAIN
from workbench.ui.context import Context, Refresh
from workbench.ui.session import Study


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    with gr.Column(elem_id="page-train", elem_classes="page-column"):
        part = TRAIN.build({})
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))


def page_value(context: Context, chosen: Study) -> dict[str, Any]:
    return {}
