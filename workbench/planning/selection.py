"""From a bank and a budget to a plan: cells become choices, an allocation becomes a plan.

The budget is counted in operations, in milliseconds that were measured on the user's device, or as a
speed-up of the whole transformer. The objective is the distillation error, or any other error a cell that
a caller measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from workbench.errors import InputError
from workbench.models.facts import ModelFacts
from workbench.operators import SOFTMAX, OperatorSpec, Schedule, label, parse_rate
from workbench.planning.allocation import (
    Allocation,
    Choice,
    Choices,
    best_k,
    greedy,
    optimal,
    pareto,
    uniform,
)
from workbench.planning.bank import Bank
from workbench.planning.cost import TERA, attention_flops, block_flops
from workbench.planning.plan import Plan, make_plan
from workbench.types import ClipSize

Method = Literal["optimal", "uniform", "greedy", "best_k"]
Unit = Literal["tflop", "ms"]
NO_SCHEDULE = Schedule()


@dataclass(frozen=True)
class Timings:
    """Milliseconds on a device: attention of one block by operator label, and the rest of a block.

    Attributes:
        attention: label to milliseconds; must hold "softmax".
        rest: milliseconds of everything else in a block.
        device: where it was measured.
        is_estimate: whether the numbers were scaled from another shape.
    """

    attention: Mapping[str, float]
    rest: float
    device: str
    is_estimate: bool = False

    def scaled(self, facts: ModelFacts, *, measured: ClipSize, wanted: ClipSize) -> Timings:
        """Return the timings at another clip size, each scaled as its operations are: an estimate.

        Operators that are not hybrid, linear or softmax are left out.
        """
        if tuple(measured) == tuple(wanted):
            return self
        before, after = facts.token_grid(measured), facts.token_grid(wanted)
        attention = {}
        for name, milliseconds in self.attention.items():
            spec = parse_rate(name)
            ratio = attention_flops(spec, facts, after) / attention_flops(spec, facts, before)
            attention[name] = milliseconds * ratio
        rest = self.rest * block_flops(facts, after).rest / block_flops(facts, before).rest
        return Timings(attention=attention, rest=rest, device=self.device, is_estimate=True)


@dataclass(frozen=True)
class Measure:
    """How costs are counted: the clip size, the device's timings (None: operations), and a step schedule.

    Attributes:
        steps: sampling steps over which the schedule is averaged; None takes the model's default.
    """

    size: ClipSize
    timings: Timings | None = None
    schedule: Schedule = NO_SCHEDULE
    steps: int | None = None

    @property
    def unit(self) -> Unit:
        return "tflop" if self.timings is None else "ms"

    def dense(self, facts: ModelFacts) -> tuple[float, float]:
        """Return the cost of one block's softmax attention and of the rest of the block.

        Raises:
            InputError: the timings lack softmax, or a size that the model cannot make.
        """
        flops = block_flops(facts, facts.token_grid(self.size))
        if self.timings is None:
            return flops.core, flops.rest
        if "softmax" not in self.timings.attention:
            raise InputError("The timings lack softmax; measure it on this device first.")
        return self.timings.attention["softmax"], self.timings.rest

    def attention(self, spec: OperatorSpec, facts: ModelFacts) -> float | None:
        """Return what the attention of one block costs on average over the steps; None where not timed."""
        dense, _ = self.dense(facts)
        if spec == SOFTMAX:
            return dense
        if self.timings is None:
            own: float | None = attention_flops(spec, facts, facts.token_grid(self.size))
        else:
            own = self.timings.attention.get(label(spec))
        if own is None:
            return None
        steps = self.steps or facts.default_steps
        share = self.schedule.num_dense(steps) / steps
        return share * dense + (1 - share) * own

    def pass_cost(self, plan: Plan, facts: ModelFacts) -> float:
        """Return the cost of one pass through all blocks under a plan, averaged over its schedule.

        Raises:
            InputError: an operator of the plan was not timed.
        """
        _, rest = self.dense(facts)
        own = replace(self, schedule=plan.schedule)
        costs = {label(spec): own.attention(spec, facts) for spec in plan.operators}
        unknown = sorted(name for name, cost in costs.items() if cost is None)
        if unknown:
            raise InputError(
                f"{', '.join(unknown)} was not timed on {self.timings.device if self.timings else 'it'}; "
                f"time it with `workbench times --rates {','.join(unknown)}`."
            )
        return sum((costs[label(spec)] or 0.0) + rest for spec in plan.operators)


def choices(
    bank: Bank,
    facts: ModelFacts,
    size: ClipSize,
    *,
    timings: Timings | None = None,
    errors: Mapping[tuple[int, str], float] | None = None,
    schedule: Schedule | None = None,
    steps: int | None = None,
) -> Choices:
    """Return for every block its measured operators and softmax, with error and cost.

    Args:
        bank: of this model.
        facts: of the model.
        size: clip size in pixels at which costs are counted.
        timings: counts in milliseconds; None counts operations.
        errors: another objective by (block, label), for example a measured end-to-end sensitivity; cells it
            does not name are not offered.
        schedule: steps on which converted blocks stay dense, of `steps` (None: the model's default).

    Raises:
        InputError: a bank of another model.
    """
    return offers(bank, facts, Measure(size, timings, schedule or NO_SCHEDULE, steps), errors=errors)


def offers(
    bank: Bank, facts: ModelFacts, measure: Measure, *, errors: Mapping[tuple[int, str], float] | None = None
) -> Choices:
    """Return what `choices` returns, with costs counted by a `Measure`."""
    bank.check_model(facts)
    dense, _ = measure.dense(facts)
    offered: list[list[Choice]] = [[Choice("softmax", 0.0, dense)] for _ in range(facts.num_blocks)]
    for (block, name), cell in bank.cells.items():
        spent = measure.attention(cell.spec, facts)
        error = cell.error if errors is None else errors.get((block, name))
        if spent is not None and error is not None:
            offered[block].append(Choice(name, error, spent))
    return offered


def attention_budget(facts: ModelFacts, measure: Measure, *, speedup: float) -> float:
    """Return what all attentions together may cost so that the transformer runs `speedup` times as fast.

    Raises:
        InputError: a speed-up of less than 1, or above what even free attention gives.
    """
    if not 1 <= speedup <= 1000:
        raise InputError(f"Speed-up must be at least 1, got {speedup:g}; try 1.5.")
    core, rest = measure.dense(facts)
    budget = facts.num_blocks * ((core + rest) / speedup - rest)
    if budget <= 0:
        size = measure.size
        raise InputError(
            f"A speed-up of {speedup:g} cannot be reached at {size.frames}×{size.height}×{size.width}: even "
            f"free attention gives {(core + rest) / rest:.2f}×; larger clips gain more."
        )
    return budget


def select(
    bank: Bank,
    facts: ModelFacts,
    measure: Measure,
    *,
    speedup: float | None = None,
    budget: float | None = None,
    method: Method = "optimal",
    errors: Mapping[tuple[int, str], float] | None = None,
) -> Plan:
    """Return the plan of lowest summed error within a budget.

    Args:
        bank: of this model.
        facts: of the model.
        measure: how costs are counted: operations or milliseconds, and the step schedule of the plan.
        speedup: how many times as fast the transformer shall be over a whole clip; or
        budget: what one pass through all blocks may cost, in operations or milliseconds.
        method: the exact solution, or a baseline to compare with.
        errors: another objective, as in `choices`.

    Raises:
        InputError: the measured cells cannot reach it, with what they can.
    """
    if (speedup is None) == (budget is None):
        raise InputError("Say how much the plan may cost in one way: a speed-up or a budget.")
    offered = offers(bank, facts, measure, errors=errors)
    core, rest = measure.dense(facts)
    least = sum(min(choice.cost for choice in block) for block in offered) + facts.num_blocks * rest
    if speedup is not None:
        limit = attention_budget(facts, measure, speedup=speedup)
        reached = facts.num_blocks * (core + rest) / least
        short = f"reach a speed-up of at most {reached:.2f}, and {speedup:g} was asked for"
    else:
        assert budget is not None
        limit = budget - facts.num_blocks * rest
        short = f"cost at least {_shown(least, measure)}, and {_shown(budget, measure)} was allowed"
    allocation = allocate(offered, budget=limit, method=method)
    if allocation is None:
        baseline = "" if method == "optimal" else f" with the method {method}"
        raise InputError(
            f"The measured cells of bank {bank.folder.name}{baseline} {short}; "
            "measure cheaper cells or ask for less."
        )
    plan = as_plan(allocation, bank, facts, measure.size, unit=measure.unit, schedule=measure.schedule)
    more = {"objective": "error" if errors is None else "sensitivity"}
    return plan.model_copy(update={"provenance": {**plan.provenance, **more}})


def _shown(cost: float, measure: Measure) -> str:
    if measure.timings is None:
        return f"{cost / TERA:.4g} TFLOP a pass"
    return f"{cost:.4g} ms a pass{' (estimated)' if measure.timings.is_estimate else ''}"


def allocate(offered: Choices, *, budget: float, method: Method) -> Allocation | None:
    """Return the allocation that a method finds within a budget, None where it finds none.

    Raises:
        InputError: no such method.
    """
    if method == "optimal":
        least = sum(min(choice.cost for choice in block) for block in offered)
        return optimal(offered, budget=budget) if least <= budget else None
    baselines = {"uniform": uniform, "greedy": greedy, "best_k": best_k}
    if method not in baselines:
        raise InputError(f"Method {method!r} is not known; known: {', '.join(get_args(Method))}.")
    return baselines[method](offered, budget=budget)


def as_plan(
    allocation: Allocation,
    bank: Bank,
    facts: ModelFacts,
    size: ClipSize,
    *,
    unit: Unit = "tflop",
    schedule: Schedule | None = None,
) -> Plan:
    """Return the plan of an allocation over the cells of a bank."""
    operators = {
        block: bank.cells[block, name].spec
        for block, name in enumerate(allocation.labels)
        if name != "softmax"
    }
    shown, scale = ("attention_tflop", TERA) if unit == "tflop" else ("attention_ms", 1.0)
    plan = make_plan(
        operators,
        facts,
        size=size,
        schedule=schedule,
        provenance={
            "made_by": allocation.method,
            "bank": bank.folder.name,
            "error": allocation.error,
            shown: allocation.cost / scale,
        },
    )
    return plan.model_copy(update={"name": plan.short_name[:200]})


def front(
    bank: Bank,
    facts: ModelFacts,
    size: ClipSize,
    *,
    timings: Timings | None = None,
    errors: Mapping[tuple[int, str], float] | None = None,
) -> tuple[Allocation, ...]:
    """Return the Pareto front of summed error and attention cost over all plans of the measured cells."""
    return pareto(choices(bank, facts, size, timings=timings, errors=errors))
