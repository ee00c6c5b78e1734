"""The Plan page on its own, over a true bank's numbers: budget, presets, undo, dense steps, changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.banks import write_bank
from tests.ui.conftest import Server, Watched
from workbench.jobs import Queue
from workbench.models import ModelFacts
from workbench.planning import parse_short
from workbench.ui.context import Context, asked_of
from workbench.ui.pages.plan import page_value
from workbench.ui.presenters import plans
from workbench.workspace import Workspace

HOSTILE = '<img src=x onerror="window.broken=1">'
pytestmark = pytest.mark.browser


@pytest.fixture
def value(workspace: Workspace, micro_model_folder: Path, micro_facts: ModelFacts) -> dict[str, Any]:
    """What the server gives the page: blocks 0 and 1 measured at R2, R4 and linear, one plan saved."""
    write_bank(workspace.folder("banks") / "20260101-000000-b-0000", micro_facts, blocks=(0, 1))
    plans.save_plan(workspace, parse_short("1xR2", micro_facts), HOSTILE)
    context = Context(workspace, str(micro_model_folder), Queue(workspace))
    here, chosen = asked_of(context, {})
    given = page_value(here, chosen)
    given["preview"]["live"] = False
    return given


@pytest.fixture
def page(watched: Watched, bench: Server, value: dict[str, Any]) -> Page:
    page = watched.page
    page.goto(f"{bench.address}/#plan")
    page.wait_for_function("window.ready")
    answers = {
        "measure_price": {"cells": 1, "seconds": 20},
        "optimum": {"plan": ["R4", "linear", "softmax"]},
        "preview": {"state": "missing", "teacher": "", "clip": "", "price": None},
        "measure": {"job": "j"},
        "make_student": {"job": "j"},
    }
    page.evaluate("([value, answers]) => place('plan', {value}, answers)", [value, answers])
    expect(page.locator(".plan-name")).to_have_text("all softmax")
    return page


def cell(page: Page, block: int, label: str) -> Any:
    return page.locator(f'.cell[data-block="{block}"][data-op="{label}"]')


def asked(page: Page, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(
        "name => window.asked.filter(one => one[0] === name).map(one => one[1])", name
    )
    return found


def test_presets_paint_measured_cells_and_undo_takes_them_back(page: Page) -> None:
    page.get_by_label("Preset").select_option(label="all measured R4")
    expect(page.locator(".plan-name")).to_have_text("2xR4")
    page.get_by_label("Preset").select_option(label="every other block linear")
    expect(page.locator(".plan-name")).to_have_text("1xlinear")
    cell(page, 1, "linear").focus()
    page.keyboard.press("Control+z")
    expect(page.locator(".plan-name")).to_have_text("2xR4")
    page.keyboard.press("Control+Shift+z")
    expect(page.locator(".plan-name")).to_have_text("1xlinear")
    page.get_by_label("Preset").select_option(label="exact optimum at 65 % of attention")
    expect(page.locator(".plan-name")).to_have_text("1xR4+1xlinear")


def test_the_painter_by_keyboard_changes_cost_error_and_changes(page: Page) -> None:
    readouts = page.locator(".plan-readouts")
    expect(readouts.locator(".readout").first).to_contain_text("0")
    cell(page, 0, "softmax").focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".plan-name")).to_have_text("1xR4")
    expect(readouts).to_contain_text("95 %:")
    expect(readouts.locator(".readout").nth(1)).not_to_contain_text("100")
    expect(page.locator(".change-list")).to_contain_text("block 0")
    expect(page.locator(".change-list .op-tag").last).to_have_text("R4")
    assert "paint=R4.softmax.softmax" in page.url


def test_the_budget_asks_for_the_exact_optimum_and_is_one_step_of_undo(page: Page, value: Any) -> None:
    slider = page.get_by_label("Budget")
    box = slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8, steps=4)
    page.mouse.up()
    expect(page.locator(".plan-name")).to_have_text("1xR4+1xlinear")
    wish = asked(page, "optimum")[-1]
    assert wish["unit"] == "flops" and wish["ids"]["bank"] == value["ids"]["bank"]
    assert 0 < wish["budget"] < 3 * value["costs"]["core"]
    cell(page, 0, "R4").focus()
    page.keyboard.press("Control+z")
    expect(page.locator(".plan-name")).to_have_text("all softmax")


def test_a_budget_that_cannot_be_met_is_said_where_it_was_asked(page: Page) -> None:
    page.evaluate("() => { window.answers.optimum = {error: 'The measured cells cannot come that low.'}; }")
    page.get_by_label("Budget").focus()
    page.keyboard.press("Home")
    expect(page.locator(".budget-note")).to_contain_text("cannot come that low")
    expect(page.locator(".plan-name")).to_have_text("all softmax")


def test_dense_first_steps_cost_and_stay_in_the_link(page: Page) -> None:
    page.get_by_label("Preset").select_option(label="all measured linear")
    attention = page.locator(".plan-readouts .readout").nth(1)
    before = attention.inner_text()
    page.get_by_label("dense first steps").fill("1")
    expect(attention).not_to_have_text(before)
    assert "dense=1" in page.url
    page.locator("#make-student").click()
    assert asked(page, "make_student")[-1]["dense"] == 1


def test_a_plan_with_an_unmeasured_cell_names_its_price_and_can_be_measured(page: Page) -> None:
    plan = {"plan": ["softmax", "R2", "R4"], "dense": 0, "short": "1xR2+1xR4", "name": "x", "file": ""}
    page.evaluate("plan => { window.answers.read = plan; }", plan)
    page.get_by_label("Write a plan").fill("0:softmax,1:R2,2:R4")
    page.keyboard.press("Enter")
    expect(page.locator(".plan-name")).to_have_text("1xR2+1xR4")
    expect(page.locator(".wanted")).to_contain_text(
        "Block 2 at R4 is not measured. Measuring takes about 20 s"
    )
    expect(page.locator(".plan-readouts .readout").first).to_contain_text("1 cell not measured")
    page.locator(".wanted .button").click()
    wish = asked(page, "measure")[-1]
    assert (wish["blocks"], wish["rates"]) == ("2", ["R4"])


def test_the_measure_form_asks_with_its_words(page: Page) -> None:
    form = page.locator(".measure-form")
    expect(form).to_contain_text("6 of 18 cells measured")
    form.get_by_label("blocks to measure").fill("2")
    form.locator('[data-rate="R8"]').click()
    form.get_by_label("updates").fill("8")
    form.get_by_role("button", name="Measure").click()
    wish = asked(page, "measure")[-1]
    assert wish["blocks"] == "2" and wish["updates"] == 8
    assert "R8" not in wish["rates"] and "T2o1" in wish["rates"]


def test_saved_names_are_text_and_a_saved_plan_loads(page: Page) -> None:
    page.locator(".base").select_option(label=HOSTILE)
    expect(page.locator(".change-list")).to_contain_text("block 1")
    page.get_by_role("button", name="Load it").click()
    expect(page.locator(".plan-name")).to_have_text("1xR2")
    expect(page.locator(".change-list")).to_have_text("none")
    assert page.evaluate("window.broken") is None


def test_a_rendered_plan_shows_its_figures(page: Page) -> None:
    page.evaluate(
        """() => { window.answers.preview = {state: 'done', teacher: '/t.mp4', clip: '/c.mp4', psnr: 31.24,
        equal: false, seconds: 6.3, velocity: 0.0234, device: 'cpu', fps: 8}; }"""
    )
    cell(page, 0, "R4").click()
    expect(page.locator(".preview-state")).to_contain_text("up to date", timeout=10_000)
    facts = page.locator(".preview-facts")
    expect(facts).to_contain_text("31.2 dB")
    expect(facts).to_contain_text(".023")
    assert page.locator('[data-view="difference"] video').count() == 2
    cell(page, 1, "R4").click()
    expect(page.locator(".preview")).to_have_class("preview behind")


def test_a_repeated_answer_draws_no_line_backwards(watched: Watched, bench: Server) -> None:
    page = watched.page
    page.goto(bench.address)
    page.wait_for_function("window.ready")
    path = page.evaluate(
        """async () => {
          const { lossChart } = await import('/workbench/static/loss.js');
          const chart = lossChart(document.getElementById('part'));
          const rows = [1, 2, 3, 4].map(step => ({ step, cells: { 'block-00-R4': 1 / step } }));
          chart.feed(rows);
          chart.feed(rows);
          chart.feed([{ step: 2, cells: { 'block-00-R4': 0.4 } }]);
          return [chart.count(), document.querySelector('.loss-chart .line').getAttribute('d')];
        }"""
    )
    places = [float(part.split(" ")[0]) for part in path[1].replace("M", "L").split("L")[1:]]
    assert path[0] == 4 and places == sorted(places) and len(places) == 4


def test_forms_of_earlier_jobs_are_restored(page: Page, value: dict[str, Any]) -> None:
    tell = "([kind, made]) => import('/workbench/static/bus.js').then(({ tell }) => tell(kind, made))"
    page.evaluate(tell, ["restore measure", {"blocks": [0, 2], "rates": ["R8"], "updates": 33}])
    expect(page.get_by_label("blocks to measure")).to_have_value("0,2")
    expect(page.locator(".measure-form .updates")).to_have_value("33")
    expect(page.locator('.measure-form [aria-pressed="true"]')).to_have_count(1)
    expect(page.locator('[data-rate="R8"]')).to_have_attribute("aria-pressed", "true")
    kept = value["saved"][0]["file"]
    page.evaluate(tell, ["restore surgery", {"plan": f"/plans/{kept}", "bank": "b", "name": HOSTILE}])
    expect(page.locator(".plan-name")).to_have_text("1xR2")
    expect(page.get_by_label("name", exact=True)).to_have_value(HOSTILE)
    page.evaluate(
        "() => { window.answers.read = {plan: ['linear', 'R4', 'softmax'], dense: 0, short: 'x'}; }"
    )
    made = {"operators": ["linear", "R4", "softmax"], "dense_first": 1, "prompt": "a cube", "seed": 5}
    page.evaluate(tell, ["restore render", made])
    expect(page.locator(".plan-name")).to_have_text("1xlinear+1xR4")
    expect(page.get_by_label("dense first steps")).to_have_value("1")
    expect(page.locator(".preview-form .prompt")).to_have_value("a cube")
    assert asked(page, "read")[-1]["text"] == "0:linear,1:R4,2:softmax"
