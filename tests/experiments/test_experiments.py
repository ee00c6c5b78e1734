"""Experiments: every one runs end to end, goes on where it was stopped, and keeps what failed as such."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.experiments.conftest import BANK, SMALL
from workbench.errors import Diverged, InputError
from workbench.evaluation.suite import held_out_suite
from workbench.experiments import EXPERIMENTS, Order, run
from workbench.experiments.clips import sample_clips
from workbench.experiments.feature_maps import VARIANTS
from workbench.experiments.figures import write_figures
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.losses import LossesConfig
from workbench.experiments.rates import conclude
from workbench.experiments.rehyat import nearest_rate
from workbench.experiments.results import Results, Row
from workbench.experiments.settings import Setup
from workbench.experiments.tables import PAGE, section, write_page
from workbench.operators import parse_rate
from workbench.workspace import Workspace, read_json


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
    assert whole["missing"] == []
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
    document = json.loads((tmp_path / "linear-branch.quick.json").read_text(encoding="utf-8"))
    assert set(document["missing"]) == {row["condition"] for row in found if "failed" in row}
    assert [row.get("failed", "") for row in found] == ["", ""] + 2 * ["The finetuning loss became NaN."]
    monkeypatch.undo()
    run(fresh, bench, tell=str)
    assert not [row for row in rows(fresh, "linear-branch") if "failed" in row]


@pytest.mark.usefixtures("told")
def test_every_result_becomes_a_figure_and_a_table(order: Order, tmp_path: Path) -> None:
    figures = write_figures(order.out)
    assert [path.name for path in figures] == [f"{name}.quick.svg" for name in EXPERIMENTS]
    for figure in figures:
        ElementTree.fromstring(figure.read_text(encoding="utf-8"))
    page = tmp_path / "method.md"
    shutil.copy(PAGE, page)
    write_page(page, order.out)
    text = page.read_text(encoding="utf-8")
    assert text.count("Quick run on") == len(EXPERIMENTS) and "Not measured yet" not in text
    assert "| teacher | teacher | 1.000 | 1.000 | 0.000" in text
    write_page(page, order.out)
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.usefixtures("told")
def test_a_full_run_is_told_in_place_of_a_quick_one(order: Order, tmp_path: Path) -> None:
    assert section("losses", tmp_path).startswith("Not measured yet")
    result = json.loads((order.out / "losses.quick.json").read_text(encoding="utf-8"))
    (tmp_path / "losses.quick.json").write_text(json.dumps(result), encoding="utf-8")
    assert "Quick run" in section("losses", tmp_path)
    result["shared"]["scale"] = "full"
    result["rows"].append({"condition": "5xR4", "failed": "It diverged."})
    (tmp_path / "losses.json").write_text(json.dumps(result), encoding="utf-8")
    told_now = section("losses", tmp_path)
    assert "Full run" in told_now and "`5xR4` failed: It diverged." in told_now


def test_clips_in_a_batch_are_those_sampled_one_by_one(order: Order, bench: Workspace) -> None:
    assert order.shared is not None
    lab = Laboratory(order.shared, bench, device="cpu")
    asked = held_out_suite(2)
    with lab.installed(Setup(plan="3xR4", weights="undistilled")) as model:
        together = sample_clips(lab, model, asked, 9)
        singly = [sample_clips(lab, model, [prompt], 9)[0] for prompt in asked]
    for one, other in zip(together, singly, strict=True):
        assert one.shape == other.shape == (9, 48, 32, 3)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


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
    dear, hasty = {**row, "attention_ratio": 0.8}, {**row, "clips": 5}
    target = conclude([row, dear])["target"]
    assert [plan["verdict"] for plan in target["plans"]] == [verdict]
    assert target["met"] is (verdict == "met")
    few = conclude([hasty])["target"]
    assert few["plans"][0]["verdict"] == "too few clips" and not few["met"]


def test_setups_have_different_keys() -> None:
    setups = [
        Setup(plan="3xR4", weights="distilled", bank=BANK),
        Setup(plan="3xR4", weights="finetuned", bank=BANK),
        Setup(plan="3xR4", weights="distilled", bank=BANK, linear_branch=False),
        Setup(allocated="optimal", budget=0.6, weights="distilled", bank=BANK),
    ]
    assert len({setup.key for setup in setups}) == len(setups)
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)


def test_rows_stand_in_the_order_of_the_conditions_whenever_they_come(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    results = Results.open(path, head={"experiment": "rates"}, origin={}, order=["first", "second", "third"])
    results.add("third", [{"error": 3}], seconds=0)
    results.add("first", [{"error": 1}], seconds=0)
    assert [row["condition"] for row in results.rows] == ["first", "third"]
    assert read_json(path, what="rates.json")["missing"] == ["second"]
