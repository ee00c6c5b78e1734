"""Numbers about softmax attention per head, from queries and keys, with nothing of size N x N in memory."""

from kernels.attention_stats.api import (
    DISTANCE_EDGES,
    NEAR_DISTANCE,
    AttentionStats,
    attention_stats,
    resolve_stats_impl,
    softmax_with_lse,
)

__all__ = [
    "DISTANCE_EDGES",
    "NEAR_DISTANCE",
    "AttentionStats",
    "attention_stats",
    "resolve_stats_impl",
    "softmax_with_lse",
]
