"""Time hybrid attention against dense attention: ``python -m kernels.benchmarks.hybrid_attention --help``.

Before a dtype and head dimension is timed, the implementation is compared with the fp64 formula on a small
shape; nothing is timed if that fails. Dense is ``scaled_dot_product_attention`` with cuDNN's backend first
on CUDA (the fastest there on Hopper), as torch chooses on a CPU, in the same run. ``forward`` is the whole
operator with both maps; ``distillation`` is forward plus the gradients of both maps, its dense_ms a dense
forward; ``backward`` is the backward alone with respect to q, k, v and both maps, its dense_ms the dense
backward.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.benchmarks.measuring import (
    ResultFile,
    chosen,
    draw_heads,
    median_ms,
    peak_extra_mib,
    repeats_for,
    short_dtype,
)
from kernels.hybrid_attention import (
    MapParameters,
    hybrid_attention_from_maps,
    init_map_parameters,
    resolve_impl,
)
from kernels.hybrid_attention.triton_tiles import TILES_BY_CAPABILITY, TileSet
from kernels.hybrid_attention.validation import Impl

PASSES = ("forward", "distillation", "backward")
RATES: tuple[int | None, ...] = (2, 4, 8, None)
MAIN_SHAPE = (1, 32_760, 12, 128)
CURVE = [(1, tokens, 12, 128) for tokens in (8_190, 16_380, 65_520, 131_040)]
OTHER_SHAPES = [(2, 16_380, 12, 128), (1, 32_760, 12, 64)]
CPU_SHAPES = [(1, tokens, 6, 32) for tokens in (1_280, 2_560, 5_120)]
LIMITS_IN_EPS = {"fp32": 32.0, "bf16": 4.0, "fp16": 4.0}

Heads = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """Say what to time: shape [B, N, H, D], dtype, passes, implementations."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    passes: tuple[str, ...]
    impls: tuple[str, ...]


