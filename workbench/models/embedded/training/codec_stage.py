"""The codec's stages: images, short clips, whole clips at a falling learning rate, then the decoder alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.models.embedded.architecture import build_codec
from workbench.models.embedded.training.loop import Budget, Recorder, Schedule, StagePlan, run_stage
from workbench.models.embedded.training.measures import measure_codec
from workbench.models.embedded.training.pool import ClipPool, box_mask, to_pixels
from workbench.models.embedded.training.state import Part, has_average, is_saved, load_average
from workbench.models.embedded.whole_clip import ConvolutionForm, WholeClip

FOLDER = "codec"
FIRST_LOG_VARIANCE = -5.0


@dataclass(frozen=True)
class CodecLoss:
    """Weights of the codec's loss terms, on pixels in [-1, 1].

    Attributes:
        square: Of the squared error, beside the absolute error.
        edge: Of the absolute error of spatial differences: keeps reconstructions crisp.
        motion: Of the absolute error of differences between frames: keeps movers free of ghosts.
        kl: Of the mean KL divergence of a latent value.
        box: How much more a pixel inside an object's box counts.
        crisp: Of the difference in local strength of edges (root mean square of the spatial differences in
            windows of 8 × 8 pixels): an edge whose place is not quite known stays sharp.
    """

    square: float = 0.5
    edge: float = 1.0
    motion: float = 0.5
    kl: float = 1e-5
    box: float = 2.0
    crisp: float = 0.0


@dataclass(frozen=True)
class CodecStage:
    """One codec stage.

    Attributes:
        frames: Frames a clip.
        batch: Clips a step on the GPU.
        cpu_batch: Clips a step on the CPU.
        schedule: Learning rate and averaging.
        loss: Weights of the loss terms.
        decoder_only: Leave the encoder as it is, so that latents keep their meaning.
    """

    frames: int
    batch: int
    cpu_batch: int
    schedule: Schedule
    loss: CodecLoss = CodecLoss()
    decoder_only: bool = False


STAGES = {
    "vae-images": CodecStage(1, 128, 8, Schedule(peak=1e-3, final=0.7, warmup=50, decay=0.99)),
    "vae-clips": CodecStage(5, 48, 4, Schedule(peak=1e-3, final=0.8, warmup=30, decay=0.99)),
    "vae-finish": CodecStage(17, 16, 2, Schedule(peak=8e-4, final=0.01, warmup=30, decay=0.998)),
    "vae-sharpen": CodecStage(
        17,
        16,
        2,
        Schedule(peak=2e-4, final=0.01, warmup=30, decay=0.995),
        CodecLoss(crisp=2.0),
        decoder_only=True,
    ),
    "vae-orbits": CodecStage(
        17,
        16,
        2,
        Schedule(peak=4e-4, final=0.01, warmup=30, decay=0.995),
        CodecLoss(crisp=2.0, motion=1.5, box=8.0),
        decoder_only=True,
    ),
}


def inflate(codec: Any) -> None:
    """Make a fresh codec an image model that is held over the frames it skips: past taps start at zero."""
    with torch.no_grad():
        for layer in codec.modules():
            if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3:
                layer.weight[:, :, :2] = 0
        for block in codec.modules():
            mode = getattr(block, "mode", "")
            if mode not in ("upsample3d", "downsample3d"):
                continue
            weight, width = block.time_conv.weight, block.dim
            weight.zero_()
            block.time_conv.bias.zero_()
            identity = torch.eye(width, device=weight.device)
            if mode == "upsample3d":
                weight[:, :, 2, 0, 0] = identity.repeat(2, 1)
            else:
                weight[:, :, 1, 0, 0] = weight[:, :, 2, 0, 0] = 0.5 * identity
        half = codec.quant_conv.bias.shape[0] // 2
        codec.quant_conv.bias[half:] += FIRST_LOG_VARIANCE


def codec_loss(
    codec: WholeClip,
    clip: torch.Tensor,
    mask: torch.Tensor,
    noise: torch.Tensor,
    weights: CodecLoss,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch and its terms.

    Args:
        codec: The codec; it computes in the dtype of `noise`.
        clip: Pixels in [-1, 1], float32 [B, F, H, W, 3].
        mask: Where objects are, bool [B, F, H, W].
        noise: Standard normal, of the shape of the latents [B, T, H / 8, W / 8, z].
        weights: Weights of the terms.
    """
    mean, log_variance = codec.encode(clip.to(noise.dtype)).float().chunk(2, dim=-1)
    log_variance = log_variance.clamp(-30, 20)
    latents = mean + (0.5 * log_variance).exp() * noise.float()
    error = codec.decode(latents.to(noise.dtype)).float() - clip
    share = (1 + weights.box * mask.float())[..., None]
    share = share / share.mean()
    absolute = (error.abs() * share).mean()
    square = (error.square() * share).mean()
    edge = ((error[:, :, 1:] - error[:, :, :-1]).abs() * share[:, :, 1:]).mean() + (
        (error[:, :, :, 1:] - error[:, :, :, :-1]).abs() * share[:, :, :, 1:]
    ).mean()
    crisp = edge_strength_error(error + clip, clip) if weights.crisp else torch.zeros_like(edge)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = absolute + weights.square * square + weights.edge * edge + weights.kl * kl + weights.crisp * crisp
    if clip.shape[1] > 1:
        loss = loss + weights.motion * ((error[:, 1:] - error[:, :-1]).abs() * share[:, 1:]).mean()
    terms = {"absolute": absolute, "mse": error.square().mean(), "edge": edge, "kl": kl, "crisp": crisp}
    return loss, {name: value.detach() for name, value in terms.items()}


