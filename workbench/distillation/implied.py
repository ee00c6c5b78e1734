"""Where a distilled cell looks: the attention row that a hybrid implies for one query token.

A hybrid is linear in the values, so its row is its output on one-hot values; the formula stays in `kernels`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.hybrid_attention import hybrid_attention
from workbench.capture import Capture
from workbench.errors import InputError
from workbench.operators import OperatorSpec, build
from workbench.operators.hybrid import HybridAttention
from workbench.planning import Bank


def implied_row(
    capture: Capture, bank: Bank, spec: OperatorSpec, *, block: int, head: int, token: int
) -> NDArray[np.float32]:
    """Return the weights that a measured cell gives to every key for one query, [T, H, W], summing to 1.

    Args:
        capture: with queries and keys of one step kept; beside `capture.row` this shows what distilling kept.
        bank: of the same model.
        spec: a hybrid or linear cell of the bank.

    Raises:
        InputError: another model, a cell that was not measured or is of another kind, nothing kept.
    """
    capture.check_place(block, head, token)
    row: NDArray[np.float32] = implied_heads(capture, bank, spec, block=block, token=token)[head]
    return row


def implied_heads(
    capture: Capture, bank: Bank, spec: OperatorSpec, *, block: int, token: int
) -> NDArray[np.float32]:
    """Return the rows of `implied_row` for all heads, [heads, T, H, W].

    Raises:
        InputError: as `implied_row`.
    """
    bank.check_model(capture.manifest.model)
    query, key = capture.kept(block)
    capture.check_place(block, 0, token)
    operator = build(spec, bank.facts)
    if not isinstance(operator, HybridAttention):
        raise InputError(f"Rows can be shown for hybrid and linear cells, not for {spec.kind}.")
    operator.load_state_dict(bank.weights(block, spec))
    with torch.no_grad():
        rows = implied_rows(operator, query[token : token + 1].unsqueeze(0), key.unsqueeze(0))
    result: NDArray[np.float32] = rows[0, 0].reshape(-1, *capture.manifest.grid).numpy()
    return result


def implied_rows(operator: HybridAttention, query: Tensor, key: Tensor) -> Tensor:
    """Return the rows of all heads, [B, M, H, N], for queries [B, M, H, D] and keys [B, N, H, D]."""
    tokens, head_dim = key.shape[1], key.shape[3]
    query_features, key_features = operator.query_map(query), operator.key_map(key)
    rows = []
    for first in range(0, tokens, head_dim):
        width = min(head_dim, tokens - first)
        value = torch.zeros_like(key)
        value[:, first : first + width, :, :width] = torch.eye(width).reshape(width, 1, width)
        output = hybrid_attention(
            query,
            key,
            value,
            query_features,
            key_features,
            rate=operator.rate,
            stabilizer=operator.stabilizer,
        )
        rows.append(output[..., :width])
    return torch.cat(rows, dim=-1)
