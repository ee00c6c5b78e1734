"""Compare: the same prompt and seed through teacher and student, in sync, with figures per frame."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import PLAYER, title
from workbench.ui.context import Context, Refresh, refusing, whole_number
from workbench.ui.media import media_url
from workbench.ui.readers import find_comparison, find_student, read_bank, saved_plans
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
    def compare(prompt: str, seed: float, steps: float, student: str, chosen: Study) -> None:
        """Queue the two clips of one prompt and seed."""
        settings = {
            **other_side(context, student, chosen),
            "prompt": prompt,
            "seed": whole_number(seed, what="Seed"),
            "steps": whole_number(steps, what="Steps"),
        }
        named = {value: label for label, value in students(context)}.get(student, student)
        context.submit("compare", settings, title=f"{prompt} · {named}")

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
            seed = gr.Number(0, label="seed", elem_classes="narrow", interactive=True)
            steps = gr.Number(facts.default_steps, label="steps", elem_classes="narrow", interactive=True)
            student = gr.Dropdown(
                [], label="student", elem_classes="wide", allow_custom_value=True, interactive=True
            )
            start = gr.Button("Compare", variant="primary", elem_id="compare-button")
        with gr.Row(elem_classes="rack"):
            player = PLAYER.build({})
        with gr.Row(elem_classes="page-foot"):
            others = gr.Dropdown(
                [], label="comparisons", elem_classes="wide", allow_custom_value=True, interactive=True
            )

    def price(steps: float) -> Any:
        """Answer the button with its price."""
        return gr.update(value=context.price("Compare", "compare", {"steps": steps}))

    steps.change(price, steps, start, api_visibility="private", trigger_mode="always_last", **QUIET)
    asked = [prompt, seed, steps, student, study]
    start.click(compare, asked, None, api_name="compare", **QUIET)
    prompt.submit(compare, asked, None, api_visibility="private", **QUIET)
    others.input(open_other, [others, study], [study, player], api_visibility="private", **QUIET)

    def show(chosen: Study) -> list[Any]:
        choices = students(context)
        chosen_now = f"student/{chosen.student}" if chosen.student else None
        made = newest(context.workspace, "comparison")
        return [
            gr.update(choices=choices, value=chosen_now),
            player_value(context, chosen),
            gr.update(choices=made, value=chosen.comparison or None, visible=len(made) > 1),
            price(facts.default_steps),
        ]

    context.refreshes.append(Refresh(show, [student, player, others, start]))


def students(context: Context) -> list[tuple[str, str]]:
    """Return what can stand beside the teacher: students, and saved plans over the measured cells."""
    found = [(name, find_student(context, name)) for name in newest(context.workspace, "student")]
    made = [(student.name, f"student/{name}") for name, student in found if student]
    plans = [(f"plan {plan.name or plan.short_name}", f"plan/{file}") for file, plan in saved_plans(context)]
    return made + plans


def other_side(context: Context, choice: Any, chosen: Study) -> dict[str, str]:
    """Return the settings that name the student: its folder, or a plan with the bank of the study.

    Raises:
        InputError: nothing is chosen, it is gone, or a plan lacks measured cells.
    """
    kind, _, name = choice.partition("/") if isinstance(choice, str) else ("", "", "")
    if kind == "student" and name in newest(context.workspace, "student"):
        return {"model": str(context.workspace.folder("students") / name)}
    if kind == "plan" and name in dict(saved_plans(context)):
        bank = read_bank(context, chosen)
        if bank is None:
            raise InputError("A plan needs measured cells; measure them on the Plan page first.")
        path = context.workspace.folder("plans") / name
        return {"model": context.model, "plan": str(path), "bank": str(bank.folder)}
    raise InputError("No student is chosen; make one on the Plan page first.")


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
