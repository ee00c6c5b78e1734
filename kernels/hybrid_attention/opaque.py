"""The operators as single nodes of a compiled graph, for inference on CUDA.

``torch.compile`` cannot trace how torch chooses its fused attention, and a kernel that is launched by hand is
best left alone. Under compilation and without gradients a call becomes one custom operator, which runs the
eager code: same choice, same kernels, same bits. With gradients, and on a CPU, the compiler traces the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.hybrid_attention.feature_map import MapParameters

NAMESPACE = __name__.replace(".", "_")
NUM_TENSORS = 5
FROM_MAPS = (
    "(Tensor query, Tensor key, Tensor value, Tensor[] parameters, str[] kinds, int? rate, "
    "str stabilizer, str impl) -> Tensor"
)
FROM_FEATURES = (
    "(Tensor query, Tensor key, Tensor value, Tensor? query_features, Tensor? key_features, int? rate, "
    "str stabilizer, str impl) -> Tensor"
)


def is_wanted(impl: str, *tensors: Tensor | None) -> bool:
    """Say whether a call is to be one node: while compiling, on CUDA or in Triton, without gradients."""
    if not torch.compiler.is_compiling():
        return False
    given = [x for x in tensors if x is not None]
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    return not trains and (impl == "triton" or given[0].is_cuda)


def from_maps(
    tensors: tuple[Tensor, Tensor, Tensor],
    maps: tuple[MapParameters, MapParameters],
    *,
    rate: int | None,
    stabilizer: str,
    impl: str,
) -> Tensor:
    """Call ``hybrid_attention_from_maps`` as one node."""
    parameters = [*maps[0].tensors, *maps[1].tensors]
    kinds = [f"{x.degree} {x.activation} {x.positivity}" for x in maps]
    result: Tensor = _from_maps(*tensors, parameters, kinds, rate, stabilizer, impl)
    return result


def from_features(
    tensors: tuple[Tensor, Tensor, Tensor],
    features: tuple[Tensor | None, Tensor | None],
    *,
    rate: int | None,
    stabilizer: str,
    impl: str,
) -> Tensor:
    """Call ``hybrid_attention`` as one node."""
    result: Tensor = _from_features(*tensors, *features, rate, stabilizer, impl)
    return result


@torch.library.custom_op(f"{NAMESPACE}::from_maps", mutates_args=(), schema=FROM_MAPS)
def _from_maps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    parameters: Sequence[Tensor],
    kinds: Sequence[str],
    rate: int | None,
    stabilizer: str,
    impl: str,
) -> Tensor:
    from kernels.hybrid_attention import api

    maps = []
    for first, kind in zip((0, NUM_TENSORS), kinds, strict=True):
        degree, activation, positivity = kind.split()
        choices: Any = {"degree": int(degree), "activation": activation, "positivity": positivity}
        weight_1, bias_1, weight_2, bias_2, log_scale = parameters[first : first + NUM_TENSORS]
        maps.append(MapParameters(weight_1, bias_1, weight_2, bias_2, log_scale, **choices))
    options: Any = {"rate": rate, "stabilizer": stabilizer, "impl": impl}
    output = api.hybrid_attention_from_maps(query, key, value, *maps, **options)
    return output.contiguous()


@torch.library.custom_op(f"{NAMESPACE}::from_features", mutates_args=(), schema=FROM_FEATURES)
def _from_features(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    rate: int | None,
    stabilizer: str,
    impl: str,
) -> Tensor:
    from kernels.hybrid_attention import api

    options: Any = {"rate": rate, "stabilizer": stabilizer, "impl": impl}
    output = api.hybrid_attention(query, key, value, query_features, key_features, **options)
    return output.contiguous()


@_from_maps.register_fake
@_from_features.register_fake
def _like_query(query: Tensor, *_: object) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)
