"""Lay clips out as VBench expects them, for whoever has its weights.

VBench (github.com/Vchitect/VBench) reads a flat folder of `<prompt>-<index>.mp4`, five clips (index 0 to 4)
per prompt, and finds the prompt in the file name. Nothing here computes a VBench score.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.workspace import read_json

SAMPLES_PER_PROMPT = 5
MAX_NAME_BYTES = 255
PROTOCOL = "vbench_protocol.json"


class SampledClip(NamedTuple):
    """One generated clip: its prompt, its number among the prompt's samples, its seed, and its MP4 file."""

    prompt: str
    sample: int
    seed: int
    path: Path


def clip_name(prompt: str, index: int) -> str:
    """Return VBench's file name of a sample.

    Raises:
        InputError: when the prompt cannot be part of a file name.
    """
    name = f"{prompt}-{index}.mp4"
    if not prompt.strip() or "/" in prompt or "\0" in prompt or len(name.encode()) > MAX_NAME_BYTES:
        raise InputError(
            f"VBench names a clip after its prompt, and {prompt[:40]!r} cannot be a file name; "
            f"use a prompt without '/' of at most {MAX_NAME_BYTES - 6} bytes."
        )
    return name


def export_suite(suite: Path, folder: Path, *, model: str = "") -> Path:
    """Lay out one model's clips of a finished suite for VBench; the seeds of a prompt become its samples.

    Args:
        suite: Folder of the suite.
        folder: A new or empty folder.
        model: As the suite was asked for it, or its name; empty takes the first, the reference.

    Returns:
        The protocol file in the folder.

    Raises:
        InputError: no suite, a model that is not in it, a lost clip, or a prompt that cannot be a file name.
    """
    document = read_json(suite / "suite.json", what=f"suite {suite.name}")
    models = document["models"]
    wanted = [i for i, one in enumerate(models) if model in ("", one["name"], one["asked_as"])]
    if not wanted:
        names = ", ".join(one["name"] for one in models)
        raise InputError(f"The suite {suite.name} has no model {model!r}; it has {names}.")
    chosen = models[wanted[0]]
    seeds = document["config"]["seeds"]
    clips = [
        SampledClip(
            document["prompts"][clip["prompt"]],
            seeds.index(clip["seed"]),
            clip["seed"],
            suite / "clips" / f"{clip['key']}.mp4",
        )
        for clip in document["clips"]
        if clip["floor"] is None and clip["key"].startswith(f"m{wanted[0]}-")
    ]
    settings = {
        name: chosen[name] for name in ("name", "fingerprint", "plan", "dtype", "device", "fps", "steps")
    }
    asked = {name: document["config"][name] for name in ("guidance", "frames", "height", "width")}
    versions = {"versions": document["versions"], "sampled": document["date"]}
    return export_vbench(folder, clips, settings={**settings, **asked, **versions})


def export_vbench(folder: Path, clips: Sequence[SampledClip], *, settings: Mapping[str, Any]) -> Path:
    """Copy clips into a folder laid out for VBench and write down how they were made.

    Args:
        folder: A new or empty folder.
        clips: Samples; a protocol-conform export has indices 0 to 4 of every prompt.
        settings: What all clips share: model, plan, steps, size, frames per second, versions.

    Returns:
        The protocol file in the folder: settings, and per clip its prompt, sample, seed and file name.

    Raises:
        InputError: when the folder is not empty, a clip is missing or named twice, or a prompt cannot be a
            name.
    """
    names = [clip_name(clip.prompt, clip.sample) for clip in clips]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"Two clips would both be named '{twice}'; give every sample of a prompt its own number."
        )
    missing = [clip.path for clip in clips if not clip.path.is_file()]
    if missing:
        raise InputError(f"The clip {missing[0]} does not exist; generate it before the export.")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"The folder {folder} is not empty; choose a new one for the export.")
    folder.mkdir(parents=True, exist_ok=True)
    for clip, name in zip(clips, names, strict=True):
        shutil.copyfile(clip.path, folder / name)
    counts = {clip.prompt: sum(other.prompt == clip.prompt for other in clips) for clip in clips}
    document = {
        "layout": "<prompt>-<index>.mp4",
        "samples_per_prompt": SAMPLES_PER_PROMPT,
        "complete": all(count == SAMPLES_PER_PROMPT for count in counts.values()),
        "settings": dict(settings),
        "clips": [
            {"file": name, "prompt": clip.prompt, "sample": clip.sample, "seed": clip.seed}
            for clip, name in zip(clips, names, strict=True)
        ],
    }
    protocol = folder / PROTOCOL
    protocol.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return protocol
