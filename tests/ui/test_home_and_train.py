"""Home and Train on their own: before any click, the model picker, presets, refusals, the live run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.banks import write_bank
from tests.ui.conftest import Server, Watched
from workbench.distillation import FinetuneConfig
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.models import ModelFacts
from workbench.planning import parse_short
from workbench.surgery import save_student
from workbench.ui.context import Context, asked_of
from workbench.ui.pages import home as home_page
from workbench.ui.pages import train as train_page
from workbench.ui.presenters import home, training
from workbench.workspace import Workspace

HOSTILE = '<img src=x onerror="window.broken=1">'


@pytest.fixture
def context(workspace: Workspace, micro_model_folder: Path, micro_facts: ModelFacts) -> Context:
    bank = write_bank(workspace.folder("banks") / "20260101-000000-b-0000", micro_facts)
    save_student(parse_short("2xR4", micro_facts), bank, workspace, name=HOSTILE)
    return Context(workspace, str(micro_model_folder), Queue(workspace))


def place(watched: Watched, bench: Server, part: str, value: Any, answers: Any) -> Page:
    page = watched.page
    page.goto(f"{bench.address}/#{part}")
    page.wait_for_function("window.ready")
    page.evaluate("([part, value, answers]) => place(part, {value}, answers)", [part, value, answers])
    return page


@pytest.mark.browser
def test_home_shows_model_and_machine_before_any_click(
    watched: Watched, bench: Server, context: Context, micro_facts: ModelFacts
) -> None:
    here, chosen = asked_of(context, {})
    value = home_page.page_value(here, chosen)
    other = home.model_data(here.at(chosen.model_copy(update={"model": "wan2.1-t2v-1.3b"})).facts)
    answers = {
        "pay": home.payoff(micro_facts, 1.2, 1),
        "doctor": {"text": "device  cpu · 2 cores", "problems": []},
        "facts": {**other, "name": HOSTILE},
    }
    page = place(watched, bench, "home", value, answers)
    page.evaluate("() => import('/workbench/static/bus.js').then(({ tell }) => tell('page', 'home'))")
    expect(page.locator(".doctor")).to_contain_text("cpu · 2 cores")
    expect(page.locator(".pay-answer")).not_to_be_empty()
    expect(page.locator(".model-facts")).to_contain_text("2 × 12")
    page.get_by_label("Model", exact=True).select_option("wan2.1-t2v-1.3b")
    expect(page.locator(".model-facts")).to_contain_text("12 × 128")
    expect(page.locator(".model-note")).to_contain_text("not on this machine")
    assert page.evaluate("window.broken") is None and watched.faults == []


def test_facts_are_those_of_the_cost_model(micro_facts: ModelFacts) -> None:
    from workbench.planning import block_flops

    shown = home.flops_data(micro_facts, 1)
    assert shown is not None
    grid = micro_facts.token_grid(micro_facts.default_size)
    total = sum(part for _, part in shown["parts"])
    assert total == pytest.approx(block_flops(micro_facts, grid).total * micro_facts.num_blocks)
    assert home.flops_data(micro_facts, 1000) is None, "a clip that the model cannot make is left out"


@pytest.mark.parametrize("question", [{}, {"model": ""}, {"model": "a\0b"}, {"model": 7}])
def test_a_model_without_a_name_is_refused(question: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="model name is empty"):
        home_page.model_word(question)


@pytest.mark.browser
def test_train_fills_presets_shows_refusals_and_follows_the_run(
    watched: Watched, bench: Server, context: Context
) -> None:
    here, chosen = asked_of(context, {})
    value = train_page.page_value(here, chosen)
    price = {
        "seconds": 62,
        "basis": "b",
        "memory": None,
        "disk": 1_000_000,
        "command": "workbench finetune",
        "cell": "c",
    }
    run = {
        "id": "j1", "state": "running", "stage": "finetuning", "step": 20, "steps": 40, "done": 0.5,
        "left": 30, "seconds": 31, "rows": [{"step": 20, "cells": {"loss": 0.0321}}], "samples": [],
        "next": 9, "log": HOSTILE, "message": "", "resumable": False, "pace": 1.5, "prompt": "",
        "command": "",
    }  # fmt: skip
    page = place(watched, bench, "train", value, {"finetune_price": price, "finetuning": {"id": ""}})
    expect(page.locator("#finetune-button")).to_have_text("Start, about 1 min 2 s")
    expect(page.locator(".as-text")).to_have_text("workbench finetune")
    page.locator('input[value="1min"]').check()
    expect(page.locator('[data-field="updates"]')).to_have_value("40")
    page.evaluate(
        "() => { window.answers.finetune_price = {error: \"'lr': Input should be greater than 0.\"}; }"
    )
    page.locator('[data-field="lr"]').fill("0")
    page.keyboard.press("Tab")
    expect(page.locator(".refusal")).to_contain_text("greater than 0")
    expect(page.locator("#finetune-button")).to_be_disabled()
    page.evaluate("run => { window.answers.finetuning = run; }", run)
    page.evaluate(
        """() => import('/workbench/static/bus.js').then(({ tell }) =>
        tell('jobs', {jobs: [{id: 'j1', kind: 'finetune', state: 'running'}], rows: []}))"""
    )
    expect(page.locator(".run-line")).to_contain_text("20 of 40")
    expect(page.locator(".run-line")).to_contain_text(".0321")
    expect(page.locator(".run-log")).to_have_text(HOSTILE)
    assert page.evaluate("window.broken") is None and watched.faults == []


def test_the_form_of_a_finetuning_is_checked_as_the_command_line_is(context: Context) -> None:
    here, chosen = asked_of(context, {})
    settings = dict(training.preset_data(here.facts)[0]["settings"])
    question = {"student": chosen.student, "settings": settings}
    price = training.price(here, training.settings_of(here, question))
    assert price["command"].startswith("workbench finetune --model") and "--held-out" in price["command"]
    assert "--sample-every 20" in price["command"] and "--ema 0.9" in price["command"]
    for change, sentence in (
        ({"carried": {"objective": "<b>"}}, "'objective'"),
        ({"updates": 0}, "'updates'"),
        ({"updates": 1.5}, "Updates must be a whole number"),
        ({"lr": None}, "lr must be a number"),
        ({"method": "<b>"}, "'method'"),
    ):
        with pytest.raises(InputError, match=sentence):
            training.price(here, training.settings_of(here, {**question, "settings": {**settings, **change}}))
    with pytest.raises(InputError, match="No student is chosen"):
        training.settings_of(here, {**question, "student": "../../etc"})


def test_presets_are_those_of_the_command_line_where_they_make_sense(micro_facts: ModelFacts) -> None:
    from workbench.distillation import PRESETS
    from workbench.models import model_facts

    small = [one["key"] for one in training.preset_data(model_facts("embedded"))]
    large = {one["key"]: one for one in training.preset_data(model_facts("wan2.1-t2v-1.3b"))}
    assert small == ["1min", "10min", "overnight"] and list(large) == list(PRESETS)
    assert large["24gb"]["settings"]["carried"] == {
        "ema": 0.98, "gradient_checkpointing": True, "memory_gb": 22.0, "cache_megabytes": 8192,
    }  # fmt: skip
    assert large["10min"]["title"] == "10min", "it takes ten minutes with the embedded model only"


@pytest.mark.browser
def test_the_form_of_a_finetuning_is_restored(watched: Watched, bench: Server, context: Context) -> None:
    here, chosen = asked_of(context, {})
    value = train_page.page_value(here, chosen)
    made = {
        "model": str(here.workspace.folder("students") / chosen.student), "method": "maps", "updates": 77,
        "precision": "bfloat16", "sample_every": 11, "sample_prompt": "a red ball",
    }  # fmt: skip
    answers = {"finetuning": {"id": ""}, "finetune_form": training.restored(made)}
    page = place(watched, bench, "train", value, answers)
    tell = "made => import('/workbench/static/bus.js').then(({ tell }) => tell('restore finetune', made))"
    page.evaluate(tell, made)
    expect(page.locator('[data-field="updates"]')).to_have_value("77")
    expect(page.locator('[data-field="sample_every"]')).to_have_value("11")
    expect(page.locator(".method")).to_have_value("maps")
    expect(page.locator(".sample-prompt")).to_have_value("a red ball")
    expect(page.locator(".carried")).to_contain_text("precision bfloat16")
    page.wait_for_function("window.asked.at(-1)[0] === 'finetune_price'")
    asked = page.evaluate("window.asked.at(-1)[1]")
    settings = training.settings_of(here, asked)
    config = FinetuneConfig.parse(settings, what="settings")
    assert config == FinetuneConfig.parse({**made, "lr": 5e-4}, what="settings")
    assert watched.faults == []
