"""The measurements of `wan_forward`, one function each: a model in, rows out as they come."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.benchmarks.hybrid_attention import dense_backend
from kernels.benchmarks.measuring import ResultFile, median_ms
from workbench.benchmarks.wan_model import RandomWan, uniform_plan
from workbench.operators.fused import fused_elementwise
from workbench.planning.plan import Plan
from workbench.types import ClipSize

PLANS = ("15xR2", "25xR4", "30xR8", "30xlinear")
GENERATION_STEPS, GUIDANCE = 20, 5.0
LENGTHS = (33, 49, 65, 81, 121, 161, 241)
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """What every part needs: where rows go, when to stop, how often to repeat."""

    out: ResultFile
    deadline: float
    repeats: int

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def time(
        self, model: RandomWan, call: Callable[[], object], *, repeats: int | None = None, warm_up: int = 2
    ) -> float:
        """Return the median time in ms, with cuDNN's dense attention first on CUDA."""
        repeats = min(repeats or self.repeats, self.repeats)
        with dense_backend(model.device):
            return median_ms(lambda _: call(), device=model.device, repeats=repeats, warm_up=warm_up)


@contextmanager
def in_mode(model: RandomWan, mode: str) -> Iterator[None]:
    """Run the transformer `eager`, with `fused` element-wise work, or with `compiled` blocks."""
    if mode != "compiled":
        with fused_elementwise(model.transformer) if mode == "fused" else nullcontext():
            yield
        return
    blocks: Any = model.transformer.blocks
    torch._dynamo.reset()
    for block in blocks:
        operator = getattr(block.attn1, "operator", None)
        if operator is not None:
            operator.forward = torch.compiler.disable(operator.forward)
        block.compile(dynamic=False)
    try:
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()


def speed(run: Run, model: RandomWan, modes: tuple[str, ...], plans: tuple[str, ...] = PLANS) -> None:
    """Time every plan against dense in the same mode; fused students also against eager dense."""
    inputs = model.inputs()
    dense: dict[str, float] = {}
    for mode in modes:
        with in_mode(model, mode):
            dense[mode] = run.time(model, lambda: model.forward(inputs))
        for short in plans:
            if run.is_late:
                return
            with model.student(model.setting.plan(short)), in_mode(model, mode):
                ms = run.time(model, lambda: model.forward(inputs))
            for dense_mode in dict.fromkeys((mode, "eager")):
                if dense_mode in dense:
                    add_row(run.out, model, short, (mode, dense_mode), (ms, dense[dense_mode]))


def add_row(
    out: ResultFile, model: RandomWan, plan: str, modes: tuple[str, str], times: tuple[float, float]
) -> None:
    """Write one row of the forward's table."""
    (mode, dense_mode), (ms, dense_ms) = modes, times
    row = {"model": model.setting.label, "tokens": model.setting.num_tokens, "plan": plan, "mode": mode}
    row |= {"dense_mode": dense_mode, "ms": round(ms, 3), "dense_ms": round(dense_ms, 3)}
    out.add({**row, "ratio": round(dense_ms / ms, 3)})


def split(run: Run, model: RandomWan) -> None:
    """Measure what a dense block spends on attention and matrix products; the rest is element-wise."""
    block: Any = model.transformer.blocks[0]
    seen: dict[Any, Any] = {}
    handle = block.register_forward_pre_hook(lambda _, args: seen.setdefault("block", args))
    linears = [module for module in block.modules() if isinstance(module, torch.nn.Linear)]
    handles = [
        linear.register_forward_pre_hook(lambda module, args: seen.setdefault(module, args[0]))
        for linear in linears
    ]
    model.forward(model.inputs())
    for one in (handle, *handles):
        one.remove()
    facts = model.facts
    heads = (facts.num_heads, facts.head_dim)

    def draw(tokens: int) -> Tensor:
        return torch.randn(1, tokens, *heads, device=model.device).to(model.dtype).transpose(1, 2)

    tokens = model.setting.num_tokens
    query, key, value = draw(tokens), draw(tokens), draw(tokens)
    text_key, text_value = draw(facts.text_tokens), draw(facts.text_tokens)
    attend = torch.nn.functional.scaled_dot_product_attention
    with torch.no_grad():
        attention = run.time(model, lambda: attend(query, key, value))
        cross = run.time(model, lambda: attend(query, text_key, text_value))
        products = sum(run.time(model, functools.partial(linear, seen[linear])) for linear in linears)
        for mode in ("eager", "fused"):
            with in_mode(model, mode):
                whole = run.time(model, lambda: block(*seen["block"]))
            rest = whole - attention - cross - products
            parts = {"block": whole, "attention": attention, "cross_attention": cross, "products": products}
            times = {f"{name}_ms": round(ms, 3) for name, ms in {**parts, "elementwise": rest}.items()}
            run.out.add({"model": model.setting.label, "mode": mode, **times}, part="block_split")


