"""What users write: short names, assignments, block lists; and every refusal in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.models import ModelFacts, model_facts
from workbench.operators import HybridSpec, LinearSpec, RehyatSpec, SoftmaxSpec, parse_rate
from workbench.planning import load, parse_assign, parse_blocks, parse_short, plan_blocks, spread


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return model_facts("wan2.1-t2v-1.3b")


def test_blocks_are_spread_evenly() -> None:
    assert spread(5, 10) == (1, 3, 5, 7, 9)
    assert spread(15, 30) == tuple(range(1, 30, 2))
    assert spread(10, 10) == tuple(range(10))
    assert spread(1, 10) == (5,)


@given(st.integers(1, 60), st.data())
def test_spread_is_the_stated_formula(num_blocks: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, num_blocks))
    expected = tuple(int((index + 0.5) * num_blocks / count) for index in range(count))
    assert spread(count, num_blocks) == expected and len(set(expected)) == count


@pytest.mark.parametrize("text", ["15xR2", "15x2", "15×R2", " 15xr2 "])
def test_short_names(facts: ModelFacts, text: str) -> None:
    plan = parse_short(text, facts)
    assert plan.short_name == "15xR2" and len(plan.blocks) == 30
    assert plan.converted == {block: HybridSpec(rate=2) for block in range(1, 30, 2)}


def test_short_names_of_linear_softmax_and_none(facts: ModelFacts) -> None:
    assert parse_short("3xlinear", facts).converted == dict.fromkeys((5, 15, 25), LinearSpec())
    assert parse_short("softmax", facts).converted == {} == parse_short("0xR4", facts).converted
    assert parse_short("4xR1", facts).short_name == "softmax"


def test_rates() -> None:
    assert parse_rate("R4") == parse_rate("4") == parse_rate(4) == parse_rate("r4") == HybridSpec(rate=4)
    assert parse_rate("linear") == LinearSpec()
    assert parse_rate("softmax") == parse_rate("R1") == SoftmaxSpec()
    assert parse_rate("T3o1") == RehyatSpec(chunk_frames=3, overlap_frames=1)


@pytest.mark.parametrize(
    "text", ["0", "R0", "-2", "R-2", "2.5", "R2.5", "", "four", "R", "T0o1", "nan", "R4x"]
)
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(InputError, match="is not a whole number of at least 1; write R4 or 4, linear"):
        parse_rate(text)


def test_a_rate_above_a_frame_is_refused(facts: ModelFacts) -> None:
    with pytest.raises(
        InputError, match=r"R1561 is above the 1,560 tokens of a frame .* at most R1560, or linear"
    ):
        parse_short("1xR1561", facts)
    assert parse_short("1xR1560", facts).short_name == "1xR1560"


def test_block_lists(facts: ModelFacts) -> None:
    assert parse_blocks("0,2,5-7", facts) == (0, 2, 5, 6, 7)
    assert parse_blocks("28-", facts) == (28, 29)
    assert parse_blocks("all", facts) == tuple(range(30))
    assert parse_blocks(" 3 , 3, 1", facts) == (1, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("99", "Block 99 does not exist; wan2.1-t2v-1.3b has blocks 0 to 29"),
        ("5-99", "Block 99 does not exist"),
        ("7-5", "runs backwards; write 5-7"),
        ("", "no block or range"),
        ("a", "no block or range"),
        ("-3", "no block or range"),
        ("1,,2", "no block or range"),
    ],
)
def test_block_lists_that_cannot_be(facts: ModelFacts, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_blocks(text, facts)


def test_assignments(facts: ModelFacts) -> None:
    plan = parse_assign("0-3:softmax,4-7:R4,8-:linear", facts)
    assert plan.short_name == "4xR4+22xlinear" and 3 not in plan.converted
    assert parse_assign("0,2,5-7:R4", facts).converted == dict.fromkeys((0, 2, 5, 6, 7), HybridSpec(rate=4))
    assert plan_blocks("0,2,5-7", 4, facts).converted == parse_assign("0,2,5-7:R4", facts).converted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1:R2,1:R4", "Block 1 is assigned twice"),
        ("99:R4", "Block 99 does not exist"),
        ("3", "has no operator; write <blocks>:<rate>"),
        ("3:", "is not a whole number"),
        (":R4", "no block or range"),
        ("1:R4,5", "has no operator"),
    ],
)
def test_assignments_that_cannot_be(facts: ModelFacts, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_assign(text, facts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("31xR2", "converts 31 blocks; wan2.1-t2v-1.3b has 30"),
        ("xR2", "neither a plan file nor a short name"),
        ("5xR0", "is not a whole number"),
        ("nope", "neither a plan file nor a short name"),
        ("nope.json", "plan nope.json does not exist"),
        ("", "no file name"),
        ("a\0b", "no file name"),
    ],
)
def test_sources_that_cannot_be(facts: ModelFacts, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load(text, facts)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_plan(facts: ModelFacts, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path, facts)


@given(st.text(max_size=30))
def test_any_text_is_a_plan_or_one_sentence(text: str) -> None:
    facts = model_facts("embedded")
    for parse in (parse_short, parse_assign, parse_blocks):
        try:
            parse(text, facts)
        except InputError as error:
            assert str(error).endswith(".")
