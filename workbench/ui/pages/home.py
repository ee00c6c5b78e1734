"""Home: a finished example, the model and where its operations go, whether it pays, the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from workbench.ui.components import HOME
from workbench.ui.context import Context, Refresh, answering
from workbench.ui.session import Study


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    with gr.Column(elem_id="page-home", elem_classes="page-column"):
        part = HOME.build({})
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))


def page_value(context: Context, chosen: Study) -> dict[str, Any]:
    return {}


def about_call(context: Context) -> Callable[..., dict[str, Any]]:
    """Return the function with which the frame asks what it runs on."""

    @answering
    def about(_: dict[str, Any]) -> dict[str, Any]:
        """Answer the device that jobs run on, in a few words."""
        from workbench.doctor import device_words

        return {"device": device_words()}

    return about
