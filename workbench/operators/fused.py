"""Blocks of a Wan transformer with what lies between the matrix products fused, reversibly.

Norm, modulation, gate and sum are one pass over memory, as are the norm and rotary embedding of queries and
keys (`kernels.elementwise`). Attention is what the block has, softmax or an operator of surgery. For
inference.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kernels.elementwise import gated_sum, residual_norm, rms_norm_rotate
from workbench.errors import InputError
from workbench.operators.processor import OperatorProcessor
from workbench.operators.softmax import softmax_attention

BLOCK_CLASS = "WanTransformerBlock"


@contextmanager
def fused_elementwise(transformer: nn.Module) -> Iterator[None]:
    """Run the blocks of a Wan transformer with fused element-wise work while the body runs.

    Results differ from the plain blocks by rounding: queries and keys are rounded once in place of twice.
    Surgery may be done before or inside. Needs `torch.no_grad()` in the body.

    Args:
        transformer: a `WanTransformer3DModel`, as it is or after surgery.

    Raises:
        InputError: blocks of another class; nothing was changed.
    """
    blocks: Any = getattr(transformer, "blocks", ())
    strangers = {type(block).__name__ for block in blocks} - {BLOCK_CLASS}
    if strangers or not len(blocks):
        found = ", ".join(sorted(strangers)) or f"none in {type(transformer).__name__}"
        raise InputError(f"Fused element-wise work is for blocks of class {BLOCK_CLASS}, found {found}.")
    for block in blocks:
        block.forward = functools.partial(block_forward, block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def block_forward(
    block: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Any
) -> Tensor:
    """Evaluate one block with the signature and formula of diffusers' `WanTransformerBlock.forward`."""
    shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation(block.scale_shift_table, temb)
    _, normed = residual_norm(hidden_states, scale=scale, shift=shift, eps=block.norm1.eps)
    attended = self_attention(block.attn1, normed, rotary_emb)
    if isinstance(block.norm2, nn.Identity):
        hidden_states = normed = gated_sum(hidden_states, attended, gate)
    else:
        norm = block.norm2
        hidden_states, normed = residual_norm(
            hidden_states,
            update=attended,
            gate=gate,
            scale=norm.weight.detach(),
            shift=norm.bias.detach(),
            one_plus=False,
            eps=norm.eps,
        )
    attended = block.attn2(normed, encoder_hidden_states, None, None)
    hidden_states, normed = residual_norm(
        hidden_states, update=attended, scale=ff_scale, shift=ff_shift, eps=block.norm3.eps
    )
    return gated_sum(hidden_states, block.ffn(normed), ff_gate)


def modulation(table: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
    """Return shift, scale and gate of attention and feed-forward, [B, 1, C], or [B, N, C] for a time a token.

    Args:
        table: [1, 6, C].
        temb: [B, 6, C], or [B, N, 6, C].
    """
    if temb.ndim == 4:
        return (table.unsqueeze(0) + temb.float()).unbind(2)
    return (table + temb.float()).chunk(6, dim=1)


def self_attention(attention: Any, hidden_states: Tensor, rotary_emb: Any) -> Tensor:
    """Project, norm and rotate, attend, project back; [B, N, C] in and out."""
    if attention.fused_projections:
        query, key, value = attention.to_qkv(hidden_states).chunk(3, dim=-1)
    else:
        query, key, value = (
            attention.to_q(hidden_states),
            attention.to_k(hidden_states),
            attention.to_v(hidden_states),
        )
    query, key = (
        rms_norm_rotate(states, norm.weight.detach(), heads=attention.heads, rotary=rotary_emb, eps=norm.eps)
        for states, norm in ((query, attention.norm_q), (key, attention.norm_k))
    )
    value = value.unflatten(2, (attention.heads, -1))
    processor = attention.processor
    if isinstance(processor, OperatorProcessor):
        result = processor.attend(attention, query, key, value)
    else:
        backend, parallel = processor._attention_backend, processor._parallel_config
        result = softmax_attention(query, key, value, backend=backend, parallel_config=parallel)
    projected: Tensor = attention.to_out[1](attention.to_out[0](result.type_as(query).flatten(2, 3)))
    return projected
