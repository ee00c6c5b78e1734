"""Paint and see: one clip of a plan over measured cells, kept by what made it, beside the teacher's.

The clips live in the workspace's cache: the same plan, prompt and seed is rendered once. Knows no page.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor, from_numpy

from workbench.distillation import teacher_states, velocity_error
from workbench.errors import InputError
from workbench.evaluation.fidelity import MAX_PSNR, psnr
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models import LoadedModel, ModelFacts, check_words, model_companions
from workbench.operators import Schedule, parse_rate
from workbench.planning import Bank, Plan, load_bank, make_plan
from workbench.sampling import GenerateConfig, Sample, sample
from workbench.surgery import install_student, open_facts, open_model, restore
from workbench.types import Reporter, StrictModel
from workbench.video import write_mp4
from workbench.workspace import Workspace, read_json, write_json

FILE = "render.json"
CLIP = "clip.mp4"
FRAMES = "frames.safetensors"
STATES = 2
"""States of the teacher on which the velocity is compared: the same for every plan."""
KEPT = 48
"""Clips that stay in the cache; older ones are made again when asked for."""


class RenderConfig(GenerateConfig):
    """One clip of a painted plan.

    Attributes:
        operators: one operator a block, as a user writes it; empty is the teacher.
        bank: folder of the measured cells; may be empty for the teacher.
        dense_first: so many first steps stay softmax.
    """

    operators: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    bank: str = ""
    dense_first: Annotated[int, Field(ge=0, le=1000)] = 0


class Rendered(StrictModel):
    """The content of `render.json`.

    Attributes:
        plan: one operator a block.
        seconds: from prompt to frames, measured in this run.
        psnr: by frame against the teacher's clip, None where the frames are equal; empty for the teacher.
        mean_psnr: over the frames that differ; None where all are equal.
        velocity_error: of the guided velocity on cached states of the teacher; None where not measured.
    """

    schema_version: int = 1
    key: str
    plan: tuple[str, ...]
    seconds: Annotated[float, Field(ge=0)]
    device: str
    psnr: tuple[float | None, ...] = ()
    mean_psnr: float | None = None
    velocity_error: Annotated[float, Field(ge=0)] | None = None


def render(config: RenderConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Sample the clip of a plan and, where it is not kept yet, the teacher's.

    Returns:
        The folder: render.json, clip.mp4, frames.safetensors.

    Raises:
        InputError: a plan over unmeasured cells, or a prompt or size that the model refuses.
        Cancelled, Paused: when the reporter says so.
    """
    plan, bank = check(config)
    kept = find_render(config, workspace)
    if kept is not None:
        return kept
    reporter.stage("loading the model", 1)
    model = open_model(config.model)
    restore(model)
    teacher = teacher_of(config)
    reference = find_render(teacher, workspace)
    if reference is None:
        reporter.stage("teacher", 1)
        reference = _keep(teacher, sample(model, teacher, reporter=reporter), model, workspace, None)
    if not plan.converted or bank is None:
        return reference
    reporter.stage("velocity error", 1)
    velocity = velocity_error(model, plan, bank, teacher_states(model, workspace, count=STATES))
    install_student(model, plan, bank)
    made = sample(model, config, reporter=reporter)
    folder = _keep(config, made, model, workspace, _Reference(_frames(reference), velocity))
    _prune(workspace, keep={reference, folder})
    return folder


def check(config: RenderConfig) -> tuple[Plan, Bank | None]:
    """Return the plan and the bank of a configuration, without loading weights.

    Raises:
        InputError: one sentence: cells that are not measured, a size or a word the model does not know.
    """
    facts = open_facts(config.model)[0]
    facts.check_size(config.size(facts))
    check_words(facts, config.prompt)
    bank = load_bank(Path(config.bank), facts) if config.bank else None
    plan = plan_of(config, facts, bank)
    if not plan.converted:
        return plan, None
    if bank is None:
        raise InputError("A plan needs measured cells; measure them first.")
    bank.check_complete(plan)
    return plan, bank


