"""ReHyAt out of torch's own attention: softmax near, a causal linear state for everything before.

Knows chunk boundaries and the merge of ``sdpa``. Memory: one state per chunk in the parallel form, one in
all in the recurrent form. Source: arXiv 2601.04342.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from kernels.hybrid_attention.reference import accumulation_dtype
from kernels.hybrid_attention.sdpa import (
    HybridMerge,
    dense_attention,
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
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    chunks: ChunkSpec,
    stabilizer: str,
    form: str,
) -> Tensor:
    """Evaluate ReHyAt chunk by chunk.

    ``parallel`` forms the states of all chunks first by a cumulative sum (chunks are then independent);
    ``recurrent`` carries one state from chunk to chunk and adds only the tokens that became far. Features
    may be those of the last queries and of the first keys alone; a chunk without far keys is softmax.
    """
    boundaries = chunks.boundaries(query.shape[1])
    far_keys = [first_key for first_key, _, _ in boundaries if first_key]
    if query_features is None or key_features is None:
        far_keys = []
    else:
        query_rows, key_rows, value_rows = (rows_by_head(x) for x in (query_features, key_features, value))
        states = _far_states(key_rows, value_rows, far_keys, form=form)
        without_rows = query.shape[1] - query_rows.shape[1]
    outputs = []
    for first_key, first, end in boundaries:
        near = query[:, first:end], key[:, first_key:end], value[:, first_key:end]
        if not first_key or not far_keys:
            outputs.append(dense_attention(*near))
            continue
        divisor = state_divisor(value_rows[:, :first_key])
        linear_sum, linear_mass = linear_output(
            query_rows[:, first - without_rows : end - without_rows],
            next(states) / divisor,
            divisor=divisor,
            batch=query.shape[0],
        )
        outputs.append(HybridMerge.apply(*near, linear_sum, linear_mass, stabilizer))
    return torch.cat(outputs, dim=1)


def _far_states(key_rows: Tensor, value_rows: Tensor, far_keys: list[int], *, form: str) -> Iterator[Tensor]:
    """Yield the summed state [B*H, F, D + 1] of the first keys, for each of the rising numbers `far_keys`."""
    wide = accumulation_dtype(value_rows.dtype)

    def increment(first: int, last: int) -> Tensor:
        """Return the summed state of the tokens first..last-1 that became far in one step."""
        values = value_rows[:, first:last]
        return linear_state(key_rows[:, first:last], values).to(wide) * state_divisor(values)

    increments = (increment(first, last) for first, last in pairwise([0, *far_keys]))
    if form == "parallel":
        yield from torch.stack(list(increments)).cumsum(dim=0).unbind(0)
    else:
        yield from accumulate(increments)
