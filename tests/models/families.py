"""Small folders of the exact format of every supported family, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SMALL: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "rope_max_seq_len": 64,
}
FAMILIES = ("wan2.1-t2v", "wan2.2-ti2v-5b", "wan2.2-t2v-a14b")


def save_family(folder: Path, family: str) -> Path:
    """Write the pipeline of a family as its authors publish it: classes, components, index, scheduler."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from workbench.models.embedded.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    channels = 8 if family == "wan2.2-ti2v-5b" else 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {"patch_size": (1, 2, 2), "in_channels": channels, "out_channels": channels}
        transformer = WanTransformer3DModel(**SMALL, **parts)
        second = WanTransformer3DModel(**SMALL, **parts) if family == "wan2.2-t2v-a14b" else None
        codec: dict[str, Any] = {"base_dim": 4, "z_dim": channels, "num_res_blocks": 1}
        codec |= {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
        codec |= {"dim_mult": [1, 1, 1, 1], "temperal_downsample": [False, True, True]}
        if family == "wan2.2-ti2v-5b":
            codec |= {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
            codec |= {"decoder_base_dim": 4, "scale_factor_spatial": 16}
        words = UMT5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0
        )
        WanPipeline(
            tokenizer=tokenizer,
            text_encoder=UMT5EncoderModel(words).eval(),
            vae=AutoencoderKLWan(**codec).eval(),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction",
                use_flow_sigmas=True,
                num_train_timesteps=1000,
                flow_shift=3.0,
            ),
            transformer=transformer.eval(),
            transformer_2=None if second is None else second.eval(),
            boundary_ratio=0.875 if second is not None else None,
            expand_timesteps=family == "wan2.2-ti2v-5b",
        ).save_pretrained(folder)
    size = [9, 64, 64] if family == "wan2.2-ti2v-5b" else [9, 48, 32]
    stated = {"text_tokens": 16, "default_size": size, "default_steps": 3, "default_guidance": 3.0, "fps": 8}
    (folder / "workbench.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder
