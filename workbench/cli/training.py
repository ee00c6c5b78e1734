"""`workbench measure`, `sensitivity`, `finetune`: what trains or measures for minutes to hours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.options import (
    BlocksOption,
    DetachOption,
    FramesOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    ModelOption,
    StepsOption,
    WidthOption,
    WorkspaceOption,
    bank_name,
    model_name,
    queue_step,
    stated,
)
from workbench.cli.together import HereOption, run_here

UpdatesOption = Annotated[int | None, typer.Option("--updates", help="Optimiser steps.")]
PromptsOption = Annotated[int | None, typer.Option("--prompts", help="Prompts to train on.")]
HeldOutOption = Annotated[int | None, typer.Option("--held-out", help="Prompts that errors are measured on.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of prompts, noise and training.")]
NameOption = Annotated[str | None, typer.Option("--name", help="What to call the result.")]
CacheOption = Annotated[
    int | None, typer.Option("--cache-megabytes", help="Bound on cached teacher trajectories.")
]

MemoryOption = Annotated[
    float | None, typer.Option("--memory-gb", help="Use at most so much of the GPU, in 1e9 bytes.")
]


def measure(
    model: ModelOption = "embedded",
    blocks: BlocksOption = None,
    rates: Annotated[str, typer.Option("--rates", help="For example R4,8,linear.")] = "R2,R4,R8,R16,linear",
    updates: UpdatesOption = None,
    prompts: PromptsOption = None,
    held_out: HeldOutOption = None,
    queries: Annotated[int | None, typer.Option("--queries", help="Query tokens of one update.")] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="value, value-normalised, mse, mse-normalised or score.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="muon or adamw.")] = None,
    feature_map: Annotated[
        str | None, typer.Option("--feature-map", help="polynomial, hedgehog, elu, relu or exp.")
    ] = None,
    stabilizer: Annotated[str | None, typer.Option("--stabilizer", help="lse or rowmax.")] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop a cell after so many updates without gain.")
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: SeedOption = None,
    extend: Annotated[
        Path | None, typer.Option("--extend", help="A bank whose cells are taken over.")
    ] = None,
    cache_megabytes: CacheOption = None,
    memory_gb: MemoryOption = None,
    name: NameOption = None,
    *,
    here: HereOption = False,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Distil the feature maps of cells and measure their errors, into a bank."""
    from workbench import planning, surgery

    chosen = None
    if blocks is not None:
        chosen = list(planning.parse_blocks(blocks, surgery.open_facts(model_name(model))[0]))
    settings = stated(
        model=model_name(model),
        blocks=chosen,
        rates=[word.strip() for word in rates.split(",")],
        updates=updates,
        num_prompts=prompts,
        num_held_out=held_out,
        queries=queries,
        loss=loss,
        lr=lr,
        optimizer=optimizer,
        feature_map=None if feature_map is None else {"kind": feature_map},
        stabilizer=stabilizer,
        patience=patience,
        steps=steps,
        guidance=guidance,
        frames=frames,
        height=height,
        width=width,
        seed=seed,
        extend=None if extend is None else bank_name(extend),
        cache_megabytes=cache_megabytes,
        memory_gb=memory_gb,
        name=name,
    )
    title = f"blocks {blocks or 'all'} at {rates}"
    _run("measure", settings, title, here=here, detach=detach, workspace=workspace, as_json=as_json)


def sensitivity(
    bank: Annotated[Path, typer.Option("--bank", help="Whose cells are installed one by one.")],
    model: ModelOption = "embedded",
    prompts: Annotated[int | None, typer.Option("--prompts", help="Prompts to sample with.")] = None,
    states: Annotated[int | None, typer.Option("--states", help="Steps looked at in each run.")] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    seed: SeedOption = None,
    *,
    here: HereOption = False,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what each cell of a bank alone does to the model's velocity; `plan --objective` can use it."""
    settings = stated(
        model=model_name(model),
        bank=bank_name(bank),
        num_prompts=prompts,
        states=states,
        steps=steps,
        guidance=guidance,
        seed=seed,
    )
    title = f"cells of {Path(settings['bank']).name}"
    _run("sensitivity", settings, title, here=here, detach=detach, workspace=workspace, as_json=as_json)


def finetune(
    model: Annotated[str, typer.Option("--model", "--student", help="The student folder to finetune.")],
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="1min, 10min, overnight (embedded model, CPU); 24gb (Wan2.1 1.3B)."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="lora, maps (feature maps alone) or full.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="teacher (its velocity, no videos) or flow (captioned clips)."),
    ] = None,
    clips: Annotated[
        Path | None, typer.Option("--clips", help="Folder of .mp4 files with captions in .txt files.")
    ] = None,
    updates: UpdatesOption = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", help="States of one update.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Of these, so many in one pass.")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="adamw, or muon with full.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Of the LoRA.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Of the LoRA or the transformer.")] = None,
    maps_lr: Annotated[float | None, typer.Option("--maps-lr", help="Of the feature maps.")] = None,
    ema: Annotated[float | None, typer.Option("--ema", help="Decay of the averaged weights; 0: off.")] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="auto, float32 or bfloat16 arithmetic.")
    ] = None,
    prompts: PromptsOption = None,
    held_out: HeldOutOption = None,
    sample_prompt: Annotated[
        str | None, typer.Option("--sample-prompt", help="What samples of the running work show.")
    ] = None,
    sample_every: Annotated[
        int | None, typer.Option("--sample-every", help="Updates between two samples made unasked; 0: none.")
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: SeedOption = None,
    cache_megabytes: CacheOption = None,
    memory_gb: MemoryOption = None,
    name: NameOption = None,
    *,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Trade time for memory.")
    ] = False,
    here: HereOption = False,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finetune a student: LoRA and feature maps learn the teacher's velocity on cached trajectories."""
    from workbench import distillation

    settings = {} if preset is None else distillation.preset(preset)
    settings |= stated(
        model=model_name(model),
        method=method,
        objective=objective,
        clips=None if clips is None else str(clips.expanduser().absolute()),
        updates=updates,
        accumulate=accumulate,
        batch=batch,
        optimizer=optimizer,
        rank=rank,
        lr=lr,
        maps_lr=maps_lr,
        ema=ema,
        precision=precision,
        num_prompts=prompts,
        num_held_out=held_out,
        sample_prompt=sample_prompt,
        sample_every=sample_every,
        steps=steps,
        guidance=guidance,
        frames=frames,
        height=height,
        width=width,
        seed=seed,
        cache_megabytes=cache_megabytes,
        memory_gb=memory_gb,
        name=name,
        gradient_checkpointing=gradient_checkpointing or None,
    )
    title = f"{Path(settings['model']).name}, {preset or settings.get('method', 'lora')}"
    _run("finetune", settings, title, here=here, detach=detach, workspace=workspace, as_json=as_json)


def _run(
    kind: str,
    settings: dict[str, Any],
    title: str,
    *,
    here: bool,
    detach: bool,
    workspace: Path | None,
    as_json: bool,
) -> None:
    if here:
        run_here(kind, settings, workspace=workspace, as_json=as_json)
    else:
        queue_step(kind, settings, title=title, workspace=workspace, as_json=as_json, detach=detach)
