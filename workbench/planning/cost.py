"""What a plan costs in floating-point operations, and whether a wished speed-up can be reached at all.

Formulas: 1 multiply-accumulate = 2 operations, N tokens, d width, d_ff feed-forward width, L text tokens.
Attention core 4 N^2 d; q, k, v, o 8 N d^2; feed-forward 4 N d d_ff; cross-attention 4 N d^2 + 4 L d^2 + 4
N L d; operators as in `workbench.operators`. Needs facts of the model only; elementwise work is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.errors import InputError
from workbench.models.facts import ModelFacts
from workbench.operators import HybridSpec, LinearSpec, OperatorSpec, label
from workbench.planning.plan import Plan, check_rates
from workbench.types import ClipSize, StrictModel, TokenGrid

TERA = 1e12
USUAL_SPECS: tuple[OperatorSpec, ...] = (
    HybridSpec(rate=2), HybridSpec(rate=4), HybridSpec(rate=8), HybridSpec(rate=16), LinearSpec(),
)  # fmt: skip


class BlockFlops(NamedTuple):
    """Operations of one block in one forward pass of a dense model."""

    core: float
    projections: float
    feed_forward: float
    cross: float

    @property
    def total(self) -> float:
        return self.core + self.projections + self.feed_forward + self.cross

    @property
    def rest(self) -> float:
        """Everything but the attention core."""
        return self.total - self.core


class Cost(StrictModel):
    """Cost of one forward pass of the transformer under a plan, averaged over the steps of its schedule.

    Attributes:
        tokens: N.
        block_tflop: a dense block, 1e12 operations.
        core_share: share of the attention core in a dense block.
        attention_ratio: attention (core, feature maps, linear state) over the dense core, all blocks.
        block_ratio: by block, over a dense block.
        dit_ratio: all blocks over all dense blocks.
        dit_tflop: all blocks under the plan; `dense_tflop` all dense.
        notes: what a user should know, for example that kept positions shift.
    """

    tokens: int
    plan: str
    block_tflop: float
    core_share: float
    attention_ratio: float
    block_ratio: dict[str, float]
    dit_ratio: float
    dit_tflop: float
    dense_tflop: float
    notes: tuple[str, ...] = ()


def block_flops(facts: ModelFacts, grid: TokenGrid) -> BlockFlops:
    """Return the operations of a dense block on a token grid."""
    tokens, width, text = float(grid.num_tokens), float(facts.dim), float(facts.text_tokens)
    return BlockFlops(
        core=4 * tokens * tokens * width,
        projections=8 * tokens * width * width,
        feed_forward=4 * tokens * width * facts.ffn_dim,
        cross=4 * tokens * width * width + 4 * text * width * width + 4 * tokens * text * width,
    )


def attention_flops(spec: OperatorSpec, facts: ModelFacts, grid: TokenGrid) -> float:
    """Return the operations of the attention of one block under an operator, feature maps included."""
    return spec.flops(grid, facts).total


def cost(
    plan: Plan, facts: ModelFacts, size: ClipSize | None = None, *, num_steps: int | None = None
) -> Cost:
    """Return what a plan costs.

    Args:
        plan: for this model's architecture.
        facts: of the model.
        size: clip size in pixels; None takes the plan's, else the model's default.
        num_steps: sampling steps over which a schedule is averaged; None takes the model's default.

    Raises:
        InputError: a plan for another model, a size that it cannot make, or a rate that cannot be.
    """
    plan.model.check(facts, what=f"plan {plan.name or plan.short_name}")
    chosen = size or (ClipSize(*plan.size) if plan.size else facts.default_size)
    grid = facts.token_grid(chosen)
    notes = check_rates(plan, grid)
    dense = block_flops(facts, grid)
    if num_steps is not None and num_steps < 1:
        raise InputError(f"Steps must be at least 1, got {num_steps}.")
    steps = num_steps or facts.default_steps
    dense_share = plan.schedule.num_dense(steps) / steps
    attention = [
        dense_share * dense.core + (1 - dense_share) * attention_flops(spec, facts, grid)
        for spec in plan.operators
    ]
    blocks = [each + dense.rest for each in attention]
    return Cost(
        tokens=grid.num_tokens,
        plan=plan.short_name,
        block_tflop=dense.total / TERA,
        core_share=dense.core / dense.total,
        attention_ratio=sum(attention) / (dense.core * facts.num_blocks),
        block_ratio={str(index): each / dense.total for index, each in enumerate(blocks)},
        dit_ratio=sum(blocks) / (dense.total * facts.num_blocks),
        dit_tflop=sum(blocks) / TERA,
        dense_tflop=dense.total * facts.num_blocks / TERA,
        notes=notes,
    )


class Reach(StrictModel):
    """One way to a target: this many blocks at one operator, and the speed-up that it gives."""

    plan: str
    num_blocks: int
    speedup: float


class Payoff(StrictModel):
    """Whether a whole-transformer speed-up in operations can be reached.

    Attributes:
        target: the wished speed-up.
        bound: the most that any plan of the offered operators gives, all blocks converted.
        limit: with the attention core free of charge; nothing can give more.
        plans: per operator the fewest blocks that reach the target, cheapest conversion first.
        sentence: the answer for people.
    """

    target: float
    bound: float
    limit: float
    plans: tuple[Reach, ...]
    sentence: str


def will_it_pay(
    facts: ModelFacts,
    size: ClipSize | None = None,
    *,
    target_speedup: float,
    specs: Sequence[OperatorSpec] = USUAL_SPECS,
) -> Payoff:
    """Answer whether a speed-up of the transformer can be reached at a clip size, counted in operations.

    Raises:
        InputError: a target of 1 or less, or a size that the model cannot make.
    """
    if not 1 < target_speedup <= 1000:
        raise InputError(f"Target speed-up must be above 1, got {target_speedup:g}; try 1.5.")
    chosen = size or facts.default_size
    grid = facts.token_grid(chosen)
    dense = block_flops(facts, grid)
    limit = dense.total / dense.rest
    gains = {label(spec): dense.core - attention_flops(spec, facts, grid) for spec in specs}
    bound = dense.total / (dense.total - max([*gains.values(), 0.0]))
    plans: list[Reach] = []
    for name, gain in gains.items():
        for count in range(1, facts.num_blocks + 1):
            total = facts.num_blocks * dense.total
            speedup = total / (total - count * gain)
            if gain > 0 and speedup >= target_speedup:
                plans.append(Reach(plan=f"{count}x{name}", num_blocks=count, speedup=speedup))
                break
    shown = f"{chosen.frames}×{chosen.height}×{chosen.width}"
    if plans:
        ways = ", ".join(f"{reach.plan} ({reach.speedup:.2f}×)" for reach in plans)
        sentence = (
            f"At {shown} a {target_speedup:g}× faster transformer (in operations) is reached by {ways}."
        )
    else:
        sentence = (
            f"At {shown} the transformer gains at most {bound:.2f}× in operations; larger clips gain more."
        )
    return Payoff(target=target_speedup, bound=bound, limit=limit, plans=tuple(plans), sentence=sentence)
