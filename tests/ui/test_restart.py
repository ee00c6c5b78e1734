"""A page outlives its server: it says so, finds it again, and shows the same study."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.banks import write_bank
from tests.ui.conftest import free_port, start_app, watch
from workbench.models import ModelFacts
from workbench.workspace import Workspace

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("ui-restart")]


def test_a_page_outlives_its_server(
    browser: Browser, tmp_path: Path, micro_model_folder: Path, micro_facts: ModelFacts
) -> None:
    workspace = Workspace.open(tmp_path / "w")
    write_bank(workspace.folder("banks") / "20260101-000000-old-0000", micro_facts, blocks=(0,))
    write_bank(workspace.folder("banks") / "20260102-000000-new-0000", micro_facts, blocks=(0, 1))
    port = free_port()
    first = start_app(workspace, micro_model_folder, port)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = watch(context)
    try:
        watched.page.goto(f"{first.address}/?bank=20260101-000000-old-0000#plan")
        bank = watched.page.locator(".study-step", has_text="bank")
        expect(bank).to_contain_text("3 of 18 cells")
        first.process.kill()
        first.process.wait(timeout=20)
        expect(watched.page.locator(".server-lost")).to_be_visible(timeout=20_000)
        second = start_app(workspace, micro_model_folder, port)
        expect(watched.page.locator(".server-lost")).to_be_hidden(timeout=30_000)
        watched.page.locator('.cell[data-block="0"][data-op="R4"]').click()
        expect(watched.page.locator(".plan-readouts")).not_to_contain_text("100 %", timeout=20_000)
        expect(bank).to_contain_text("3 of 18 cells")
        page = watched.page
        page.locator('.page-links [data-page="home"]').click()
        page.get_by_label("Model", exact=True).select_option("wan2.1-t2v-1.3b")
        expect(page.locator(".model-facts")).to_contain_text("12 × 128")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator('[data-part="model"]')).to_contain_text("30 × 12", timeout=20_000)
        expect(page.locator('[data-part="bank"]')).to_contain_text("missing")
        page.evaluate("window.kept = true")
        page.locator('.page-links [data-page="plan"]').click()
        expect(page.locator(".painter tbody tr")).to_have_count(30)
        assert page.evaluate("window.kept"), "going to another page loads nothing anew"
        second.process.terminate()
        second.process.wait(timeout=20)
    finally:
        first.process.kill()
        context.close()
