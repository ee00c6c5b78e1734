"""The demo and the blind vote open from a folder: no server, no network, nothing installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.banks import write_bank
from tests.ui.conftest import Watched
from workbench.capture import CaptureConfig, run
from workbench.cli.demo import demo
from workbench.comparison import CompareConfig, Side, compare, export
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts
from workbench.planning import parse_short, save
from workbench.types import SilentReporter
from workbench.workspace import Workspace

HOSTILE = "</script><script>window.broken=1</script>"
pytestmark = pytest.mark.browser


@pytest.fixture
def study(micro_model: LoadedModel, micro_facts: ModelFacts, workspace: Workspace) -> Workspace:
    bank = write_bank(workspace.folder("banks") / "a-bank", micro_facts)
    plan = workspace.folder("plans") / "a.json"
    save(parse_short("2xR4", micro_facts), plan)
    config = CompareConfig(
        model=str(micro_facts.source),
        prompt=HOSTILE,
        steps=1,
        sides=(
            Side(plan=str(plan), bank=str(bank.folder)),
            Side(plan="3xlinear", bank=str(bank.folder), name=HOSTILE),
        ),
    )
    compare(config, workspace, reporter=SilentReporter())
    run(micro_model, CaptureConfig(prompt="a ball", steps=1), workspace, reporter=SilentReporter())
    return workspace


def test_the_demo_and_the_vote_open_from_a_folder(watched: Watched, study: Workspace, tmp_path: Path) -> None:
    demo(out=tmp_path / "demo", workspace=study.root)
    page = watched.page
    page.goto((tmp_path / "demo" / "index.html").as_uri())
    page.wait_for_selector(".overlay-part[data-ready]")
    before = page.locator(".overlay-part").get_attribute("data-ready")
    page.locator(".head-tile").nth(1).click()
    expect(page.locator(".overlay-part")).not_to_have_attribute("data-ready", str(before))
    expect(page.locator(".demo-plans [role=status]")).to_contain_text("2xR4, rendered")
    page.locator('.cell[data-block="0"][data-op="softmax"]').click()
    expect(page.locator(".demo-plans [role=status]")).to_contain_text("was not rendered")
    page.locator(".demo-plans .chip").nth(1).click()
    expect(page.locator(".demo-player .clip[data-column='2'] b")).to_have_text(HOSTILE)
    page.wait_for_selector('.demo-player [data-verb="play"][data-on="true"]')
    watched.shot("8-demo")
    (comparison,) = study.folder("comparisons").iterdir()
    page.goto((export(comparison, tmp_path / "vote", form="vote") / "index.html").as_uri())
    for pair in range(2):
        expect(page.locator(".vote .hint")).to_contain_text(f"pair {pair + 1} of 2")
        expect(page.locator(".player")).to_have_count(0)
        page.locator('.vote [data-choice="left"]').click()
    expect(page.locator(".player")).to_be_visible()
    assert page.evaluate("window.broken") is None
    assert watched.outside == [] and watched.faults == []


def test_a_folder_that_holds_something_is_left_alone(study: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        demo(out=tmp_path, workspace=study.root)
    assert (tmp_path / "mine.txt").read_text() == "keep"
