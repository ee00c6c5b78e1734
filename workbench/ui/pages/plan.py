"""Plan: measure cells, paint an operator for each block, see what it costs, make the student."""

from __future__ import annotations

from typing import Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import LOSSES, PAINTER, SUMMARY, title
from workbench.ui.context import Context, Refresh, answering, refusing, whole_number
from workbench.ui.presenters import OPERATORS, plans
from workbench.ui.readers import read_bank, read_plan
from workbench.ui.session import Study

QUIET: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    with gr.Column(elem_id="page-plan", elem_classes="page-column"):
        measure_form(context, study)
        paint_form(context, study)


def measure_form(context: Context, study: gr.State) -> None:
    """Build the form that measures cells."""

    @refusing
    def measure(blocks: str, rates: list[str], updates: float, chosen: Study) -> None:
        """Queue the measuring of cells: every chosen block at every chosen rate."""
        count = whole_number(updates, what="Updates")
        bank = read_bank(context, chosen)
        settings = plans.measure_settings(context, blocks, rates, count, bank=bank)
        context.submit("measure", settings, title=f"blocks {blocks.strip()} at {', '.join(rates)}")

    @refusing
    def price(blocks: str, rates: list[str], updates: float) -> Any:
        """Answer the button with what it will cost, once an earlier measurement tells the pace."""
        return gr.update(value=plans.measure_verb(context, blocks, rates, updates))

    with gr.Row(elem_classes="page-head"):
        title("Plan")
        blocks = gr.Textbox(
            "all", label="blocks to measure", max_lines=1, elem_classes="short", interactive=True
        )
        rates = gr.CheckboxGroup(
            list(OPERATORS[1:]), value=["R4", "linear"], label="rates", elem_classes="chips"
        )
        updates = gr.Number(plans.UPDATES, label="updates", elem_classes="narrow", interactive=True)
        start = gr.Button("Measure", variant="primary", elem_id="measure-button")
    asked = [blocks, rates, updates]
    start.click(measure, [*asked, study], None, api_name="measure", **QUIET)
    for field in asked:
        field.change(price, asked, start, api_visibility="private", trigger_mode="always_last", **QUIET)
    context.refreshes.append(Refresh(lambda _: price("all", ["R4", "linear"], plans.UPDATES), [start]))


def paint_form(context: Context, study: gr.State) -> None:
    """Build the painter, what the plan costs, and what can be made of it."""
    facts = context.facts

    @refusing
    def cost(choice: list[str], chosen: Study) -> dict[str, Any]:
        """Answer what a plan costs and how far its measured cells are off."""
        return plans.plan_summary(read_plan(context, choice), read_bank(context, chosen), facts)

    @refusing
    def save_plan(choice: list[str], called: str) -> None:
        """Save the painted plan as a file of the workspace."""
        path = plans.save_plan(context.workspace, read_plan(context, choice), called)
        gr.Info(f"Saved as {path.name}.")

    @refusing
    def make_student(choice: list[str], called: str, chosen: Study) -> None:
        """Queue the surgery that joins the painted plan with its measured cells."""
        painted = read_plan(context, choice)
        bank = read_bank(context, chosen)
        if bank is None:
            raise InputError("There is no bank of this model yet; measure cells first.")
        bank.check_complete(painted)
        path = plans.save_plan(context.workspace, painted, called)
        name = called.strip() or painted.short_name
        context.submit("surgery", {"plan": str(path), "bank": str(bank.folder), "name": name}, title=name)

    @refusing
    def apply(preset: str, choice: list[str], chosen: Study) -> list[str]:
        """Paint a preset over the measured cells."""
        return plans.preset_plan(preset, choice, read_bank(context, chosen), facts)

    @answering
    def table(_: dict[str, Any]) -> dict[str, Any]:
        """Answer the cells of the newest bank."""
        return plans.cell_table(None, facts)

    with gr.Row(elem_classes="rack plan-rack"):
        with gr.Column(elem_classes="panel-column"):
            painter = PAINTER.build([], table={}, calls=[table])
        with gr.Column(elem_classes="stack"):
            summary = SUMMARY.build({})
            with gr.Column(elem_classes="panel-form"):
                preset = gr.Dropdown(
                    list(plans.PRESETS), value=plans.PRESETS[0], label="preset", interactive=True
                )
                name = gr.Textbox(label="name", max_lines=1, placeholder="its short name", interactive=True)
                with gr.Row(elem_classes="verbs-row"):
                    save = gr.Button("Save plan", elem_id="save-plan")
                    make = gr.Button("Make student", elem_id="make-student")
            LOSSES.build({}, elem_classes="fill")

    painter.paint(cost, [painter, study], summary, api_name="cost", trigger_mode="always_last", **QUIET)
    save.click(save_plan, [painter, name], None, api_name="save_plan", **QUIET)
    make.click(make_student, [painter, name, study], None, api_name="make_student", **QUIET)
    preset.input(apply, [preset, painter, study], painter, api_visibility="private", **QUIET).then(
        cost, [painter, study], summary, api_visibility="private", **QUIET
    )
    context.refreshes.append(
        Refresh(
            lambda chosen: gr.update(table=plans.cell_table(read_bank(context, chosen), facts)), [painter]
        )
    )
