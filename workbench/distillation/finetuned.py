"""The student folder that finetuning makes: plan, feature maps, LoRA or weights, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.distillation.held_out import bootstrap
from workbench.distillation.lessons import FlowLesson, State
from workbench.distillation.prompts import PromptSplit
from workbench.jobs.tensors import save_tensors
from workbench.planning import save
from workbench.planning.bank import file_digest
from workbench.surgery.lora import ADAPTER, LORA
from workbench.surgery.student import CELLS, PLAN, STUDENT, Student, StudentManifest
from workbench.surgery.weights import WEIGHTS
from workbench.types import Reporter
from workbench.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    from workbench.distillation.finetune import Finetuning, Material

FILE = "finetune.json"


@dataclass
class Findings:
    """What was measured of a student before and after its finetuning, in that order."""

    prompts: PromptSplit
    errors: list[Mapping[State, float]] = field(default_factory=list)
    flow_losses: list[float] = field(default_factory=list)

    def look(self, run: Finetuning, material: Material, reporter: Reporter) -> None:
        """Measure the student as it is now."""
        with run.arithmetic():
            self.errors.append(material.exam.errors(reporter))
            if isinstance(material.lesson, FlowLesson):
                self.flow_losses.append(material.lesson.held_out_loss())

    def figures(self, *, seed: int) -> dict[str, Any]:
        """Return errors with intervals over prompts, and held-out losses where there are any."""
        before, after = (_figures(errors, seed) for errors in self.errors)
        found: dict[str, Any] = {"velocity_error": {"before": before, "after": after}}
        if self.flow_losses:
            found["flow_loss"] = dict(zip(("before", "after"), self.flow_losses, strict=True))
        return found


def save_finetuned(run: Finetuning, student: Student, findings: Findings, workspace: Workspace) -> Path:
    """Write a finetuned student as a new student folder; the one it came from stays as it is."""
    config = run.config
    shown = config.name or f"{student.name} finetuned"
    figures = findings.figures(seed=config.seed)
    with workspace.new_folder("students", name=shown) as folder:
        digests = _save_weights(run, folder.path)
        save(student.plan, folder.path / PLAN)
        manifest = StudentManifest(
            name=shown,
            teacher=student.manifest.teacher,
            plan=student.manifest.plan,
            cells_sha256=digests[CELLS],
            lora_sha256=digests.get(LORA, ""),
            weights_sha256=digests.get(WEIGHTS, ""),
            provenance={
                **student.manifest.provenance,
                "finetuned_from": student.folder.name,
                "method": config.method,
                "objective": config.objective,
                "updates": config.updates,
                "velocity_error_before": figures["velocity_error"]["before"]["error"],
                "velocity_error": figures["velocity_error"]["after"]["error"],
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "torch": version("torch"),
                "peft": version("peft"),
            },
        )
        record = {
            "schema_version": 1,
            "config": json.loads(config.model_dump_json()),
            "prompts": list(findings.prompts.training),
            "held_out_prompts": list(findings.prompts.held_out),
            **figures,
            "losses": run.losses,
        }
        write_json(folder.path / FILE, record)
        write_json(folder.path / STUDENT, manifest.model_dump(mode="json"))
    return folder.final


def finetune_figures(folder: Path) -> dict[str, Any]:
    """Return what a finetuned student's record says of it: errors before and after, losses first and last.

    Raises:
        InputError: no record, or a damaged one.
    """
    record = read_json(folder / FILE, what=f"{FILE} of student {folder.name}")
    names = ("velocity_error", "flow_loss")
    losses = record["losses"]
    return {
        **{name: record[name] for name in names if name in record},
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "updates": len(losses),
    }


def _figures(errors: Mapping[State, float], seed: int) -> dict[str, Any]:
    interval = bootstrap(list(errors.values()), [state.prompt for state in errors], seed=seed)
    return {"error": interval.mean, "low": interval.low, "high": interval.high, "states": len(errors)}


def _save_weights(run: Finetuning, folder: Path) -> dict[str, str]:
    """Write feature maps and what was finetuned beside them; returns the digests by file."""
    save_tensors(folder / CELLS, {name: weight.detach().float() for name, weight in run.maps.items()})
    files = [CELLS]
    if run.lora:
        _save_lora(run, folder)
        files.append(LORA)
    if run.whole:
        own = {name: weight.detach().to(run.dtype) for name, weight in run.whole.items()}
        save_tensors(folder / WEIGHTS, own)
        files.append(WEIGHTS)
    return {file: file_digest(folder / file) for file in files}


def _save_lora(run: Finetuning, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(run.model.transformer, adapter_name=ADAPTER)
    tensors = {f"transformer.{name}": weight.detach() for name, weight in layers.items()}
    save_tensors(folder / LORA, tensors, {"format": "pt"})
