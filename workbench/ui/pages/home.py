"""Home: a finished example, the model and where its operations go, whether it pays, the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from workbench.errors import InputError
from workbench.ui.components import HOME
from workbench.ui.context import Context, Refresh, answering, asked_of, whole_number
from workbench.ui.presenters import home
from workbench.ui.readers import read_bank, study_parts
from workbench.ui.session import Study

EXAMPLE_FILES = {
    "teacher": ("comparison/teacher.mp4", "video/mp4"),
    "student": ("comparison/student.mp4", "video/mp4"),
    "maps": ("maps.png", "image/png"),
}
"""What the browser may read of the example, by the last part of its address."""


def build(context: Context, study: gr.State) -> None:
    """Build the page."""

    @answering
    def facts(question: dict[str, Any]) -> dict[str, Any]:
        """Answer the facts of a model by name or folder, from its configuration alone."""
        return home.model_data(context.at(Study(model=model_word(question))).facts)

    @answering
    def pay(question: dict[str, Any]) -> dict[str, Any]:
        """Answer whether a speed-up can be reached."""
        here, chosen = asked_of(context, question)
        target = question.get("target")
        if isinstance(target, bool) or not isinstance(target, int | float):
            raise InputError("The target speed-up is a number above 1, for example 1.5.")
        scale = whole_number(question.get("scale", 1), what="Clip length")
        if scale not in home.SCALES:
            raise InputError(f"Clip length must be one of {', '.join(map(str, home.SCALES))}, got {scale}.")
        return home.payoff(here.facts, float(target), scale, read_bank(here, chosen))

    @answering
    def doctor(_: dict[str, Any]) -> dict[str, Any]:
        """Answer what this machine and installation are."""
        from workbench.doctor import examine

        report = examine(context.workspace)
        return {"text": report.text, "problems": list(report.problems)}

    @answering
    def open_example(_: dict[str, Any]) -> dict[str, Any]:
        """Put the example's comparison into the workspace and answer its id."""
        from workbench.example import install

        return {"comparison": install(context.workspace)}

    @answering
    def download(question: dict[str, Any]) -> dict[str, Any]:
        """Queue the fetching of a model from the hub, which only the user's own word allows."""
        name = model_word(question)
        if question.get("network") is not True:
            raise InputError("The network is used only when you allow it; switch on 'Use the network' first.")
        settings = {"model": name, "allow_network": True}
        return {"job": context.submit("download", settings, title=name).id}

    with gr.Column(elem_id="page-home", elem_classes="page-column"):
        part = HOME.build({}, calls=[facts, pay, doctor, open_example, download])
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))


def page_value(context: Context, chosen: Study) -> dict[str, Any]:
    """Return all that the page shows of a study."""
    from workbench.example import load
    from workbench.models.registry import names

    here = context.at(chosen)
    example = load()
    parts = study_parts(here, chosen)
    return {
        "ids": chosen.model_dump(),
        "current": here.model,
        "models": list(dict.fromkeys([context.model, *names(), *fetched(context)])),
        "example": home.example_data(example, lambda name: f"/workbench/example/{name}"),
        "model": home.model_data(here.facts),
        "peak": home.peak_memory(here),
        "reachable": home.reachable(parts.bank, here.facts),
        "walkthrough": home.walkthrough(example, parts),
    }


def fetched(context: Context) -> list[str]:
    """Return the hub ids that were fetched from this page, newest first."""
    done = context.queue.list(states=("done",))
    return [str(job.config["model"]) for job in reversed(done) if job.kind == "download"]


def model_word(question: dict[str, Any]) -> str:
    """Return the model that a script names; a folder's path is made absolute.

    Raises:
        InputError: no name.
    """
    word = question.get("model")
    if not isinstance(word, str) or not word.strip() or "\0" in word or len(word) > 4096:
        raise InputError("The model name is empty or no file name; give a registry name or a folder.")
    try:
        folder = Path(word.strip()).expanduser()
        return str(folder.absolute()) if folder.is_dir() else word.strip()
    except (OSError, RuntimeError):
        return word.strip()


def about_call(context: Context) -> Callable[..., dict[str, Any]]:
    """Return the function with which the frame asks what it runs on."""

    @answering
    def about(_: dict[str, Any]) -> dict[str, Any]:
        """Answer the device that jobs run on, in a few words."""
        from workbench.doctor import device_words

        return {"device": device_words()}

    return about


def example_routes() -> list[BaseRoute]:
    """Return the route on which the browser reads the shipped example."""
    from workbench.example import FOLDER

    def file(request: Request) -> Response:
        known = EXAMPLE_FILES.get(request.path_params["name"])
        if known is None or not (FOLDER / known[0]).is_file():
            raise HTTPException(404, "No such part of the example.")
        return FileResponse(FOLDER / known[0], media_type=known[1], headers={"Cache-Control": "no-cache"})

    return [Route("/workbench/example/{name}", file, methods=["GET", "HEAD"])]
