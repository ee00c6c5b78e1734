"""Evaluate a model on captioned scenes: generate, judge from pixels, keep verdicts and a contact sheet.

Goes on clip by clip after an interruption.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from workbench.errors import InputError
from workbench.evaluation.adherence import Verdicts, judge
from workbench.evaluation.sheets import save_sheet, strip
from workbench.evaluation.suite import ClipVerdicts, Prompt, held_out_suite, summarize
from workbench.models import LoadedModel, ModelFacts
from workbench.models.prompts import has_closed_vocabulary
from workbench.sampling import GenerateConfig, sample
from workbench.types import CheckpointState, Reporter, SilentReporter, StrictModel
from workbench.workspace import Workspace, read_json, write_json

RESULT = "evaluation.json"
SHEET = "sheet.png"
SHEET_COLUMNS = 2


class EvaluateConfig(StrictModel):
    """Which model to judge on which prompts.

    Attributes:
        model: registry name, folder or student folder of the embedded model.
        suite: "held-out" holds attribute combinations that were never trained on.
        num: clips.
        suite_seed: which prompts are drawn; clip i is generated with seed i.
        frames: length of the clips, 4k + 1; None takes the model's default.
        swap_prompts: judge each clip by another's prompt; the score must collapse.
    """

    model: str = "embedded"
    suite: Literal["held-out"] = "held-out"
    num: Annotated[int, Field(ge=1, le=10_000)] = 50
    suite_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=5)] | None = None
    swap_prompts: bool = False


def evaluate(
    model: LoadedModel, config: EvaluateConfig, workspace: Workspace, *, reporter: Reporter | None = None
) -> Path:
    """Generate and judge the clips of a suite.

    Returns:
        The folder: evaluation.json, sheet.png.

    Raises:
        InputError: a model that does not know the world, or a swap of fewer than two clips.
        Cancelled, Paused: when the reporter says so, after keeping the clips judged so far.
    """
    reporter = reporter or SilentReporter()
    check_evaluation(config, model.facts)
    prompts = held_out_suite(config.num, seed=config.suite_seed)
    progress = _Progress(reporter.restore())
    reporter.stage("clips", config.num)
    for index in range(len(progress.verdicts), config.num):
        asked = prompts[index]
        judged_by = prompts[(index + 1) % config.num] if config.swap_prompts else asked
        made = sample(model, _settings(config, asked))
        progress.add(judge(made.frames, judged_by.scene), strip(made.frames), made.seconds)
        reporter.step(index + 1, state=progress.state, seconds=made.seconds)
    return _write(model, config, prompts, progress, workspace)


def check_evaluation(config: EvaluateConfig, facts: ModelFacts) -> None:
    """Refuse an evaluation that cannot run, before weights are loaded.

    Raises:
        InputError: a model that does not know the world, a size that it cannot make, or a swap of one clip.
    """
    if not has_closed_vocabulary(facts):
        raise InputError(
            f"The suite {config.suite!r} is made of scenes of the embedded world, which {facts.name} does "
            "not know; evaluate the embedded model or a student of it."
        )
    if config.swap_prompts and config.num < 2:
        raise InputError("Swapping prompts needs at least 2 clips; raise --num.")
    usual = facts.default_size
    facts.check_size(usual._replace(frames=config.frames or usual.frames))


def load(folder: Path) -> dict[str, Any]:
    """Return the result of an evaluation as JSON data.

    Raises:
        InputError: no evaluation, or a damaged one.
    """
    return read_json(folder / RESULT, what=f"evaluation {folder.name}")


def _settings(config: EvaluateConfig, asked: Prompt) -> GenerateConfig:
    return GenerateConfig(
        model=config.model,
        prompt=asked.prompt,
        seed=asked.seed,
        steps=config.steps,
        guidance=config.guidance,
        frames=config.frames,
    )


class _Progress:
    """The clips judged so far."""

    def __init__(self, state: CheckpointState | None) -> None:
        self.verdicts: list[Verdicts] = []
        self.strips: list[np.ndarray] = []
        self.seconds: list[float] = []
        if state is not None:
            self.verdicts = [Verdicts(**one) for one in state.meta["verdicts"]]
            self.seconds = list(state.meta["seconds"])
            self.strips = list(state.tensors["strips"].numpy())

    def add(self, verdicts: Verdicts, strip: np.ndarray, seconds: float) -> None:
        self.verdicts.append(verdicts)
        self.strips.append(strip)
        self.seconds.append(seconds)

    def state(self) -> CheckpointState:
        import torch

        meta = {"verdicts": [one.asked() for one in self.verdicts], "seconds": self.seconds}
        return CheckpointState(tensors={"strips": torch.from_numpy(np.stack(self.strips))}, meta=meta)


def _write(
    model: LoadedModel,
    config: EvaluateConfig,
    prompts: list[Prompt],
    progress: _Progress,
    workspace: Workspace,
) -> Path:
    clips = []
    for index, (asked, verdicts) in enumerate(zip(prompts, progress.verdicts, strict=True)):
        judged_by = prompts[(index + 1) % config.num] if config.swap_prompts else asked
        clips.append(
            ClipVerdicts(asked.prompt, asked.seed, judged_by.prompt, verdicts, len(judged_by.scene.objects))
        )
    report = summarize(clips, swapped=config.swap_prompts).to_json()
    with workspace.new_folder("evaluations", name=model.name) as folder:
        save_sheet(
            folder.path / SHEET,
            [[image] for image in progress.strips],
            titles=[_title(clip) for clip in clips],
            columns=min(SHEET_COLUMNS, len(clips)),
        )
        document = {
            **report,
            "config": config.model_dump(mode="json"),
            "model": {"name": model.name, "fingerprint": model.fingerprint},
            "seconds_per_clip": round(float(np.median(progress.seconds)), 3),
            "device": str(model.device),
            "versions": {name: version(name) for name in ("torch", "diffusers")},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder.path / RESULT, document)
    return folder.final


def _title(clip: ClipVerdicts) -> str:
    """Return the prompt a clip was judged by, and what of it is not right."""
    missed = [name for name, verdict in clip.verdicts.asked().items() if verdict != "right"]
    return f"{clip.judged_by} (missed: {', '.join(missed)})" if missed else clip.judged_by
