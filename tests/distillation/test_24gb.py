"""The 24 GB recipe: its estimate, its refusals, and the whole of it on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from workbench.benchmarks import recipe_24gb
from workbench.distillation import FinetuneConfig, preset, room
from workbench.errors import InputError
from workbench.models import Placement, model_facts, model_footprint
from workbench.models.placement import RESERVE
from workbench.planning import parse_short
from workbench.workspace import Workspace


def model_of(name: str, *, offload: Any = "none", device: str = "cuda") -> Any:
    """Return what the estimate looks at, of a model whose weights are not here."""
    return SimpleNamespace(
        facts=model_facts(name),
        footprint=model_footprint(name),
        transformer_dtype=torch.bfloat16,
        device=torch.device(device),
        placement=Placement(device, offload, False, True, 0.0, 0.0),
    )


def config(**changes: Any) -> FinetuneConfig:
    return FinetuneConfig(model="student", **{**preset("24gb"), **changes})


@pytest.mark.parametrize("rate", ["R2", "R8", "linear"])
def test_wan_1_3b_is_estimated_to_fit_with_all_blocks_converted(rate: str) -> None:
    model = model_of("wan2.1-t2v-1.3b")
    needed = room.estimate(model, config(), parse_short(f"30x{rate}", model.facts)) + RESERVE
    assert 15e9 < needed < 20e9 < config().memory_gb * 1e9


def test_what_cannot_fit_is_refused_before_the_teacher_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(total_memory=80e9))
    small, large = model_of("wan2.1-t2v-1.3b"), model_of("wan2.1-t2v-14b")
    room.require_room(small, config(), parse_short("30xR8", small.facts))
    for changes in ({}, {"memory_gb": None, "method": "full"}):
        words = (
            r"Finetuning wan2.1-t2v-14b like this is estimated to need [\d.]+ GB of GPU memory, (22|80).0 GB"
        )
        with pytest.raises(InputError, match=words):
            room.require_room(large, config(**changes), parse_short("40xR8", large.facts))
    with pytest.raises(
        InputError, match="fits on this GPU one block at a time only, and finetuning needs all"
    ):
        room.require_room(
            model_of("wan2.1-t2v-14b", offload="group"), config(), parse_short("40xR8", large.facts)
        )
    room.require_room(model_of("wan2.1-t2v-14b", device="cpu"), config(), parse_short("40xR8", large.facts))


def test_the_whole_recipe_on_a_tiny_model(
    micro_model_folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "record.json"
    words = ["--workspace", str(workspace.root), "--out", str(out), "--model", str(micro_model_folder)]
    recipe_24gb.main([*words, "--updates", "22"])
    record = json.loads(out.read_text())
    assert record["bound_gb"] == 22.0 and record["measure"]["tokens"] == 72
    assert record["finetune"]["plan"] == "3xR8" and record["finetune"]["settings"]["gradient_checkpointing"]
    left = record["finetune"]["time_left"]
    assert left["after_updates"] == 20 and left["true_seconds"] > 0
    assert set(record["finetune"]["seconds"]) >= {"teacher trajectories", "finetuning"}
