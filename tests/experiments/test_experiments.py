"""Experiments: every one runs end to end, goes on where it was stopped, and keeps what failed as such."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.errors import Diverged, InputError
from workbench.experiments import EXPERIMENTS, Order, Shared, run
from workbench.experiments.allocation import AllocationConfig
from workbench.experiments.extremes import ExtremesConfig
from workbench.experiments.feature_maps import VARIANTS, FeatureMapsConfig
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.linear_branch import LinearBranchConfig
from workbench.experiments.losses import LossesConfig
from workbench.experiments.rates import RatesConfig, conclude
from workbench.experiments.rehyat import RehyatConfig, nearest_rate
from workbench.experiments.results import Row
from workbench.experiments.settings import BankRecipe, FinetuneRecipe, Setup
from workbench.operators import parse_rate
from workbench.types import StrictModel
from workbench.workspace import Workspace

BANK = BankRecipe(rates=("R2", "R4", "linear"), updates=6)
SMALL: dict[str, StrictModel] = {
    "rates": RatesConfig(
        shares=(0.5, 1.0),
        rates=("R4", "linear"),
        clips=2,
        pictured=((1.0, "R4", "distilled"),),
        finetuned=((1.0, "R4"),),
        finetuned_budgets=(),
        finetuned_clips=2,
    ),
    "allocation": AllocationConfig(rates=("R2",), clips=0),
    "losses": LossesConfig(losses=("score",), clips=0, pictured=()),
    "linear-branch": LinearBranchConfig(rates=("R4",), budgets=(), clips=0),
    "feature-maps": FeatureMapsConfig(
        variants=("usual", "stabilizer row maximum", "Hedgehog"), num_blocks=2, updates=4
    ),
    "extremes": ExtremesConfig(rates=("linear",), finetuned=(), clips=2, pictured=()),
    "rehyat": RehyatConfig(chunked=("T1o0",), updates=4, clips=0, long_clips=1, pictured=("T1o0",)),
}


@pytest.fixture(scope="module")
def order(micro_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    shared = Shared(
        scale="quick",
        model=str(micro_model_folder),
        num_prompts=2,
        num_held_out=2,
        steps=2,
        states=1,
        queries=16,
        clip_steps=2,
        clips_a_task=1,
        bank=BANK,
        finetune=FinetuneRecipe(updates=3, rank=2),
    )
    out = tmp_path_factory.mktemp("experiments")
    return Order(["all"], "quick", out, device="cpu", shared=shared, configs=SMALL)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that the tests of this file share, so that what was measured once is there."""
    return Workspace.open(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def told(order: Order, bench: Workspace) -> list[str]:
    lines: list[str] = []
    run(order, bench, tell=lines.append)
    return lines


def rows(order: Order, name: str) -> list[Row]:
    found: list[Row] = json.loads((order.out / f"{name}.quick.json").read_text(encoding="utf-8"))["rows"]
    return found


def test_every_experiment_gives_rows_with_intervals(order: Order, told: Sequence[str]) -> None:
    assert not [line for line in told if "failed" in line]
    for name in EXPERIMENTS:
        document = json.loads((order.out / f"{name}.quick.json").read_text(encoding="utf-8"))
        assert document["hardware"] and document["versions"]["torch"] and document["date"]
        assert document["settings"] == json.loads(SMALL[name].model_dump_json())
        for row in document["rows"]:
            error = row["error"] if "variant" in row else row["velocity_error"]
            assert 0 <= error["low"] <= error["mean"] <= error["high"]


def test_rates_sets_students_beside_the_teacher(order: Order, told: Sequence[str]) -> None:
    found = rows(order, "rates")
    teacher = found[0]
    assert teacher["weights"] == "teacher" and teacher["velocity_error"]["mean"] < 1e-5
    finetuned = [row for row in found if row["weights"] == "finetuned"]
    assert [row["clips"] for row in finetuned] == [2]
    assert all({"psnr", "ssim", "motion_ratio", "adherence_change"} <= row.keys() for row in finetuned)
    undistilled = next(row for row in found if row["weights"] == "undistilled")
    assert "psnr" not in undistilled and undistilled["attention_ratio"] > 0


def test_the_branch_off_is_another_student_with_the_same_weights(order: Order, told: Sequence[str]) -> None:
    found = {(row["weights"], row["linear_branch"]): row for row in rows(order, "linear-branch")}
    assert len(found) == 4
    for weights in ("distilled", "finetuned"):
        on, off = found[weights, True]["velocity_error"], found[weights, False]["velocity_error"]
        assert on["mean"] != off["mean"]
    assert sum(line.count("finetuning 3xR4") for line in told) == 1


def test_a_variant_that_fits_no_cell_has_no_row(order: Order, told: Sequence[str]) -> None:
    found = {(row["variant"], row["rate"]) for row in rows(order, "feature-maps")}
    assert ("stabilizer row maximum", "R4") in found
    assert ("stabilizer row maximum", "linear") not in found


def test_longer_clips_are_longer(order: Order, told: Sequence[str]) -> None:
    assert {row["frames"] for row in rows(order, "rehyat")} == {9, 17}


def test_a_stopped_run_goes_on(order: Order, told: Sequence[str], bench: Workspace) -> None:
    path = order.out / "losses.quick.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    cut = {**whole, "rows": whole["rows"][1:], "conclusions": {}}
    path.write_text(json.dumps(cut), encoding="utf-8")
    lines: list[str] = []
    run(replace(order, names=["losses"]), bench, tell=lines.append)
    measured = [line for line in lines if "losses: " in line]
    assert len(measured) == 1
    again = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["condition"] for row in again] == [row["condition"] for row in whole["rows"]]
    assert again[0]["velocity_error"] == whole["rows"][0]["velocity_error"]