def generation(run: Run, model: RandomWan) -> None:
    """Sample 20 steps with guidance, dense and 30xR8: seconds of the denoising loop, and peak memory."""
    for plan in (None, model.setting.plan("30xR8")):
        if run.is_late:
            return
        for mode in ("eager", "fused"):
            with model.student(plan) if plan else nullcontext(), in_mode(model, mode):
                denoise(model, steps=1)
                seconds, peak = seconds_and_peak(model, lambda: denoise(model, steps=GENERATION_STEPS))
            name = {"model": model.setting.label, "plan": "dense" if plan is None else "30xR8", "mode": mode}
            found = {"steps": GENERATION_STEPS, "seconds": round(seconds, 3), "peak_mib": peak}
            run.out.add({**name, **found}, part="generation")


def denoise(model: RandomWan, *, steps: int) -> Tensor:
    """Take Euler steps with classifier-free guidance from noise, as the pipeline does around its codec."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps, device=model.device)
    inputs = model.inputs()
    latents = inputs["hidden_states"].float()
    texts = {"cond": inputs["encoder_hidden_states"], "uncond": inputs["encoder_hidden_states"] * 0}
    with dense_backend(model.device):
        for step, timestep in enumerate(scheduler.timesteps):
            found = {}
            for branch, text in texts.items():
                with model.transformer.cache_context(branch, step_index=step, num_inference_steps=steps):
                    found[branch] = model.forward(
                        {
                            "hidden_states": latents.to(model.dtype),
                            "timestep": timestep.expand(1),
                            "encoder_hidden_states": text,
                        }
                    )
            velocity = found["uncond"] + GUIDANCE * (found["cond"] - found["uncond"])
            latents = scheduler.step(velocity.float(), timestep, latents, return_dict=False)[0]
    return latents


def seconds_and_peak(model: RandomWan, call: Callable[[], object]) -> tuple[float, float | None]:
    """Return the seconds of one call and, on CUDA, the peak of allocated memory in MiB."""
    on_cuda = model.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(model.device)
        torch.cuda.reset_peak_memory_stats(model.device)
    started = time.perf_counter()
    call()
    if not on_cuda:
        return time.perf_counter() - started, None
    torch.cuda.synchronize(model.device)
    peak = torch.cuda.max_memory_allocated(model.device) / MIB
    return time.perf_counter() - started, round(peak, 1)


def lengths(run: Run, model: RandomWan, frames: tuple[int, ...] = LENGTHS) -> None:
    """Time the forward over clip length: dense, R8, and ReHyAt in chunks of 3 frames with overlap 1."""
    _, height, width = model.setting.size
    plans: dict[str, Plan | None] = {
        "dense": None,
        "R8": uniform_plan(model.facts, "R8"),
        "ReHyAt T3o1": uniform_plan(model.facts, "T3o1"),
    }
    for name, plan in plans.items():
        with model.student(plan) if plan else nullcontext(), in_mode(model, "fused"):
            for count in frames:
                if run.is_late:
                    return
                size = ClipSize(count, height, width)
                inputs = model.inputs(size)
                ms = run.time(model, functools.partial(model.forward, inputs), repeats=2, warm_up=1)
                tokens = model.facts.token_grid(size).num_tokens
                row = {"model": model.setting.label, "frames": count, "tokens": tokens, "operator": name}
                run.out.add({**row, "mode": "fused", "ms": round(ms, 3)}, part="lengths")