def draw_maps(heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> list[MapParameters]:
    """Draw two maps D -> 2D -> 2D of degree 2 with small scale, in ``dtype``."""
    generator = torch.Generator().manual_seed(1)
    maps = [init_map_parameters(heads, head_dim, scale=0.1, generator=generator) for _ in range(2)]
    return [with_tensors(m, [x.to(device, dtype) for x in m.tensors]) for m in maps]


def with_tensors(parameters: MapParameters, tensors: list[Tensor]) -> MapParameters:
    """Return the same map with other tensors."""
    names = ("weight_1", "bias_1", "weight_2", "bias_2", "log_scale")
    weight_1, bias_1, weight_2, bias_2, log_scale = tensors
    assert len(names) == len(tensors)
    return replace(
        parameters, weight_1=weight_1, bias_1=bias_1, weight_2=weight_2, bias_2=bias_2, log_scale=log_scale
    )


def run_operator(
    heads: Sequence[Tensor], maps: list[MapParameters], *, rate: int | None, impl: str
) -> Tensor:
    """Run hybrid attention on query, key, value and both maps."""
    query, key, value = heads
    checked = cast(Impl, impl)
    return hybrid_attention_from_maps(query, key, value, maps[0], maps[1], rate=rate, impl=checked)


def dense_backend(device: torch.device) -> AbstractContextManager[object]:
    """Prefer cuDNN's attention on CUDA."""
    if device.type != "cuda":
        return nullcontext()
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    return sdpa_kernel(order, set_priority=True)


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend densely, [B, N, H, D] in and out."""
    return F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    ).transpose(1, 2)


def verify(
    device: torch.device, dtype: torch.dtype, impls: tuple[str, ...], head_dim: int, out: ResultFile
) -> None:
    """Compare with the fp64 formula on 1,003 tokens, values and gradients; exit if any differs too much."""
    (query, key, value) = draw_heads(1, 1_003, 2, head_dim, dtype=dtype, device=device, sets=1)[0]
    maps = draw_maps(2, head_dim, device, torch.float32)
    limit = LIMITS_IN_EPS[short_dtype(dtype)]

    def evaluate(impl: str, rate: int | None, width: torch.dtype) -> list[Tensor]:
        wide = torch.float64 if impl == "reference" else torch.float32
        leaves = [x.detach().to(width).requires_grad_() for x in (query, key, value)]
        parts = [[x.detach().to(wide).requires_grad_() for x in m.tensors] for m in maps]
        built = [with_tensors(m, part) for m, part in zip(maps, parts, strict=True)]
        output = run_operator(leaves, built, rate=rate, impl=impl)
        weights = [x for part in parts for x in part[:4]]
        return [output, *torch.autograd.grad(output.float().square().sum(), [*leaves, *weights])]

    for rate in RATES:
        expected = evaluate("reference", rate, torch.float64)
        for impl in impls:
            result = evaluate(impl, rate, dtype)
            errors = [
                float((got.double() - want).norm() / want.norm()) / torch.finfo(dtype).eps
                for got, want in zip(result, expected, strict=True)
            ]
            worst = max(errors[1:])
            row = {"impl": impl, "rate": rate, "dtype": short_dtype(dtype), "head_dim": head_dim}
            out.add(
                {**row, "error_in_eps": round(errors[0], 2), "gradient_in_eps": round(worst, 2)},
                part="verified",
            )
            if not (errors[0] <= limit and worst <= 8 * limit):
                raise SystemExit(f"{impl} at rate {rate} differs from the fp64 formula: {errors} of eps")


def time_run(run: Callable[[int], object], device: torch.device) -> float:
    """Time once to learn the scale, then take the median."""
    first = median_ms(run, device=device, repeats=2, warm_up=1)
    return median_ms(run, device=device, repeats=repeats_for(first), warm_up=1)


def backward_of(outputs: list[Tensor], inputs: list[list[Tensor]]) -> Callable[[int], object]:
    """Return a timed backward that rotates over graphs made before."""
    grads = [torch.randn_like(output) for output in outputs]

    def run(index: int) -> object:
        slot = index % len(outputs)
        return torch.autograd.grad(outputs[slot], inputs[slot], grads[slot], retain_graph=True)

    return run


def time_dense(sets: list[Heads], device: torch.device, passes: tuple[str, ...]) -> dict[str, float]:
    """Return dense times: forward for forward and distillation, backward for backward."""
    with dense_backend(device):
        with torch.no_grad():
            forward = time_run(lambda index: dense(*sets[index % len(sets)]), device)
        times = {"forward": forward, "distillation": forward}
        if "backward" in passes:
            leaves = [[x.detach().requires_grad_() for x in heads] for heads in sets[:2]]
            outputs = [dense(*heads) for heads in leaves]
            times["backward"] = time_run(backward_of(outputs, leaves), device)
    return times


def time_pass(
    name: str, sets: list[Heads], maps: list[MapParameters], device: torch.device, rate: int | None, impl: str
) -> float:
    """Return the median time of one pass of the whole operator."""
    if name == "forward":

        def forward(index: int) -> object:
            return run_operator(sets[index % len(sets)], maps, rate=rate, impl=impl)

        with torch.no_grad():
            return time_run(forward, device)
    parts = [[x.detach().requires_grad_() for x in m.tensors] for m in maps]
    built = [with_tensors(m, part) for m, part in zip(maps, parts, strict=True)]
    parameters = [x for part in parts for x in part]
    if name == "distillation":

        def step(index: int) -> object:
            output = run_operator(sets[index % len(sets)], built, rate=rate, impl=impl)
            return torch.autograd.grad(output, parameters, sets[0][2])

        return time_run(step, device)
    leaves = [[x.detach().requires_grad_() for x in heads] for heads in sets[:2]]
    outputs = [run_operator(heads, built, rate=rate, impl=impl) for heads in leaves]
    return time_run(backward_of(outputs, [[*heads, *parameters] for heads in leaves]), device)


def time_case(case: Case, device: torch.device, out: ResultFile, deadline: float) -> None:
    """Time dense and every rate of one shape; stop at the deadline."""
    batch, tokens, heads, head_dim = case.shape
    sets = draw_heads(*case.shape, dtype=case.dtype, device=device, sets=3)
    maps = draw_maps(heads, head_dim, device, case.dtype)
    dense_ms = time_dense(sets, device, case.passes)
    for name in case.passes:
        for impl in case.impls:
            for rate in RATES:
                if time.monotonic() > deadline:
                    return
                used = resolve_impl(sets[0][0], rate=rate, impl=impl)
                ms = time_pass(name, sets, maps, device, rate, impl)
                out.add(
                    {
                        "operator": "hybrid_attention_from_maps",
                        "batch": batch,
                        "n": tokens,
                        "heads": heads,
                        "head_dim": head_dim,
                        "dtype": short_dtype(case.dtype),
                        "pass": name,
                        "rate": rate,
                        "impl": used,
                        "ms": round(ms, 4),
                        "dense_ms": round(dense_ms[name], 4),
                        "ratio": round(dense_ms[name] / ms, 3),
                    }
                )


def measure_memory(device: torch.device, out: ResultFile, impl: str) -> None:
    """Record the peak extra memory of forward and backward on the main shape, beside the size of q."""
    heads = draw_heads(*MAIN_SHAPE, dtype=torch.bfloat16, device=device, sets=1)[0]
    maps = draw_maps(MAIN_SHAPE[2], MAIN_SHAPE[3], device, torch.bfloat16)
    size = heads[0].numel() * heads[0].element_size() / 2**20
    for rate in RATES:
        with torch.no_grad():
            forward = peak_extra_mib(partial(run_operator, heads, maps, rate=rate, impl=impl), device)
        leaves = [x.detach().requires_grad_() for x in heads]
        output = run_operator(leaves, maps, rate=rate, impl=impl)
        backward = peak_extra_mib(partial(torch.autograd.grad, output, leaves, heads[0]), device)
        row = {"rate": rate, "impl": impl, "query_mib": round(size, 1)}
        out.add({**row, "forward_extra_mib": forward, "backward_extra_mib": backward}, part="memory")


def cases(device: torch.device, passes: tuple[str, ...], impls: tuple[str, ...]) -> list[Case]:
    """Return what to time, the most wanted first."""
    if device.type != "cuda":
        return [Case(shape, torch.float32, passes, impls) for shape in CPU_SHAPES]
    forward = tuple(name for name in passes if name == "forward")
    return [
        Case(MAIN_SHAPE, torch.bfloat16, passes, impls[:1]),
        *(Case(shape, torch.bfloat16, forward, impls[:1]) for shape in CURVE),
        Case(MAIN_SHAPE, torch.float16, forward, impls[:1]),
        *(Case(shape, torch.bfloat16, forward, impls[:1]) for shape in OTHER_SHAPES),
        *(Case(MAIN_SHAPE, torch.bfloat16, passes, (impl,)) for impl in impls[1:]),
    ]


def use_tiles(path: Path) -> None:
    """Take the best tiles of a tuning run in the place of those for its capability."""
    tuned = json.loads(path.read_text())
    use_tile_set(tuned["capability"], TileSet.from_json(tuned["best"]))


def use_tile_set(capability: int, tile_set: TileSet) -> None:
    """Take these tiles for a capability in this process."""
    from kernels.hybrid_attention import triton_host

    TILES_BY_CAPABILITY[capability] = tile_set
    triton_host.forget_tiles()


def main() -> None:
    """Verify, time, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passes", default=",".join(PASSES))
    parser.add_argument("--impls", default=None, help="default: triton,sdpa on CUDA, sdpa on a CPU")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop timing after this long")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU")
    parser.add_argument("--tiles", type=Path, default=None, help="result of kernels.benchmarks.tiles to use")
    arguments = parser.parse_args()
    if arguments.tiles is not None:
        use_tiles(arguments.tiles)
    deadline = time.monotonic() + arguments.seconds
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    on_cuda = device.type == "cuda"
    impls = tuple(chosen(arguments.impls or ("triton,sdpa" if on_cuda else "sdpa"), ("triton", "sdpa")))
    passes = tuple(chosen(arguments.passes, PASSES))
    out = ResultFile(arguments.out, device, "kernels.benchmarks.hybrid_attention")
    todo = cases(device, passes, impls)
    verified: set[tuple[torch.dtype, int, tuple[str, ...]]] = set()
    for index, case in enumerate(todo):
        if time.monotonic() > deadline:
            break
        kind = (case.dtype, case.shape[3], case.impls)
        if kind not in verified:
            verify(device, case.dtype, case.impls, case.shape[3], out)
            verified.add(kind)
        time_case(case, device, out, deadline)
        if on_cuda and index == 0:
            measure_memory(device, out, impls[0])
    print(json.dumps({"written": str(arguments.out), "rows": len(out.result["rows"])}))


if __name__ == "__main__":
    main()