def test_another_setting_is_refused(order: Order, told: Sequence[str], bench: Workspace) -> None:
    other = {**SMALL, "losses": LossesConfig(losses=("mse",), clips=0, pictured=())}
    with pytest.raises(InputError, match="another settings"):
        run(replace(order, names=["losses"], configs=other), bench, tell=str)
    with pytest.raises(InputError, match="no experiment 'colour'"):
        run(replace(order, names=["colour"]), bench, tell=str)


def test_what_fails_is_kept_and_takes_nothing_else_along(
    order: Order, bench: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        raise Diverged("The finetuning loss became NaN.")

    monkeypatch.setattr(Laboratory, "student", diverge)
    fresh = replace(order, names=["linear-branch"], out=tmp_path)
    run(fresh, bench, tell=str)
    found = rows(fresh, "linear-branch")
    assert [row.get("failed", "") for row in found] == ["", ""] + 2 * ["The finetuning loss became NaN."]
    monkeypatch.undo()
    run(fresh, bench, tell=str)
    assert not [row for row in rows(fresh, "linear-branch") if "failed" in row]


def test_the_nearest_rate_costs_as_much(order: Order, bench: Workspace) -> None:
    assert order.shared is not None
    lab = Laboratory(order.shared, bench, device="cpu")
    grid = lab.facts.token_grid(lab.facts.default_size)
    name = nearest_rate("T1o0", lab)
    rate = int(name.removeprefix("R"))
    gaps = [
        abs(parse_rate(near).flops(grid, lab.facts).total - parse_rate("T1o0").flops(grid, lab.facts).total)
        for near in (f"R{rate - 1}", name, f"R{rate + 1}")
    ]
    assert min(gaps) == gaps[1]


@pytest.mark.parametrize(
    ("low", "mean", "verdict"), [(-1.5, 0.5, "met"), (-4.0, -1.0, "not shown"), (-9.0, -5.0, "missed")]
)
def test_the_target_is_decided_by_the_interval(low: float, mean: float, verdict: str) -> None:
    row = {
        "setup": "10xR4",
        "plan": "10xR4",
        "weights": "finetuned",
        "attention_ratio": 0.43,
        "clips": 200,
        "adherence_change": {"mean": mean, "low": low, "high": 2.0},
    }
    dear = {**row, "attention_ratio": 0.8}
    target = conclude([row, dear])["target"]
    assert [plan["verdict"] for plan in target["plans"]] == [verdict]
    assert target["met"] is (verdict == "met")


def test_setups_have_different_keys() -> None:
    setups = [
        Setup(plan="3xR4", weights="distilled", bank=BANK),
        Setup(plan="3xR4", weights="finetuned", bank=BANK),
        Setup(plan="3xR4", weights="distilled", bank=BANK, linear_branch=False),
        Setup(allocated="optimal", budget=0.6, weights="distilled", bank=BANK),
    ]
    assert len({setup.key for setup in setups}) == len(setups)
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
