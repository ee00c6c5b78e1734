"""Softmax attention over chosen tiles of keys."""

from kernels.block_sparse_attention.api import block_sparse_attention

__all__ = ["block_sparse_attention"]
