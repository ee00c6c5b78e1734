"""Planning from the command line: budgets, baselines, the front, time on this device, banks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.banks import write_bank
from workbench.distillation.sensitivity import FILE
from workbench.evaluation import operator_times
from workbench.models import ModelFacts, model_facts
from workbench.planning import Bank, load_bank, load_file
from workbench.workspace import Workspace, write_json

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return model_facts("embedded")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, facts: ModelFacts) -> Bank:
    """Read-only."""
    return write_bank(tmp_path_factory.mktemp("banks") / "bank", facts, rates=("R2", "R4", "R8", "linear"))


def planned(call: Call, bank: Bank, *words: str) -> dict:  # type: ignore[type-arg]
    code, out, err = call("plan", "--bank", str(bank.folder), *words, "--json")
    assert code == 0, err
    document: dict = json.loads(out)  # type: ignore[type-arg]
    return document


def test_a_budget_is_met_by_every_method(call: Call, bank: Bank) -> None:
    errors = {}
    for method in ("optimal", "greedy", "best_k", "uniform"):
        made = planned(call, bank, "--attention-ratio", "0.7", "--method", method)
        assert made["cost"]["attention_ratio"] <= 0.7 and made["provenance"]["made_by"] == method
        errors[method] = made["provenance"]["error"]
    assert errors["optimal"] == min(errors.values())


def test_operations_and_speedups_are_budgets(call: Call, bank: Bank) -> None:
    dense = json.loads(call("cost", "--json")[1])["dense_tflop"]
    made = planned(call, bank, "--budget-flops", str(0.9 * dense * 1e12))
    assert made["cost"]["dit_tflop"] <= 0.9 * dense
    assert 1 / planned(call, bank, "--speedup", "1.1")["cost"]["dit_ratio"] >= 1.1
    scheduled = planned(call, bank, "--speedup", "1.1", "--dense-first", "2", "--steps", "8")
    assert scheduled["schedule"]["dense_first"] == 2 and 1 / scheduled["cost"]["dit_ratio"] >= 1.1
    code, _, err = call("plan", "--bank", str(bank.folder), "--budget-flops", "1e6")
    assert code == 2 and "cost at least" in err and err.count("\n") == 1


def test_the_front_runs_from_the_cheapest_to_softmax(call: Call, bank: Bank) -> None:
    points = planned(call, bank, "--front")["front"]
    assert points[-1]["labels"] == ["softmax"] * 10 and points[-1]["error"] == 0
    costs = [point["attention_cost"] for point in points]
    assert costs == sorted(costs) and len(points) > 10


def test_sensitivity_is_another_objective(call: Call, bank: Bank, tmp_path: Path) -> None:
    bank = load_bank(shutil.copytree(bank.folder, tmp_path / "copy"))
    words = ("plan", "--bank", str(bank.folder), "--speedup", "1.1", "--objective", "sensitivity")
    code, _, err = call(*words)
    assert code == 2 and "workbench sensitivity --bank" in err
    cells = [
        {
            "block": cell.block, "label": cell.label, "error": 0.01 * (10 - cell.block), "error_low": 0.0,
            "error_high": 1.0, "local_error": cell.error,
        }
        for cell in bank.manifest.cells
    ]  # fmt: skip
    settings = {"bank": str(bank.folder)}
    write_json(bank.folder / FILE, {"config": settings, "cells": cells, "rank_correlation": None})
    made = planned(call, bank, *words[3:])
    assert made["provenance"]["objective"] == "sensitivity"
    converted = [each["block"] for each in made["blocks"] if each["operator"]["kind"] != "softmax"]
    assert converted and converted == list(range(10 - len(converted), 10))


def test_time_on_this_device_is_a_budget(call: Call, bank: Bank, facts: ModelFacts, tmp_path: Path) -> None:
    words = ("plan", "--bank", str(bank.folder), "--budget-ms", "120")
    code, _, err = call(*words)
    assert code == 2 and "workbench times" in err
    workspace = Workspace.open(tmp_path / "workspace")
    times = operator_times.OperatorTimes(
        model="embedded",
        fingerprint=facts.fingerprint,
        num_blocks=10,
        size=tuple(facts.default_size),
        device="test",
        dtype="float32",
        torch="0",
        created="now",
        attention={"softmax": 10.0, "R4": 4.0, "linear": 2.0},
        one_pass=150.0,
    )
    write_json(operator_times._file(workspace, facts, facts.default_size), times.model_dump(mode="json"))
    made = planned(call, bank, *words[3:])
    labels = [load_file(Path(made["plan"])).short_name]
    code, out, _ = call("cost", "--plan", made["plan"], "--milliseconds", "--json")
    spent = json.loads(out)["milliseconds"]
    assert code == 0 and spent["pass"] <= 120 and not spent["is_estimate"], labels
    assert spent["speedup"] == pytest.approx(150 / spent["pass"])
    _, out, _ = call("cost", "--plan", "5xR4", "--frames", "33", "--milliseconds", "--json")
    longer = json.loads(out)["milliseconds"]
    assert longer["is_estimate"] and "estimated" in longer["sentence"]
    _, out, _ = call("cost", "--plan", "5xR2", "--milliseconds")
    assert out == ""


def test_banks_are_shown_and_merged(call: Call, bank: Bank, facts: ModelFacts, tmp_path: Path) -> None:
    more = write_bank(tmp_path / "more", facts, rates=("R16",), blocks=(0, 1))
    code, out, _ = call("bank", "merge", str(bank.folder), str(more.folder), "--name", "both", "--json")
    merged = json.loads(out)
    assert code == 0 and merged["cells"] == 42
    assert (0, "R16") in load_bank(Path(merged["bank"])).cells
    code, out, _ = call("bank", "show", merged["bank"], "--json")
    assert code == 0 and len(json.loads(out)["cells"]) == 42


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["plan", "--speedup", "1.1"], "--bank"),
        (["plan", "--speedup", "1.1", "--budget-ms", "3"], "one way"),
        (["plan", "--speedup", "1.1", "--bank", "nowhere"], "nowhere"),
        (["finetune", "--student", "nowhere"], "nowhere"),
        (["finetune", "--student", "nowhere", "--preset", "hour"], "overnight"),
        (["sensitivity", "--bank", "nowhere"], "nowhere"),
        (["measure", "--rates", "R4", "--loss", "best"], "loss"),
        (["measure", "--rates", "R4", "--feature-map", "cosine"], "hedgehog"),
        (["measure", "--rates", "R4", "--extend", "nowhere"], "nowhere"),
        (["measure", "--rates", "R4", "--frames", "16"], "13 and 17"),
        (["measure", "--rates", "T3o1", "--loss", "score"], "value loss"),
        (["bank", "merge", "nowhere"], "two"),
        (["bank", "show", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(call: Call, words: list[str], named: str) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "") and named in err
    assert err.count("\n") == 1 and "Traceback" not in err
