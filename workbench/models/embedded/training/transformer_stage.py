"""The transformer's stage: flow matching on the codec's latents, with the text encoder trained along."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import nn

from workbench.models.embedded.architecture import (
    FLOW_SHIFT,
    GUIDANCE_SCALE,
    NUM_STEPS,
    build_scheduler,
    build_text_encoder,
    build_transformer,
)
from workbench.models.embedded.tokenizer import TEXT_LENGTH, token_list
from workbench.models.embedded.training.latents import LatentPool
from workbench.models.embedded.training.loop import Budget, Recorder, Schedule, StagePlan, run_stage
from workbench.models.embedded.training.reading import TwinClips, measure_reading
from workbench.models.embedded.training.state import Part, is_saved, load_average, read_meta
from workbench.models.embedded.training.text_stage import FOLDER as TEXT_FOLDER
from workbench.models.embedded.training.text_stage import CaptionReader, encode_text
from workbench.models.embedded.whole_clip import WholeClip

FOLDER = "transformer"
STAGES = {
    "transformer": Schedule(peak=1.2e-3, final=0.01, warmup=200, decay=0.999),
    "transformer-finish": Schedule(peak=8e-4, final=0.01, warmup=100, decay=0.999),
}
BATCH, CPU_BATCH = 128, 4
EMPTY_PROMPT_SHARE = 0.1
FULL_CAPTION_SHARE = 0.4
"""How often a clip is shown with the caption that says everything, the way prompts are judged."""
BOX_WEIGHT, BOX_BELOW = 3.0, 0.9
"""How much more the objects' cells count, and below which noise level: there it is decided where they are."""
MATRICES = ("transformer.blocks.",)
CALLED_LENGTHS = (TEXT_LENGTH, 128, 226, 512)
"""Text lengths at which the model may be called: it learns that the amount of padding does not matter."""


class PaddedTextProcessor(WanAttnProcessor):
    """Cross-attention in which the last text token, always padding, stands for a given number of them.

    In the pipeline a prompt is padded with equal tokens to the called length. One token with the logarithm of
    their number added to its scores gives the same sum at a fraction of the cost.
    """

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self.bias = bias

    def __call__(  # type: ignore[no-untyped-def]
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None
    ) -> torch.Tensor:
        mask = self.bias.to(hidden_states.dtype).expand(hidden_states.shape[0], 1, hidden_states.shape[1], -1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, rotary_emb)


class Denoiser(nn.Module):
    """Text encoder and transformer as they are trained together.

    Args:
        vocabulary_size: Tokens of the text encoder.
    """

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(vocabulary_size)
        self.transformer = build_transformer()

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return text embeddings [B, L, 128] of token ids [B, L], zero at padding, as in the pipeline."""
        return encode_text(self.text_encoder, tokens)

    def forward(self, noisy: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return the velocity for latents [B, 16, T, H, W] at noise level `sigma` [B] in 0 to 1."""
        return self.transformer(noisy, sigma * 1000, text, return_dict=False)[0]


def padding_bias(length: int, *, device: torch.device | str) -> torch.Tensor:
    """Return the score bias [1, 1, 1, TEXT_LENGTH] with which a text stands for one padded to `length`."""
    bias = torch.zeros(1, 1, 1, TEXT_LENGTH, device=device)
    bias[..., -1] = math.log(length - TEXT_LENGTH + 1)
    return bias


def use_padding_bias(transformer: Any, bias: torch.Tensor) -> None:
    """Let every cross-attention of `transformer` count padding by `bias`, which may change in place."""
    for block in transformer.blocks:
        block.attn2.set_processor(PaddedTextProcessor(bias))


