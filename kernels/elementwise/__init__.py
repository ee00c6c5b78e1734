"""What lies between the matrix products of a video transformer block, one pass over memory each."""

from kernels.elementwise.api import (
    gated_sum,
    residual_norm,
    resolve_elementwise_impl,
    rms_norm_rotate,
)

__all__ = ["gated_sum", "residual_norm", "resolve_elementwise_impl", "rms_norm_rotate"]
