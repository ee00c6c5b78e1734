"""What the workspace holds: named, renamed, deleted when nothing needs it, and the form that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.banks import write_bank
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.models import ModelFacts
from workbench.planning import load_file, parse_short, save
from workbench.surgery import read_student, save_student
from workbench.ui.presenters import stock
from workbench.workspace import Workspace


@pytest.fixture
def filled(workspace: Workspace, micro_facts: ModelFacts) -> Workspace:
    bank = write_bank(workspace.folder("banks") / "a-bank", micro_facts)
    plan = parse_short("2xR4", micro_facts)
    save(plan, workspace.folder("plans") / "a-plan.json")
    save_student(plan, bank, workspace, name="mine")
    return workspace


def rows(workspace: Workspace) -> dict[str, dict[str, object]]:
    return {row["kind"]: row for row in stock.shown(workspace, Queue(workspace))["rows"]}


def test_everything_is_listed_with_its_size_and_who_used_it(filled: Workspace) -> None:
    found = rows(filled)
    assert set(found) == {"banks", "plans", "students"}
    assert found["students"]["name"] == "mine" and found["banks"]["used"] == "1 student"
    assert all(int(row["bytes"]) > 0 for row in found.values())  # type: ignore[call-overload]
    room = stock.shown(filled, Queue(filled))["room"]
    assert room["students"] == found["students"]["bytes"] and room["captures"] == 0


def test_another_name_is_shown_everywhere_and_breaks_nothing(filled: Workspace) -> None:
    for kind in ("plans", "students", "banks"):
        name = str(rows(filled)[kind]["id"])
        stock.rename(filled, {"kind": kind, "id": name, "name": "<b>new</b>"})
        assert rows(filled)[kind]["name"] == "<b>new</b>"
    student = read_student(filled.folder("students") / str(rows(filled)["students"]["id"]))
    assert student.name == "<b>new</b>" and student.tensors
    assert load_file(filled.folder("plans") / "a-plan.json", student.manifest.teacher).name == "<b>new</b>"
    for name in ("", " ", "x" * 500, "a\x00b"):
        with pytest.raises(InputError, match="printable characters"):
            stock.rename(filled, {"kind": "plans", "id": "a-plan.json", "name": name})


def test_what_a_waiting_job_needs_cannot_be_deleted(filled: Workspace) -> None:
    queue = Queue(filled)
    path = filled.folder("banks") / "a-bank"
    job = queue.submit("surgery", {"plan": "2xR4", "bank": str(path), "name": ""})
    with pytest.raises(InputError, match=f"in use by job {job.id}"):
        stock.delete(filled, queue, {"kind": "banks", "id": "a-bank"})
    assert path.is_dir()
    queue.cancel(job.id)
    stock.delete(filled, queue, {"kind": "banks", "id": "a-bank"})
    stock.delete(filled, queue, {"kind": "plans", "id": "a-plan.json"})
    assert set(rows(filled)) == {"students"}


@pytest.mark.parametrize("name", ["../plans", "..", "/etc", "a-bank/../a-bank", "", None, 3])
def test_nothing_outside_is_ever_named(filled: Workspace, name: object) -> None:
    with pytest.raises(InputError, match="There is no"):
        stock.delete(filled, Queue(filled), {"kind": "banks", "id": name})
    with pytest.raises(InputError, match="There is no"):
        stock.find(filled, {"kind": "jobs", "id": name})


def test_a_link_in_the_workspace_is_not_followed(filled: Workspace, tmp_path: Path) -> None:
    outside = write_elsewhere(tmp_path)
    (filled.folder("banks") / "link").symlink_to(outside)
    with pytest.raises(InputError, match="There is no"):
        stock.delete(filled, Queue(filled), {"kind": "banks", "id": "link"})
    assert outside.is_dir() and "link" not in {row["id"] for row in rows(filled).values()}


def write_elsewhere(folder: Path) -> Path:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "bank.json").write_text("{}")
    return outside


def test_the_form_that_made_a_thing_comes_from_its_job(filled: Workspace) -> None:
    queue = Queue(filled)
    job = queue.submit("surgery", {"plan": "2xR4", "bank": "b", "name": "mine"})
    student = stock.find(filled, {"kind": "students", "id": rows(filled)["students"]["id"]})
    with pytest.raises(InputError, match="is gone"):
        stock.form_of(student, queue.list())
    with queue.table.write() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'done', result = ? WHERE id = ?",
            (f'{{"student": "students/{student.id}"}}', job.id),
        )
    assert stock.form_of(student, queue.list()) == ("surgery", job.config)


def test_the_cache_is_emptied_when_nothing_runs(filled: Workspace) -> None:
    (filled.folder("cache") / "x").write_bytes(b"1" * 1000)
    assert stock.clear_cache(filled, Queue(filled)) == 1000
    assert not list(filled.folder("cache").iterdir())
