"""What cannot be done is refused before anything is queued: exit 2 and one sentence on stderr."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.banks import write_bank
from workbench import planning, surgery
from workbench.errors import InputError
from workbench.models import model_facts
from workbench.workspace import Workspace

Call = Callable[..., tuple[int, str, str]]
ABSENT = "wan2.1-t2v-1.3b is not on this machine; fetch it with `workbench download wan2.1-t2v-1.3b"


def refused(call: Call, *words: str) -> str:
    """The one sentence of a refusal that queued nothing."""
    code, out, err = call(*words)
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1 and err.rstrip().endswith((".", "?"))
    assert json.loads(call("jobs", "list", "--json")[1]) == []
    return err


@pytest.fixture
def orphan(tmp_path: Path, micro_model_folder: Path, workspace: Workspace) -> Path:
    """A student whose teacher's folder is gone."""
    teacher = tmp_path / "teacher"
    shutil.copytree(micro_model_folder, teacher)
    bank = write_bank(tmp_path / "bank", model_facts(str(teacher)))
    plan = planning.parse_short("1xR4", bank.facts)
    student = surgery.save_student(plan, bank, workspace, name="orphan")
    shutil.rmtree(teacher)
    return student


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "--prompt", "a red ball"),
        ("capture", "--prompt", "a red ball"),
        ("measure",),
        ("times",),
        ("study",),
        ("data", "synthesize"),
    ],
)
def test_a_model_that_is_not_here_is_refused_before_anything_is_queued(
    call: Call, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert refused(call, *words, "--model", "wan2.1-t2v-1.3b").startswith(ABSENT)


@pytest.mark.parametrize("command", ["generate", "capture", "compare"])
def test_a_student_whose_teacher_is_gone_is_refused_by_name(call: Call, orphan: Path, command: str) -> None:
    said = refused(call, command, "--prompt", "a red ball", "--model", str(orphan))
    assert said.startswith(f"The teacher of student {orphan.name} cannot be loaded: ")
    with pytest.raises(InputError) as caught:
        surgery.open_model(orphan)
    assert said.strip() == str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "--bogus"), "No such option: --bogus."),
        (("cost", "--plan", "2xR4", "--steps", "0"), "Steps must be at least 1, got 0."),
        (("facts", "embedded", "--frames", "0"), "Frames must be"),
        (("facts", "embedded", "--memory-gb", "-1"), "--memory-gb is the memory of a GPU"),
    ],
)
def test_a_mistyped_number_or_option_is_one_sentence(call: Call, words: tuple[str, ...], said: str) -> None:
    assert refused(call, *words).startswith(said)


@pytest.mark.parametrize("budget", ["--budget-flops", "--attention-ratio"])
@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_budget_that_is_no_budget_is_refused_by_name(
    call: Call, micro_model_folder: Path, tmp_path: Path, budget: str, value: str
) -> None:
    bank = write_bank(tmp_path / "bank", model_facts(str(micro_model_folder)))
    words = ("plan", "--model", str(micro_model_folder), "--bank", str(bank.folder), budget, value)
    assert refused(call, *words) == f"{budget} must be a number above 0, got {float(value):g}.\n"


@pytest.mark.parametrize(
    ("preset", "plan", "said"),
    [
        ("quickstart", "99xR4", "'99xR4' converts 99 blocks; embedded has 10."),
        ("quickstart", "1xR3", "The plan 1xR3 needs block 5 R3, which this study does not measure "),
        ("smoke", "2xR4", "The plan 2xR4 needs block 2 R4, block 7 R4, which this study does not measure "),
    ],
)
def test_a_study_refuses_a_plan_over_cells_that_it_will_not_measure(
    call: Call, preset: str, plan: str, said: str
) -> None:
    assert refused(call, "study", "--preset", preset, "--plan", plan).startswith(said)


def test_a_comparison_refuses_the_student_and_the_bank_of_another_teacher(
    call: Call, tmp_path: Path, micro_model_folder: Path, workspace: Workspace
) -> None:
    bank = write_bank(tmp_path / "bank", model_facts(str(micro_model_folder)))
    student = surgery.save_student(planning.parse_short("1xR4", bank.facts), bank, workspace, name="s")
    compared = ("compare", "--prompt", "a red ball", "--teacher", "embedded")
    for side in (("--model", str(student)), ("--plan", "1xR4", "--bank", str(bank.folder))):
        assert "and the model is embedded (10 blocks" in refused(call, *compared, *side)


def test_too_many_columns_are_counted(call: Call, tmp_path: Path) -> None:
    plans = [word for rate in range(2, 11) for word in ("--plan", f"1xR{rate}")]
    said = refused(call, "compare", "--prompt", "a red ball", *plans, "--bank", str(tmp_path))
    assert said == "compare settings: 'sides' holds 9, and at most 8 are allowed.\n"
