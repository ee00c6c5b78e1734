"""Clips of a suite, sampled once and kept: frames as they are, and the latents at some points of the way.

One file a clip in the workspace's cache, named by a hash of all that determines it, so that an interrupted
suite goes on and another student meets the same teacher's clips.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models import LoadedModel, ModelFacts
from workbench.sampling import GenerateConfig, sample
from workbench.surgery import is_student, read_student
from workbench.types import Reporter
from workbench.workspace import Workspace

PREFIX = "sample-"
SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk at least."""


@dataclass(frozen=True)
class CachedClip:
    """One clip and how it came about.

    Attributes:
        frames: uint8 [F, H, W, 3].
        points: Latents after some of the steps, float32 [P, C, T, H, W]; the last is what was decoded.
        seconds: From prompt to frames, measured when it was sampled.
        fresh: Whether it was sampled just now.
    """

    frames: np.ndarray
    points: torch.Tensor
    seconds: float
    fresh: bool


class ClipCache:
    """Clips in a workspace.

    Args:
        workspace: Whose cache is used.
        points: At how many steps, evenly spread and ending with the last, latents are kept.
        max_bytes: Bound on all clips together; those unused for longest go first.
    """

    def __init__(self, workspace: Workspace, *, points: int, max_bytes: int) -> None:
        self.folder = workspace.folder("cache")
        self.points = points
        self.max_bytes = max_bytes

    def get(self, model: LoadedModel, config: GenerateConfig, *, reporter: Reporter) -> CachedClip:
        """Return a clip of a model, sampling it where it is not there.

        Raises:
            InputError: as `sample`, or the clip does not fit under the bound or on the disk.
            Cancelled, Paused: when the reporter says so.
        """
        config = config.resolved(model.facts)
        path = self.path(model, config)
        found = self.load(path)
        if found is not None:
            return found
        assert config.steps is not None
        wanted = points_of(config.steps, self.points)
        seen: list[torch.Tensor] = []

        def keep(step: int, latents: torch.Tensor) -> None:
            if step in wanted:
                seen.append(latents[0].detach().float().cpu())

        made = sample(model, config, reporter=_Quiet(reporter), on_latents=keep)
        clip = CachedClip(made.frames, torch.stack(seen), made.seconds, fresh=True)
        self._save(path, clip)
        return clip

    def path(self, model: LoadedModel, config: GenerateConfig) -> Path:
        """Return where a clip is kept: a hash of weights, student, dtype, device kind and settings."""
        settings = config.resolved(model.facts).model_dump(mode="json")
        del settings["model"]
        identity = {
            "weights": model.fingerprint,
            "companions": model.companions,
            "student": _student_digests(config.model),
            "plan": model.provenance.get("plan"),
            "dtype": str(model.pipeline.transformer.dtype),
            "device": model.device.type,
            "settings": settings,
            "points": self.points,
        }
        text = json.dumps(identity, sort_keys=True)
        return self.folder / f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def check_room(self, facts: ModelFacts, config: GenerateConfig, *, clips: int) -> None:
        """Refuse a suite whose clips would not fit, before the first is sampled.

        Raises:
            InputError: they pass the bound.
        """
        frames, height, width = config.size(facts)
        grid = facts.token_grid(config.size(facts))
        patch = facts.patch_size[0] * facts.patch_size[1] * facts.patch_size[2]
        each = frames * height * width * 3 + self.points * grid.num_tokens * patch * 16 * 4
        if each * clips > self.max_bytes:
            raise InputError(
                f"{clips} clips need about {each * clips / 1e6:,.0f} MB and the cache may hold "
                f"{self.max_bytes / 1e6:,.0f} MB; choose fewer prompts or seeds, or raise cache_megabytes."
            )

    def load(self, path: Path) -> CachedClip | None:
        """Return a kept clip; a file that is damaged counts as absent."""
        if not path.exists():
            return None
        try:
            tensors = load_tensors(path, what="a cached clip")
        except InputError:
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        frames = tensors["frames"].numpy()
        return CachedClip(frames, tensors["points"].float(), float(tensors["seconds"]), fresh=False)

    def _save(self, path: Path, clip: CachedClip) -> None:
        tensors = {
            "frames": torch.from_numpy(clip.frames),
            "points": clip.points,
            "seconds": torch.tensor(clip.seconds, dtype=torch.float64),
        }
        self._make_room(sum(value.nbytes for value in tensors.values()), keep=path)
        save_tensors(path, tensors)

    def _make_room(self, num_bytes: int, *, keep: Path) -> None:
        free = shutil.disk_usage(self.folder).free
        if num_bytes + SPARE_BYTES > free:
            raise InputError(
                f"A clip needs {num_bytes / 1e6:,.0f} MB and the workspace's disk has {free / 1e6:,.0f} MB "
                "free; free some space."
            )
        files = [(file, file.stat()) for file in self.folder.glob(f"{PREFIX}*.safetensors")]
        total = num_bytes + sum(facts.st_size for _, facts in files)
        for file, facts in sorted(files, key=lambda entry: entry[1].st_mtime):
            if total <= self.max_bytes:
                return
            if file != keep:
                file.unlink(missing_ok=True)
                total -= facts.st_size


def points_of(steps: int, points: int) -> list[int]:
    """Return at which steps, from 0, latents are kept: evenly spread, the last always."""
    count = min(points, steps)
    return sorted({round((index + 1) * steps / count) - 1 for index in range(count)})


def _student_digests(name: str) -> list[str]:
    """Return what tells the weights of one student from another's; nothing for a teacher."""
    if not is_student(name):
        return []
    manifest = read_student(name).manifest
    return [manifest.cells_sha256, manifest.lora_sha256, manifest.weights_sha256]


class _Quiet:
    """Passes interruptions on and keeps the stages of single clips out of a suite's progress."""

    def __init__(self, outer: Reporter) -> None:
        self._outer = outer

    def stage(self, name: str, steps: int) -> None:
        pass

    def step(self, step: int, **_: Any) -> None:
        pass

    def restore(self) -> None:
        return None

    def note(self, text: str) -> None:
        self._outer.note(text)

    def offer_sample(self, make: Any, every: int = 0) -> None:
        pass
