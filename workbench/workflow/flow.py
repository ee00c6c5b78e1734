"""The whole flow on one page: each step is a function from saved artefacts to a saved artefact.

    download ─ a model from the hub, where the user allows it
    generate ─ a clip                 plan ────── which operator each block gets (`workbench.planning`)
    capture ── what each head does    surgery ─── plan + bank → student folder
    measure ── cells → bank           finetune ── student → better student
    sensitivity ─ each cell's effect  compare ─── teacher and student, same prompt and seed
    synthesize ── clips to train on   study ───── all of it, in order

The app, the notebooks and the command line call these functions; a job calls them through `steps.STEPS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import capture as capturing
from workbench import comparison, data, distillation, evaluation, models, planning, sampling, surgery
from workbench.comparison import plan_clip
from workbench.errors import InputError
from workbench.evaluation import operator_times
from workbench.types import Reporter, SilentReporter
from workbench.workspace import Workspace

NOTABLE_BYTES = 2e9
"""Estimated memory from which a model's placement is worth a sentence."""


@dataclass(frozen=True)
class Made:
    """What a step made: the path of the artefact, and the figures that a caller wants at once."""

    kind: str
    path: Path
    figures: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {self.kind: str(self.path), **self.figures}


def _open(
    name: str, reporter: Reporter, placement: models.PlacementConfig | None = None
) -> models.LoadedModel:
    """Open a model; of one that is not small, say before loading what memory it is estimated to need."""
    reporter.stage("loading the model", 1)
    with suppress(InputError):
        facts = surgery.open_facts(name)[0]
        found = models.plan_placement(facts.source or facts.name, config=placement)
        if found.device_peak > NOTABLE_BYTES:
            reporter.note(found.sentence(facts.name, facts.default_size))
    return surgery.open_model(name, placement=placement)


def download(config: models.DownloadConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Bring a model onto this machine, whole and checked; from the hub only where the user allowed it."""
    del workspace  # the hub's cache holds it, so that every workspace has it
    (reporter or SilentReporter()).stage("downloading", 1)
    found = models.fetch(config)
    return Made("model", found.folder, {"name": found.name, "fingerprint": found.fingerprint})


def generate(config: sampling.GenerateConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Sample one clip from a model or a student folder."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter)
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
    model = _open(config.model, reporter)
    return Made("profile", capturing.run(model, config, workspace, reporter=reporter), {})


def measure(
    config: distillation.MeasureConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Distil the feature maps of the chosen cells and measure each cell's error, into a bank."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter, models.PlacementConfig(memory_gb=config.memory_gb))
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


def finetune(
    config: distillation.FinetuneConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Adapt a whole student to its teacher, or to captioned clips; makes a new student folder."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter, models.PlacementConfig(memory_gb=config.memory_gb))
    folder = distillation.finetune(model, config, workspace, reporter=reporter)
    return Made("student", folder, {"finetuning": distillation.finetune_figures(folder)})


def measure_sensitivity(
    config: distillation.SensitivityConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Install each cell of a bank alone and measure what it does to the velocity; kept with the bank."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter)
    path = distillation.measure_sensitivity(model, config, workspace, reporter=reporter)
    found = distillation.read_sensitivity(path)
    return Made("sensitivity", path, found.model_dump(mode="json", exclude={"config", "schema_version"}))


def compare(config: comparison.CompareConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Generate the same prompt and seed with teacher and student, and set the clips side by side."""
    folder = comparison.compare(config, workspace, reporter=reporter or SilentReporter())
    return Made("report", folder / "index.html", comparison.load(folder))


def render(config: plan_clip.RenderConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Sample the clip of a painted plan beside the teacher's, kept by what made it."""
    folder = plan_clip.render(config, workspace, reporter=reporter or SilentReporter())
    return Made("render", folder, {"psnr": plan_clip.read_render(folder).mean_psnr})


def time_operators(
    config: operator_times.TimesConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Measure the milliseconds of every operator on this device."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter)
    return Made("times", operator_times.time_operators(model, config, workspace, reporter=reporter), {})


def synthesize(config: data.SynthesizeConfig, workspace: Workspace, reporter: Reporter | None = None) -> Made:
    """Make captioned clips with a model, for training by flow matching."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter)
    folder = data.synthesize(model, config, workspace, reporter=reporter)
    return Made("dataset", folder, {"num_clips": config.num})


def evaluate(
    config: evaluation.EvaluateConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Judge a model's clips of a suite of prompts from their pixels."""
    reporter = reporter or SilentReporter()
    model = _open(config.model, reporter)
    folder = evaluation.evaluate(model, config, workspace, reporter=reporter)
    return Made("evaluation", folder, evaluation.load(folder))


def evaluate_suite(
    config: evaluation.SuiteConfig, workspace: Workspace, reporter: Reporter | None = None
) -> Made:
    """Set models beside each other on the same prompts and seeds, with noise floors and intervals."""
    folder = evaluation.evaluate_suite(config, workspace, reporter=reporter)
    figures = {name: value for name, value in evaluation.load_suite(folder).items() if name != "clips"}
    return Made("suite", folder, figures)
