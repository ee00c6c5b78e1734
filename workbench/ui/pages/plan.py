"""Plan: measure cells, paint which operator each block gets, see what it costs, make the student. Knows banks and plans."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import Painter, Progress, Summary
from workbench.ui.context import Context, Refresh, refusing, whole_number
from workbench.ui.pages.runs import cancel_call
from workbench.ui.presenters import OPERATORS, plans
from workbench.ui.readers import read_bank
from workbench.ui.session import Study

RATES = OPERATORS[1:]


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    facts = context.facts

    @refusing
    def measure(blocks: str, rates: list[str], updates: float, chosen: Study) -> None:
        """Queue the measuring of cells: every chosen block at every chosen rate."""
        settings = plans.measure_settings(
            context.model, facts, blocks, rates, whole_number(updates, what="Updates"), bank=chosen.bank
        )
        context.submit("measure", settings, title=f"blocks {blocks} at {', '.join(rates)}")

    @refusing
    def cost(choice: list[str], chosen: Study) -> dict[str, Any]:
        """Answer what a plan costs and how far its measured cells are off."""
        return plans.plan_summary(read_plan(context, choice), read_bank(context, chosen), facts)

    with gr.Column(elem_id="page-plan", elem_classes="page-column"):
        with gr.Row(elem_classes="page-head"):
            gr.HTML("<h1>Plan</h1>", elem_classes="page-title workbench", apply_default_css=False)
            blocks = gr.Textbox("all", label="blocks to measure", max_lines=1, interactive=True)
            rates = gr.Dropdown(
                list(RATES), value=["R4", "linear"], multiselect=True, label="rates", elem_classes="grow"
            )
            updates = gr.Number(200, label="updates a cell", precision=0, elem_classes="narrow")
            start = gr.Button("Measure", variant="primary", elem_id="measure-button")
        Progress({"kinds": ["measure", "surgery"], "loss": True}, calls=[cancel_call(context)])
        with gr.Row(elem_classes="rack plan-rack"):
            painter = Painter([], table={})
            with gr.Column(elem_classes="stack"):
                summary = Summary({})
                with gr.Column(elem_classes="panel-form"):
                    preset = gr.Dropdown(list(plans.PRESETS), value=plans.PRESETS[0], label="preset")
                    name = gr.Textbox(label="name of the plan", max_lines=1, placeholder="as its short name")
                    with gr.Row(elem_classes="form-row"):
                        save = gr.Button("Save plan", elem_id="save-plan")
                        make = gr.Button("Make student", elem_id="make-student")

    @refusing
    def save_plan(choice: list[str], called: str, chosen: Study) -> None:
        """Save the painted plan as a file of the workspace."""
        path = plans.save_plan(context.workspace, read_plan(context, choice), called)
        gr.Info(f"Saved as {path.name}.")

    @refusing
    def make_student(choice: list[str], called: str, chosen: Study) -> None:
        """Queue the surgery that joins the painted plan with its measured cells."""
        painted = read_plan(context, choice)
        bank = read_bank(context, chosen)
        if bank is None:
            raise InputError("There is no bank yet; measure cells first.")
        bank.check_complete(painted)
        path = plans.save_plan(context.workspace, painted, called)
        settings = {"plan": str(path), "bank": str(bank.folder), "name": called or painted.short}
        context.submit("surgery", settings, title=called or painted.short)

    @refusing
    def apply(chosen_preset: str, choice: list[str], chosen: Study) -> list[str]:
        """Paint a preset over the measured cells."""
        return plans.preset_plan(chosen_preset, choice, read_bank(context, chosen), facts)

    quiet = {"show_progress": "hidden", "concurrency_limit": None}
    start.click(measure, [blocks, rates, updates, study], None, api_name="measure", **quiet)
    painter.paint(cost, [painter, study], summary, api_name="cost", trigger_mode="always_last", **quiet)
    save.click(save_plan, [painter, name, study], None, api_name="save_plan", **quiet)
    make.click(make_student, [painter, name, study], None, api_name="make_student", **quiet)
    preset.input(apply, [preset, painter, study], painter, api_visibility="private", **quiet).then(
        cost, [painter, study], summary, api_visibility="private", **quiet
    )

    def show(chosen: Study) -> list[Any]:
        bank = read_bank(context, chosen)
        table = plans.cell_table(bank, facts)
        return [gr.update(table=table)]

    context.refreshes.append(Refresh(show, [painter]))


def read_plan(context: Context, choice: Any) -> Any:
    """Return the painted choice as a plan of this model.

    Raises:
        InputError: not one operator for every block.
    """
    from workbench.operators import parse_rate
    from workbench.planning.plan import make_plan

    facts = context.facts
    if not isinstance(choice, list) or len(choice) != facts.num_blocks:
        raise InputError(
            f"A plan names one operator for each of the {facts.num_blocks} blocks of {facts.name}."
        )
    return make_plan({block: parse_rate(word) for block, word in enumerate(choice)}, facts)
