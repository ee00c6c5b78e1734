"""Plan: measure cells, paint an operator for each block, see what it costs and does, make the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from workbench.errors import InputError
from workbench.ui.components import PLAN
from workbench.ui.context import Context, Refresh, answering, asked_of, refusing, whole_number
from workbench.ui.presenters import measurable, plans, previews
from workbench.ui.readers import (
    columns_of,
    find_comparison,
    find_student,
    read_bank,
    read_timings,
    saved_plans,
)
from workbench.ui.session import Study

if TYPE_CHECKING:
    from workbench.operators import OperatorSpec

Question = dict[str, Any]
Answer = dict[str, Any]


def build(context: Context, study: gr.State) -> None:
    """Build the page."""
    calls = [*measure_calls(context), *plan_calls(context), *preview_calls(context)]
    with gr.Column(elem_id="page-plan", elem_classes="page-column"):
        part = PLAN.build({}, calls=calls)
    context.refreshes.append(Refresh(lambda chosen: page_value(context, chosen), [part]))
    _add_api(context)


def page_value(context: Context, chosen: Study) -> Answer:
    """Return all that the page shows of a study."""
    here = context.at(chosen)
    bank, timings = read_bank(here, chosen), read_timings(here)
    facts = here.facts
    student = find_student(here, chosen.student) if chosen.student else None
    columns = columns_of(here, bank, student)
    return {
        "model": facts.name,
        "ids": chosen.model_dump(),
        "table": plans.cell_table(bank, facts, columns),
        "costs": plans.costs(facts, columns),
        "timings": plans.timing_data(timings),
        "clip": plans.clip_seconds(find_comparison(here, chosen), facts),
        "front": plans.front_points(bank),
        "saved": plans.saved_data(saved_plans(here, most=plans.MAX_SAVED)),
        "student": plans.plan_data(student.plan) if student else None,
        "measure": {
            "updates": plans.UPDATES,
            "rates": measurable(columns),
            "missing": len(plans.missing_cells(bank, facts, columns)),
        },
        "preview": previews.first(facts),
    }


def measure_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what measures cells, and what tells the price of it."""

    @answering
    def measure(question: Question) -> Answer:
        """Queue the measuring of cells: every chosen block at every chosen rate."""
        here, chosen = asked_of(context, question)
        return {"job": queue_measuring(here, chosen, question).id}

    @answering
    def measure_price(question: Question) -> Answer:
        """Answer how many cells that would be, and how long it should take."""
        here, chosen = asked_of(context, question)
        settings = _measure_settings(here, chosen, question)
        return plans.measuring_price(here, settings, bank=read_bank(here, chosen))

    @answering
    def time_operators(question: Question) -> Answer:
        """Queue the timing of every operator on this device."""
        here, chosen = asked_of(context, question)
        settings = {"model": here.model, "rates": measurable(_columns(here, chosen))}
        return {"job": here.submit("times", settings, title=f"operators of {here.facts.name}").id}

    return [measure, measure_price, time_operators]


def queue_measuring(here: Context, chosen: Study, question: Question) -> Any:
    """Queue a measurement."""
    settings = _measure_settings(here, chosen, question)
    blocks = str(question.get("blocks", "all")).strip() or "all"
    return here.submit("measure", settings, title=f"blocks {blocks} at {', '.join(settings['rates'])}")


def _measure_settings(here: Context, chosen: Study, question: Question) -> dict[str, Any]:
    count = whole_number(question.get("updates", plans.UPDATES), what="Updates")
    return plans.measure_settings(
        here,
        question.get("blocks", "all"),
        question.get("rates", []),
        count,
        bank=read_bank(here, chosen),
    )


