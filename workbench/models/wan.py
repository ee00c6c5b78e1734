"""The adapter of the Wan transformers of diffusers (`WanTransformer3DModel`, VACE: they share `attn1`).

The order of operations is that of `diffusers.models.transformers.transformer_wan.WanAttnProcessor`, so that
a dense attention between `query_key_value` and `output` gives the bits of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, empty_like, nn

from workbench.models.adapter import AttentionShape, ForwardInputs, QueryKeyValue
from workbench.types import TokenGrid

CLASSES = ("WanTransformer3DModel", "WanVACETransformer3DModel")


class WanAdapter:
    """Self-attention is `blocks.<i>.attn1`; tokens are frame-major."""

    def accepts(self, transformer: nn.Module) -> bool:
        return type(transformer).__name__ in CLASSES

    def shape(self, transformer: nn.Module) -> AttentionShape:
        config: Any = transformer.config
        return AttentionShape(config.num_layers, config.num_attention_heads, config.attention_head_dim)

    def attention(self, transformer: nn.Module, block: int) -> nn.Module:
        blocks: Any = transformer.blocks
        attention = blocks[block].attn1
        assert isinstance(attention, nn.Module)
        return attention

    def attention_name(self, block: int) -> str:
        return f"blocks.{block}.attn1"

    def inputs(self, transformer: nn.Module, arguments: Mapping[str, Any]) -> ForwardInputs:
        config: Any = transformer.config
        latent = arguments["hidden_states"].shape[2:]
        frames, height, width = (
            pixels // patch for pixels, patch in zip(latent, config.patch_size, strict=True)
        )
        return ForwardInputs(TokenGrid(frames, height, width), arguments.get("timestep"))

    def query_key_value(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        *,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> QueryKeyValue:
        module: Any = attention
        if module.fused_projections:
            query, key, value = module.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = (
                module.to_q(hidden_states),
                module.to_k(hidden_states),
                module.to_v(hidden_states),
            )
        query, key = module.norm_q(query), module.norm_k(key)
        query, key, value = (tensor.unflatten(2, (module.heads, -1)) for tensor in (query, key, value))
        if rotary_emb is not None:
            query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        return QueryKeyValue(query, key, value)

    def output(self, attention: nn.Module, result: Tensor) -> Tensor:
        module: Any = attention
        projected: Tensor = module.to_out[1](module.to_out[0](result.flatten(2, 3)))
        return projected


def rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Apply rotary position embedding to [B, N, H, D], with interleaved pairs as in Wan.

    Args:
        states: queries or keys.
        cosines: [1, N, 1, D], each value twice.
        sines: the same.
    """
    first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosines[..., 0::2], sines[..., 1::2]
    rotated = empty_like(states)
    rotated[..., 0::2] = first * cosine - second * sine
    rotated[..., 1::2] = first * sine + second * cosine
    return rotated.type_as(states)
