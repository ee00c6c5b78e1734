"""The adapter of the LTX video transformer of diffusers: a second architecture, through the same seam as Wan.

Order of operations as in `diffusers.models.transformers.transformer_ltx.LTXVideoAttnProcessor`: rotary
embedding before the heads are split. Its pipeline is not loaded by the workbench; `linearize` and
observing work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from workbench.models.adapter import AttentionShape, ForwardInputs, QueryKeyValue
from workbench.types import TokenGrid


class LtxAdapter:
    """Self-attention is `transformer_blocks.<i>.attn1`; tokens are frame-major."""

    def accepts(self, transformer: nn.Module) -> bool:
        return type(transformer).__name__ == "LTXVideoTransformer3DModel"

    def shape(self, transformer: nn.Module) -> AttentionShape:
        config: Any = transformer.config
        return AttentionShape(config.num_layers, config.num_attention_heads, config.attention_head_dim)

    def attention(self, transformer: nn.Module, block: int) -> nn.Module:
        blocks: Any = transformer.transformer_blocks
        attention = blocks[block].attn1
        assert isinstance(attention, nn.Module)
        return attention

    def attention_name(self, block: int) -> str:
        return f"transformer_blocks.{block}.attn1"

    def inputs(self, transformer: nn.Module, arguments: Mapping[str, Any]) -> ForwardInputs:
        grid = TokenGrid(arguments["num_frames"], arguments["height"], arguments["width"])
        return ForwardInputs(grid, arguments.get("timestep"))

    def query_key_value(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        *,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> QueryKeyValue:
        from diffusers.models.transformers.transformer_ltx import apply_rotary_emb

        module: Any = attention
        query = module.norm_q(module.to_q(hidden_states))
        key = module.norm_k(module.to_k(hidden_states))
        if rotary_emb is not None:
            query, key = apply_rotary_emb(query, rotary_emb), apply_rotary_emb(key, rotary_emb)
        heads = (module.heads, -1)
        return QueryKeyValue(
            query.unflatten(2, heads), key.unflatten(2, heads), module.to_v(hidden_states).unflatten(2, heads)
        )

    def output(self, attention: nn.Module, result: Tensor) -> Tensor:
        module: Any = attention
        projected: Tensor = module.to_out[1](module.to_out[0](result.flatten(2, 3)))
        return projected
