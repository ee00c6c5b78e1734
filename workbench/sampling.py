"""Sample a clip from a model and keep it: one prompt, one seed, the unchanged `WanPipeline.__call__`.

Knows models and frames; it does not know whether the model is a teacher or a student.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from workbench.models import LoadedModel, ModelFacts, check_prompt, placement, text
from workbench.operators import Observer, clock_of, label, observe
from workbench.operators.module import FeatureOperator
from workbench.types import ClipSize, Reporter, SilentReporter, StrictModel
from workbench.video import Frames, write_mp4
from workbench.workspace import Workspace, write_json

if TYPE_CHECKING:
    from torch import Tensor

MAX_SEED = 2**63 - 1
PACKAGES = ("torch", "diffusers", "transformers")


class GenerateConfig(StrictModel):
    """What a user chooses for one clip; None takes the model's default.

    Attributes:
        model: registry name, diffusers folder, student folder or hub id.
        seed: of the initial noise, drawn on the CPU so that devices agree.
        guidance: classifier-free guidance scale; at most 1 runs without the unconditional branch.
    """

    model: str = "embedded"
    prompt: str
    negative_prompt: str = ""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None

    def size(self, facts: ModelFacts) -> ClipSize:
        """Return the clip size, with the model's default for what was not chosen."""
        usual = facts.default_size
        return ClipSize(self.frames or usual.frames, self.height or usual.height, self.width or usual.width)

    def resolved(self, facts: ModelFacts) -> GenerateConfig:
        """Return the same configuration with every default written out.

        Raises:
            InputError: a size that the model cannot make.
        """
        size = self.size(facts)
        facts.check_size(size)
        return self.model_copy(
            update={
                "steps": self.steps or facts.default_steps,
                "guidance": facts.default_guidance if self.guidance is None else self.guidance,
                "frames": size.frames,
                "height": size.height,
                "width": size.width,
            }
        )


@dataclass(frozen=True)
class Sample:
    """One clip.

    Attributes:
        frames: uint8 RGB, [F, H, W, 3].
        latents: what was decoded, [C, T, H, W] as the VAE has them, on the CPU.
        seconds: wall-clock time from prompt to frames, measured.
        decode_seconds: the part of it after the last step.
        notes: sentences for the user, for example that the prompt was cut.
    """

    frames: Frames
    latents: Tensor
    seconds: float
    decode_seconds: float
    notes: tuple[str, ...]


def sample(
    model: LoadedModel,
    config: GenerateConfig,
    *,
    reporter: Reporter | None = None,
    observer: Observer | None = None,
    on_latents: Callable[[int, Tensor], None] | None = None,
) -> Sample:
    """Sample one clip; the same configuration on the same machine gives the same bits.

    Args:
        model: teacher or student.
        config: what to sample; `config.model` is not looked at.
        reporter: hears every step, and may interrupt after any.
        observer: sees every self-attention, as in `operators.observe`.
        on_latents: sees the latents [1, C, T, H, W] after every step, with the step's number from 0.

    Raises:
        InputError: a prompt or a size that the model refuses.
        Cancelled, Paused: when the reporter says so.
    """
    import torch

    reporter = reporter or SilentReporter()
    config = config.resolved(model.facts)
    require_room(model, config.size(model.facts))
    prompt = check_prompt(model, config.prompt)
    if config.negative_prompt.strip():
        check_prompt(model, config.negative_prompt)
    clock = clock_of(model.transformer)
    if clock is not None:
        clock.reset()
    assert config.steps is not None
    watch = _Watch(reporter, config.steps, on_latents)
    watching = nullcontext() if observer is None else observe(model, observer)
    reporter.stage("sampling", config.steps)
    started = time.monotonic()
    words = _words(model, config, prompt.text)
    notes = [prompt.note] if prompt.note else []
    with watching:
        try:
            made = model.pipeline(
                **words,
                height=config.height,
                width=config.width,
                num_frames=config.frames,
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                generator=torch.Generator("cpu").manual_seed(config.seed),
                output_type="np",
                callback_on_step_end=watch.on_step_end,
                max_sequence_length=model.facts.text_tokens,
            ).frames
        except torch.OutOfMemoryError:
            if not watch.is_done or model.placement.tiling:
                raise
            made = None
    if made is None:
        made = _decode_in_tiles(model, watch.latents)
        notes.append("Decoding the clip at once ran out of memory; it was decoded in tiles.")
    frames = np.round(np.asarray(made[0]) * 255).clip(0, 255).astype(np.uint8)
    ended = time.monotonic()
    reporter.step(1)
    assert watch.latents is not None
    return Sample(
        frames=frames,
        latents=watch.latents[0].detach().cpu().clone(),
        seconds=ended - started,
        decode_seconds=ended - watch.last_step_at,
        notes=tuple(notes),
    )


def _decode_in_tiles(model: LoadedModel, latents: Any) -> Any:
    """Decode the last latents as the pipeline does, in tiles, now and from now on."""
    import torch

    pipeline: Any = model.pipeline
    codec = pipeline.vae
    codec.enable_tiling()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    config = codec.config
    shape = (1, config.z_dim, 1, 1, 1)
    with torch.no_grad():
        wide = latents.to(model.device, codec.dtype)
        mean, std = (
            torch.tensor(numbers).view(shape).to(wide)
            for numbers in (config.latents_mean, config.latents_std)
        )
        video = codec.decode(wide / (1.0 / std) + mean, return_dict=False)[0]
    frames = pipeline.video_processor.postprocess_video(video, output_type="np")
    pipeline.maybe_free_model_hooks()
    return frames


