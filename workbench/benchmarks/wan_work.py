"""What else a workbench does at full size: capture, one update of the bank, and whether numbers are right."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.benchmarks.measuring import peak_extra_mib
from kernels.hybrid_attention import hybrid_attention_from_maps
from workbench.benchmarks.wan_model import RandomWan, uniform_plan
from workbench.benchmarks.wan_parts import Run, in_mode
from workbench.capture.config import CaptureConfig, CapturePlan, check
from workbench.capture.recorder import Recorder
from workbench.distillation.cells import CellTrainer, TrainingChoices
from workbench.distillation.teacher import TeacherAttention
from workbench.operators import AttentionContext, build, observe, parse_rate
from workbench.planning.plan import make_plan
from workbench.surgery import FreshCells, install_operators, restore

QUERIES_OF_AN_UPDATE = 128
CHECKED_QUERY_STRIDE = 16


def capture(run: Run, model: RandomWan) -> None:
    """Capture all blocks and heads at one step, every 4th query and every query, against a plain forward."""
    inputs = model.inputs()
    plain = run.time(model, lambda: model.forward(inputs))
    size = model.setting.size
    for stride in (4, 1):
        if run.is_late:
            return
        config = CaptureConfig(
            prompt="a red ball",
            steps=1,
            guidance=1.0,
            query_stride=stride,
            any_query=False,
            frames=size.frames,
            height=size.height,
            width=size.width,
        )
        plan = check(config, model.facts)

        watched = functools.partial(captured_forward, model, inputs, plan)
        ms = run.time(model, watched, repeats=3)
        extra = extra_mib(model, watched, lambda: model.forward(inputs))
        row = {"model": model.setting.label, "tokens": model.setting.num_tokens, "query_stride": stride}
        row |= {"ms": round(ms, 3), "forward_ms": round(plain, 3), "times_forward": round(ms / plain, 3)}
        run.out.add({**row, "extra_mib": extra}, part="capture")


def captured_forward(model: RandomWan, inputs: dict[str, Tensor], plan: CapturePlan) -> Recorder:
    """Run the transformer once as the only step of a captured run."""
    recorder = Recorder(plan, model.facts)
    with (
        observe(model, recorder),
        model.transformer.cache_context("cond", step_index=0, num_inference_steps=1),
    ):
        model.forward(inputs)
    recorder.check_complete()
    return recorder


def extra_mib(model: RandomWan, work: Callable[[], object], plain: Callable[[], object]) -> float | None:
    """Return how much higher the peak of one call is than that of another, in MiB (CUDA only)."""
    peaks = [peak_extra_mib(call, model.device) for call in (work, plain)]
    return None if peaks[0] is None or peaks[1] is None else round(peaks[0] - peaks[1], 1)


def bank_update(run: Run, model: RandomWan, rate: str = "R8") -> None:
    """Take one update of the cells of all blocks, teacher's forward included, against that forward alone."""
    inputs = model.inputs()
    plain = run.time(model, lambda: model.forward(inputs))
    spec = parse_rate(rate)
    trainers = [
        CellTrainer(
            f"block-{block:02d}",
            build(spec, model.facts, seed=block).to(model.device),
            choices=TrainingChoices(),
        )
        for block in range(model.facts.num_blocks)
    ]
    generator = torch.Generator().manual_seed(0)
    tokens = model.setting.num_tokens
    queries = min(QUERIES_OF_AN_UPDATE, tokens)
    chosen = torch.randperm(tokens, generator=generator)[:queries].to(model.device)

    def learn(block: int, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> None:
        attention = TeacherAttention.of(query, key, value, chosen=chosen, grid=context.grid)
        trainers[block].update(attention, rows=slice(0, queries), progress=0.5)

    def update() -> None:
        with observe(model, learn):
            model.forward(inputs)

    ms = run.time(model, update, repeats=3)
    row = {"model": model.setting.label, "tokens": tokens, "rate": rate, "queries": queries}
    row |= {"blocks": model.facts.num_blocks, "ms": round(ms, 3), "forward_ms": round(plain, 3)}
    row |= {"stopped": sum(trainer.stopped_at is not None for trainer in trainers)}
    run.out.add({**row, "times_forward": round(ms / plain, 3)}, part="bank_update")


def numerics(run: Run, model: RandomWan) -> None:
    """Check that an all-softmax plan changes no bit, fused blocks stay near, and R8 is the formula."""
    inputs, facts = model.inputs(), model.facts
    expected = model.forward(inputs)
    install_operators(model.transformer, model.adapter, make_plan({}, facts), FreshCells(facts))
    same = torch.equal(model.forward(inputs), expected)
    restore(model.transformer)
    with in_mode(model, "fused"):
        fused = relative_error(model.forward(inputs), expected)
    seen: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def keep(block: int, query: Tensor, key: Tensor, value: Tensor, _: AttentionContext) -> None:
        seen[block] = (query, key, value)

    with observe(model, keep, blocks=[facts.num_blocks // 2]):
        model.forward(inputs)
    (heads,) = seen.values()
    operator: Any = build(parse_rate("R8"), facts, seed=0).to(model.device)
    maps = [feature_map.kernel_parameters() for feature_map in (operator.query_map, operator.key_map)]
    with torch.no_grad():
        output = hybrid_attention_from_maps(*heads, *maps, rate=8)[:, ::CHECKED_QUERY_STRIDE]
        query, key, value = (x.float() for x in heads)
        query = query[:, ::CHECKED_QUERY_STRIDE]
        formula = hybrid_attention_from_maps(query, key, value, *maps, rate=8, impl="reference")
    with model.student(uniform_plan(facts, "R8")):
        finite = bool(model.forward(inputs).isfinite().all())
    eps = torch.finfo(model.dtype).eps
    run.out.add(
        {
            "model": model.setting.label,
            "tokens": model.setting.num_tokens,
            "softmax_plan_bit_equal": same,
            "fused_error": float(f"{fused:.3g}"),
            "R8_error_in_eps": round(relative_error(output, formula) / eps, 3),
            "R8_finite": finite,
        },
        part="numerics",
    )


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over that of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
