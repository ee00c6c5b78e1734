"""`accelerate launch` with the shipped configuration: two processes give the result of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.distillation.test_measure import run
from workbench.jobs.tensors import load_tensors
from workbench.models import LoadedModel
from workbench.operators import parse_rate
from workbench.planning import load_bank
from workbench.planning.plan import make_plan
from workbench.surgery import save_student
from workbench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def command(workspace: Workspace, *words: str, processes: int) -> dict[str, object]:
    """Run a command here, alone or under `accelerate launch`, and return its JSON answer."""
    start = ["-m"]
    if processes > 1:
        config = str(ROOT / "accelerate.yaml")
        start = ["-m", "accelerate.commands.launch", "--config_file", config, "-m"]
    where = ["--here", "--workspace", str(workspace.root), "--json"]
    answer = subprocess.run(
        [sys.executable, *start, "workbench.cli", *words, *where],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    document: dict[str, object] = json.loads(answer.stdout)
    return document


def test_cells_are_divided_among_processes(micro_model: LoadedModel, workspace: Workspace) -> None:
    words = ["measure", "--model", str(micro_model.folder), "--rates", "R4,linear", "--updates", "20"]
    words += ["--prompts", "2", "--held-out", "1", "--steps", "2", "--blocks", "0,2"]
    alone, together = (
        load_bank(Path(str(command(workspace, *words, processes=count)["bank"]))) for count in (1, 2)
    )
    assert set(alone.cells) == set(together.cells)
    for key, cell in alone.cells.items():
        assert together.cells[key].error == cell.error
        mine, theirs = (bank.weights(cell.block, cell.spec) for bank in (alone, together))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.slow
def test_states_of_an_update_are_divided_among_processes(
    micro_model: LoadedModel, workspace: Workspace
) -> None:
    bank = run(micro_model, workspace, updates=20, rates=("linear",))
    plan = make_plan({0: parse_rate("linear"), 2: parse_rate("linear")}, micro_model.facts)
    student = save_student(plan, bank, workspace)
    words = ["finetune", "--student", str(student), "--updates", "4", "--accumulate", "3", "--rank", "2"]
    words += ["--prompts", "2", "--held-out", "1", "--steps", "2", "--lr", "0.005"]
    alone, together = (Path(str(command(workspace, *words, processes=n)["student"])) for n in (1, 2))
    for name in ("cells.safetensors", "pytorch_lora_weights.safetensors"):
        expected, found = load_tensors(alone / name), load_tensors(together / name)
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-5)
