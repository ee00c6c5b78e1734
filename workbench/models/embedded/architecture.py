"""The architecture of the embedded model, as diffusers and transformers classes, and its untrained form.

At 17 × 128 × 128 pixels the latents are 16 × 5 × 16 × 16, and every latent pixel is one of 1,280 tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5EncoderModel

NUM_FRAMES = 17
HEIGHT = 128
WIDTH = 128
GUIDANCE_SCALE = 3.0
NUM_STEPS = 20
FLOW_SHIFT = 3.0

LATENT_CHANNELS = 16
TEXT_WIDTH = 128

CODEC: dict[str, Any] = {
    "base_dim": 16,
    "decoder_base_dim": 24,
    "z_dim": LATENT_CHANNELS,
    "dim_mult": [2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 1, 1),
    "num_attention_heads": 6,
    "attention_head_dim": 32,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 128,
    "ffn_dim": 576,
    "num_layers": 10,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}
TEXT_ENCODER: dict[str, Any] = {
    "d_model": TEXT_WIDTH,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 64,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
}


def default_folder() -> Path:
    """Return the folder of the shipped weights (a diffusers folder)."""
    return Path(__file__).resolve().parent / "weights"


def build_codec(mean: torch.Tensor | None = None, std: torch.Tensor | None = None) -> AutoencoderKLWan:
    """Build the VAE with fresh weights.

    Args:
        mean: Mean of every latent channel, [16]; zero when not given.
        std: Standard deviation of every latent channel, [16]; one when not given.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    latents_mean = [0.0] * LATENT_CHANNELS if mean is None else [float(value) for value in mean]
    latents_std = [1.0] * LATENT_CHANNELS if std is None else [float(value) for value in std]
    return AutoencoderKLWan(**CODEC, latents_mean=latents_mean, latents_std=latents_std)


def build_transformer() -> WanTransformer3DModel:
    """Build the transformer with fresh weights: 10 blocks, 6 heads of 32, 5.5 M parameters."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return WanTransformer3DModel(**TRANSFORMER)


def build_text_encoder(vocabulary_size: int) -> UMT5EncoderModel:
    """Build the two-layer text encoder with fresh weights."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary_size, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **TEXT_ENCODER
    )
    return UMT5EncoderModel(config)


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Build the flow-matching scheduler."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=FLOW_SHIFT)


def build_pipeline(*, seed: int = 0) -> WanPipeline:
    """Build the whole pipeline with random weights drawn from `seed`, leaving torch's own generator alone."""
    import torch
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    from workbench.models.embedded.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = build_text_encoder(len(tokenizer))
        transformer = build_transformer()
        codec = build_codec()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        vae=codec.eval(),
        scheduler=build_scheduler(),
        transformer=transformer.eval(),
    )


def build_untrained(folder: str | Path, seed: int = 0) -> Path:
    """Write the embedded model with random weights as a diffusers folder.

    `WanPipeline.from_pretrained(folder)` loads it like any other Wan model. Its clips are noise; it exists so
    that code and tests can run the true architecture without the trained weights.

    Args:
        folder: Where to write; created if absent.
        seed: Seed of the random weights.

    Returns:
        The folder.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    build_pipeline(seed=seed).save_pretrained(path, safe_serialization=True)
    return path
