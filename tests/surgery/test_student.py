"""Student folders: complete without the bank, the same clip again, and strict about what they read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.banks import write_bank
from tests.conftest import build_micro_pipeline
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts, load_model
from workbench.operators import Schedule
from workbench.planning import Bank, parse_assign, parse_short
from workbench.sampling import GenerateConfig, clip_manifest, sample
from workbench.surgery import (
    install,
    installed,
    is_student,
    linearize,
    open_facts,
    open_model,
    read_student,
    restore,
    save_student,
)
from workbench.workspace import Workspace

CONFIG = GenerateConfig(prompt="a red ball", seed=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, micro_facts: ModelFacts) -> Bank:
    return write_bank(tmp_path_factory.mktemp("bank"), micro_facts)


@pytest.fixture
def student(bank: Bank, workspace: Workspace) -> Path:
    plan = parse_assign("0:R4,2:linear", bank.facts, schedule=Schedule(dense_first=1))
    return save_student(plan, bank, workspace, name="first try")


def test_a_student_makes_the_clip_of_its_plan_and_bank(
    bank: Bank, student: Path, micro_model: LoadedModel, tmp_path: Path
) -> None:
    teacher = sample(micro_model, CONFIG)
    install(micro_model, read_student(student).plan, bank)
    direct = sample(micro_model, CONFIG)
    moved = tmp_path / "elsewhere" / "student"
    shutil.copytree(student, moved)
    shutil.rmtree(student)
    opened = open_model(moved, device="cpu")
    again = sample(opened, CONFIG)
    assert np.array_equal(direct.frames, again.frames) and torch.equal(direct.latents, again.latents)
    assert not torch.equal(direct.latents, teacher.latents)
    assert opened.name == "student" and opened.provenance["surgery"]["plan"] == "1xR4+1xlinear"
    assert opened.provenance["plan"]["schedule"]["dense_first"] == 1
    manifest = clip_manifest(again, CONFIG, model=opened)
    assert manifest["implementations"] == {"R4": "sdpa", "linear": "sdpa"}
    assert manifest["model"]["surgery"]["converted"][0]["module"] == "blocks.0.attn1"
    restore(micro_model)
    assert torch.equal(sample(micro_model, CONFIG).latents, teacher.latents)


def test_linearize_and_restore_a_plain_pipeline(student: Path, bank: Bank, micro_model_folder: Path) -> None:
    from diffusers import WanPipeline

    pipeline: Any = WanPipeline.from_pretrained(micro_model_folder)
    pipeline.set_progress_bar_config(disable=True)

    def clip() -> torch.Tensor:
        latents: torch.Tensor = pipeline(
            prompt=["a red ball", "a blue cube"],
            height=48,
            width=32,
            num_frames=9,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            max_sequence_length=16,
        ).frames
        return latents

    before = clip()
    report = linearize(pipeline.transformer, student)
    assert [each.block for each in report.converted] == [0, 2]
    converted = clip()
    assert torch.isfinite(converted).all() and not torch.equal(before, converted)
    restore(pipeline.transformer)
    assert torch.equal(clip(), before)


def test_a_student_that_converts_nothing_is_its_teacher(
    bank: Bank, workspace: Workspace, micro_model: LoadedModel
) -> None:
    folder = save_student(parse_short("softmax", bank.facts), bank, workspace)
    opened = open_model(folder, device="cpu")
    assert installed(opened) is None and opened.provenance["surgery"]["converted"] == []
    assert torch.equal(sample(opened, CONFIG).latents, sample(micro_model, CONFIG).latents)


def test_linearize_refuses_what_does_not_fit(student: Path) -> None:
    other = build_micro_pipeline(num_blocks=2).transformer
    with pytest.raises(InputError, match="is for 3 blocks with 2 heads of 12, and the transformer has 2"):
        linearize(other, student)
    assert installed(other) is None
    with pytest.raises(InputError, match="Linear is not a transformer that the workbench knows"):
        linearize(torch.nn.Linear(2, 2), student)


def test_facts_of_a_student_need_no_weights(student: Path, bank: Bank) -> None:
    facts, plan = open_facts(student)
    assert facts == bank.facts and plan is not None and plan.short_name == "1xR4+1xlinear"


def test_unmeasured_cells_are_named(bank: Bank, workspace: Workspace) -> None:
    with pytest.raises(
        InputError, match="lacks 2 of the cells of this plan: block 0 R8, block 1 R8; measure"
    ):
        save_student(parse_assign("0-1:R8", bank.facts), bank, workspace)
    assert not list(workspace.folder("students").iterdir())


@pytest.mark.parametrize("length", [0, 7, 100, 2000])
def test_cut_weights_are_refused(student: Path, length: int) -> None:
    file = student / "cells.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(InputError, match=r"cells\.safetensors"):
        open_model(student, device="cpu")


def test_a_changed_byte_is_refused(student: Path) -> None:
    file = student / "cells.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="sha256 differs"):
        open_model(student, device="cpu")


def test_nan_and_foreign_weights_are_refused(student: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = student / "cells.safetensors"
    good = load_file(file)
    name = next(iter(good))
    save_file(good | {name: torch.full_like(good[name], float("nan"))}, file)
    with pytest.raises(InputError, match="non-finite"):
        open_model(student, device="cpu")
    save_file(good | {name: good[name][..., :1].contiguous()}, file)
    with pytest.raises(InputError, match="expected"):
        open_model(student, device="cpu")
    save_file({"other": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="missing"):
        open_model(student, device="cpu")


def test_damaged_students_are_refused_in_one_sentence(student: Path) -> None:
    manifest = student / "student.json"
    good = manifest.read_text()
    for text, words in (
        ("", "empty"),
        (good[:100], "not valid JSON"),
        (good.replace('"schema_version": 1', '"schema_version": 99', 1), "newer version"),
        (good.replace('"plan":', '"plam":', 1), "'plan' is missing"),
        (good.replace('"num_blocks": 3', '"num_blocks": 4', 1), "blocks"),
    ):
        manifest.write_text(text)
        with pytest.raises(InputError, match=words) as caught:
            open_model(student, device="cpu")
        assert "\n" not in str(caught.value) and str(student) not in str(caught.value)
    manifest.write_text(good)
    (student / "plan.json").unlink()
    with pytest.raises(InputError, match=r"plan plan\.json does not exist"):
        open_model(student, device="cpu")


def test_a_teacher_that_moved_is_named_and_can_be_given(student: Path, micro_model_folder: Path) -> None:
    manifest = json.loads((student / "student.json").read_text())
    manifest["teacher"]["source"] = "/nowhere/micro"
    (student / "student.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"teacher of student .* cannot be loaded"):
        open_model(student, device="cpu")
    assert installed(open_model(student, device="cpu", teacher=str(micro_model_folder))) is not None


def test_a_student_is_no_teacher(student: Path) -> None:
    assert is_student(student) and not is_student(student.parent)
    with pytest.raises(InputError, match="is a student folder"):
        load_model(str(student))
