"""Widgets: what a page without Python shows in a real browser, and what a kernel answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.banks import write_bank
from workbench import capture, widgets
from workbench.capture import CaptureConfig
from workbench.models import LoadedModel
from workbench.types import SilentReporter
from workbench.workspace import Workspace

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
pytestmark = pytest.mark.browser


@pytest.fixture
def captured(micro_model: LoadedModel, workspace: Workspace) -> capture.Capture:
    config = CaptureConfig(model=str(micro_model.folder), prompt=HOSTILE, steps=2)
    return capture.load(capture.run(micro_model, config, workspace, reporter=SilentReporter()))


def test_the_attention_view_works_without_python(
    captured: capture.Capture, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "view.html"
    file.write_text(widgets.attention_view(captured).page(), encoding="utf-8")
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri())
    expect(page.locator(".sprite-part")).to_have_attribute("data-ready", f"{captured.folder.name}:0")
    expect(page.locator(".overlay-part")).to_have_attribute("data-ready", "0.0.1.3.2.softmax")
    page.locator(".head-tile").nth(1).click()
    expect(page.locator(".head-title")).to_have_text("Head 1")
    expect(page.locator(".overlay-part")).to_have_attribute("data-ready", "0.1.1.3.2.softmax")
    page.locator(".frame-view").click(position={"x": 5, "y": 5})
    expect(page.locator(".toasts")).to_contain_text("run the notebook to ask for more")
    assert page.title() == "Workbench" and faults == []
    page.close()


def test_a_part_is_answered_by_python_and_a_refusal_is_a_sentence(captured: capture.Capture) -> None:
    view = widgets.attention_view(captured)
    sent: list[dict[str, Any]] = []
    view.send = sent.append
    view._receive(view, {"call": "row", "question": {"patch": [0, 0, 0]}, "ticket": "a"}, [])
    view._receive(view, {"call": "row", "question": {"patch": [99, 0, 0]}, "ticket": "b"}, [])
    view._receive(view, {"call": "open", "question": {}, "ticket": "c"}, [])
    assert [message["ticket"] for message in sent] == ["a", "b"]
    assert sent[0]["answer"]["patch"] == [0, 0, 0]
    assert "Frame must be a whole number" in sent[1]["answer"]["error"]


def test_the_painter_gives_the_plan_that_stands_in_it(
    micro_model: LoadedModel, browser: Browser, tmp_path: Path
) -> None:
    bank = write_bank(tmp_path / "bank", micro_model.facts, rates=("R4",), blocks=(0, 2))
    painter = widgets.plan_painter(bank)
    assert painter.plan.short_name == "softmax"
    file = tmp_path / "painter.html"
    file.write_text(painter.page(), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.locator('.cell[data-block="2"][data-op="R4"]').click()
    expect(page.locator(".plan-name")).to_have_text("1xR4")
    painted = page.evaluate(
        "[...document.querySelectorAll('.cell[aria-selected=true]')].map(c => c.dataset.op)"
    )
    page.close()
    painter.props = {"painter": {**painter.props["painter"], "value": painted}}
    assert sorted(painter.plan.converted) == [2]