def plan_of(config: RenderConfig, facts: ModelFacts, bank: Bank | None) -> Plan:
    """Return the plan that a configuration writes out; labels of a bank's cells mean their operators."""
    if config.operators and len(config.operators) != facts.num_blocks:
        raise InputError(
            f"A plan names one operator for each of the {facts.num_blocks} blocks of {facts.name}."
        )
    known = {cell.label: cell.spec for cell in bank.cells.values()} if bank else {}
    chosen = {block: known.get(word) or parse_rate(word) for block, word in enumerate(config.operators)}
    return make_plan(chosen, facts, schedule=Schedule(dense_first=config.dense_first))


def teacher_of(config: RenderConfig) -> RenderConfig:
    """Return the configuration of the teacher's clip of the same prompt and seed."""
    return config.model_copy(update={"operators": (), "bank": "", "dense_first": 0})


def find_render(config: RenderConfig, workspace: Workspace) -> Path | None:
    """Return the kept clip of a configuration, None where it has to be made."""
    found = sorted(workspace.folder("cache").glob(f"*-render-{render_key(config)}-*"))
    return next((folder for folder in reversed(found) if (folder / FILE).is_file()), None)


def read_render(folder: Path) -> Rendered:
    """Read what was kept of a clip.

    Raises:
        InputError: damaged.
    """
    return Rendered.parse(read_json(folder / FILE, what="rendered clip"), what="rendered clip")


def render_key(config: RenderConfig) -> str:
    """Return a name of all that determines the clip: weights of model and cells, plan, prompt, settings."""
    plan, bank = check(config)
    facts = open_facts(config.model)[0]
    cells = [] if bank is None else [bank.cell(b, spec).sha256 for b, spec in plan.converted.items()]
    settings = config.resolved(facts).model_dump(mode="json")
    for name in ("model", "operators", "bank", "dense_first"):
        settings.pop(name)
    dense = plan.schedule.dense_first if plan.converted else 0
    parts: list[Any] = [facts.fingerprint or facts.source, settings, plan.short_name, cells, dense]
    parts += [list(plan.converted), model_companions(facts.source)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class _Reference(NamedTuple):
    """What a plan's clip is set beside: the teacher's frames; and how far the plan moves its velocity."""

    frames: np.ndarray
    velocity_error: float


def _keep(
    config: RenderConfig, made: Sample, model: LoadedModel, workspace: Workspace, beside: _Reference | None
) -> Path:
    values = [] if beside is None else [float(value) for value in psnr(beside.frames, made.frames)]
    finite = [value for value in values if value < MAX_PSNR]
    key = render_key(config)
    facts = open_facts(config.model)[0]
    record = Rendered(
        key=key,
        plan=config.operators or ("softmax",) * facts.num_blocks,
        seconds=round(made.seconds, 3),
        device=str(model.device),
        psnr=tuple(round(value, 3) if value < MAX_PSNR else None for value in values),
        mean_psnr=round(sum(finite) / len(finite), 3) if finite else None,
        velocity_error=None if beside is None else beside.velocity_error,
    )
    with workspace.new_folder("cache", name=f"render {key}") as folder:
        write_mp4(folder.path / CLIP, made.frames, fps=facts.fps)
        save_tensors(folder.path / FRAMES, {"frames": from_numpy(made.frames)})
        write_json(folder.path / FILE, record.model_dump(mode="json"))
    return folder.final


def _frames(folder: Path) -> np.ndarray:
    tensors: dict[str, Tensor] = load_tensors(folder / FRAMES, what="rendered clip")
    frames: np.ndarray = tensors["frames"].numpy()
    return frames


def _prune(workspace: Workspace, *, keep: set[Path]) -> None:
    kept = sorted(workspace.folder("cache").glob("*-render-*"), reverse=True)
    for folder in kept[KEPT:]:
        if folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)
