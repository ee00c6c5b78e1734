"""Students that ship: found by name, lent, in the wheel, refused where their teacher is another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.banks import write_bank
from tests.conftest import save_micro_model
from workbench.comparison import CompareConfig
from workbench.comparison import check as check_comparison
from workbench.distillation import FinetuneConfig, check_finetune
from workbench.errors import InputError
from workbench.evaluation import SuiteConfig, check_suite
from workbench.export import export_student
from workbench.models import ModelFacts
from workbench.planning import parse_short
from workbench.sampling import GenerateConfig, sample
from workbench.surgery import (
    check_model,
    is_student,
    lend_students,
    open_model,
    read_student,
    save_student,
    shipped,
    shipped_students,
)
from workbench.workspace import Workspace

ROOT = Path(__file__).parents[2]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ships(
    micro_facts: ModelFacts, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A student of the tiny model that ships as "micro-student"."""
    bank = write_bank(tmp_path / "bank", micro_facts)
    made = save_student(parse_short("2xR4", bank.facts), bank, workspace, name="micro-student")
    (tmp_path / "shipped").mkdir()
    made.rename(tmp_path / "shipped" / "micro-student")
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shipped")
    return "micro-student"


def test_a_shipped_student_is_taken_by_name(ships: str, workspace: Workspace, tmp_path: Path) -> None:
    assert is_student(ships) and read_student(ships).plan.short_name == "2xR4"
    check_model(ships)
    check_comparison(CompareConfig(model=ships, prompt="a red ball"))
    check_suite(SuiteConfig(models=[ships], prompts="given", texts=["a red ball"]))
    assert check_finetune(FinetuneConfig(model=ships)).folder.name == ships
    assert (export_student(Path(ships), tmp_path / "bundle") / "README.md").is_file()
    model = open_model(ships, device="cpu")
    assert model.name == ships and model.provenance["surgery"]["plan"] == "2xR4"
    assert sample(model, GenerateConfig(prompt="a red ball")).frames.shape == (9, 48, 32, 3)


def test_the_command_line_lists_it_and_knows_its_facts(ships: str, call: Call) -> None:
    code, out, _ = call("models", "--json")
    listed = json.loads(out)["students"]
    assert code == 0 and [(one["name"], one["plan"]) for one in listed] == [(ships, "2xR4")]
    code, out, _ = call("facts", ships, "--json")
    assert code == 0 and json.loads(out)["plan"] == "2xR4"


def test_other_weights_of_its_teacher_are_refused(ships: str, tmp_path: Path) -> None:
    other = save_micro_model(tmp_path / "other", seed=7)
    with pytest.raises(InputError, match=r"other weights .* than those of") as refused:
        open_model(ships, device="cpu", teacher=str(other))
    assert str(refused.value).count(". ") == 0
    with pytest.raises(InputError, match="is not a student folder"):
        read_student("no-such-student")


def test_a_new_workspace_is_lent_it(ships: str, micro_facts: ModelFacts, workspace: Workspace) -> None:
    assert lend_students(workspace, micro_facts.model_copy(update={"fingerprint": "0" * 64})) == ()
    (lent,) = lend_students(workspace, micro_facts)
    assert read_student(lent).name == ships and lent.parent == workspace.folder("students")
    assert lend_students(workspace, micro_facts) == ()


def test_the_wheel_carries_it(ships: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    package = project / "workbench" / "surgery"
    package.mkdir(parents=True)
    for folder in (project / "workbench", package):
        (folder / "__init__.py").touch()
    shutil.copytree(shipped.SHIPPED, package / "students")
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, project / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=project, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = ("student.json", "plan.json", "cells.safetensors")
    assert {f"workbench/surgery/students/{ships}/{file}" for file in files} <= names


def test_every_student_that_ships_loads() -> None:
    for name in shipped_students():
        model = open_model(name, device="cpu")
        assert model.provenance["surgery"]["plan"] == read_student(name).manifest.plan
        assert read_student(name).manifest.provenance["summary"]
        size = sum(path.stat().st_size for path in (shipped.SHIPPED / name).iterdir())
        assert size <= 15_000_000
