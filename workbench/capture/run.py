"""Capturing: one real sampling run is watched, reduced and kept with its clip."""

from __future__ import annotations

import time
from pathlib import Path

from workbench.capture.config import CaptureConfig, check
from workbench.capture.recorder import Recorder
from workbench.capture.store import make_manifest, save
from workbench.models import LoadedModel
from workbench.sampling import GenerateConfig, sample, write_clip
from workbench.types import Reporter, TokenGrid
from workbench.video import Frames
from workbench.workspace import Workspace


def run(model: LoadedModel, config: CaptureConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Sample a clip and keep reduced statistics of every self-attention at the chosen steps.

    The clip is bit-equal to one sampled without watching. Of a student, the numbers say what softmax over its
    queries and keys would do.

    Returns:
        The folder of the capture.

    Raises:
        InputError: a prompt, size, step or token that does not fit; nothing was started.
        Cancelled, Paused: when the reporter says so.
    """
    plan = check(config, model.facts)
    for note in plan.notes:
        reporter.note(note)
    wanted = GenerateConfig(**{name: getattr(config, name) for name in GenerateConfig.model_fields})
    recorder = Recorder(plan, model.facts)
    started = time.monotonic()
    result = sample(model, wanted, reporter=reporter, observer=recorder)
    seconds = time.monotonic() - started
    recorder.check_complete()
    with workspace.new_folder("captures", name=config.name or config.prompt) as folder:
        write_clip(folder.path, result, wanted, model=model)
        _save_pictures(folder.path, result.frames, plan.grid)
        save(folder.path, recorder, make_manifest(config, plan, recorder, model.facts, seconds=seconds))
    return folder.final


def _save_pictures(folder: Path, frames: Frames, grid: TokenGrid) -> None:
    """Save one picture a latent frame, spread over the clip from its first frame to its last."""
    from PIL import Image

    last = len(frames) - 1
    for index in range(grid.frames):
        place = round(index * last / max(grid.frames - 1, 1))
        Image.fromarray(frames[place]).save(folder / f"frame-{index:02d}.png")
