"""Teacher trajectories: what the transformer saw at every step of a sampling run; sampled once, kept on disk.

One file a trajectory in the workspace's cache, named by a hash of all that determines it. The cache has a
size bound; the trajectories that were unused for longest go first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from workbench.distillation.clips import PREFIX as CLIPS
from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models.text import encode, remember
from workbench.types import ClipSize, Reporter
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.models import LoadedModel

Branch = Literal["cond", "uncond"]
PREFIX = "trajectory-"
SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk at least."""


@dataclass(frozen=True)
class SamplingSettings:
    """What, beside prompt and seed, determines a trajectory."""

    steps: int
    guidance: float
    size: ClipSize

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Which forward passes a step has: both only where guidance is on."""
        return ("cond", "uncond") if self.guidance > 1 else ("cond",)


@dataclass(frozen=True)
class Trajectory:
    """The inputs of the transformer along one sampling run.

    Attributes:
        latents: before every step, [S, C, T, H, W].
        timesteps: of every step, [S].
        text: hidden states of the prompt by branch, [L, D] each.
        file: where it is kept.
    """

    file: Path
    prompt: str
    latents: Tensor
    timesteps: Tensor
    text: dict[Branch, Tensor]

    @property
    def num_steps(self) -> int:
        return int(self.timesteps.shape[0])


class TrajectoryCache:
    """Trajectories of one teacher in a workspace.

    Args:
        model: the teacher.
        settings: shared by all trajectories asked for.
        max_bytes: bound on all trajectories in the workspace's cache together.
        batch: so many are sampled at once, where a GPU has room.
    """

    def __init__(
        self,
        model: LoadedModel,
        workspace: Workspace,
        *,
        settings: SamplingSettings,
        max_bytes: int,
        batch: int = 1,
    ) -> None:
        self.model = model
        self.batch = batch
        self.folder = workspace.folder("cache")
        self.settings = settings
        self.max_bytes = max_bytes

    def prepare(self, prompts: Sequence[str], *, seed: int, reporter: Reporter) -> list[Trajectory]:
        """Return one trajectory a prompt, sampling those that are not there.

        The noise of a trajectory follows from `seed` and its prompt, whatever other prompts there are.

        Raises:
            InputError: they do not fit under the bound or on the disk; nothing was sampled.
        """
        seeds = [noise_seed(seed, prompt) for prompt in prompts]
        places = [self._path(prompt, own) for prompt, own in zip(prompts, seeds, strict=True)]
        self._check_room(places)
        reporter.stage("teacher trajectories", len(places))
        remember(self.model, self._unread(prompts, places))
        found: list[Trajectory] = []
        for first in range(0, len(places), self.batch):
            last = min(first + self.batch, len(places))
            several = [self._load(places[index], prompts[index]) for index in range(first, last)]
            missing = [first + offset for offset, one in enumerate(several) if one is None]
            if missing:
                wanted = [(places[index], prompts[index], seeds[index]) for index in missing]
                self._make_room(self._bytes_each() * len(missing), keep=places)
                for index, made in zip(missing, self._sample(wanted, reporter, done=first), strict=True):
                    self._save(places[index], made)
                    several[index - first] = made
            found += [one for one in several if one is not None]
            reporter.step(last)
        return found

    def _unread(self, prompts: Sequence[str], places: Sequence[Path]) -> list[str]:
        """Return the prompts whose trajectories are missing, so that one loading encodes them all."""
        missing = [prompt for prompt, path in zip(prompts, places, strict=True) if not path.exists()]
        negative = [""] if missing and len(self.settings.branches) == 2 else []
        return [*missing, *negative]

    def _path(self, prompt: str, seed: int) -> Path:
        settings = self.settings
        identity = [
            self.model.fingerprint,
            str(self.model.pipeline.transformer.dtype),
            prompt,
            seed,
            settings.steps,
            settings.guidance,
            list(settings.size),
        ]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        return self.folder / f"{PREFIX}{digest}.safetensors"

    def _bytes_each(self) -> int:
        """Estimate the size of one file: latents in float32 and two texts."""
        facts, config = self.model.facts, self.model.pipeline.transformer.config
        frames, height, width = facts.token_grid(self.settings.size)
        patch = facts.patch_size[0] * facts.patch_size[1] * facts.patch_size[2]
        latent = frames * height * width * patch * int(config.in_channels) * 4
        text = facts.text_tokens * int(config.text_dim) * 4
        return self.settings.steps * latent + 2 * text + 4096

    def _check_room(self, places: Sequence[Path]) -> None:
        each = self._bytes_each()
        total = each * len(places)
        if total > self.max_bytes:
            raise InputError(
                f"The teacher's trajectories need {_megabytes(total)} MB and the cache may hold "
                f"{_megabytes(self.max_bytes)} MB; choose fewer prompts or steps, or raise cache_megabytes."
            )
        missing = each * sum(not path.exists() for path in places)
        free = shutil.disk_usage(self.folder).free
        if missing and missing + SPARE_BYTES > free:
            raise InputError(
                f"The teacher's trajectories need {_megabytes(missing)} MB more and the workspace's disk has "
                f"{_megabytes(free)} MB free; free some space or choose fewer prompts or steps."
            )

    def _make_room(self, num_bytes: int, *, keep: Sequence[Path]) -> None:
        kinds = (f"{PREFIX}*.safetensors", f"{CLIPS}*.safetensors")
        files = [(path, path.stat()) for kind in kinds for path in self.folder.glob(kind)]
        total = num_bytes + sum(facts.st_size for _, facts in files)
        for path, facts in sorted(files, key=lambda file: file[1].st_mtime):
            if total <= self.max_bytes:
                return
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= facts.st_size

    def _load(self, path: Path, prompt: str) -> Trajectory | None:
        """Read a trajectory; a file that is damaged counts as absent."""
        if not path.exists():
            return None
        try:
            tensors = load_tensors(path, what="a cached trajectory")
        except InputError:
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        text: dict[Branch, Tensor] = {branch: tensors[f"text.{branch}"] for branch in self.settings.branches}
        return Trajectory(path, prompt, tensors["latents"], tensors["timesteps"], text)

    def _save(self, path: Path, trajectory: Trajectory) -> None:
        tensors = {"latents": trajectory.latents, "timesteps": trajectory.timesteps}
        tensors |= {f"text.{branch}": text.contiguous() for branch, text in trajectory.text.items()}
        save_tensors(path, tensors)

    @torch.no_grad()
    def _sample(
        self, wanted: Sequence[tuple[Path, str, int]], reporter: Reporter, *, done: int
    ) -> list[Trajectory]:
        """Sample trajectories, each a file, a prompt and the seed of its noise, in one run."""
        pipeline: Any = self.model.pipeline
        settings, device = self.settings, self.model.device
        guided = len(settings.branches) == 2
        texts = [encode(self.model, prompt, guided=guided) for _, prompt, _ in wanted]
        negative = torch.cat([text.uncond for text in texts if text.uncond is not None]) if guided else None
        states: list[Tensor] = [torch.cat([self._noise(seed) for _, _, seed in wanted])]
        timesteps: list[float] = []

        def keep(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            timesteps.append(float(timestep))
            states.append(values["latents"].float().cpu())
            reporter.step(done)
            return values

        pipeline(
            prompt_embeds=torch.cat([text.cond for text in texts]),
            negative_prompt_embeds=negative,
            height=settings.size.height,
            width=settings.size.width,
            num_frames=settings.size.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            latents=states[0].to(device),
            output_type="latent",
            callback_on_step_end=keep,
        )
        moments = torch.tensor(timesteps, dtype=torch.float64)
        latents = torch.stack(states[:-1], dim=1)
        found = []
        for (path, prompt, _), text, own in zip(wanted, texts, latents, strict=True):
            branches: dict[Branch, Tensor] = {"cond": text.cond[0].cpu()}
            if text.uncond is not None:
                branches["uncond"] = text.uncond[0].cpu()
            found.append(Trajectory(path, prompt, own.clone(), moments, branches))
        return found

    def _noise(self, seed: int) -> Tensor:
        """Return the first latents, [1, C, T, H, W], the same on every device."""
        facts = self.model.facts
        frames, height, width = facts.token_grid(self.settings.size)
        shape = (
            1,
            int(self.model.pipeline.transformer.config.in_channels),
            frames * facts.patch_size[0],
            height * facts.patch_size[1],
            width * facts.patch_size[2],
        )
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def velocity(model: LoadedModel, trajectory: Trajectory, *, step: int, branch: Branch) -> Tensor:
    """Run the transformer once on a cached state and return its velocity, [1, C, T, H, W]."""
    return velocity_at(
        model,
        trajectory.latents[step : step + 1],
        trajectory.timesteps[step : step + 1],
        trajectory.text[branch].unsqueeze(0),
        place=(branch, step, trajectory.num_steps),
    )


def velocity_at(
    model: LoadedModel, latents: Tensor, timestep: Tensor, text: Tensor, *, place: tuple[Branch, int, int]
) -> Tensor:
    """Run the transformer once on any states.

    Args:
        latents: [B, C, T, H, W].
        timestep: as the scheduler has it, [B].
        text: hidden states of the prompts, [B, L, D].
        place: branch, step and number of steps, for operators whose schedule asks for them.

    Returns:
        The velocity, [B, C, T, H, W].
    """
    transformer: Any = model.transformer
    dtype, device = transformer.dtype, model.device
    branch, step, num_steps = place
    with transformer.cache_context(branch, step_index=step, num_inference_steps=num_steps):
        result: Tensor = transformer(
            hidden_states=latents.to(device, dtype),
            timestep=_timestep(model, timestep, latents),
            encoder_hidden_states=text.to(device, dtype),
            return_dict=False,
        )[0]
    return result


def _timestep(model: LoadedModel, timestep: Tensor, latents: Tensor) -> Tensor:
    """Return what the pipeline passes on: one number a state, or one a token where the model takes that."""
    timestep = timestep.to(model.device).float()
    if not model.pipeline.config.expand_timesteps:
        return timestep
    frames, height, width = latents.shape[2:]
    patch_frames, patch_height, patch_width = model.facts.patch_size
    tokens = (frames // patch_frames) * (height // patch_height) * (width // patch_width)
    return timestep.unsqueeze(1).expand(-1, tokens)


def noise_seed(seed: int, prompt: str) -> int:
    """Return the seed of a prompt's first noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt}".encode()).digest()[:6], "big")


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f}"
