"""Sensitivity: every cell gets a velocity error, the model is left as it was, a stop costs nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.distillation.test_measure import Recording, run
from workbench.distillation import (
    SensitivityConfig,
    load_sensitivity,
    measure_sensitivity,
    teacher_states,
    velocity_error,
)
from workbench.errors import InputError, Paused
from workbench.models import LoadedModel
from workbench.planning import choices, parse_short
from workbench.planning.bank import load_bank
from workbench.surgery import FreshCells, install, installed
from workbench.types import ClipSize
from workbench.workspace import Workspace


def test_every_cell_gets_a_velocity_error(micro_model: LoadedModel, workspace: Workspace) -> None:
    bank = run(micro_model, workspace, updates=8)
    config = SensitivityConfig(bank=str(bank.folder), steps=2)
    before = {name: tensor.clone() for name, tensor in micro_model.transformer.state_dict().items()}
    path = measure_sensitivity(micro_model, config, workspace, reporter=Recording())
    result = load_sensitivity(load_bank(path.parent, micro_model.facts))
    assert result is not None and set(result.errors) == set(bank.cells)
    assert all(0 < cell.error_low <= cell.error <= cell.error_high for cell in result.cells)
    assert installed(micro_model) is None
    after = micro_model.transformer.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
    size = ClipSize(*bank.manifest.size)
    offered = choices(bank, micro_model.facts, size, errors=result.errors)
    assert {choice.error for choice in offered[0]} == {
        0.0,
        *(v for (b, _), v in result.errors.items() if b == 0),
    }


def test_a_stop_costs_nothing(micro_model: LoadedModel, workspace: Workspace) -> None:
    bank = run(micro_model, workspace, updates=8)
    config = SensitivityConfig(bank=str(bank.folder), steps=2)
    whole = measure_sensitivity(micro_model, config, workspace, reporter=Recording()).read_text()
    paused = Recording(pause_after=2)
    with pytest.raises(Paused):
        measure_sensitivity(micro_model, config, workspace, reporter=paused)
    assert paused.saved is not None and len(paused.saved.meta["found"]) == 2
    again = measure_sensitivity(micro_model, config, workspace, reporter=Recording(state=paused.saved))
    assert again.read_text() == whole


def test_a_bank_that_ships_is_not_changed(
    micro_model: LoadedModel, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's folder of banks may be read-only, and belongs to every workspace."""
    bank = run(micro_model, workspace, updates=4)
    package = tmp_path / "package"
    shutil.copytree(bank.folder, package / "micro")
    for module in ("workbench.planning.bank", "workbench.distillation.sensitivity"):
        monkeypatch.setattr(f"{module}.SHIPPED", package)
    before = {file: file.read_bytes() for file in package.rglob("*") if file.is_file()}
    reporter = Recording()
    path = measure_sensitivity(
        micro_model, SensitivityConfig(bank="micro", steps=2), workspace, reporter=reporter
    )
    assert {file: file.read_bytes() for file in package.rglob("*") if file.is_file()} == before
    assert path.parent.parent == workspace.folder("banks")
    copied = load_bank(path.parent, micro_model.facts)
    found = load_sensitivity(copied)
    assert found is not None and set(found.errors) == set(copied.cells) == set(bank.cells)
    assert any(path.parent.name in note for note in reporter.notes)


def test_a_whole_plan_is_judged_on_a_few_states(micro_model: LoadedModel, workspace: Workspace) -> None:
    bank = run(micro_model, workspace, blocks=(0, 1, 2), rates=("linear",), updates=8)
    states = teacher_states(micro_model, workspace, count=2, steps=2)
    before = {name: tensor.clone() for name, tensor in micro_model.transformer.state_dict().items()}
    few, all_blocks = (
        velocity_error(micro_model, parse_short(name, micro_model.facts), bank, states)
        for name in ("1xlinear", "3xlinear")
    )
    assert 0 < few < all_blocks
    assert velocity_error(micro_model, parse_short("softmax", micro_model.facts), bank, states) == 0
    after = micro_model.transformer.state_dict()
    assert set(after) == set(before) and installed(micro_model) is None
    with pytest.raises(InputError, match="R4"):
        velocity_error(micro_model, parse_short("1xR4", micro_model.facts), bank, states)


def test_students_and_foreign_banks_are_refused(
    micro_model: LoadedModel, workspace: Workspace, tmp_path: Path
) -> None:
    from workbench.operators import parse_rate
    from workbench.planning.plan import make_plan

    bank = run(micro_model, workspace, updates=4)
    with pytest.raises(InputError, match="not a bank"):
        measure_sensitivity(
            micro_model, SensitivityConfig(bank=str(tmp_path)), workspace, reporter=Recording()
        )
    install(micro_model, make_plan({0: parse_rate("R4")}, micro_model.facts), FreshCells(micro_model.facts))
    with pytest.raises(InputError, match="student"):
        measure_sensitivity(
            micro_model, SensitivityConfig(bank=str(bank.folder)), workspace, reporter=Recording()
        )
    with pytest.raises(InputError, match="student"):
        run(micro_model, workspace, updates=4)
