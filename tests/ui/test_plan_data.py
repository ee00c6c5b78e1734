"""What the Plan page is given: measured cells, counted costs, the exact optimum; and its study."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.banks import write_bank
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.models import ModelFacts
from workbench.planning import Bank, allocate, choices, cost, parse_short
from workbench.ui.context import Context, asked_of
from workbench.ui.presenters import operators, plans
from workbench.ui.presenters.study import study_bar
from workbench.ui.readers import study_parts
from workbench.ui.session import Study, adopt, newest, restore
from workbench.workspace import Workspace, read_json, write_json


@pytest.fixture
def bank(workspace: Workspace, micro_facts: ModelFacts) -> Bank:
    return write_bank(workspace.folder("banks") / "20260101-000000-b-0000", micro_facts, blocks=(0, 1))


@pytest.fixture
def context(workspace: Workspace, micro_model_folder: Path) -> Context:
    return Context(workspace, str(micro_model_folder), Queue(workspace))


def test_only_measured_cells_are_in_the_table(bank: Bank, micro_facts: ModelFacts) -> None:
    columns = operators(micro_facts, bank)
    table = plans.cell_table(bank, micro_facts, columns)
    assert [row[2] is None for row in table["cells"]] == [False, False, True]
    assert table["cells"][0][2]["error"] == bank.cells[0, "R4"].error
    assert all(row[3] is None for row in table["cells"]), "R8 was not measured"
    assert table["columns"][-1] == "T2o1", "ReHyAt has chunks shorter than the clip of 3 latent frames"
    wanted = 3 * (len(columns) - 1)
    assert len(plans.missing_cells(bank, micro_facts, columns)) == wanted - len(bank.cells)


def test_the_page_counts_as_the_cost_model_does(bank: Bank, micro_facts: ModelFacts) -> None:
    counted = plans.costs(micro_facts, operators(micro_facts))
    plan = parse_short("2xR4", micro_facts)
    attention = 2 * counted["attention"]["R4"] + counted["core"]
    assert attention / (3 * counted["core"]) == pytest.approx(cost(plan, micro_facts).attention_ratio)
    whole = attention + 3 * counted["rest"]
    ratio = whole / (3 * (counted["core"] + counted["rest"]))
    assert ratio == pytest.approx(cost(plan, micro_facts).dit_ratio)


@pytest.mark.parametrize("share", [0.4, 0.65, 0.8, 1.0])
def test_the_budget_gives_the_exact_optimum(bank: Bank, micro_facts: ModelFacts, share: float) -> None:
    size = micro_facts.default_size
    offered = choices(bank, micro_facts, size)
    cheap = sum(min(choice.cost for choice in block) for block in offered)
    dear = sum(max(choice.cost for choice in block) for block in offered)
    budget = cheap + share * (dear - cheap)
    found = plans.best_within(bank, budget)
    expected = allocate(offered, budget=budget, method="optimal")
    assert expected is not None
    assert (found.labels, found.error) == (expected.labels, pytest.approx(expected.error))


def test_a_budget_that_cannot_be_met_is_a_sentence(bank: Bank) -> None:
    with pytest.raises(InputError, match="cannot come that low"):
        plans.best_within(bank, 1.0)
    with pytest.raises(InputError, match="No cell is measured"):
        plans.best_within(None, 1e18)


def test_a_typed_plan_is_read_and_a_wrong_one_refused(context: Context) -> None:
    assert plans.plan_data(plans.read_text("2xR4", context))["short"] == "2xR4"
    painted = plans.plan_data(plans.read_text("0:softmax,1-:linear", context))
    assert painted["plan"] == ["softmax", "linear", "linear"]
    for text, sentence in (
        ("", "empty"),
        ("1xR2+1xR4", "does not say which blocks"),
        ("<b>x</b>", "write <blocks>:<rate>"),
        ("{", "imported plan"),
        (7, "empty"),
    ):
        with pytest.raises(InputError, match=sentence):
            plans.read_text(text, context)


def test_a_painted_plan_keeps_its_dense_steps(context: Context) -> None:
    plan = plans.make_painted(context, {"plan": ["R4", "softmax", "linear"], "dense": 2})
    assert plan.schedule.dense_first == 2 and plan.short_name == "1xR4+1xlinear"
    for question in ({"plan": ["R4"]}, {"plan": ["R4"] * 3, "dense": 0.5}, {"plan": ["R4"] * 3, "dense": -1}):
        with pytest.raises(InputError):
            plans.make_painted(context, question)


def test_a_link_restores_the_study_and_what_is_gone_falls_back_to_the_newest(
    workspace: Workspace, bank: Bank, micro_facts: ModelFacts
) -> None:
    name = bank.folder.name
    assert restore(workspace, {}, micro_facts) == Study(bank=name)
    assert restore(workspace, {"bank": "../../etc", "capture": "x"}, micro_facts) == Study(bank=name)
    assert newest(workspace, "bank") == [name]
    made = adopt(
        Study(), workspace, [bank.folder, workspace.root / "nothing", bank.folder / "bank.json"], micro_facts
    )
    assert made.bank == name


def test_a_bank_of_other_weights_is_not_shown_but_called_stale(
    workspace: Workspace, bank: Bank, context: Context
) -> None:
    data = read_json(bank.folder / "bank.json", what="bank")
    data["model"]["fingerprint"] = "0" * 16
    write_json(bank.folder / "bank.json", data)
    here, chosen = asked_of(context, {"ids": {"bank": bank.folder.name}})
    assert chosen.bank == ""
    steps = {step["name"]: step for step in study_bar(study_parts(here, chosen))["steps"]}
    assert list(steps) == ["model", "capture", "bank", "plan", "tune", "comparison"]
    assert steps["bank"]["state"] == "stale" and steps["bank"]["text"] == "of other weights"


def test_another_model_is_another_context_and_an_unknown_one_is_refused(context: Context) -> None:
    there = context.at(Study(model="wan2.1-t2v-1.3b"))
    assert there.facts.num_blocks == 30 and context.facts.num_blocks == 3
    again = context.at(Study(model="wan2.1-t2v-1.3b"))
    assert again.model == there.model and again is not there, "its weights may have been fetched since"
    assert there.at(Study()) is there and context.at(Study(model=context.model)) is context
    with pytest.raises(InputError):
        context.at(Study(model="/nowhere/at all"))
