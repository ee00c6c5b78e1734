"""A model of the hub by mouse: nothing is asked for without the user's word; then it is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.models.fake_hub import REPOSITORY, serve
from tests.ui.conftest import Watched, free_port, start_app
from workbench.errors import InputError
from workbench.models import ModelFacts
from workbench.workflow import check
from workbench.workspace import Workspace

JOB_MS = 90_000


@pytest.fixture
def hub_and_address(tmp_path: Path, micro_model_folder: Path) -> Iterator[tuple[list[str], str]]:
    """The requests that a hub on this machine gets, and the address of an app that knows only this hub."""
    with serve(micro_model_folder) as hub:
        own = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        workspace = Workspace.open(tmp_path / "workspace")
        running = start_app(workspace, Path("embedded"), free_port(), own)
        yield hub.requests, running.address
        running.process.terminate()
        running.process.wait(timeout=20)


@pytest.mark.browser
def test_a_model_is_fetched_only_on_the_users_word_and_then_offered(
    watched: Watched, hub_and_address: tuple[list[str], str], micro_facts: ModelFacts
) -> None:
    requests, address = hub_and_address
    page = watched.page
    page.goto(f"{address}/#home")
    field, button = page.get_by_label("Hub id", exact=True), page.locator(".hub-button")
    field.fill(REPOSITORY)
    expect(button).to_be_disabled()
    assert requests == []
    field.fill("no hub id <b>")
    page.get_by_label("Use the network").check()
    button.click()
    expect(page.locator(".hub-state")).to_contain_text("'no hub id <b>' is no hub id; give owner/name")
    assert requests == []
    field.fill("nobody/nothing")
    button.click()
    expect(page.locator(".hub-state")).to_contain_text("The hub has no model", timeout=JOB_MS)
    expect(button).to_be_disabled()
    field.fill(REPOSITORY)
    page.get_by_label("Use the network").check()
    button.click()
    use = page.get_by_role("button", name=f"Use {REPOSITORY}")
    expect(use).to_be_visible(timeout=JOB_MS)
    watched.shot("home-fetched")
    use.click()
    expect(page.locator(".model-facts")).to_contain_text(f"{micro_facts.num_heads} × {micro_facts.head_dim}")
    expect(page.locator(".models")).to_have_value(REPOSITORY)
    assert watched.outside == [] and watched.faults == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a b/c", "<b>", "a/b/c", "~/x"])
def test_what_is_no_hub_id_is_refused_before_the_network(name: str) -> None:
    with pytest.raises(InputError, match="is no hub id"):
        check("download", {"model": name, "allow_network": True})


def test_without_the_word_a_missing_model_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="not on this machine"):
        check("download", {"model": "nobody/nothing"})
