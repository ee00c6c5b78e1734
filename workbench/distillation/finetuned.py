"""The student folder that finetuning makes: plan, feature maps, a standard LoRA file, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.distillation.held_out import bootstrap
from workbench.jobs.tensors import save_tensors
from workbench.planning import save
from workbench.planning.bank import file_digest
from workbench.surgery.lora import ADAPTER, LORA
from workbench.surgery.student import CELLS, PLAN, STUDENT, Student, StudentManifest
from workbench.workspace import Workspace, write_json

if TYPE_CHECKING:
    from workbench.distillation.finetune import Finetuning, State

FILE = "finetune.json"


def save_finetuned(
    run: Finetuning,
    student: Student,
    before: Mapping[State, float],
    after: Mapping[State, float],
    workspace: Workspace,
) -> Path:
    """Write a finetuned student as a new student folder; the one it came from stays as it is."""
    config = run.config
    shown = config.name or f"{student.name} finetuned"
    with workspace.new_folder("students", name=shown) as folder:
        save_tensors(folder.path / CELLS, {name: weight.detach() for name, weight in run.maps.items()})
        save(student.plan, folder.path / PLAN)
        lora_digest = ""
        if run.lora:
            _save_lora(run, folder.path)
            lora_digest = file_digest(folder.path / LORA)
        figures = {"before": _figures(before, config.seed), "after": _figures(after, config.seed)}
        manifest = StudentManifest(
            name=shown,
            teacher=student.manifest.teacher,
            plan=student.manifest.plan,
            cells_sha256=file_digest(folder.path / CELLS),
            lora_sha256=lora_digest,
            provenance={
                **student.manifest.provenance,
                "finetuned_from": student.folder.name,
                "updates": config.updates,
                "velocity_error_before": figures["before"]["error"],
                "velocity_error": figures["after"]["error"],
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "torch": version("torch"),
                "peft": version("peft"),
            },
        )
        record = {
            "schema_version": 1,
            "config": json.loads(config.model_dump_json()),
            "prompts": list(run.lesson.prompts.training),
            "held_out_prompts": list(run.lesson.prompts.held_out),
            "velocity_error": figures,
            "losses": run.losses,
        }
        write_json(folder.path / FILE, record)
        write_json(folder.path / STUDENT, manifest.model_dump(mode="json"))
    return folder.final


def _figures(errors: Mapping[State, float], seed: int) -> dict[str, Any]:
    interval = bootstrap(list(errors.values()), [state.prompt for state in errors], seed=seed)
    return {"error": interval.mean, "low": interval.low, "high": interval.high, "states": len(errors)}


def _save_lora(run: Finetuning, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(run.model.transformer, adapter_name=ADAPTER)
    tensors = {f"transformer.{name}": weight.detach() for name, weight in layers.items()}
    save_tensors(folder / LORA, tensors, {"format": "pt"})
