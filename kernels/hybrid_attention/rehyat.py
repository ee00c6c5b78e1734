"""ReHyAt out of torch's own attention: softmax near, a causal linear state for everything before.

Knows chunk boundaries and the merge of ``sdpa``. Memory: one state per chunk in the parallel form, one in
all in the recurrent form. Source: arXiv 2601.04342.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.hybrid_attention.reference import accumulation_dtype
from kernels.hybrid_attention.sdpa import (
    HybridMerge,
    linear_output,
    linear_state,
    rows_by_head,
    state_divisor,
)
from kernels.hybrid_attention.validation import ChunkSpec


def rehyat_attention_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor,
    key_features: Tensor,
    *,
    chunks: ChunkSpec,
    stabilizer: str,
    form: str,
) -> Tensor:
    """Evaluate ReHyAt chunk by chunk.

    ``parallel`` forms the states of all chunks first by a cumulative sum (chunks are then independent);
    ``recurrent`` carries one state from chunk to chunk and adds only the tokens that became far.
    """
    boundaries = chunks.boundaries(query.shape[1])
    query_rows, key_rows, value_rows = (rows_by_head(x) for x in (query_features, key_features, value))
    wide = accumulation_dtype(query.dtype)
    steps = [far for far, _, _ in boundaries]
    previous = [0, *steps[:-1]]

    def increment(first: int, last: int) -> Tensor:
        """Return the summed state of the tokens first..last-1 that became far in one step."""
        if first == last:
            return key_rows.new_zeros(
                key_rows.shape[0], key_rows.shape[2], value_rows.shape[2] + 1, dtype=wide
            )
        values = value_rows[:, first:last]
        return linear_state(key_rows[:, first:last], values).to(wide) * state_divisor(values)

    states: list[Tensor] = []
    if form == "parallel":
        increments = [increment(first, last) for first, last in zip(previous, steps, strict=True)]
        states = list(torch.stack(increments).cumsum(dim=0).unbind(0))
    outputs = []
    running = increment(0, 0)
    for index, (first_key, first, end) in enumerate(boundaries):
        running = states[index] if states else running + increment(previous[index], steps[index])
        divisor = state_divisor(value_rows[:, : max(first_key, 1)])
        linear_sum, linear_mass = linear_output(
            query_rows[:, first:end], running / divisor, divisor=divisor, batch=query.shape[0]
        )
        window = slice(first_key, end)
        outputs.append(
            HybridMerge.apply(
                query[:, first:end], key[:, window], value[:, window], linear_sum, linear_mass, stabilizer
            )
        )
    return torch.cat(outputs, dim=1)