def require_room(model: LoadedModel, size: ClipSize) -> None:
    """Refuse a clip that cannot fit into the memory that is free, before any work is done.

    Raises:
        InputError: what is needed and what is free, in GB.
    """
    placement.check_clip(
        model.footprint,
        model.facts,
        size,
        placement=model.placement,
        bytes_each=model.transformer_dtype.itemsize,
        free=placement.free_memory(model.device),
    )


def _words(model: LoadedModel, config: GenerateConfig, prompt: str) -> dict[str, Any]:
    """Return the pipeline's arguments for the prompt: words, or states where its text encoder passes."""
    if not model.placement.passing_text:
        return {"prompt": prompt, "negative_prompt": config.negative_prompt}
    assert config.guidance is not None
    states = text.encode(model, prompt, negative=config.negative_prompt, guided=config.guidance > 1)
    return {"prompt_embeds": states.cond, "negative_prompt_embeds": states.uncond}


class _Watch:
    """Passes steps of the pipeline on to a reporter and keeps the last latents."""

    def __init__(
        self, reporter: Reporter, num_steps: int, on_latents: Callable[[int, Tensor], None] | None
    ) -> None:
        self.reporter = reporter
        self.num_steps = num_steps
        self.on_latents = on_latents
        self.latents: Tensor | None = None
        self.is_done = False
        self.last_step_at = 0.0

    def on_step_end(self, _: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.latents = tensors["latents"]
        self.last_step_at = time.monotonic()
        if self.on_latents is not None:
            self.on_latents(step, tensors["latents"])
        self.reporter.step(step + 1)
        if step + 1 == self.num_steps:
            self.is_done = True
            self.reporter.stage("decoding", 1)
        return {}


def save_clip(
    sample: Sample,
    config: GenerateConfig,
    workspace: Workspace,
    *,
    model: LoadedModel,
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Keep a clip in the workspace with everything needed to make it again.

    Args:
        sample: the clip.
        config: how it was made.
        workspace: where to keep it.
        model: what made it.
        manifest: more to write into the manifest.

    Returns:
        The folder: clip.mp4, poster.png, latents.safetensors, manifest.json.

    Raises:
        InputError: the workspace cannot be written.
    """
    with workspace.new_folder("clips", name=config.prompt) as folder:
        write_clip(folder.path, sample, config, model=model, manifest=manifest)
    return folder.final


def write_clip(
    folder: Path,
    sample: Sample,
    config: GenerateConfig,
    *,
    model: LoadedModel,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of `save_clip` into a folder that exists."""
    from PIL import Image

    from workbench.jobs.tensors import save_tensors

    write_mp4(folder / "clip.mp4", sample.frames, fps=model.facts.fps)
    Image.fromarray(sample.frames[len(sample.frames) // 2]).save(folder / "poster.png")
    save_tensors(folder / "latents.safetensors", {"latents": sample.latents})
    write_json(folder / "manifest.json", {**clip_manifest(sample, config, model=model), **(manifest or {})})


def clip_manifest(sample: Sample, config: GenerateConfig, *, model: LoadedModel) -> dict[str, Any]:
    """Return what a clip's manifest says: settings, model, plan, versions, time."""
    settings = config.resolved(model.facts)
    return {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": json.loads(settings.model_dump_json()),
        "model": {"name": model.name, "fingerprint": model.fingerprint, **model.provenance},
        "implementations": implementations(model, settings.size(model.facts)),
        "fps": model.facts.fps,
        "tokens": model.facts.token_grid(settings.size(model.facts)).num_tokens,
        "seconds": sample.seconds,
        "decode_seconds": sample.decode_seconds,
        "notes": list(sample.notes),
        "device": str(model.device),
        "placement": placement_facts(model),
        "dtype": str(model.transformer.dtype).removeprefix("torch."),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def placement_facts(model: LoadedModel) -> dict[str, Any]:
    """Return what a manifest says of where the model lay, and the estimate that this rested on."""
    chosen = model.placement
    return {
        "offload": chosen.offload,
        "vae_tiling": chosen.tiling,
        "text_encoder": "passing" if chosen.passing_text else "resident",
        "estimated_peak_gb": round(chosen.device_peak / 1e9, 2),
    }


def implementations(model: LoadedModel, size: ClipSize) -> dict[str, str]:
    """Return which implementation each installed operator runs at a clip size, by operator label."""
    import torch

    installed = {
        label(module.spec): module
        for module in model.transformer.modules()
        if isinstance(module, FeatureOperator)
    }
    if not installed:
        return {}
    tokens = model.facts.token_grid(size).num_tokens
    shape = (1, tokens, model.facts.num_heads, model.facts.head_dim)
    probe = torch.empty(shape, device=model.device, dtype=model.pipeline.transformer.dtype)
    return {name: operator.implementation(probe) for name, operator in installed.items()}
