"""Banks: bit-equal on reloading, extendable, mergeable, and nothing foreign is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench.planning.bank as bank_module
from tests.banks import write_bank
from workbench.errors import Diverged, InputError
from workbench.models import ModelFacts
from workbench.operators import HybridSpec, LinearSpec, Schedule, build, label, parse_rate
from workbench.planning import (
    BankWriter,
    Measure,
    Plan,
    Timings,
    cost,
    front,
    lend,
    load_bank,
    make_plan,
    merge_banks,
    parse_assign,
    plan_blocks,
    select,
)
from workbench.planning.allocation import cheapest
from workbench.planning.selection import choices
from workbench.workspace import Workspace, write_json


@pytest.fixture
def folder(tmp_path: Path, micro_facts: ModelFacts) -> Path:
    return write_bank(tmp_path / "bank", micro_facts).folder


def test_weights_come_back_bit_equal(folder: Path, micro_facts: ModelFacts) -> None:
    bank = load_bank(folder, micro_facts)
    assert len(bank.cells) == 9 and set(bank.cells) == {
        (b, r) for b in range(3) for r in ("R2", "R4", "linear")
    }
    assert (folder / "cells" / "block-02-R4.safetensors").is_file()
    operator = build(HybridSpec(rate=4), micro_facts)
    weights = bank.weights(2, HybridSpec(rate=4))
    writer = BankWriter.open(folder, micro_facts)
    writer.save_cell(bank.cell(2, HybridSpec(rate=4)), weights)
    again = load_bank(folder).weights(2, HybridSpec(rate=4))
    assert weights.keys() == again.keys() == operator.state_dict().keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert len(list((folder / "cells").iterdir())) == 9


def test_extend_and_merge(tmp_path: Path, micro_facts: ModelFacts) -> None:
    first = write_bank(tmp_path / "a", micro_facts, rates=["R4"], blocks=[0])
    second = write_bank(tmp_path / "b", micro_facts, rates=["R4", "linear"], blocks=[0, 1], seed=5)
    writer = BankWriter.open(first.folder, micro_facts)
    taken = writer.merge(second)
    assert [cell.key for cell in taken] == [(0, "linear"), (1, "R4"), (1, "linear")]
    merged = load_bank(first.folder, micro_facts)
    own, theirs = first.weights(0, HybridSpec(rate=4)), second.weights(1, LinearSpec())
    assert all(torch.equal(merged.weights(0, HybridSpec(rate=4))[name], own[name]) for name in own)
    assert all(torch.equal(merged.weights(1, LinearSpec())[name], theirs[name]) for name in theirs)
    assert len(merged.cells) == 4


def test_missing_cells_are_named(folder: Path, micro_facts: ModelFacts) -> None:
    bank = load_bank(folder)
    plan = parse_assign("0:R4,1:R8,2:R16", micro_facts)
    assert bank.missing(plan) == ((1, "R8"), (2, "R16"))
    with pytest.raises(
        InputError, match="lacks 2 of the cells of this plan: block 1 R8, block 2 R16; measure"
    ):
        bank.check_complete(plan)
    with pytest.raises(InputError, match="Block 1 R8 is not in bank bank"):
        bank.weights(1, parse_rate("R8"))


def test_other_models_are_refused(folder: Path, micro_facts: ModelFacts) -> None:
    with pytest.raises(InputError, match=r"Bank bank is for micro .* and the model is micro"):
        load_bank(folder, micro_facts.model_copy(update={"num_heads": 5}))
    with pytest.raises(InputError, match="other weights"):
        load_bank(folder, micro_facts.model_copy(update={"fingerprint": "beef"}))


def test_not_finite_weights_are_not_saved(folder: Path, micro_facts: ModelFacts) -> None:
    bank = load_bank(folder)
    cell, weights = bank.cell(0, LinearSpec()), bank.weights(0, LinearSpec())
    writer = BankWriter.open(folder, micro_facts)
    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in weights.items()}
    with pytest.raises(Diverged):
        writer.save_cell(cell, broken)
    with pytest.raises(InputError, match="do not fit"):
        writer.save_cell(cell, {"x": torch.zeros(1)})
    kept = load_bank(folder).weights(0, LinearSpec())
    assert all(torch.equal(kept[name], weights[name]) for name in weights)


def test_foreign_files_are_refused(folder: Path) -> None:
    spec, file = HybridSpec(rate=4), folder / "cells" / "block-00-R4.safetensors"
    good, whole = load_file(file), file.read_bytes()
    name = next(name for name in good if name.endswith("weight_1"))
    for tensors, words in (
        (good | {name: torch.full_like(good[name], float("inf"))}, "non-finite"),
        (good | {name: good[name][:1].contiguous()}, "expected"),
        ({key: value for key, value in good.items() if key != name}, "missing"),
        (good | {"../../etc/x": torch.zeros(1)}, "not known"),
        ({key: value + 1 for key, value in good.items()}, "sha256 differs"),
    ):
        save_file(tensors, file)
        with pytest.raises(InputError, match=words) as caught:
            load_bank(folder).weights(0, spec)
        assert "\n" not in str(caught.value)
    for data in (b"", b"\x80\x02junk", whole[: len(whole) // 2]):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"block-00-R4\.safetensors"):
            load_bank(folder).weights(0, spec)
    file.unlink()
    with pytest.raises(InputError, match=r"names block-00-R4\.safetensors, which is missing"):
        load_bank(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"schema_version":1', '"schema_version":2', "newer version"),
        ('"block":0', '"block":77', "above the 3 blocks"),
        ('"error":0.02', '"error":-1.0', "greater than or equal to 0"),
        ('"error":0.02', '"error":NaN', "finite"),
        ("block-00-R2.safetensors", "../../secret.safetensors", "names the file"),
        ('"updates":20', '"updates":20,"extra":1', "not a known field"),
    ],
)
def test_damaged_manifests_are_refused(folder: Path, old: str, new: str, words: str) -> None:
    text = (folder / "bank.json").read_text()
    assert old in text
    (folder / "bank.json").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=words) as caught:
        load_bank(folder)
    assert "\n" not in str(caught.value)


def test_no_bank_here(tmp_path: Path, folder: Path, micro_facts: ModelFacts) -> None:
    with pytest.raises(InputError, match=r"is not a bank \(bank.json is missing\)"):
        load_bank(tmp_path / "none")
    with pytest.raises(InputError, match="holds a bank already"):
        BankWriter.create(folder, micro_facts, size=(9, 48, 32))
    (folder / "bank.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="must be a JSON object"):
        load_bank(folder)


def test_select_within_a_budget(untrained_bank_facts: ModelFacts, tmp_path: Path) -> None:
    facts = untrained_bank_facts
    bank = write_bank(tmp_path / "wide", facts)
    size = facts.default_size
    measure = Measure(size)
    plan = select(bank, facts, measure, speedup=1.2)
    assert not bank.missing(plan) and plan.provenance["made_by"] == "optimal"
    for method in ("greedy", "best_k", "uniform"):
        other = select(bank, facts, measure, speedup=1.2, method=method)  # type: ignore[arg-type]
        assert float(plan.provenance["error"]) <= float(other.provenance["error"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"reach a speed-up of at most 1\.\d\d, and 2 was asked for"):
        select(bank, facts, measure, speedup=2.0)
    with pytest.raises(InputError, match="cannot be reached"):
        select(bank, facts, measure, speedup=50)
    points = front(bank, facts, size)
    assert points[-1].error == 0.0 and points[0].cost == cheapest(choices(bank, facts, size))


def labels_of(plan: Plan) -> list[str]:
    return [label(spec) for spec in plan.operators]


def test_milliseconds_are_another_budget(untrained_bank_facts: ModelFacts, tmp_path: Path) -> None:
    facts = untrained_bank_facts
    bank = write_bank(tmp_path / "wide", facts)
    timings = Timings({"softmax": 10.0, "R2": 9.0, "R4": 2.0}, rest=5.0, device="test")
    measure = Measure(facts.default_size, timings)
    plan = select(bank, facts, measure, speedup=1.5)
    spent = sum(timings.attention[choice] for choice in labels_of(plan)) + 50
    assert 150 / spent >= 1.5 and "linear" not in labels_of(plan)
    assert "attention_ms" in plan.provenance


def test_a_budget_may_be_absolute(untrained_bank_facts: ModelFacts, tmp_path: Path) -> None:
    facts = untrained_bank_facts
    bank = write_bank(tmp_path / "wide", facts)
    measure = Measure(facts.default_size)
    full = measure.pass_cost(make_plan({}, facts), facts)
    assert full == pytest.approx(1e12 * cost(make_plan({}, facts), facts).dense_tflop)
    plan = select(bank, facts, measure, budget=0.9 * full)
    assert measure.pass_cost(plan, facts) <= 0.9 * full
    with pytest.raises(InputError, match=r"cost at least 0\.\d+ TFLOP a pass, and 0\.001 TFLOP"):
        select(bank, facts, measure, budget=1e9)
    with pytest.raises(InputError, match="one way"):
        select(bank, facts, measure)


def test_a_schedule_makes_a_speedup_dearer(untrained_bank_facts: ModelFacts, tmp_path: Path) -> None:
    facts = untrained_bank_facts
    bank = write_bank(tmp_path / "wide", facts)
    half = Measure(facts.default_size, schedule=Schedule(dense_first=4), steps=8)
    plan = select(bank, facts, half, speedup=1.1)
    assert plan.schedule.dense_first == 4
    assert cost(plan, facts, num_steps=8).dit_ratio <= 1 / 1.1
    assert len(plan.converted) > len(select(bank, facts, Measure(facts.default_size), speedup=1.1).converted)


def test_timings_at_another_size_are_an_estimate(untrained_bank_facts: ModelFacts) -> None:
    facts = untrained_bank_facts
    timings = Timings({"softmax": 10.0, "linear": 2.0}, rest=5.0, device="test")
    assert timings.scaled(facts, measured=facts.default_size, wanted=facts.default_size) is timings
    wanted = facts.default_size._replace(frames=2 * facts.default_size.frames - 1 + 4)
    longer = timings.scaled(facts, measured=facts.default_size, wanted=wanted)
    tokens = facts.token_grid(wanted).num_tokens / facts.token_grid(facts.default_size).num_tokens
    assert longer.is_estimate and longer.attention["softmax"] == pytest.approx(10 * tokens**2)
    assert longer.attention["linear"] == pytest.approx(2 * tokens)


def test_banks_are_merged(tmp_path: Path, micro_facts: ModelFacts) -> None:
    first = write_bank(tmp_path / "first", micro_facts, rates=("R2",), seed=1)
    second = write_bank(tmp_path / "second", micro_facts, rates=("R2", "R4"), seed=2)
    both = merge_banks([first, second], tmp_path / "both")
    assert set(both.cells) == set(second.cells)
    for block, source in ((0, first), (1, first)):
        cell = source.cells[block, "R2"]
        kept, own = both.weights(block, cell.spec), source.weights(block, cell.spec)
        assert all(torch.equal(kept[name], own[name]) for name in own)
    write_json(
        tmp_path / "second" / "bank.json",
        {**json.loads((tmp_path / "second" / "bank.json").read_text()), "size": [13, 48, 32]},
    )
    with pytest.raises(InputError, match="13×48×32"):
        merge_banks([first, load_bank(tmp_path / "second")], tmp_path / "third")


def test_missing_cells_are_named_with_what_measuring_takes(tmp_path: Path, micro_facts: ModelFacts) -> None:
    bank = write_bank(tmp_path / "bank", micro_facts, rates=("R2",), blocks=(0,))
    with pytest.raises(InputError, match=r"block 1 R2, block 2 R2; .*about 1 seconds \(estimated"):
        bank.check_complete(plan_blocks("all", "R2", micro_facts))


def test_another_objective_can_be_given(untrained_bank_facts: ModelFacts, tmp_path: Path) -> None:
    facts = untrained_bank_facts
    bank = write_bank(tmp_path / "wide", facts)
    errors = {(block, "linear"): float(block) for block in range(10)}
    offered = choices(bank, facts, facts.default_size, errors=errors)
    assert [[choice.label for choice in block] for block in offered] == [["softmax", "linear"]] * 10


@pytest.fixture(scope="module")
def untrained_bank_facts() -> ModelFacts:
    from workbench.models import registry

    entry = registry.find("embedded")
    assert entry is not None
    return entry.facts


def test_a_new_workspace_is_lent_the_bank_that_ships(
    micro_facts: ModelFacts, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "SHIPPED", tmp_path / "shipped")
    assert lend(workspace, micro_facts) is None
    write_bank(tmp_path / "shipped" / micro_facts.name, micro_facts, rates=("R4",))
    other = micro_facts.model_copy(update={"fingerprint": "0" * 64})
    assert lend(workspace, other) is None
    lent = lend(workspace, micro_facts)
    assert lent is not None and set(load_bank(lent, micro_facts).cells) == {
        (block, "R4") for block in range(3)
    }
    assert lend(workspace, micro_facts) is None
