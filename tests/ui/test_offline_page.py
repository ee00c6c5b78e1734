"""The page of a comparison opens from its folder: no server, no network, clips in sync."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.banks import write_bank
from tests.ui.conftest import Watched
from workbench.comparison import CompareConfig, compare
from workbench.models import ModelFacts
from workbench.planning import parse_short
from workbench.surgery import save_student
from workbench.types import SilentReporter
from workbench.workspace import Workspace

HOSTILE = "</script><script>window.broken=1</script>"


@pytest.mark.browser
def test_the_page_plays_from_a_folder(
    watched: Watched, workspace: Workspace, micro_facts: ModelFacts, tmp_path: Path
) -> None:
    student = save_student(
        parse_short("2xR4", micro_facts), write_bank(tmp_path / "bank", micro_facts), workspace
    )
    config = CompareConfig(model=str(student), prompt=HOSTILE, steps=1)
    folder = compare(config, workspace, reporter=SilentReporter())
    page = watched.page
    page.goto((folder / "index.html").as_uri())
    page.wait_for_function(
        "document.querySelectorAll('video').length === 2 && "
        "[...document.querySelectorAll('video')].every(v => v.currentTime > 0.1)"
    )
    expect(page.locator(".row-prompt b")).to_have_text(HOSTILE)
    expect(page.locator(".curve svg path.line").first).to_be_visible()
    assert page.evaluate("window.broken") is None
    assert watched.outside == [] and watched.faults == []
    watched.shot("7-offline-page")
