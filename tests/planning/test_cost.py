"""The cost model reproduces every figure of the published FLOPs tables, and says whether a wish can be
met.
"""

from __future__ import annotations

import pytest

from workbench.errors import InputError
from workbench.models import ModelFacts, model_facts
from workbench.operators import HybridSpec, LinearSpec, PolynomialSpec, RehyatSpec, Schedule
from workbench.planning import block_flops, cost, make_plan, parse_short, will_it_pay
from workbench.types import ClipSize

LARGE = ClipSize(81, 480, 832)
MEDIUM = ClipSize(81, 320, 480)


@pytest.fixture(scope="module")
def wan() -> ModelFacts:
    return model_facts("wan2.1-t2v-1.3b")


def test_dense_block_at_full_size(wan: ModelFacts) -> None:
    grid = wan.token_grid(LARGE)
    assert tuple(grid) == (21, 30, 52) and grid.num_tokens == 32760
    flops = block_flops(wan, grid)
    parts = (flops.core, flops.projections, flops.feed_forward, flops.cross, flops.total)
    assert [round(part / 1e12, 3) for part in parts] == [6.594, 0.618, 1.803, 0.417, 9.433]
    assert round(flops.core / flops.total, 3) == 0.699
    assert round((flops.core + flops.projections) / flops.total, 3) == 0.765


def test_dense_block_at_medium_size(wan: ModelFacts) -> None:
    grid = wan.token_grid(MEDIUM)
    flops = block_flops(wan, grid)
    assert grid.num_tokens == 12600
    assert [round(part / 1e12, 3) for part in (flops.core, flops.total)] == [0.975, 2.070]
    assert round(flops.core / flops.total, 3) == 0.471
    assert round((flops.core + flops.projections) / flops.total, 3) == 0.586


@pytest.mark.parametrize(
    ("rate", "attention", "block", "dit"),
    [
        ("R2", 0.524, 0.667, (0.833, 0.778, 0.722)),
        ("R4", 0.277, 0.495, (0.747, 0.663, 0.579)),
        ("R8", 0.154, 0.409, (0.704, 0.606, 0.507)),
        ("linear", 0.031, 0.323, (0.661, 0.549, 0.436)),
    ],
)
def test_table_of_plans(
    wan: ModelFacts, rate: str, attention: float, block: float, dit: tuple[float, ...]
) -> None:
    everything = cost(parse_short(f"30x{rate}", wan), wan, LARGE)
    assert round(everything.attention_ratio, 3) == attention
    assert {round(ratio, 3) for ratio in everything.block_ratio.values()} == {block}
    for count, expected in zip((15, 20, 25), dit, strict=True):
        assert round(cost(parse_short(f"{count}x{rate}", wan), wan, LARGE).dit_ratio, 3) == expected


def test_published_savings_of_attention(wan: ModelFacts) -> None:
    """Up to 40 % of the core: 25xR2 39.7 %, 15xR8 42 %, 15xR2 24 %."""
    saved = [
        1 - cost(parse_short(name, wan), wan, LARGE).attention_ratio for name in ("25xR2", "15xR8", "15xR2")
    ]
    assert [round(share, 3) for share in saved] == [0.397, 0.423, 0.238]


def test_command_line_example(wan: ModelFacts) -> None:
    answer = cost(parse_short("15xR2", wan), wan, LARGE)
    assert (
        answer.tokens == 32760
        and round(answer.block_tflop, 3) == 9.433
        and round(answer.dit_ratio, 3) == 0.833
    )
    assert len(answer.block_ratio) == 30 and answer.block_ratio["0"] == 1.0
    assert round(answer.block_ratio["1"], 3) == 0.667 and answer.notes == ()
    assert round(answer.dense_tflop, 1) == round(30 * answer.block_tflop, 1)


def test_published_parameters_of_the_map(wan: ModelFacts) -> None:
    assert PolynomialSpec().flops_per_token(wan) / 2 == 1_185_792
    grid = wan.token_grid(MEDIUM)
    flops = LinearSpec().flops(grid, wan)
    assert flops.feature_maps / 2 / 1e9 == pytest.approx(29.9, abs=0.05)
    wide = PolynomialSpec(layers=3, degree=6, width=2)
    assert wide.flops_per_token(wan) > PolynomialSpec().flops_per_token(wan)