def open_denoiser(
    folder: Path,
    *,
    device: str,
    seed: int,
    resume: bool = False,
    averaged_only: bool = False,
    orthogonal: bool = False,
) -> Part:
    """Build text encoder and transformer: fresh, from their last checkpoint, or averaged weights only.

    With `orthogonal` the matrices of the transformer's blocks are moved by `OrthogonalMomentum`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = Denoiser(len(token_list()))
    denoiser.text_encoder.shared.weight.requires_grad_(True)
    facts = load_average(folder / FOLDER, denoiser) if averaged_only else {}
    part = Part(
        denoiser.to(device), seed=seed + 1, weight_decay=0.01, orthogonal=MATRICES if orthogonal else ()
    )
    part.progress.facts = facts
    if resume and is_saved(folder / FOLDER):
        part.load(folder / FOLDER)
    return part


def take_over_text_encoder(part: Part, folder: Path) -> bool:
    """Put the separately trained text encoder of a training folder into the denoiser, once.

    Returns:
        Whether it was put there now.
    """
    if not is_saved(folder / TEXT_FOLDER):
        return False
    steps = read_meta(folder / TEXT_FOLDER)["progress"]["steps"]
    if part.progress.facts.get("text_steps") == steps:
        return False
    reader = CaptionReader(len(token_list()))
    load_average(folder / TEXT_FOLDER, reader)
    part.replace({f"text_encoder.{name}": value for name, value in reader.text_encoder.named_parameters()})
    part.progress.facts["text_steps"] = steps
    return True


def latent_scale(part: Part) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return mean and deviation of the latents a part was trained on, [16] each, or None for a fresh part."""
    facts = part.progress.facts
    return (torch.tensor(facts["mean"]), torch.tensor(facts["std"])) if "mean" in facts else None


