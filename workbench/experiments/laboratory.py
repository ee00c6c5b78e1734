"""The laboratory: one teacher, and everything made from it that experiments share.

Banks and students are found again by a digest of all that determines them, so that a run that was killed
goes on and experiments share them. Knows nothing of conditions or rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.distillation import (
    FinetuneConfig,
    MeasureConfig,
    TeacherState,
    finetune,
    measure,
    teacher_states,
)
from workbench.distillation.prompts import draw_prompts
from workbench.distillation.trajectories import SamplingSettings, Trajectory, TrajectoryCache
from workbench.errors import InputError
from workbench.experiments.settings import BankRecipe, KeptStudent, Setup, Shared
from workbench.models import LoadedModel, ModelFacts, load_model, model_facts
from workbench.models.loader import Device
from workbench.planning import (
    Bank,
    BankWriter,
    Plan,
    allocate,
    as_plan,
    block_flops,
    choices,
    load_bank,
    make_plan,
    parse_short,
)
from workbench.surgery import (
    CellSource,
    FreshCells,
    Student,
    install_student,
    read_student,
    restore,
    save_student,
)
from workbench.types import ClipSize, SilentReporter
from workbench.workspace import Kind, Workspace, read_json, write_json

SEED = 0
SLACK = 1e-9
"""By how much a budget may be passed, so that a plan fits the budget made from its own cost."""


class Laboratory:
    """Opens the teacher when it is first needed; between two uses the model is always the teacher."""

    def __init__(self, shared: Shared, workspace: Workspace, *, device: Device = "auto") -> None:
        self.shared = shared
        self.workspace = workspace
        self.device: Device = device
        self._banks: dict[BankRecipe, Bank] = {}
        self._states: dict[int, list[TeacherState]] = {}

    @cached_property
    def model(self) -> LoadedModel:
        return load_model(self.shared.model, device=self.device)

    @cached_property
    def facts(self) -> ModelFacts:
        """Facts of the teacher; needs no weights."""
        return model_facts(self.shared.model)

    def size(self, frames: int | None = None) -> ClipSize:
        """Return the model's clip size, longer or shorter where frames are given."""
        usual = self.facts.default_size
        return ClipSize(frames or usual.frames, usual.height, usual.width)

    def prompts(self, *, held_out: bool) -> tuple[str, ...]:
        """Return the prompts of the trajectories, the same that measuring and finetuning draw."""
        count = self.shared.num_held_out if held_out else self.shared.num_prompts
        return draw_prompts(self.model, count, held_out=held_out, seed=SEED)

    def trajectory(self, index: int, *, held_out: bool, frames: int | None = None) -> Trajectory:
        """Sample one of the teacher's trajectories, or read it from the cache."""
        sampling = SamplingSettings(self.shared.steps, self.facts.default_guidance, self.size(frames))
        room = self.shared.cache_megabytes * 1_000_000
        cache = TrajectoryCache(self.model, self.workspace, settings=sampling, max_bytes=room)
        prompt = self.prompts(held_out=held_out)[index]
        return cache.prepare((prompt,), seed=SEED, reporter=SilentReporter())[0]

    def states(self, frames: int | None = None) -> list[TeacherState]:
        """Return the held-out states with the teacher's guided velocity at each."""
        length = self.size(frames).frames
        if length not in self._states:
            self._states[length] = teacher_states(
                self.model,
                self.workspace,
                prompts=self.prompts(held_out=True),
                count=self.shared.states,
                steps=self.shared.steps,
                size=self.size(frames),
            )
        return self._states[length]

    def measure_config(self, recipe: BankRecipe, blocks: tuple[int, ...]) -> MeasureConfig:
        """Return the configuration that measures some blocks of a recipe."""
        shared = self.shared
        return MeasureConfig(
            model=shared.model,
            blocks=blocks,
            rates=recipe.rates,
            updates=recipe.updates,
            queries=shared.queries,
            num_prompts=shared.num_prompts,
            num_held_out=shared.num_held_out,
            steps=shared.steps,
            loss=recipe.loss,
            seed=SEED,
            cache_megabytes=shared.cache_megabytes,
        )

    def measured(self, recipe: BankRecipe, piece: int) -> Bank:
        """Measure one piece of a bank, or read the one that is there."""
        config = self.measure_config(recipe, recipe.parts(self.facts.num_blocks)[piece])
        digest = self._digest(config.model_dump(mode="json"))
        folder = self._find("banks", digest)
        if folder is None:
            named = config.model_copy(update={"name": _name(digest)})
            folder = measure(self.model, named, self.workspace, reporter=SilentReporter())
        return load_bank(folder, self.facts)

    def bank(self, recipe: BankRecipe) -> Bank:
        """Return the whole bank of a recipe, joined from its pieces the first time."""
        if recipe not in self._banks:
            parts = recipe.parts(self.facts.num_blocks)
            configs = [self.measure_config(recipe, blocks).model_dump(mode="json") for blocks in parts]
            digest = self._digest(configs)
            folder = self._find("banks", digest)
            if folder is None:
                pieces = [self.measured(recipe, index) for index in range(len(parts))]
                with self.workspace.new_folder("banks", name=_name(digest)) as made:
                    first = pieces[0].manifest
                    writer = BankWriter.create(
                        made.path, first.model, size=first.size, provenance=first.provenance
                    )
                    for piece in pieces:
                        writer.merge(piece)
                folder = made.final
            self._banks[recipe] = load_bank(folder, self.facts)
        return self._banks[recipe]

    def plan(self, setup: Setup) -> Plan:
        """Return the plan of a setup.

        Raises:
            InputError: the cells of its bank cannot meet its budget.
        """
        facts, size = self.facts, self.facts.default_size
        if isinstance(setup, KeptStudent):
            return read_student(setup.folder).plan
        if setup.weights == "teacher":
            return make_plan({}, facts)
        if setup.allocated is None:
            return parse_short(setup.plan, facts)
        assert setup.bank is not None and setup.budget is not None, "an allocation needs a bank and a budget"
        bank = self.bank(setup.bank)
        dense = block_flops(facts, facts.token_grid(size)).core * facts.num_blocks
        offered = choices(bank, facts, size)
        found = allocate(offered, budget=setup.budget * dense * (1 + SLACK), method=setup.allocated)
        if found is None:
            raise InputError(f"No {setup.allocated} plan over the measured cells costs {setup.budget:.3g}.")
        return as_plan(found, bank, facts, size)

    def student(self, setup: Setup) -> Student:
        """Finetune the student of a setup, or read the one that is there.

        Raises:
            Diverged: the finetuning loss became NaN or infinite.
        """
        assert setup.bank is not None, "a finetuned student starts from a bank"
        shared, plan, recipe = self.shared, self.plan(setup), self.shared.finetune
        config = FinetuneConfig(
            model="",
            method=recipe.method,
            updates=recipe.updates,
            rank=recipe.rank,
            accumulate=recipe.states,
            batch=recipe.states,
            lr=recipe.lr,
            ema=recipe.ema,
            num_prompts=shared.num_prompts,
            num_held_out=1,
            steps=shared.steps,
            seed=SEED,
            cache_megabytes=shared.cache_megabytes,
        )
        identity = [config.model_dump(mode="json"), setup.bank.model_dump(mode="json"), _blocks(plan)]
        identity.append(self.measure_config(setup.bank, ()).model_dump(mode="json"))
        digest = self._digest(identity)
        folder = self._find("students", digest)
        if folder is None:
            start = save_student(plan, self.bank(setup.bank), self.workspace, name=f"start {digest}")
            named = config.model_copy(update={"model": str(start), "name": _name(digest)})
            try:
                folder = finetune(self.model, named, self.workspace, reporter=SilentReporter())
            finally:
                restore(self.model)
        return read_student(folder)

    @contextmanager
    def installed(self, setup: Setup) -> Iterator[LoadedModel]:
        """Make the teacher the student of a setup while the block runs."""
        plan = self.plan(setup)
        cells: CellSource = FreshCells(self.facts, seed=SEED)
        if isinstance(setup, KeptStudent):
            cells = read_student(setup.folder)
        elif setup.weights == "distilled":
            assert setup.bank is not None, "distilled cells come from a bank"
            cells = self.bank(setup.bank)
        elif setup.weights == "finetuned":
            cells = self.student(setup)
        try:
            install_student(self.model, plan, cells, linear_branch=setup.linear_branch)
            yield self.model
        finally:
            restore(self.model)

    def identity(self, setup: Setup) -> str:
        """Return a digest of all that determines a setup's outputs, for what is cached of it."""
        shared = self.shared.model_dump(mode="json", exclude={"batch", "cache_megabytes"})
        plan = _blocks(self.plan(setup))
        told = setup.model_dump(mode="json", exclude={"folder"})
        return self._digest([shared, plan, told, self.model.companions])

    @property
    def scratch(self) -> Path:
        """The folder of what is kept for experiments alone: numbers of clips, the teacher's frames."""
        folder = self.workspace.folder("cache") / "experiments"
        folder.mkdir(exist_ok=True)
        return folder

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a JSON document that was kept under a name, making it the first time."""
        file = self.scratch / f"{name}.json"
        if not file.exists():
            write_json(file, make())
        return read_json(file, what=file.name)

    def _digest(self, data: Any) -> str:
        text = json.dumps([self.model.fingerprint, self.model.device.type, data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _find(self, kind: Kind, digest: str) -> Path | None:
        found = sorted(self.workspace.folder(kind).glob(f"*-{_name(digest).replace(' ', '-')}-????"))
        return found[0] if found else None


def _name(digest: str) -> str:
    return f"experiment {digest}"


def _blocks(plan: Plan) -> Any:
    return plan.model_dump(mode="json")["blocks"]
