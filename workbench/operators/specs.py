"""The union of operator specs, their short labels, and how a user writes them."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

import torch
from pydantic import Field

from workbench.errors import InputError
from workbench.operators.feature_maps import PolynomialSpec
from workbench.operators.flops import HeadShape
from workbench.operators.hybrid import HybridAttention, HybridSpec, LinearSpec
from workbench.operators.module import AttentionOperator
from workbench.operators.rehyat import RehyatAttention, RehyatSpec
from workbench.operators.softmax import SoftmaxSpec
from workbench.types import StrictModel

OperatorSpec = SoftmaxSpec | HybridSpec | LinearSpec | RehyatSpec
OperatorField = Annotated[OperatorSpec, Field(discriminator="kind")]
SOFTMAX = SoftmaxSpec()


class Schedule(StrictModel):
    """On which sampling steps converted blocks use their own softmax instead of their operator.

    Attributes:
        dense_first: the first so many steps are dense.
        dense_every: every so many-th step (0, k, 2k, ...) is dense; None for no such steps.
    """

    dense_first: Annotated[int, Field(ge=0)] = 0
    dense_every: Annotated[int, Field(ge=1)] | None = None

    def is_dense(self, step: int) -> bool:
        """Return whether step `step` (0-based) is dense."""
        return step < self.dense_first or (self.dense_every is not None and step % self.dense_every == 0)

    def num_dense(self, num_steps: int) -> int:
        """Return how many of `num_steps` steps are dense."""
        return sum(self.is_dense(step) for step in range(num_steps))


def label(spec: OperatorSpec) -> str:
    """Return the short name of a spec: softmax, R4, linear, T3o1, with a suffix where options are not the
    usual.

    Different specs have different labels.
    """
    if isinstance(spec, SoftmaxSpec):
        return spec.short
    usual = type(spec).model_validate({**_required(spec), "feature_map": PolynomialSpec()})
    if spec == usual:
        return spec.short
    canonical = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    return f"{spec.short}-{spec.feature_map.kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:6]}"


def _required(spec: HybridSpec | LinearSpec | RehyatSpec) -> dict[str, int]:
    if isinstance(spec, HybridSpec):
        return {"rate": spec.rate}
    if isinstance(spec, RehyatSpec):
        return {"chunk_frames": spec.chunk_frames, "overlap_frames": spec.overlap_frames}
    return {}


def parse_rate(text: str | int) -> OperatorSpec:
    """Read an operator as a user writes it: `R4`, `4`, `linear`, `softmax` (also `R1`), `T3o1` for ReHyAt.

    Raises:
        InputError: anything else, with what is accepted.
    """
    word = str(text).strip().lower()
    if word in ("softmax", "dense"):
        return SOFTMAX
    if word == "linear":
        return LinearSpec()
    chunked = re.fullmatch(r"t(\d{1,4})o(\d{1,4})", word)
    if chunked and int(chunked[1]) >= 1:
        return RehyatSpec(chunk_frames=int(chunked[1]), overlap_frames=int(chunked[2]))
    strided = re.fullmatch(r"r?(\d{1,9})", word)
    if strided is None or int(strided[1]) < 1:
        raise InputError(
            f"Rate {str(text)[:40]!r} is not a whole number of at least 1; "
            "write R4 or 4, linear, softmax, or T3o1 for ReHyAt."
        )
    rate = int(strided[1])
    return SOFTMAX if rate == 1 else HybridSpec(rate=rate)


def build(spec: OperatorSpec, shape: HeadShape, *, seed: int = 0) -> AttentionOperator:
    """Build the untrained operator of a spec, in float32 on the CPU.

    Args:
        spec: any but softmax, which has no operator: the block keeps its own.
        shape: heads and head dimension, `ModelFacts` for example.
        seed: of the feature maps' first weights.

    Returns:
        A module with `forward(query, key, value, *, context)`.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(spec, RehyatSpec):
        return RehyatAttention(spec, shape, generator=generator)
    if isinstance(spec, SoftmaxSpec):
        raise ValueError("softmax has no operator to build; the block keeps its own attention")
    return HybridAttention(spec, shape, generator=generator)
