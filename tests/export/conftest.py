"""Students to export: feature maps alone, with a LoRA, and wholly finetuned, all of the micro model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.banks import write_bank
from workbench.jobs.tensors import save_tensors
from workbench.models import ModelFacts, load_model
from workbench.operators import Schedule
from workbench.planning import Bank, parse_assign
from workbench.planning.bank import file_digest
from workbench.surgery import save_student
from workbench.surgery.lora import LORA
from workbench.surgery.weights import WEIGHTS, own_parameters
from workbench.workspace import Workspace, read_json, write_json

FIGURES = {"error": 0.25, "low": 0.2, "high": 0.3, "states": 8}


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("export") / "workspace")


@pytest.fixture(scope="package")
def bank(home: Workspace, micro_facts: ModelFacts) -> Bank:
    return write_bank(home.folder("banks") / "one", micro_facts, rates=("R2", "R4", "linear", "T2o1"))


def make_student(bank: Bank, home: Workspace, assignment: str, *, name: str) -> Path:
    plan = parse_assign(assignment, bank.facts, schedule=Schedule(dense_first=1))
    return save_student(plan, bank, home, name=name)


@pytest.fixture(scope="package")
def student(bank: Bank, home: Workspace) -> Path:
    """Three operators, one in each block, the first step dense."""
    return make_student(bank, home, "0:R4,1:T2o1,2:linear", name="maps | <b>only</b>")


@pytest.fixture(scope="package")
def lora_student(bank: Bank, home: Workspace) -> Path:
    """A LoRA on projections and feed-forward, and the record of a finetuning."""
    folder = make_student(bank, home, "0:R4,2:R2", name="with lora")
    model = load_model(bank.facts.source, device="cpu")
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, module in model.transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and (".attn1.to_" in name or ".ffn.net.2" in name):
            rows, columns = module.weight.shape
            tensors[f"transformer.{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator) / 4
            tensors[f"transformer.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=generator) / 4
    save_tensors(folder / LORA, tensors, {"format": "pt"})
    record = {
        "schema_version": 1,
        "config": {"model": str(folder), "updates": 2},
        "prompts": ["a"],
        "held_out_prompts": ["b", "c"],
        "velocity_error": {"before": {**FIGURES, "error": 0.5}, "after": FIGURES},
        "losses": [1.0, 0.5],
    }
    write_json(folder / "finetune.json", record)
    _note(folder, lora_sha256=file_digest(folder / LORA))
    return folder


@pytest.fixture(scope="package")
def whole_student(bank: Bank, home: Workspace) -> Path:
    """Every weight of the transformer is the student's own."""
    folder = make_student(bank, home, "1:R2", name="whole")
    model = load_model(bank.facts.source, device="cpu")
    generator = torch.Generator().manual_seed(2)
    tensors = {
        name: parameter.detach() + 0.02 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in own_parameters(model.transformer).items()
    }
    save_tensors(folder / WEIGHTS, tensors)
    _note(folder, weights_sha256=file_digest(folder / WEIGHTS))
    return folder


def _note(folder: Path, **values: str) -> None:
    manifest = read_json(folder / "student.json", what="student.json")
    write_json(folder / "student.json", {**manifest, **values})
