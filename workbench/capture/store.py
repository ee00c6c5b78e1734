"""A capture on disk: `capture.json` says what was captured, `statistics.safetensors` holds the numbers.

clip.mp4, poster.png          the clip of the very run
frame-00.png, frame-01.png    one picture a latent frame, to lay rows of attention over
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kernels.attention_stats import DISTANCE_EDGES
from workbench.capture.config import CaptureConfig, CapturePlan
from workbench.capture.recorder import METRICS, Recorder
from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models import ModelFacts
from workbench.types import StrictModel, TokenGrid
from workbench.workspace import read_json, write_json

SCHEMA_VERSION = 1
FILE = "capture.json"
STATISTICS = "statistics.safetensors"

Count = Annotated[int, Field(ge=1)]


class CaptureManifest(StrictModel):
    """The content of `capture.json`.

    Attributes:
        config: the settings that made it.
        model: facts of the model, with its fingerprint.
        grid: latent tokens, (frames, height, width).
        steps: captured steps, 0-based, and `timesteps` of each.
        row_queries: tokens whose rows are kept at every captured step.
        kept_step: step of which the row of any token can be had; None where queries and keys were not kept.
        seconds: of the whole run.
    """

    schema_version: int = SCHEMA_VERSION
    config: CaptureConfig
    model: ModelFacts
    grid: tuple[Count, Count, Count]
    num_steps: Count
    steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    timesteps: tuple[float, ...]
    branches: Annotated[tuple[str, ...], Field(min_length=1)]
    row_queries: tuple[int, ...] = ()
    map_size: Count
    kept_step: int | None = None
    seconds: Annotated[float, Field(ge=0)] = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capture:
    """A capture that was read and checked.

    Attributes:
        tensors: name to [steps, branches, blocks, heads, ...]; see `recorder.Recorder`.
    """

    folder: Path
    manifest: CaptureManifest
    tensors: dict[str, Tensor]

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(*self.manifest.grid)

    @property
    def num_blocks(self) -> int:
        return self.manifest.model.num_blocks

    @property
    def num_heads(self) -> int:
        return self.manifest.model.num_heads

    @property
    def clip(self) -> Path:
        return self.folder / "clip.mp4"

    @cached_property
    def frames(self) -> tuple[Path, ...]:
        """One picture a latent frame."""
        return tuple(self.folder / f"frame-{index:02d}.png" for index in range(self.grid.frames))

    def metric(self, name: str, *, step: int | None = None, branch: str | None = None) -> NDArray[np.float32]:
        """Return a number per block and head, [blocks, heads, ...].

        Args:
            name: one of `recorder.METRICS`, or "by_frame_distance", "by_distance", "pooled".
            step: a captured step; None is the mean over all. The same for `branch`.

        Raises:
            InputError: a metric, step or branch that was not captured.
        """
        if name not in (*METRICS, "by_frame_distance", "by_distance", "pooled"):
            raise InputError(f"There is no metric {name[:40]!r}; known: {', '.join(METRICS)}.")
        chosen = self.tensors[name].float()
        chosen = chosen.mean(dim=0) if step is None else chosen[self._step_index(step)]
        chosen = chosen.mean(dim=0) if branch is None else chosen[self._branch_index(branch)]
        result: NDArray[np.float32] = chosen.numpy()
        return result

    def has_row(self, token: int, *, step: int | None = None, branch: str = "cond") -> bool:
        """Return whether the attention row of a token can be had."""
        step = self.default_step if step is None else step
        if token in self.manifest.row_queries and step in self.manifest.steps:
            return branch in self.manifest.branches
        return step == self.manifest.kept_step and branch == "cond"

    @property
    def default_step(self) -> int:
        """The step whose rows are shown first: where any token can be asked for, else the middle one."""
        kept = self.manifest.kept_step
        return self.manifest.steps[len(self.manifest.steps) // 2] if kept is None else kept

    def row(
        self, block: int, head: int, token: int, *, step: int | None = None, branch: str = "cond"
    ) -> NDArray[np.float32]:
        """Return where one query token looks, [T, H, W], summing to 1.

        Rows of `row_queries` are those of the run; others are computed from kept queries and keys, which
        are in half precision (about three digits).

        Raises:
            InputError: no such block, head or token, or its row was not kept at this step.
        """
        self.check_place(block, head, token)
        step = self.default_step if step is None else step
        if not self.has_row(token, step=step, branch=branch):
            kept = ", ".join(map(str, self.manifest.row_queries)) or "none"
            raise InputError(
                f"The row of token {token} was not kept at step {step} ({branch}); kept tokens: {kept}. "
                "Capture again with this token among the row queries."
            )
        if token in self.manifest.row_queries:
            place = (self._step_index(step), self._branch_index(branch), block, head)
            scaled = self.tensors["rows"][place][self.manifest.row_queries.index(token)].float()
            row = scaled / scaled.sum()
        else:
            query, key = self.kept(block)
            scores = key[:, head] @ query[token, head]
            row = torch.softmax(scores / query.shape[-1] ** 0.5, dim=0)
        result: NDArray[np.float32] = row.reshape(self.manifest.grid).numpy()
        return result

    def kept(self, block: int) -> tuple[Tensor, Tensor]:
        """Return queries and keys of a block at the kept step, [N, heads, head_dim] each, float32.

        Raises:
            InputError: this capture kept none.
        """
        self.check_place(block, 0, 0)
        if self.manifest.kept_step is None:
            raise InputError(
                f"Capture {self.folder.name} kept no queries and keys; "
                "capture again with a larger --max-megabytes."
            )
        return self.tensors["kept_query"][block].float(), self.tensors["kept_key"][block].float()

    def check_place(self, block: int, head: int, token: int) -> None:
        """Refuse a block, head or token that the capture does not have.

        Raises:
            InputError: names it and the range.
        """
        for name, value, count in (
            ("Block", block, self.num_blocks),
            ("Head", head, self.num_heads),
            ("Token", token, self.grid.num_tokens),
        ):
            if not 0 <= value < count:
                raise InputError(f"{name} {value} does not exist; this capture has 0 to {count - 1}.")

    def _step_index(self, step: int) -> int:
        if step not in self.manifest.steps:
            steps = ", ".join(map(str, self.manifest.steps))
            raise InputError(f"Step {step} was not captured; captured steps: {steps}.")
        return self.manifest.steps.index(step)

    def _branch_index(self, branch: str) -> int:
        if branch not in self.manifest.branches:
            known = ", ".join(self.manifest.branches)
            raise InputError(f"Branch {branch[:40]!r} was not captured; captured: {known}.")
        return self.manifest.branches.index(branch)


def save(folder: Path, recorder: Recorder, manifest: CaptureManifest) -> None:
    """Write statistics and manifest into a folder."""
    save_tensors(folder / STATISTICS, recorder.tensors)
    write_json(folder / FILE, json.loads(manifest.model_dump_json()))


def load(path: Path) -> Capture:
    """Read a capture folder strictly.

    Args:
        path: the folder, or its capture.json.

    Raises:
        InputError: no capture, damaged, or of a newer version.
    """
    folder = path.parent if path.name == FILE else path
    what = f"capture {folder.name}"
    if not (folder / FILE).is_file():
        raise InputError(
            f"{folder.name!r} is not a capture ({FILE} is missing); capture first or check the path."
        )
    data: dict[str, Any] = read_json(folder / FILE, what=what)
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{what} was made by a newer version (schema {version}; this is {SCHEMA_VERSION}); "
            "update the workbench."
        )
    manifest = CaptureManifest.parse(data, what=what)
    tensors = load_tensors(folder / STATISTICS, expected=_expected(manifest), what=f"{what}: {STATISTICS}")
    return Capture(folder, manifest, tensors)


def _expected(manifest: CaptureManifest) -> dict[str, tuple[int, ...]]:
    facts, grid = manifest.model, TokenGrid(*manifest.grid)
    place = (len(manifest.steps), len(manifest.branches), facts.num_blocks, facts.num_heads)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(METRICS, place)
    shapes["by_frame_distance"] = (*place, grid.frames)
    shapes["by_distance"] = (*place, len(DISTANCE_EDGES))
    shapes["pooled"] = (*place, manifest.map_size, manifest.map_size)
    if manifest.row_queries:
        shapes["rows"] = (*place, len(manifest.row_queries), grid.num_tokens)
    if manifest.kept_step is not None:
        kept = (facts.num_blocks, grid.num_tokens, facts.num_heads, facts.head_dim)
        shapes |= {"kept_query": kept, "kept_key": kept}
    return shapes


def make_manifest(
    config: CaptureConfig, plan: CapturePlan, recorder: Recorder, facts: ModelFacts, *, seconds: float
) -> CaptureManifest:
    """Put together what `capture.json` says of a finished run."""
    return CaptureManifest(
        config=config,
        model=facts,
        grid=(plan.grid.frames, plan.grid.height, plan.grid.width),
        num_steps=plan.num_steps,
        steps=plan.steps,
        timesteps=tuple(recorder.timesteps.get(step, 0.0) for step in plan.steps),
        branches=plan.branches,
        row_queries=plan.row_queries,
        map_size=plan.map_size,
        kept_step=plan.kept_step,
        seconds=round(seconds, 3),
        notes=plan.notes,
    )
