"""Columns and prices for every operator that a bank or a plan holds, ReHyAt of any chunks among them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.banks import write_bank
from tests.ui.conftest import Server, Watched, free_port, start_app
from workbench import example
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.models import ModelFacts, model_facts
from workbench.operators import ElementwiseSpec, HybridSpec, OperatorSpec, build, label
from workbench.planning import Bank, BankWriter, lend, load_bank, make_plan, parse_assign, parse_short
from workbench.surgery import lend_students, save_student
from workbench.ui.context import Context, asked_of
from workbench.ui.pages import home as home_page
from workbench.ui.pages import plan as plan_page
from workbench.ui.presenters import home, operators, plans
from workbench.ui.presenters.study import study_bar
from workbench.ui.readers import study_parts
from workbench.ui.session import restore
from workbench.workspace import Workspace

USUAL = ["softmax", "R2", "R4", "R8", "R16", "linear", "T3o1"]
BLOCKS = 10
NAME = "20260101-000000-b-0000"
MIXED = "0:T1o0,1:softmax,2:T1o0,3-:softmax"


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    """Of the model that ships: its clips are long enough for cheaper attention to pay."""
    return model_facts("embedded")


@pytest.fixture
def bank(workspace: Workspace, facts: ModelFacts) -> Bank:
    return write_bank(workspace.folder("banks") / NAME, facts, rates=("R2", "R4", "T1o0"))


@pytest.fixture
def context(workspace: Workspace) -> Context:
    return Context(workspace, "embedded", Queue(workspace))


def add_cell(bank: Bank, spec: OperatorSpec, *, block: int = 0) -> Bank:
    """Add a cell of any operator, with the numbers of another."""
    writer = BankWriter.open(bank.folder, bank.facts)
    made = bank.cells[0, "R2"].model_copy(update={"block": block, "spec": spec, "file": "", "sha256": ""})
    writer.save_cell(made, build(spec, bank.facts).state_dict())
    return load_bank(bank.folder)


def attention(value: dict[str, Any], plan: list[str]) -> float:
    """Return what attention costs as the page's script adds it up."""
    counted = value["costs"]
    return float(sum(counted["attention"][name] for name in plan) / (len(plan) * counted["core"]))


def test_the_usual_columns_come_first_then_others_by_their_numbers(bank: Bank, facts: ModelFacts) -> None:
    assert list(operators(facts)) == USUAL
    plan = parse_assign("0:T10o3,1:T2o0,2:R32,3-:softmax", facts)
    more = parse_short("2xR3", facts)
    found = operators(facts, bank, [plan, more])
    assert list(found) == [*USUAL, "R3", "R32", "T1o0", "T2o0", "T10o3"]
    assert all(label(spec) == name for name, spec in found.items())


def test_every_measured_cell_has_its_place_and_price(bank: Bank, facts: ModelFacts) -> None:
    columns = operators(facts, bank)
    table = plans.cell_table(bank, facts, columns)
    place = table["columns"].index("T1o0")
    assert [row[place]["error"] for row in table["cells"]] == [
        bank.cells[block, "T1o0"].error for block in range(BLOCKS)
    ]
    assert all(row[table["columns"].index("T3o1")] is None for row in table["cells"])
    prices = plans.costs(facts, columns)["attention"]
    assert list(prices) == list(columns) and all(math.isfinite(price) for price in prices.values())
    assert len(plans.missing_cells(bank, facts, columns)) == BLOCKS * (len(columns) - 1) - len(bank.cells)
    assert (0, "T1o0") not in plans.missing_cells(bank, facts, columns)


def test_home_shows_what_such_a_bank_reaches(bank: Bank, context: Context, facts: ModelFacts) -> None:
    points = home.reachable(bank, facts)
    assert len(points) > 3
    assert all(math.isfinite(number) for point in points for number in point.values())
    labels = {name for point in plans.front_points(bank) for name in point["plan"]}
    assert "T1o0" in labels, "else this test says nothing about it"
    ways = home.payoff(facts, 1.2, 1, bank)["plans"]
    assert any(way["plan"].endswith("xT1o0") for way in ways)
    here, chosen = asked_of(context, {})
    assert home_page.page_value(here, chosen)["reachable"] == points


def test_a_student_and_saved_plans_bring_their_columns(
    workspace: Workspace, context: Context, bank: Bank, facts: ModelFacts
) -> None:
    student = save_student(parse_assign(MIXED, facts), bank, workspace, name="shipped")
    (workspace.folder("banks") / NAME / "bank.json").unlink()
    write_bank(workspace.folder("banks") / "20260102-000000-b-0000", facts, rates=("R2",))
    plans.save_plan(workspace, parse_short("2xT2o0", facts), "kept")
    here, chosen = asked_of(context, {})
    assert chosen.student == student.name
    value = plan_page.page_value(here, chosen)
    assert value["table"]["columns"] == [*USUAL, "T1o0", "T2o0"]
    assert [one["name"] for one in value["saved"]] == ["kept"]
    for shown in (value["student"], *value["saved"]):
        assert 0 < attention(value, shown["plan"]) < 1.5
    at = value["table"]["columns"].index("T1o0")
    assert all(row[at] is None for row in value["table"]["cells"]), "the bank has no such cell"
    assert value["measure"]["rates"] == value["table"]["columns"][1:]
    assert value["measure"]["missing"] == BLOCKS * 8 - BLOCKS
    bar = {step["name"]: step["text"] for step in study_bar(study_parts(here, chosen))["steps"]}
    assert bar["bank"] == f"{BLOCKS} of {BLOCKS * 8} cells"