def test_rehyat_counts_each_far_key_once(wan: ModelFacts) -> None:
    grid = wan.token_grid(LARGE)
    frame = grid.height * grid.width
    core = 4 * grid.num_tokens**2 * wan.dim
    whole = RehyatSpec(chunk_frames=21, overlap_frames=0).flops(grid, wan)
    assert whole == (core, 0, 0)
    flops = RehyatSpec(chunk_frames=3, overlap_frames=1).flops(grid, wan)
    keys = [3 * frame] + [4 * frame] * 6
    assert flops.softmax == sum(4 * 3 * frame * each * wan.dim for each in keys)
    readers, far = 18 * frame, 17 * frame
    assert flops.linear == 2 * 12 * 256 * 128 * (readers + far)
    assert flops.total < core / 4


def test_rates_that_do_not_divide_are_counted_and_noted(wan: ModelFacts) -> None:
    answer = cost(parse_short("30xR7", wan), wan, LARGE)
    assert len(answer.notes) == 1 and "R7 does not divide the 1,560 tokens of a frame" in answer.notes[0]
    kept = -(-32760 // 7)
    assert HybridSpec(rate=7).flops(wan.token_grid(LARGE), wan).softmax == 4 * 32760 * kept * wan.dim


def test_dense_steps_are_averaged_in(wan: ModelFacts) -> None:
    plan = parse_short("30xR4", wan, schedule=Schedule(dense_first=5))
    plain = cost(parse_short("30xR4", wan), wan, LARGE)
    scheduled = cost(plan, wan, LARGE, num_steps=50)
    assert scheduled.dit_ratio == pytest.approx(0.1 + 0.9 * plain.dit_ratio)
    assert scheduled.attention_ratio == pytest.approx(0.1 + 0.9 * plain.attention_ratio)


def test_softmax_costs_nothing_more(wan: ModelFacts) -> None:
    answer = cost(make_plan({}, wan), wan)
    assert (
        answer.dit_ratio == 1.0
        and answer.attention_ratio == 1.0
        and set(answer.block_ratio.values()) == {1.0}
    )


def test_will_it_pay(wan: ModelFacts) -> None:
    small = will_it_pay(wan, ClipSize(33, 320, 480), target_speedup=2.0)
    assert small.plans == () and round(small.bound, 2) == 1.29
    assert (
        "At 33×320×480" in small.sentence
        and "at most 1.29×" in small.sentence
        and "larger clips" in small.sentence
    )
    large = will_it_pay(wan, LARGE, target_speedup=2.0)
    assert "30xR4" in [reach.plan for reach in large.plans] and large.limit > large.bound > 3.0
    for reach in large.plans:
        assert 1 / cost(parse_short(reach.plan, wan), wan, LARGE).dit_ratio == pytest.approx(reach.speedup)
        fewer = reach.plan.replace(str(reach.num_blocks), str(reach.num_blocks - 1), 1)
        assert 1 / cost(parse_short(fewer, wan), wan, LARGE).dit_ratio < 2.0 <= reach.speedup
    with pytest.raises(InputError, match="must be above 1, got 1"):
        will_it_pay(wan, target_speedup=1.0)


def test_other_models_need_no_weights() -> None:
    tokens = {
        name: model_facts(name).token_grid(ClipSize(81, 704, 1280)).num_tokens
        for name in ("wan2.1-t2v-14b", "wan2.2-ti2v-5b", "wan2.2-t2v-a14b")
    }
    assert tokens == {"wan2.1-t2v-14b": 73920, "wan2.2-ti2v-5b": 18480, "wan2.2-t2v-a14b": 73920}
    facts = model_facts("wan2.2-ti2v-5b")
    assert (facts.num_blocks, facts.dim) == (30, 3072) and facts.multiples == (4, 32, 32)
    assert cost(parse_short("15xR2", facts), facts).dit_ratio < 1