def draw_twins(count: int, batch: int, *, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Draw clips of a pool as neighbours (0, 1), (2, 3), …: twins lie side by side."""
    pairs = torch.randint(max(1, count // 2), (-(-batch // 2),), generator=generator, device=device)
    both = torch.stack([2 * pairs, 2 * pairs + 1], dim=1).flatten()[:batch]
    return both.clamp(max=count - 1)


def draw_captions(
    batch: int, captions: int, *, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Draw which caption of each clip is read; the first, which says everything, more often than others."""
    full = torch.rand(batch, generator=generator, device=device) < FULL_CAPTION_SHARE
    other = torch.randint(captions, (batch,), generator=generator, device=device)
    return torch.where(full, torch.zeros_like(other), other)


def draw_sigma(batch: int, *, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Draw noise levels as sampling visits them: half uniform and half logit-normal, then shifted.

    A quarter of all steps of a sampled clip have a noise level above 0.9; there the layout, the direction of
    motion and which object is which are decided, and only there does the prompt have to be read for them.
    """
    normal = torch.randn(batch, generator=generator, device=device)
    uniform = torch.rand(2, batch, generator=generator, device=device)
    share = torch.where(uniform[0] < 0.5, uniform[1], torch.sigmoid(normal))
    return FLOW_SHIFT * share / (1 + (FLOW_SHIFT - 1) * share)


def train_transformer_stage(
    part: Part,
    name: str,
    *,
    pool: LatentPool,
    budget: Budget,
    recorder: Recorder,
    compiled: bool = False,
    batch: int | None = None,
    twins: TwinClips | None = None,
) -> bool:
    """Run or go on with one of `STAGES`; returns whether it is finished.

    With `twins` every checkpoint says in the log what the averaged weights read of their prompts.
    """
    device = part.device
    batch = batch or (BATCH if device.type == "cuda" else CPU_BATCH)
    denoiser: Any = part.module
    bias = padding_bias(TEXT_LENGTH, device=device)
    use_padding_bias(denoiser.transformer, bias)
    part.progress.facts |= {"mean": pool.mean.tolist(), "std": pool.std.tolist()}
    empty = empty_prompt(device)
    lengths = torch.tensor([math.log(length - TEXT_LENGTH + 1) for length in CALLED_LENGTHS], device=device)
    velocity = torch.compile(denoiser) if compiled else denoiser

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        pool.collect()
        random: dict[str, Any] = {"generator": part.generator, "device": device}
        clips = draw_twins(len(pool), batch, generator=part.generator, device=device)
        which = draw_captions(batch, pool.tokens.shape[1], generator=part.generator, device=device)
        dropped = torch.rand(batch, 1, **random) < EMPTY_PROMPT_SHARE
        tokens = torch.where(dropped, empty, pool.tokens[clips, which])
        bias[..., -1] = lengths[torch.randint(len(lengths), (1,), **random)]
        clean = pool.latents[clips].float()
        # Twins share noise and noise level, so that what differs between their losses is what was asked for.
        noise = torch.randn(clean[::2].shape, **random).repeat_interleave(2, dim=0)[:batch]
        sigma = draw_sigma(-(-batch // 2), generator=part.generator, device=device)
        sigma = sigma.repeat_interleave(2)[:batch]
        share = sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            text = denoiser.encode_text(tokens)
            found = velocity((1 - share) * clean + share * noise, sigma, text)
        cells = (found.float() - (noise - clean)).square().mean(1)
        heavy = pool.inside[clips] & (sigma < BOX_BELOW).view(-1, 1, 1, 1)
        weight = 1 + (BOX_WEIGHT - 1) * heavy
        loss = (cells * weight).sum() / weight.sum()
        error, high = cells.mean((1, 2, 3)), sigma > 0.7
        values = {"plain": error.mean(), "high_noise": (error * high).sum() / high.sum().clamp(min=1)}
        return loss, {key: value.detach() for key, value in values.items()}

    def watch() -> dict[str, Any]:
        assert twins is not None
        bias[..., -1] = lengths[0]
        return measure_reading(denoiser, twins)

    plan = StagePlan(name, FOLDER, budget, STAGES[name], batch)
    return run_stage(part, plan, step=step, recorder=recorder, watch=None if twins is None else watch)


@torch.no_grad()
def sample_latents(
    part: Part,
    tokens: torch.Tensor,
    *,
    seed: int = 0,
    steps: int = NUM_STEPS,
    guidance: float = GUIDANCE_SCALE,
) -> torch.Tensor:
    """Sample latents for every prompt with the pipeline's scheduler and classifier-free guidance.

    Args:
        part: The denoiser.
        tokens: Token ids [B, TEXT_LENGTH].
        seed: Seed of the noise.
        steps: Euler steps.
        guidance: Guidance scale.

    Returns:
        Normalised latents, float32 [B, 16, 5, 16, 16].
    """
    device = part.device
    denoiser: Any = part.module
    use_padding_bias(denoiser.transformer, padding_bias(TEXT_LENGTH, device=device))
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((len(tokens), 16, 5, 16, 16), generator=generator).to(device)
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        text = denoiser.encode_text(tokens)
        nothing = denoiser.encode_text(empty_prompt(device).expand(len(tokens), -1))
        for time in scheduler.timesteps:
            sigma = (time / 1000).expand(len(tokens)).float()
            with_text = denoiser(latents, sigma, text).float()
            without = denoiser(latents, sigma, nothing).float()
            guided = without + guidance * (with_text - without)
            latents = scheduler.step(guided, time, latents, return_dict=False)[0]
    return latents


@torch.no_grad()
def decode_latents(
    codec: WholeClip, latents: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor], *, batch: int = 16
) -> torch.Tensor:
    """Decode normalised latents [B, 16, T, h, w] of a mean and deviation to bytes [B, F, H, W, 3]."""
    mean, std = (value.to(latents.device).view(1, -1, 1, 1, 1) for value in scale)
    dtype = torch.bfloat16 if latents.is_cuda else torch.float32
    grid = (latents.float() * std + mean).permute(0, 2, 3, 4, 1).to(dtype)
    clips = [codec.decode(grid[start : start + batch]).float() for start in range(0, len(grid), batch)]
    return torch.cat(clips).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def empty_prompt(device: torch.device | str) -> torch.Tensor:
    """Return the token ids of the empty prompt, [TEXT_LENGTH]: the end token, then padding."""
    tokens = torch.zeros(TEXT_LENGTH, dtype=torch.long, device=device)
    tokens[0] = 1
    return tokens
