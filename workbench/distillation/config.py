"""What a user chooses when measuring cells, and the check of all of it before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from workbench.distillation.cells import OptimizerName, TrainingChoices
from workbench.distillation.losses import LossName
from workbench.distillation.prompts import PromptSplit, choose_prompts
from workbench.distillation.trajectories import SamplingSettings
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts, check_words
from workbench.operators import FeatureMapSpec, OperatorSpec, PolynomialSpec, SoftmaxSpec, label, parse_rate
from workbench.operators.hybrid import Stabilizer
from workbench.planning.bank import Bank, load_bank
from workbench.planning.plan import check_block, check_rates, make_plan
from workbench.surgery import installed, open_facts
from workbench.types import ClipSize, StrictModel

Prompts = Annotated[tuple[str, ...], Field(max_length=512)]


class MeasureConfig(StrictModel):
    """Which cells to distil, on what, and how.

    Attributes:
        model: registry name, folder or hub id.
        blocks: which blocks; None for all.
        rates: operators as a user writes them: "R4", "4", "linear", "T3o1".
        updates: optimiser steps of every cell.
        updates_per_state: of these, how many follow one forward pass of the teacher; 1 sees the most states
            and gave the lowest errors.
        queries: query tokens of one update.
        prompts: to train on; empty draws `num_prompts`.
        held_out_prompts: errors are measured on; empty draws `num_held_out`.
        steps: of the teacher's sampling runs.
        guidance: None takes the model's default; at most 1 means no guidance, so no unconditional branch.
        frames: of a clip, in pixels as height and width; None takes the model's default.
        optimizer: as in `TrainingChoices`.
        patience: a cell stops early after so many updates without a lower smoothed loss; None takes them all.
        extend: a bank folder whose cells are taken over, unless they are measured again.
        cache_megabytes: bound on all cached trajectories of the workspace.
        memory_gb: use at most so much of the GPU, in 1e9 bytes; the teacher is offloaded where it must be.
    """

    model: str = "embedded"
    blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    rates: Annotated[tuple[str, ...], Field(min_length=1)] = ("R2", "R4", "R8", "R16", "linear")
    updates: Annotated[int, Field(ge=1, le=1_000_000)] = 320
    updates_per_state: Annotated[int, Field(ge=1, le=64)] = 1
    queries: Annotated[int, Field(ge=1, le=65_536)] = 256
    prompts: Prompts = ()
    held_out_prompts: Prompts = ()
    num_prompts: Annotated[int, Field(ge=1, le=512)] = 16
    num_held_out: Annotated[int, Field(ge=1, le=512)] = 4
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    loss: LossName = "value"
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-2
    optimizer: OptimizerName = "muon"
    feature_map: FeatureMapSpec = PolynomialSpec()
    stabilizer: Stabilizer = "lse"
    patience: Annotated[int, Field(ge=10)] | None = None
    extend: str | None = None
    cache_megabytes: Annotated[int, Field(ge=1)] = 1024
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    name: Annotated[str, Field(max_length=200)] = ""


@dataclass(frozen=True)
class MeasurePlan:
    """A checked `MeasureConfig`: everything that can be refused has been."""

    specs: tuple[OperatorSpec, ...]
    blocks: tuple[int, ...]
    prompts: PromptSplit
    sampling: SamplingSettings
    training: TrainingChoices
    extended: Bank | None
    notes: tuple[str, ...]


class Chosen(NamedTuple):
    """What a configuration chooses, as far as it goes without weights."""

    specs: tuple[OperatorSpec, ...]
    blocks: tuple[int, ...]
    sampling: SamplingSettings
    extended: Bank | None
    notes: tuple[str, ...]


def check_measure(config: MeasureConfig) -> Chosen:
    """Refuse what can be refused without loading weights.

    Raises:
        InputError: a student, or as `choose`.
    """
    facts, plan = open_facts(config.model)
    if plan is not None:
        raise InputError(f"{Path(config.model).name} is a student; measure on its teacher, {facts.name}.")
    for prompt in (*config.prompts, *config.held_out_prompts):
        check_words(facts, prompt)
    return choose(config, facts)


def choose(config: MeasureConfig, facts: ModelFacts) -> Chosen:
    """Check blocks, rates, size and the extended bank against the facts of a model.

    Raises:
        InputError: one sentence: an unknown block or rate, a rate above the tokens of a frame, a size that
            the model refuses, a bank of another model, two transformers.
    """
    if facts.num_transformers > 1:
        raise InputError(
            f"{facts.name} has two transformers, one for early and one for late steps; "
            "measuring works on models with one."
        )
    blocks = tuple(range(facts.num_blocks)) if config.blocks is None else tuple(sorted(set(config.blocks)))
    if not blocks:
        raise InputError("No block is chosen; name at least one, for example --blocks 0,2,5-7.")
    for block in blocks:
        check_block(block, facts)
    usual = facts.default_size
    size = ClipSize(config.frames or usual.frames, config.height or usual.height, config.width or usual.width)
    grid = facts.token_grid(size)
    specs = tuple({label(spec): spec for spec in (_spec(rate, config) for rate in config.rates)}.values())
    notes: dict[str, None] = {}
    for spec in specs:
        notes |= dict.fromkeys(check_rates(make_plan({blocks[0]: spec}, facts, size=size), grid))
    guidance = facts.default_guidance if config.guidance is None else config.guidance
    return Chosen(
        specs=specs,
        blocks=blocks,
        sampling=SamplingSettings(steps=config.steps, guidance=guidance, size=size),
        extended=None if config.extend is None else load_bank(Path(config.extend), facts),
        notes=tuple(notes),
    )


def check(config: MeasureConfig, model: LoadedModel) -> MeasurePlan:
    """Check a configuration against a model.

    Raises:
        InputError: as `choose`, a student, or a prompt that the model refuses.
    """
    if installed(model) is not None:
        raise InputError(f"{model.name} is a student; measure on its teacher, {model.facts.name}.")
    chosen = choose(config, model.facts)
    return MeasurePlan(
        specs=chosen.specs,
        blocks=chosen.blocks,
        prompts=choose_prompts(
            model,
            training=config.prompts,
            held_out=config.held_out_prompts,
            num_training=config.num_prompts,
            num_held_out=config.num_held_out,
            seed=config.seed,
        ),
        sampling=chosen.sampling,
        training=TrainingChoices(
            loss=config.loss, lr=config.lr, optimizer=config.optimizer, patience=config.patience
        ),
        extended=chosen.extended,
        notes=chosen.notes,
    )


def _spec(rate: str, config: MeasureConfig) -> OperatorSpec:
    spec = parse_rate(rate)
    if isinstance(spec, SoftmaxSpec):
        raise InputError(
            f"Rate {rate!r} is softmax, which has nothing to distil; choose R2 or higher, or linear."
        )
    changes: dict[str, object] = {"feature_map": config.feature_map}
    if spec.kind == "hybrid":
        changes["stabilizer"] = config.stabilizer
    if spec.kind == "rehyat" and config.loss == "score":
        raise InputError(f"The score loss does not fit {rate!r}; choose the value loss for ReHyAt.")
    return spec.model_copy(update=changes)
