"""Reproduce the figures of the embedded model on held-out prompts, with a contact sheet.

    python -m workbench.evaluation.held_out_report [--num 50] [--sheet-num 24]

Every clip is sampled once, judged by its own prompt and by the next one's (where the score must collapse),
and kept in the workspace's cache, so that a command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.evaluation.adherence import Verdicts, compare
from workbench.evaluation.clip_cache import CachedClip, ClipCache
from workbench.evaluation.reading import read_clip
from workbench.evaluation.sheets import save_sheet, strip
from workbench.evaluation.statistics import wilson_interval
from workbench.evaluation.suite import ClipVerdicts, Prompt, held_out_suite, summarize
from workbench.models import LoadedModel
from workbench.sampling import GenerateConfig
from workbench.surgery import open_model
from workbench.types import SilentReporter
from workbench.workspace import Workspace

log = logging.getLogger(__name__)
COMMAND = "python -m workbench.evaluation.held_out_report"
RESULTS = Path("docs/results")
IMAGES = Path("docs/images")
CACHE_BYTES = 4_000_000_000


def sampled(
    model: LoadedModel, prompts: Sequence[Prompt], workspace: Workspace, *, frames: int | None = None
) -> list[CachedClip]:
    """Sample every prompt with its seed, or take the clips that are there."""
    cache = ClipCache(workspace, points=1, max_bytes=CACHE_BYTES)
    clips = []
    for index, asked in enumerate(prompts):
        config = GenerateConfig(model=model.name, prompt=asked.prompt, seed=asked.seed, frames=frames)
        clips.append(cache.get(model, config, reporter=SilentReporter()))
        log.info("clip %d of %d: %.1f s", index + 1, len(prompts), clips[-1].seconds)
    return clips


def report(prompts: Sequence[Prompt], clips: Sequence[CachedClip]) -> dict[str, Any]:
    """Judge clips by their own prompts and by the next one's.

    Returns:
        adherence with intervals, undecided, asked, fully_right with intervals; the same for clips of one and
        of two objects; "another's caption"; and the verdicts clip by clip.
    """
    readings = [read_clip(clip.frames) for clip in clips]

    def judged(shift: int) -> list[ClipVerdicts]:
        found = []
        for index, asked in enumerate(prompts):
            by = prompts[(index + shift) % len(prompts)]
            verdicts: Verdicts = compare(readings[index], by.scene)
            found.append(ClipVerdicts(asked.prompt, asked.seed, by.prompt, verdicts, len(by.scene.objects)))
        return found

    own = judged(0)
    document = _figures(own)
    for number, word in ((1, "one object"), (2, "two objects")):
        alike = [clip for clip in own if clip.objects == number]
        if alike:
            document[word] = _figures(alike)
    if len(prompts) > 1:
        document["another's caption"] = _figures(judged(1))
    document["clips"] = summarize(own).to_json()["clips"]
    return document


def _figures(clips: Sequence[ClipVerdicts]) -> dict[str, Any]:
    found = summarize(clips).to_json()
    right = sum(clip.verdicts.fully_right for clip in clips)
    figures = {name: found[name] for name in ("adherence", "intervals", "undecided", "asked")}
    return {
        **figures,
        "fully_right": {
            "share": right / len(clips),
            "interval": list(wilson_interval(right, len(clips))),
            "clips": len(clips),
        },
    }


def facts_of_run(model: LoadedModel, clips: Sequence[CachedClip], command: str) -> dict[str, Any]:
    """Return what a figure was measured with: hardware, versions, weights, time a clip."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "hardware": {
            "device": str(model.device),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "seconds_per_clip": round(float(np.median([clip.seconds for clip in clips])), 2),
    }


def sheet(path: Path, prompts: Sequence[Prompt], clips: Sequence[CachedClip], *, columns: int = 2) -> None:
    """Write a contact sheet: every prompt above five frames of its clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_sheet(
        path,
        [[strip(clip.frames)] for clip in clips],
        titles=[one.prompt for one in prompts],
        columns=columns,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, judge and write the figures and the sheet."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--model", default="embedded", help="the embedded model or a student of it")
    parser.add_argument("--num", type=int, default=50)
    parser.add_argument("--sheet-num", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="which prompts are drawn")
    parser.add_argument("--out", type=Path, default=RESULTS / "adherence.json")
    parser.add_argument("--sheet", type=Path, default=IMAGES / "held_out.png")
    parser.add_argument("--workspace", type=Path, help="where clips are kept")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prompts = held_out_suite(options.num, seed=options.seed)
    model = open_model(options.model)
    clips = sampled(model, prompts, Workspace.open(options.workspace))
    command = f"{COMMAND} --num {options.num}"
    what = "how often clips of held-out prompts show what was asked, judged from their pixels"
    document = {"what": what, **facts_of_run(model, clips, command), **report(prompts, clips)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sheet(options.sheet, prompts[: options.sheet_num], clips[: options.sheet_num])
    log.info("%s", json.dumps(document["adherence"]))


if __name__ == "__main__":
    main()
