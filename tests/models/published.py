"""Published configurations of the supported models, as their model cards' config.json have them."""

from __future__ import annotations

from typing import Any

_WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}
_WAN_14B = {**_WAN, "num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "wan2.1-t2v-1.3b": {**_WAN, "num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960},
    "wan2.1-t2v-14b": _WAN_14B,
    "wan2.2-ti2v-5b": {
        **_WAN, "num_layers": 30, "num_attention_heads": 24, "ffn_dim": 14336,
        "in_channels": 48, "out_channels": 48,
    },
    "wan2.2-t2v-a14b": _WAN_14B,
}  # fmt: skip
WAN21_CODEC: dict[str, Any] = {}
WAN22_CODEC: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
CODECS = {
    "wan2.1-t2v-1.3b": WAN21_CODEC,
    "wan2.1-t2v-14b": WAN21_CODEC,
    "wan2.2-ti2v-5b": WAN22_CODEC,
    "wan2.2-t2v-a14b": WAN21_CODEC,
}
UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
}
