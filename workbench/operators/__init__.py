"""Operators: what may compute the self-attention of a block. One file each: spec, cost, module."""

from workbench.operators.attach import attach_operators, detach_operators
from workbench.operators.context import AttentionContext, BlockContext, ForwardClock, clock_of
from workbench.operators.feature_maps import (
    ElementwiseSpec,
    FeatureMapSpec,
    HedgehogSpec,
    PolynomialSpec,
    build_feature_map,
)
from workbench.operators.flops import AttentionFlops, HeadShape
from workbench.operators.hybrid import HybridSpec, LinearSpec
from workbench.operators.module import AttentionOperator, Impl
from workbench.operators.processor import OPERATOR, Observer, OperatorProcessor, observe
from workbench.operators.rehyat import RehyatSpec
from workbench.operators.softmax import SoftmaxSpec, softmax_attention
from workbench.operators.specs import (
    SOFTMAX,
    OperatorField,
    OperatorSpec,
    Schedule,
    build,
    label,
    parse_rate,
)

__all__ = [
    "OPERATOR",
    "SOFTMAX",
    "AttentionContext",
    "AttentionFlops",
    "AttentionOperator",
    "BlockContext",
    "ElementwiseSpec",
    "FeatureMapSpec",
    "ForwardClock",
    "HeadShape",
    "HedgehogSpec",
    "HybridSpec",
    "Impl",
    "LinearSpec",
    "Observer",
    "OperatorField",
    "OperatorProcessor",
    "OperatorSpec",
    "PolynomialSpec",
    "RehyatSpec",
    "Schedule",
    "SoftmaxSpec",
    "attach_operators",
    "build",
    "build_feature_map",
    "clock_of",
    "detach_operators",
    "label",
    "observe",
    "parse_rate",
    "softmax_attention",
]
