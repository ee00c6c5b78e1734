"""The kinds of jobs: how each one's settings are checked before it is queued, and what runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import capture as capturing
from workbench import (
    comparison,
    data,
    distillation,
    evaluation,
    models,
    operators,
    planning,
    sampling,
    surgery,
)
from workbench.comparison import plan_clip
from workbench.errors import InputError
from workbench.evaluation import operator_times
from workbench.types import Reporter, StrictModel
from workbench.workflow.flow import (
    Made,
    build_student,
    capture,
    compare,
    download,
    evaluate,
    evaluate_suite,
    finetune,
    generate,
    measure,
    measure_sensitivity,
    render,
    synthesize,
    time_operators,
)
from workbench.workflow.study import StudyConfig, study
from workbench.workspace import Workspace


@dataclass(frozen=True)
class Step:
    """A kind of job.

    Attributes:
        config: its settings.
        run: what the job does.
        check: looks at valid settings as far as it goes without loading weights; raises `InputError`.
    """

    config: type[StrictModel]
    run: Callable[[Any, Workspace, Reporter], Made]
    check: Callable[[Any], None]


def check(kind: str, settings: Mapping[str, Any]) -> StrictModel:
    """Validate the settings of a step as far as it goes without loading weights.

    Raises:
        InputError: an unknown step, or one sentence that names the setting.
    """
    if kind not in STEPS:
        raise InputError(f"There is no step {kind!r}; known: {', '.join(STEPS)}.")
    step = STEPS[kind]
    config = step.config.parse(settings, what=f"{kind} settings")
    step.check(config)
    if kind != "download":
        for name in _models(config):
            surgery.check_model(name)
    return config


def _models(config: StrictModel) -> list[str]:
    """Return every model that the settings name."""
    named = [getattr(config, "model", None), *getattr(config, "models", ())]
    named += [side.model for side in getattr(config, "sides", ())]
    return list(dict.fromkeys(name for name in named if name))


def _check_clip(config: sampling.GenerateConfig) -> None:
    facts = surgery.open_facts(config.model)[0]
    facts.check_size(config.size(facts))
    models.check_words(facts, config.prompt)


def _check_capture(config: capturing.CaptureConfig) -> None:
    _check_clip(config)
    capturing.check(config, surgery.open_facts(config.model)[0])


def _check_measuring(config: distillation.MeasureConfig) -> None:
    distillation.check_measure(config)


def _check_rates(config: StudyConfig) -> None:
    facts = surgery.open_facts(config.model)[0]
    blocks = range(facts.num_blocks) if config.blocks is None else config.blocks
    for rate in config.rates:
        planning.make_plan(dict.fromkeys(blocks, operators.parse_rate(rate)), facts)


def _check_cells(plan: str, bank: str, facts: models.ModelFacts | None = None) -> None:
    measured = planning.load_bank(Path(bank), facts)
    measured.check_complete(planning.load(plan, measured.facts))


def _check_surgery(config: surgery.SurgeryConfig) -> None:
    _check_cells(config.plan, config.bank)


def _check_comparison(config: comparison.CompareConfig) -> None:
    comparison.check(config)
    teacher = surgery.open_facts(config.model)[0]
    for side in config.columns:
        if side.model:
            student = surgery.read_student(side.model)
            student.plan.model.check(teacher, what=f"student {student.name}")
        if side.plan:
            _check_cells(side.plan, side.bank, teacher)
    comparison.check_rows(config, teacher)


def _check_times(config: operator_times.TimesConfig) -> None:
    facts = surgery.open_facts(config.model)[0]
    facts.check_size(config.size(facts))
    for rate in config.rates:
        operators.parse_rate(rate)


def _check_render(config: plan_clip.RenderConfig) -> None:
    plan_clip.check(config)


def _check_study(config: StudyConfig) -> None:
    facts = surgery.open_facts(config.model)[0]
    models.check_words(facts, config.prompt)
    _check_rates(config)
    if config.plan is None:
        return
    plan = planning.load(config.plan, facts)
    blocks = range(facts.num_blocks) if config.blocks is None else config.blocks
    rates = [operators.label(operators.parse_rate(rate)) for rate in config.rates]
    chosen = {block: operators.label(spec) for block, spec in plan.converted.items()}
    lacking = [
        f"block {block} {rate}" for block, rate in chosen.items() if block not in blocks or rate not in rates
    ]
    if lacking:
        raise InputError(
            f"The plan {plan.short_name} needs {', '.join(lacking)}, which this study does not measure "
            f"(blocks {', '.join(map(str, blocks))} at {', '.join(rates)}); choose another plan."
        )


def _check_synthesis(config: data.SynthesizeConfig) -> None:
    data.check_synthesis(config)


def _check_finetuning(config: distillation.FinetuneConfig) -> None:
    distillation.check_finetune(config)


def _check_sensitivity(config: distillation.SensitivityConfig) -> None:
    distillation.check_sensitivity(config)


def _check_evaluation(config: evaluation.EvaluateConfig) -> None:
    evaluation.check_evaluation(config, surgery.open_facts(config.model)[0])


STEPS: dict[str, Step] = {
    "download": Step(models.DownloadConfig, download, models.check_download),
    "generate": Step(sampling.GenerateConfig, generate, _check_clip),
    "capture": Step(capturing.CaptureConfig, capture, _check_capture),
    "measure": Step(distillation.MeasureConfig, measure, _check_measuring),
    "sensitivity": Step(distillation.SensitivityConfig, measure_sensitivity, _check_sensitivity),
    "surgery": Step(surgery.SurgeryConfig, build_student, _check_surgery),
    "synthesize": Step(data.SynthesizeConfig, synthesize, _check_synthesis),
    "finetune": Step(distillation.FinetuneConfig, finetune, _check_finetuning),
    "compare": Step(comparison.CompareConfig, compare, _check_comparison),
    "render": Step(plan_clip.RenderConfig, render, _check_render),
    "times": Step(operator_times.TimesConfig, time_operators, _check_times),
    "study": Step(StudyConfig, study, _check_study),
    "evaluate": Step(evaluation.EvaluateConfig, evaluate, _check_evaluation),
    "evaluate-suite": Step(evaluation.SuiteConfig, evaluate_suite, evaluation.check_suite),
}