def plan_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what reads, chooses and keeps plans."""

    @answering
    def optimum(question: Question) -> Answer:
        """Answer the plan of lowest error within a budget of all attentions, exactly."""
        here, chosen = asked_of(context, question)
        budget = question.get("budget")
        if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 <= budget < 1e18:
            raise InputError("The budget must be a number from 0.")
        timings = read_timings(here) if question.get("unit") == "ms" else None
        scaled = float(budget) * (1.0 if timings else plans.TERA)
        found = plans.best_within(read_bank(here, chosen), scaled, timings)
        return {"plan": list(found.labels)}

    @answering
    def read(question: Question) -> Answer:
        """Answer a plan that was typed or dropped on the page."""
        here, chosen = asked_of(context, question)
        plan = plans.read_text(question.get("text"), here)
        plans.check_writable(plan, _columns(here, chosen))
        return {**plans.plan_data(plan), "attention": plans.prices([plan], here.facts)}

    @answering
    def export(question: Question) -> Answer:
        """Answer the painted plan as the JSON that every other part of the workbench reads."""
        from workbench.planning import to_json

        here, chosen = asked_of(context, question)
        plan = plans.make_painted(here, question, _columns(here, chosen))
        shown = _name(question) or plan.short_name
        return {"file": f"{plan.short_name}.json", "json": {**to_json(plan), "name": shown[:200]}}

    @answering
    def save_plan(question: Question) -> Answer:
        """Save the painted plan as a file of the workspace."""
        here, chosen = asked_of(context, question)
        plan = plans.make_painted(here, question, _columns(here, chosen))
        path = plans.save_plan(here.workspace, plan, _name(question))
        saved = saved_plans(here, most=plans.MAX_SAVED)
        counted = plans.prices([one for _, one in saved], here.facts)
        return {"file": path.name, "saved": plans.saved_data(saved), "attention": counted}

    @answering
    def make_student(question: Question) -> Answer:
        """Queue the surgery that joins the painted plan with its measured cells."""
        here, chosen = asked_of(context, question)
        return {"job": queue_surgery(here, chosen, question).id}

    return [optimum, read, export, save_plan, make_student]


def queue_surgery(here: Context, chosen: Study, question: Question) -> Any:
    """Save the painted plan and queue its surgery.

    Raises:
        InputError: nothing is converted, or cells are not measured.
    """
    bank = read_bank(here, chosen)
    painted = plans.make_painted(here, question, _columns(here, chosen))
    if bank is None:
        raise InputError("There is no bank of this model yet; measure cells first.")
    if not painted.converted:
        raise InputError("This plan keeps softmax in every block; paint at least one block first.")
    bank.check_complete(painted)
    name = _name(question) or painted.short_name
    path = plans.save_plan(here.workspace, painted, name)
    return here.submit("surgery", {"plan": str(path), "bank": str(bank.folder), "name": name}, title=name)


def preview_calls(context: Context) -> list[Callable[..., Answer]]:
    """Return what renders the painted plan again."""

    @answering
    def preview(question: Question) -> Answer:
        """Answer the clip of the painted plan, or the job that makes it; `start` queues one."""
        here, chosen = asked_of(context, question)
        return previews.answer(here, question, bank=read_bank(here, chosen))

    return [preview]


def _columns(here: Context, chosen: Study) -> dict[str, OperatorSpec]:
    student = find_student(here, chosen.student) if chosen.student else None
    return columns_of(here, read_bank(here, chosen), student)


def _name(question: Question) -> str:
    name = question.get("name", "")
    return name.strip() if isinstance(name, str) else ""


def _add_api(context: Context) -> None:
    """Offer the real verbs of the page to programs, under the rules of the form, for the newest study."""

    def newest() -> tuple[Context, Study]:
        return asked_of(context, {})

    @refusing
    def measure(blocks: str, rates: list[str], updates: float) -> str:
        """Queue the measuring of cells and return the job's id."""
        here, chosen = newest()
        question = {"blocks": blocks, "rates": rates, "updates": updates}
        return str(queue_measuring(here, chosen, question).id)

    @refusing
    def cost(plan: list[str], dense: float = 0) -> dict[str, Any]:
        """Return what a plan costs; `plan` names one operator a block."""
        from workbench.planning import cost as count

        here, chosen = newest()
        painted = plans.make_painted(here, {"plan": plan, "dense": dense}, _columns(here, chosen))
        return count(painted, here.facts, here.facts.default_size).model_dump(mode="json")

    @refusing
    def make_student(plan: list[str], name: str = "", dense: float = 0) -> str:
        """Queue the surgery of a plan over the newest bank and return the job's id."""
        here, chosen = newest()
        return str(queue_surgery(here, chosen, {"plan": plan, "name": name, "dense": dense}).id)

    for function in (measure, cost, make_student):
        gr.api(function, api_name=function.__name__, concurrency_limit=None)