def edge_strength_error(ours: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference in local edge strength of clips [B, F, H, W, 3]."""
    return (_edge_strength(ours) - _edge_strength(truth)).abs().mean()


def _edge_strength(clip: torch.Tensor) -> torch.Tensor:
    right = (clip[:, :, 1:, 1:] - clip[:, :, 1:, :-1]).square().sum(-1)
    down = (clip[:, :, 1:, 1:] - clip[:, :, :-1, 1:]).square().sum(-1)
    energy = nn.functional.avg_pool2d((right + down).flatten(0, 1)[:, None], 8, stride=4, ceil_mode=True)
    return (energy + 1e-5).sqrt()


def draw_batch(
    pool: ClipPool, *, frames: int, batch: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw clips of `frames` frames from anywhere in the pool's clips, some mirrored, some backwards."""
    device = pool.frames.device
    available = pool.frames.shape[1]
    clips = torch.randint(len(pool), (batch,), generator=generator, device=device)
    starts = torch.randint(available - frames + 1, (batch,), generator=generator, device=device)
    order = starts[:, None] + torch.arange(frames, device=device)
    flips = torch.rand(2, batch, generator=generator, device=device) < 0.5
    order = torch.where(flips[0, :, None], order.flip(1), order)
    taken = pool.frames[clips[:, None], order]
    mask = box_mask(pool.boxes[clips[:, None], :, order].transpose(1, 2), *taken.shape[2:4])
    mirrored = flips[1].view(-1, 1, 1, 1)
    taken = torch.where(mirrored[..., None], taken.flip(3), taken)
    return to_pixels(taken), torch.where(mirrored, mask.flip(3), mask)


def open_codec(folder: Path, *, device: str, seed: int, resume: bool) -> Part:
    """Build the codec in training: fresh and inflated, from its last checkpoint, or from averages alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = build_codec()
    inflate(codec)
    part = Part(codec.to(device), seed=seed)
    if resume and is_saved(folder / FOLDER):
        part.load(folder / FOLDER)
    elif resume and has_average(folder / FOLDER):
        load_average(folder / FOLDER, codec)
        part.replace(dict(codec.named_parameters()))
    return part


def fastest_form(
    part: Part, pool: ClipPool, *, batch: int, dtype: torch.dtype
) -> tuple[ConvolutionForm, dict]:
    """Time one step of whole clips with both forms; returns the faster one, and both in milliseconds."""
    generator = torch.Generator(device=part.device).manual_seed(0)
    clip, mask = draw_batch(pool, frames=17, batch=batch, generator=generator)
    noise = torch.randn(_latent_shape(clip), generator=generator, device=part.device, dtype=dtype)
    times: dict[ConvolutionForm, float] = {}
    forms: tuple[ConvolutionForm, ...] = ("taps", "conv3d")
    for form in forms:
        codec = WholeClip(part.module, form=form)
        for repeat in range(3):
            if part.device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            loss, _ = codec_loss(codec, clip, mask, noise, CodecLoss())
            loss.backward()
            part.optimizer.zero_grad(set_to_none=True)
            if part.device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                times[form] = min(times.get(form, 1e9), 1000 * (time.perf_counter() - start))
    return min(times, key=lambda form: times[form]), times


def train_codec_stage(
    part: Part,
    name: str,
    *,
    pool: ClipPool,
    held_out: ClipPool,
    budget: Budget,
    recorder: Recorder,
    form: ConvolutionForm = "conv3d",
    batch: int | None = None,
) -> bool:
    """Run or go on with one of `STAGES`; returns whether it is finished."""
    if name in part.progress.done:
        return True
    stage = STAGES[name]
    on_gpu = part.device.type == "cuda"
    batch = batch or (stage.batch if on_gpu else stage.cpu_batch)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    codec = WholeClip(part.module, form=form)
    if stage.decoder_only:
        part.progress.enter(name)
        part.freeze(("encoder.", "quant_conv."))

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        clip, mask = draw_batch(pool, frames=stage.frames, batch=batch, generator=part.generator)
        shape = _latent_shape(clip)
        noise = torch.randn(shape, generator=part.generator, device=part.device, dtype=dtype)
        return codec_loss(codec, clip, mask, noise, stage.loss)

    def watch() -> dict[str, Any]:
        return measure_codec(codec, held_out, dtype=dtype).as_dict()

    plan = StagePlan(name, FOLDER, budget, stage.schedule, batch)
    return run_stage(part, plan, step=step, recorder=recorder, watch=watch)


@torch.no_grad()
def latent_moments(latents: Callable[[int], torch.Tensor], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of every latent channel over chunks [B, T, H, W, z]."""
    chunks = [latents(index).float().flatten(0, 3) for index in range(count)]
    values = torch.cat([chunk.mean(0, keepdim=True) for chunk in chunks]).mean(0)
    spread = torch.stack([(chunk - values).square().mean(0) for chunk in chunks]).mean(0).sqrt()
    return values, spread


def _latent_shape(clip: torch.Tensor) -> tuple[int, ...]:
    batch, frames, height, width, _ = clip.shape
    return batch, 1 + (frames - 1) // 4, height // 8, width // 8, 16
