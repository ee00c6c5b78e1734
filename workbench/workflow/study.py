"""The whole flow with one prompt, in one call; a stopped study goes on from its last finished step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from workbench import capture as capturing
from workbench import comparison, distillation, planning, sampling, surgery
from workbench.errors import InputError
from workbench.types import CheckpointState, ClipSize, Reporter, SilentReporter, StrictModel
from workbench.workflow.flow import Made, build_student, capture, compare, distillation_figures, measure
from workbench.workspace import Workspace, new_id, write_json


class StudyConfig(StrictModel):
    """The whole flow with one prompt.

    Attributes:
        prompt: of the capture and of the comparison.
        blocks, rates, updates, num_prompts, num_held_out, measure_steps: what is measured, and how.
        plan: a short name or a plan file; None takes the exact optimum at `attention_ratio`.
        attention_ratio: attention operations of the optimum over those of softmax, at most.
        steps: of the captured and of the compared clips; None takes the model's default.
        query_stride: every so many-th query is captured.
    """

    model: str = "embedded"
    prompt: str
    seed: Annotated[int, Field(ge=0)] = 7
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    query_stride: Annotated[int, Field(ge=1)] = 4
    blocks: tuple[int, ...] | None = None
    rates: tuple[str, ...] = ("R2", "R4", "R8")
    updates: Annotated[int, Field(ge=1)] = 200
    num_prompts: Annotated[int, Field(ge=1)] = 8
    num_held_out: Annotated[int, Field(ge=1)] = 3
    measure_steps: Annotated[int, Field(ge=1)] = 8
    plan: str | None = None
    attention_ratio: Annotated[float, Field(gt=0, le=1)] = 0.65


PRESETS: dict[str, StudyConfig] = {
    "quickstart": StudyConfig(prompt="a big red ball moves right over sand"),
    "smoke": StudyConfig(
        prompt="a big red ball moves right over sand",
        steps=2,
        query_stride=16,
        blocks=(5,),
        rates=("R4",),
        updates=20,
        num_prompts=1,
        num_held_out=1,
        measure_steps=2,
        plan="1xR4",
    ),
}


def study(config: StudyConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Capture, measure, choose, build the student and compare; goes on from the last finished step."""
    progress = _StudyProgress(reporter or SilentReporter())
    clip = sampling.GenerateConfig(
        model=config.model, prompt=config.prompt, seed=config.seed, steps=config.steps
    ).model_dump()
    profile = progress.run(
        "capture",
        lambda inner: (
            capture(capturing.CaptureConfig(**clip, query_stride=config.query_stride), workspace, inner).path
        ),
    )
    measuring = distillation.MeasureConfig(
        model=config.model,
        blocks=config.blocks,
        rates=config.rates,
        updates=config.updates,
        num_prompts=config.num_prompts,
        num_held_out=config.num_held_out,
        steps=config.measure_steps,
        seed=config.seed,
    )
    bank_folder = progress.run("measure", lambda inner: measure(measuring, workspace, inner).path)
    bank = planning.load_bank(bank_folder)
    plan_file = progress.run("plan", lambda inner: _choose_plan(config, bank, workspace))
    joining = surgery.SurgeryConfig(plan=str(plan_file), bank=str(bank_folder))
    student = progress.run(
        "surgery",
        lambda inner: build_student(joining, workspace, inner).path,
    )
    comparing = comparison.CompareConfig(**{**clip, "model": str(student)})
    report = progress.run("compare", lambda inner: compare(comparing, workspace, inner).path)
    compared = comparison.load(report.parent)
    document = {
        "profile": str(profile),
        "bank": str(bank_folder),
        "plan": str(plan_file),
        "distillation": distillation_figures(bank),
        "student": str(student),
        "clips": compared["clips"],
        "report": str(report),
        "metrics": compared["metrics"],
    }
    with workspace.new_folder("studies", name=config.prompt) as folder:
        write_json(folder.path / "study.json", {"config": config.model_dump(mode="json"), **document})
    return Made("study", folder.final / "study.json", document)


def _choose_plan(config: StudyConfig, bank: planning.Bank, workspace: Workspace) -> Path:
    size = ClipSize(*bank.manifest.size)
    if config.plan is None:
        dense = planning.block_flops(bank.facts, bank.facts.token_grid(size)).core * bank.facts.num_blocks
        offered = planning.choices(bank, bank.facts, size)
        found = planning.allocate(offered, budget=config.attention_ratio * dense, method="optimal")
        if found is None:
            raise InputError(
                f"The measured cells cannot bring attention down to {config.attention_ratio:.0%}; "
                "measure cheaper rates, or allow more."
            )
        plan = planning.as_plan(found, bank, bank.facts, size)
    else:
        plan = planning.load(config.plan, bank.facts)
    path = workspace.folder("plans") / f"{new_id(plan.short_name)}.json"
    planning.save(plan, path)
    return path


class _StudyProgress:
    """Remembers in the job's checkpoint which steps of a study are finished and what they made."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        state = reporter.restore()
        self._step_of_state = str(state.meta["step"]) if state else ""
        self.made: dict[str, str] = dict(state.meta["made"]) if state else {}

    def run(self, name: str, step: Callable[[Reporter], Path]) -> Path:
        """Run a step unless it is finished already; return the path of what it made."""
        if name not in self.made:
            self.made[name] = str(step(_StepReporter(self._reporter, name, self)))
            self._reporter.stage(f"{name} done", 1)
            self._reporter.step(1, state=self.state)
        return Path(self.made[name])

    def state(self, name: str = "", inner: CheckpointState | None = None) -> CheckpointState:
        """Return the state from which the study goes on: finished steps, and the running step's own state."""
        meta = {"made": self.made, "step": name, "inner": dict(inner.meta) if inner else {}}
        return CheckpointState(tensors=inner.tensors if inner else {}, meta=meta)

    def restored(self, name: str) -> CheckpointState | None:
        """Return the running step's own state, where the checkpoint was written inside that step.

        Read again here, because reading also sets the random generators to where the step left them.
        """
        state = self._reporter.restore() if self._step_of_state == name else None
        return None if state is None else CheckpointState(tensors=state.tensors, meta=state.meta["inner"])


class _StepReporter:
    """The reporter of one step of a study: wraps the step's state into the study's."""

    def __init__(self, outer: Reporter, name: str, progress: _StudyProgress) -> None:
        self._outer = outer
        self._name = name
        self._progress = progress

    def stage(self, name: str, steps: int) -> None:
        self._outer.stage(f"{self._name}: {name}", steps)

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        wrapped = None if state is None else lambda: self._progress.state(self._name, state())
        self._outer.step(step, state=wrapped, **metrics)

    def restore(self) -> CheckpointState | None:
        return self._progress.restored(self._name)

    def note(self, text: str) -> None:
        self._outer.note(text)

    def offer_sample(self, make: Callable[[], Path], every: int = 0) -> None:
        self._outer.offer_sample(make, every)
