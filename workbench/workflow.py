"""The whole flow on one page: each step is a function from saved artefacts to a saved artefact.

    generate ─ a clip                 plan ────── which operator each block gets (`workbench.planning`)
    capture ── what each head does    surgery ─── plan + bank → student folder
    measure ── cells → bank           compare ─── teacher and student, same prompt and seed
                                                      study ───── all of it, in order

The app, the notebooks and the command line call these functions; a job calls them through `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from workbench import capture as capturing
from workbench import comparison, distillation, evaluation, models, operators, planning, sampling, surgery
from workbench.errors import InputError
from workbench.types import CheckpointState, ClipSize, Reporter, SilentReporter, StrictModel
from workbench.workspace import Workspace, new_id, write_json


@dataclass(frozen=True)
class Made:
    """What a step made: the path of the artefact, and the figures that a caller wants at once."""

    kind: str
    path: Path
    figures: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {self.kind: str(self.path), **self.figures}


def generate(config: sampling.GenerateConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Sample one clip from a model or a student folder."""
    reporter = reporter or SilentReporter()
    reporter.stage("loading the model", 1)
    model = surgery.open_model(config.model)
    sample = sampling.sample(model, config, reporter=reporter)
    clip = sampling.save_clip(sample, config, workspace, model=model)
    figures = {
        "video": str(clip / "clip.mp4"),
        "seconds": round(sample.seconds, 3),
        "notes": list(sample.notes),
    }
    return Made("clip", clip, figures)


def capture(config: capturing.CaptureConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Record reduced attention statistics of every block and head in a real sampling run."""
    reporter = reporter or SilentReporter()
    reporter.stage("loading the model", 1)
    model = surgery.open_model(config.model)
    return Made("profile", capturing.run(model, config, workspace, reporter=reporter), {})


def measure(
    config: distillation.MeasureConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Distil the feature maps of the chosen cells and measure each cell's error, into a bank."""
    reporter = reporter or SilentReporter()
    reporter.stage("loading the model", 1)
    model = surgery.open_model(config.model)
    folder = distillation.measure(model, config, workspace, reporter=reporter)
    return Made("bank", folder, {"distillation": distillation_figures(planning.load_bank(folder))})


def distillation_figures(bank: planning.Bank) -> dict[str, Any]:
    """Return the mean held-out value loss of all cells before and after, and the errors of each cell."""
    cells = sorted(bank.cells.values(), key=lambda cell: (cell.block, cell.label))
    per_cell = [
        {
            "block": cell.block,
            "rate": cell.label,
            "first_loss": cell.first_loss,
            "last_loss": cell.last_loss,
            "error": cell.error,
            "error_interval": [cell.error_low, cell.error_high],
            "error_branch_off": cell.error_off,
            "updates": cell.updates,
            "seconds": cell.seconds,
        }
        for cell in cells
    ]
    return {
        "first_loss": sum(cell.first_loss for cell in cells) / len(cells),
        "last_loss": sum(cell.last_loss for cell in cells) / len(cells),
        "per_cell": per_cell,
    }


def build_student(
    config: surgery.SurgeryConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Join a plan with its measured cells into a student folder, which any later step accepts as a model."""
    (reporter or SilentReporter()).stage("surgery", 1)
    bank = planning.load_bank(Path(config.bank))
    plan = planning.load(config.plan, bank.facts)
    folder = surgery.save_student(plan, bank, workspace, name=config.name)
    return Made("student", folder, {"plan": plan.short_name})


def compare(config: comparison.CompareConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Generate the same prompt and seed with teacher and student, and set the clips side by side."""
    folder = comparison.compare(config, workspace, reporter=reporter or SilentReporter())
    return Made("report", folder / "index.html", comparison.load(folder))


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

    def offer_sample(self, make: Callable[[], Path]) -> None:
        self._outer.offer_sample(make)


def evaluate(
    config: evaluation.EvaluateConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Judge a model's clips of a suite of prompts from their pixels."""
    reporter = reporter or SilentReporter()
    reporter.stage("loading the model", 1)
    model = surgery.open_model(config.model)
    folder = evaluation.evaluate(model, config, workspace, reporter=reporter)
    return Made("evaluation", folder, evaluation.load(folder))


@dataclass(frozen=True)
class Step:
    """A kind of job: how its settings are validated, and what runs."""

    config: type[StrictModel]
    run: Callable[[Any, Workspace, Reporter], Made]


STEPS: dict[str, Step] = {
    "generate": Step(sampling.GenerateConfig, generate),
    "capture": Step(capturing.CaptureConfig, capture),
    "measure": Step(distillation.MeasureConfig, measure),
    "surgery": Step(surgery.SurgeryConfig, build_student),
    "compare": Step(comparison.CompareConfig, compare),
    "study": Step(StudyConfig, study),
    "evaluate": Step(evaluation.EvaluateConfig, evaluate),
}


def check(kind: str, settings: Mapping[str, Any]) -> StrictModel:
    """Validate the settings of a step as far as it goes without loading weights.

    Raises:
        InputError: an unknown step, or one sentence that names the setting.
    """
    if kind not in STEPS:
        raise InputError(f"There is no step {kind!r}; known: {', '.join(STEPS)}.")
    config: Any = STEPS[kind].config.parse(settings, what=f"{kind} settings")
    if isinstance(config, surgery.SurgeryConfig):
        _check_cells(config.plan, config.bank)
        return config
    if isinstance(config, comparison.CompareConfig):
        comparison.check(config)
        if config.plan:
            _check_cells(config.plan, config.bank)
    facts = surgery.open_facts(config.model)[0]
    if isinstance(config, sampling.GenerateConfig):
        facts.check_size(config.size(facts))
    if isinstance(config, sampling.GenerateConfig | StudyConfig):
        models.check_words(facts, config.prompt)
    if isinstance(config, capturing.CaptureConfig):
        capturing.check(config, facts)
    if isinstance(config, distillation.MeasureConfig | StudyConfig):
        blocks = range(facts.num_blocks) if config.blocks is None else config.blocks
        for rate in config.rates:
            planning.make_plan(dict.fromkeys(blocks, operators.parse_rate(rate)), facts)
    checked: StrictModel = config
    return checked


def _check_cells(plan: str, bank: str) -> None:
    measured = planning.load_bank(Path(bank))
    measured.check_complete(planning.load(plan, measured.facts))