def test_an_opened_plan_brings_the_price_of_its_operators(
    context: Context, bank: Bank, facts: ModelFacts
) -> None:
    read = next(one for one in plan_page.plan_calls(context) if one.__name__ == "read")
    answer = read({"text": "0:T2o0,1-:softmax"})
    assert answer["plan"] == ["T2o0", *["softmax"] * (BLOCKS - 1)]
    assert math.isfinite(answer["attention"]["T2o0"])


SPECS = (
    "R3",
    "R256",
    "T1o0",
    "T1o7",
    "T2o0",
    "T9999o9999",
    HybridSpec(rate=4, feature_map=ElementwiseSpec(kind="elu")),
)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_any_label_in_a_bank_gives_a_page(spec: Any, bank: Bank, context: Context, facts: ModelFacts) -> None:
    from workbench.operators import parse_rate

    known = parse_rate(spec) if isinstance(spec, str) else spec
    name = label(known)
    bank = add_cell(bank, known)
    plan = [name, *["softmax"] * (BLOCKS - 1)]
    here, chosen = asked_of(context, {})
    value = plan_page.page_value(here, chosen)
    assert value["table"]["cells"][0][value["table"]["columns"].index(name)]["error"] > 0
    assert math.isfinite(attention(value, plan))
    assert home_page.page_value(here, chosen)["reachable"]
    assert study_bar(study_parts(here, chosen))["steps"]
    calls = {one.__name__: one for one in [*plan_page.plan_calls(context), *plan_page.preview_calls(context)]}
    painted = {"plan": plan, "dense": 0, "prompt": "a red ball", "seed": 7}
    assert calls["save_plan"]({**painted, "name": "x"})["saved"][0]["plan"][0] == name
    assert calls["export"](painted)["json"]["blocks"][0]["operator"]["kind"] == known.kind
    assert calls["preview"](painted).get("state") == "missing"


def test_a_plan_of_unheard_operators_is_refused_by_name(
    context: Context, bank: Bank, facts: ModelFacts
) -> None:
    plan = make_plan({0: HybridSpec(rate=4, feature_map=ElementwiseSpec(kind="elu"))}, facts)
    with pytest.raises(InputError, match="R4-elu-"):
        plans.check_writable(plan, operators(facts, bank))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, facts: ModelFacts) -> Iterator[Server]:
    """The real app on a workspace whose bank and student use ReHyAt without overlap."""
    workspace = Workspace.open(tmp_path_factory.mktemp("columns"))
    bank = write_bank(workspace.folder("banks") / NAME, facts, rates=("R2", "T1o0"))
    save_student(parse_assign(MIXED, facts), bank, workspace, name="shipped")
    running = start_app(workspace, Path("embedded"), free_port())
    yield running
    running.process.terminate()
    running.process.wait(timeout=20)


def cell(page: Page, block: int, name: str) -> Any:
    return page.locator(f'.cell[data-block="{block}"][data-op="{name}"]')


@pytest.mark.browser
def test_home_and_plan_open_and_such_a_cell_is_painted(watched: Watched, server: Server) -> None:
    page = watched.page
    page.goto(f"{server.address}/#home")
    expect(page.locator(".pay-answer")).to_contain_text("T1o0")
    page.locator('.page-links [data-page="plan"]').click()
    expect(cell(page, 1, "T1o0")).to_be_visible()
    sums = page.locator(".change-sum")
    expect(sums).to_contain_text("→")
    assert "NaN" not in sums.inner_text() and "–" not in sums.inner_text()
    cell(page, 1, "T1o0").click()
    expect(page.locator(".plan-name")).to_have_text("1xT1o0")
    expect(cell(page, 1, "T1o0")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".change-list .op-tag").first).to_have_text("T1o0")
    assert "NaN" not in page.locator("#page-plan").inner_text() and watched.faults == []


@pytest.mark.browser
def test_an_opened_plan_gets_a_column_that_a_reload_keeps(watched: Watched, server: Server) -> None:
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.address}/#plan")
    expect(cell(page, 0, "T1o0")).to_be_attached()
    page.get_by_label("Write a plan").fill("0:T2o0,1:R2,2-:softmax")
    page.keyboard.press("Enter")
    expect(cell(page, 0, "T2o0")).to_have_attribute("aria-selected", "true")
    page.reload()
    expect(cell(page, 0, "T2o0")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".plan-readouts .readout").first).to_contain_text("1 cell not measured")
    heads = page.locator(".painter thead button").all_inner_texts()
    assert heads[len(USUAL) :] == ["T1o0", "T2o0"]
    assert "NaN" not in page.locator("#page-plan").inner_text() and watched.faults == []
    wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide == seen, "the matrix scrolls, the page does not"
    scroll = page.locator(".painter-scroll")
    assert scroll.evaluate("node => node.scrollWidth > node.clientWidth")


def test_what_came_with_the_workbench_is_nobodys_own_work(context: Context) -> None:
    lend(context.workspace, context.facts)
    lend_students(context.workspace, context.facts)
    chosen = restore(context.workspace, {}, context.facts)
    parts = study_parts(context, chosen)
    assert parts.bank is not None and parts.student is not None
    lines = home.walkthrough(example.load(), parts)
    assert len(lines) == 5 and {line["own"] for line in lines if line["page"] != "plan"} == {""}
    assert "min" not in lines[1]["own"]
