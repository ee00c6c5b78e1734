"""Compare: the same prompt and seed through teacher and student, in sync, with figures per frame."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import PLAYER, title
from workbench.ui.context import Context, Refresh, refusing, whole_number
from workbench.ui.media import media_url
from workbench.ui.readers import find_comparison, find_student
from workbench.ui.session import Study, newest

QUIET: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
NO_STUDENT = {
    "title": "No student yet",
    "why": "A comparison sets the untouched model beside a student. Paint a plan and make a student first.",
    "page": "#plan",
    "verb": "Go to Plan",
}
NO_CLIPS = {
    "title": "No comparison yet",
    "why": "Choose a prompt and a student above and press Compare: both clips play here in sync.",
}


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    facts = context.facts

    @refusing
    def compare(prompt: str, seed: float, steps: float, student: str) -> None:
        """Queue the two clips of one prompt and seed."""
        if student not in newest(context.workspace, "student"):
            raise InputError("No student is chosen; make one on the Plan page first.")
        folder = context.workspace.folder("students") / student
        settings = {
            "model": str(folder),
            "prompt": prompt,
            "seed": whole_number(seed, what="Seed"),
            "steps": whole_number(steps, what="Steps"),
        }
        context.submit("compare", settings, title=f"{prompt} · {student_name(context, student)}")

    @refusing
    def open_other(name: str, chosen: Study) -> list[Any]:
        """Show another comparison of the workspace."""
        if name not in newest(context.workspace, "comparison"):
            raise InputError("That comparison is no longer in the workspace.")
        chosen = chosen.model_copy(update={"comparison": name})
        return [chosen, player_value(context, chosen)]

    with gr.Column(elem_id="page-compare", elem_classes="page-column"):
        with gr.Row(elem_classes="page-head"):
            title("Compare")
            prompt = gr.Textbox(
                "a red ball", label="prompt", max_lines=1, elem_classes="grow", interactive=True
            )
            seed = gr.Number(0, label="seed", precision=0, elem_classes="narrow", interactive=True)
            steps = gr.Number(
                facts.default_steps, label="steps", precision=0, elem_classes="narrow", interactive=True
            )
            student = gr.Dropdown([], label="student", elem_classes="wide", interactive=True)
            start = gr.Button("Compare", variant="primary", elem_id="compare-button")
        with gr.Row(elem_classes="rack"):
            player = PLAYER.build({})
        with gr.Row(elem_classes="page-foot"):
            others = gr.Dropdown([], label="comparisons", elem_classes="wide", interactive=True)

    asked = [prompt, seed, steps, student]
    start.click(compare, asked, None, api_name="compare", **QUIET)
    prompt.submit(compare, asked, None, api_visibility="private", **QUIET)
    others.input(open_other, [others, study], [study, player], api_visibility="private", **QUIET)

    def show(chosen: Study) -> list[Any]:
        names = newest(context.workspace, "student")
        choices = [(student_name(context, name), name) for name in names]
        made = newest(context.workspace, "comparison")
        return [
            gr.update(choices=choices, value=chosen.student or None),
            player_value(context, chosen),
            gr.update(choices=made, value=chosen.comparison or None, visible=len(made) > 1),
        ]

    context.refreshes.append(Refresh(show, [student, player, others]))


def student_name(context: Context, name: str) -> str:
    """Return what a student is called, its id where it cannot be read."""
    found = find_student(context, name)
    return found.name if found else name


def player_value(context: Context, chosen: Study) -> dict[str, Any]:
    """Return what the player shows of a study."""
    comparison = find_comparison(context, chosen)
    folder = chosen.folder(context.workspace, "comparison")
    if comparison is None or folder is None:
        return NO_CLIPS if newest(context.workspace, "student") else NO_STUDENT
    from workbench.comparison import player_data

    page = media_url(context.workspace, folder / "index.html")
    return {
        **player_data(comparison, lambda name: media_url(context.workspace, folder / name)),
        "page": page,
    }
