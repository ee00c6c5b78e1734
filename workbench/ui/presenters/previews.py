"""Paint and see: which clip belongs to a painted plan, whether it is there, and the job that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.ui.context import Context, whole_number
from workbench.ui.media import media_url
from workbench.ui.presenters import operators, plans

if TYPE_CHECKING:
    from workbench.comparison.plan_clip import RenderConfig
    from workbench.models import ModelFacts
    from workbench.planning import Bank

PROMPTS = {"embedded": "a big red ball moves right over sand"}
USUAL_PROMPT = "a red ball"
LIVE_TFLOP = 20.0
"""A clip of at most so many operations is rendered again by itself; a larger one when asked."""


def first(facts: ModelFacts) -> dict[str, Any]:
    """Return what the panel starts with: prompt, seed, and whether it follows the painter by itself."""
    from workbench.planning import block_flops
    from workbench.planning.cost import TERA

    grid = facts.token_grid(facts.default_size)
    clip = block_flops(facts, grid).total / TERA * facts.num_blocks * facts.default_steps * 2
    return {"prompt": PROMPTS.get(facts.name, USUAL_PROMPT), "seed": 7, "live": clip <= LIVE_TFLOP}


def answer(here: Context, question: Mapping[str, Any], *, bank: Bank | None) -> dict[str, Any]:
    """Return the clips of a painted plan where they are kept, else the state of the job that makes them.

    Args:
        here: context of the model.
        question: `plan`, `dense`, `prompt`, `seed`, and `start` to queue what lacks.
        bank: the measured cells.

    Raises:
        InputError: cells that are not measured, or a prompt that the model refuses.
    """
    from workbench.comparison import plan_clip

    config = _config(here, question, bank)
    teacher = plan_clip.find_render(plan_clip.teacher_of(config), here.workspace)
    made = plan_clip.find_render(config, here.workspace)
    shown = {
        "teacher": "" if teacher is None else media_url(here.workspace, teacher / plan_clip.CLIP),
        "clip": "",
        "state": "missing",
    }
    if made is not None:
        record = plan_clip.read_render(made)
        return {
            **shown,
            "state": "done",
            "clip": media_url(here.workspace, made / plan_clip.CLIP),
            "psnr": record.mean_psnr,
            "equal": bool(record.psnr) and record.mean_psnr is None,
            "seconds": record.seconds,
            "velocity": record.velocity_error,
            "device": record.device,
            "fps": here.facts.fps,
        }
    if question.get("start") is True:
        _start(here, config)
    settings = config.model_dump(mode="json")
    jobs = [job for job in here.queue.list() if job.kind == "render" and job.config == settings]
    if jobs:
        last = jobs[-1]
        shown |= {"state": last.state, "message": last.message, "job": last.id}
    return {**shown, "price": here.estimate("render", settings)}


def _config(here: Context, question: Mapping[str, Any], bank: Bank | None) -> RenderConfig:
    from workbench.comparison.plan_clip import RenderConfig, check
    from workbench.operators import label

    plan = plans.make_painted(here, question, operators(here.facts, bank))
    prompt = question.get("prompt")
    if not isinstance(prompt, str):
        raise InputError("The prompt is text.")
    config = RenderConfig(
        model=here.model,
        prompt=prompt,
        seed=whole_number(question.get("seed", 7), what="Seed"),
        operators=tuple(label(spec) for spec in plan.operators),
        bank=str(bank.folder) if bank is not None else "",
        dense_first=plan.schedule.dense_first,
    )
    check(config)
    return config


def _start(here: Context, config: RenderConfig) -> None:
    """Queue the clip; one still under way for another plan is not wanted any more."""
    settings = config.model_dump(mode="json")
    for job in here.queue.list():
        if job.kind == "render" and not job.ended and job.config != settings:
            here.queue.cancel(job.id)
    here.submit("render", settings, title=config.prompt)
