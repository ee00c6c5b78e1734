"""Making the student that ships: all candidates are judged, or say why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.banks import write_bank
from workbench.distillation import FinetuneConfig, finetune
from workbench.errors import InputError
from workbench.experiments.candidates import choose, settle
from workbench.experiments.ship_student import main
from workbench.models import load_model, model_facts
from workbench.planning import load_bank, parse_short
from workbench.surgery import install_student, open_model, read_student, save_student
from workbench.types import SilentReporter
from workbench.workspace import Workspace

SMALL = ["--steps", "1", "--frames", "5"]


def _row(
    plan: str,
    weights: str,
    ratio: float,
    adherence: float,
    *,
    lost: str = "",
    spread: float = 0.0,
    megabytes: float = 1.0,
) -> dict[str, Any]:
    row = {
        "name": f"{plan} {weights}",
        "plan": plan,
        "blocks": [plan],
        "weights": weights,
        "attention_ratio": ratio,
        "lost": lost,
    }
    change = adherence - 0.9
    row |= {"megabytes": megabytes, "adherence": {"mean": adherence}}
    return row | {"adherence_difference": {"mean": change, "low": change - spread}}


def test_the_cheapest_within_the_target_is_chosen() -> None:
    rows = [
        _row("a", "distilled", 0.7, 0.9),
        _row("b", "distilled", 0.5, 0.89),
        _row("c", "distilled", 0.4, 0.5),
    ]
    assert choose(rows) is rows[1] and "cheapest" in rows[1]["chosen_because"]
    rows[1] = _row("b", "distilled", 0.5, 0.7)
    assert choose(rows) is rows[1] and "none at attention_ratio" in rows[1]["chosen_because"]
    assert choose(rows[:1]) is rows[0] and "none is so cheap" in rows[0]["chosen_because"]


def test_an_interval_within_the_target_goes_before_a_lower_cost() -> None:
    rows = [_row("a", "distilled", 0.5, 0.9, spread=0.03), _row("b", "distilled", 0.55, 0.89, spread=0.005)]
    assert choose(rows) is rows[1] and "interval" in rows[1]["chosen_because"]
    rows = [_row("a", "distilled", 0.5, 0.9, megabytes=12.0), _row("a", "finetuned", 0.5, 0.9, megabytes=3.0)]
    assert choose(rows) is rows[1], "the smaller of equals"


def test_a_finetuned_student_must_be_better() -> None:
    rows = [
        _row("a", "distilled", 0.5, 0.8),
        _row("a", "finetuned", 0.5, 0.8),
        _row("b", "distilled", 0.5, 0.7),
    ]
    settle(rows)
    assert rows[1]["lost"].startswith("its adherence is not above") and choose(rows) is rows[0]
    rows[1] = _row("a", "finetuned", 0.5, 0.85)
    settle(rows)
    assert choose(rows) is rows[1]


def test_the_command_judges_every_candidate_and_ships_one(
    untrained_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = str(untrained_model_folder)
    write_bank(tmp_path / "bank", model_facts(teacher), rates=("R4",))
    out, folder = tmp_path / "results" / "shipped.json", tmp_path / "ships" / "small-student"
    words = ["--plan", "5xR4", "--bank", str(tmp_path / "bank"), "--model", teacher]
    words += ["--num", "2", "--finetune-minutes", "0.02", "--workspace", str(tmp_path / "workspace"), *SMALL]
    words += ["--out", str(out), "--folder", str(folder)]
    assert main(words) == 0
    document = json.loads(out.read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert len(rows) == 2 and "5xR4 distilled" in rows
    assert any(name.startswith("5xR4 finetuned, lora of rank 8, adamw, ") for name in rows)
    for row in rows.values():
        assert (
            row["lost"]
            or -1 <= row["adherence_difference"]["low"] <= row["adherence_difference"]["high"] <= 1
        )
        assert 0 < row["attention_ratio"] < 1 and row["velocity_error"] > 0
    assert {"hardware", "versions", "date", "command", "teacher", "intervals"} <= document.keys()
    told = json.loads((folder / "student.json").read_text())["provenance"]
    assert str(tmp_path) not in out.read_text() + json.dumps(told)
    (chosen,) = [row for row in rows.values() if row["shipped"]]
    student = read_student(folder)
    assert student.name == "small-student" and student.manifest.provenance["summary"] == chosen["summary"]
    assert {tensor.dtype for tensor in student.tensors.values()} == {torch.float16}
    model = load_model(teacher, device="cpu")
    install_student(model, student.plan, student)
    kept = sorted(path.name for path in Workspace.open(tmp_path / "workspace").folder("students").iterdir())
    capsys.readouterr()
    assert main(words) == 0, "a second run goes on from what is kept"
    assert kept == sorted(
        path.name for path in Workspace.open(tmp_path / "workspace").folder("students").iterdir()
    )
    again = json.loads(out.read_text())
    assert [row["velocity_error"] for row in again["rows"]] == [
        row["velocity_error"] for row in document["rows"]
    ]


def test_a_student_that_was_finetuned_elsewhere_is_a_candidate(
    untrained_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, room = str(untrained_model_folder), Workspace.open(tmp_path / "elsewhere")
    facts = model_facts(teacher)
    write_bank(tmp_path / "bank", facts, rates=("R4",))
    plan = parse_short("5xR4", facts)
    start = save_student(plan, load_bank(tmp_path / "bank", facts), room)
    settings: dict[str, Any] = {"updates": 2, "num_prompts": 1, "num_held_out": 1, "steps": 2, "frames": 5}
    config = FinetuneConfig(model=str(start), method="full", height=64, width=64, **settings)
    tuned = finetune(open_model(start, device="cpu"), config, room, reporter=SilentReporter())
    out = tmp_path / "shipped.json"
    words = ["--bank", str(tmp_path / "bank"), "--model", teacher, "--num", "2", *SMALL]
    words += ["--workspace", str(tmp_path / "workspace"), "--out", str(out)]
    words += ["--folder", str(tmp_path / "ships" / "small"), "--student", str(tuned)]
    with pytest.raises(InputError, match="at least one clip, one step and one process"):
        main([*words, "--plan", "5xR4", "--workers", "0"])
    with pytest.raises(InputError, match="name that plan too"):
        main([*words, "--plan", "4xR4"])
    assert main([*words, "--plan", "5xR4"]) == 0
    document = json.loads(out.read_text())
    assert {row["name"] for row in document["rows"]} == {
        "5xR4 distilled",
        "5xR4 finetuned, full, adamw, 2 updates of 1 states",
    }
    assert f"--student {tuned.name}" in document["command"] and str(tmp_path) not in out.read_text()


def test_a_teacher_of_another_world_is_refused_before_any_work(
    micro_model_folder: Path, tmp_path: Path
) -> None:
    words = ["--plan", "3xR4", "--model", str(micro_model_folder), "--workspace", str(tmp_path)]
    with pytest.raises(InputError, match="does not know the embedded world"):
        main(words)
