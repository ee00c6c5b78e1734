"""Bundles: what a stranger's process makes of one is bit for bit what the workbench makes of the student."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.banks import write_bank
from tests.export import stock
from workbench.errors import InputError, WorkbenchError
from workbench.export import export_student, package
from workbench.export.loader import linearize
from workbench.jobs.tensors import load_tensors
from workbench.models import LoadedModel, load_model, model_facts
from workbench.planning import parse_assign
from workbench.surgery import install, open_model, read_student, restore, save_student
from workbench.workspace import Workspace, read_json

KINDS = ("student", "lora_student", "whole_student")
IMPLS = ("auto", "sdpa", "reference")


def clip(model: LoadedModel) -> torch.Tensor:
    """Make the clip that `stock` makes."""
    pipeline: Any = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    latents: torch.Tensor = stock.clip(pipeline)
    return latents


def run_stock(
    cases: dict[str, dict[str, str]],
    out: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    impls: Sequence[str] = IMPLS,
) -> dict[str, dict[str, torch.Tensor]]:
    """Run bundles in a process without the workbench; return the clips of each."""
    settings = {"cases": cases, "out": str(out), "device": device, "dtype": dtype, "impls": list(impls)}
    command = [sys.executable, str(Path(stock.__file__)), json.dumps(settings)]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: load_tensors(out / f"{name}.safetensors") for name in cases}


class Exported(NamedTuple):
    """Where the bundles are, and the clips that a stranger's process made of each."""

    bundles: dict[str, Path]
    clips: dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def exported(
    request: pytest.FixtureRequest,
    micro_model_folder: Path,
    home: Workspace,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    """A bundle of every kind of student and a merged folder, all run in one process."""
    folder = tmp_path_factory.mktemp("bundles")
    students: dict[str, Path] = {kind: request.getfixturevalue(kind) for kind in KINDS}
    bundles = {
        kind: export_student(student, folder / kind, workspace=home) for kind, student in students.items()
    }
    bundles["merged"] = export_student(students["lora_student"], folder / "merged", merge=True)
    cases = {
        kind: {"bundle": str(bundle), "teacher": str(bundle if kind == "merged" else micro_model_folder)}
        for kind, bundle in bundles.items()
    }
    return Exported(bundles, run_stock(cases, tmp_path_factory.mktemp("clips")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_alone_gives_the_same_bits(
    kind: str, request: pytest.FixtureRequest, exported: Exported
) -> None:
    student: Path = request.getfixturevalue(kind)
    found = exported.clips[kind]
    for impl in IMPLS:
        assert torch.equal(found[impl], clip(open_model(student, device="cpu", impl=impl))), impl
    assert not torch.equal(found["auto"], found["teacher"])
    if kind != "whole_student":
        assert torch.equal(found["restored"], found["teacher"])


def test_a_merged_folder_is_a_model_of_its_own(
    lora_student: Path, micro_model: LoadedModel, exported: Exported
) -> None:
    merged, found = exported.bundles["merged"], exported.clips["merged"]
    assert not (merged / "pytorch_lora_weights.safetensors").exists()
    expected = clip(open_model(lora_student, device="cpu"))
    assert torch.allclose(found["auto"], expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found["restored"], clip(micro_model), atol=1e-3), "the LoRA is in the weights"
    assert "whole diffusers model" in (merged / "README.md").read_text()


def test_the_manifest_knows_every_file_and_no_path_of_this_machine(
    lora_student: Path, tmp_path: Path, home: Workspace, micro_model_folder: Path
) -> None:
    bundle = export_student(lora_student, tmp_path / "bundle", workspace=home)
    manifest = read_json(bundle / "manifest.json", what="manifest")
    present = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == present - {"manifest.json"}
    for path in bundle.rglob("*"):
        if path.suffix in (".json", ".md", ".py"):
            text = path.read_text(encoding="utf-8")
            assert str(micro_model_folder) not in text, path.name
            assert str(home.root) not in text, path.name
            assert str(package.CHECKOUT) not in text, path.name


def test_the_card_says_what_was_measured(lora_student: Path, student: Path, tmp_path: Path) -> None:
    home = Workspace(lora_student.parents[1])
    text = (export_student(lora_student, tmp_path / "one", workspace=home) / "README.md").read_text()
    assert "0.5000 before, 0.2500 after (0.2000 to 0.3000)" in text
    assert "| 0 | R4 | 0.040 | 0.036 to 0.044 | 0.080 |" in text
    assert "nothing here was timed" in text
    text = (export_student(student, tmp_path / "two") / "README.md").read_text()
    assert "maps \\| &lt;b&gt;only&lt;/b&gt;" in text, "a name is text, not markup"
    assert "their errors are not known here" in text
    assert "It was not finetuned." in text
    assert "On the first step all blocks keep softmax." in text


def test_taken_places_and_strangers_are_refused(student: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="'full' exists and is not an empty folder"):
        export_student(student, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    with pytest.raises(InputError, match="is not a student folder"):
        export_student(tmp_path, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full"]


def test_the_loader_refuses_changed_files_and_other_models(
    student: Path, micro_model: LoadedModel, tmp_path: Path
) -> None:
    bundle = export_student(student, tmp_path / "bundle")
    assert linearize(micro_model.pipeline, bundle) == (0, 1, 2)
    assert torch.equal(clip(micro_model), clip(open_model(student, device="cpu")))
    restore(micro_model)
    with pytest.raises(InputError, match="Linear is no Wan pipeline or transformer"):
        linearize(torch.nn.Linear(2, 2), bundle)
    from tests.conftest import build_micro_pipeline

    with pytest.raises(InputError, match="is for 3 blocks with 2 heads of 12, and the transformer has 2"):
        linearize(build_micro_pipeline(num_blocks=2), bundle)
    content = bytearray((bundle / "cells.safetensors").read_bytes())
    content[-3] ^= 1
    (bundle / "cells.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"cells\.safetensors is not the file that was exported"):
        linearize(micro_model.pipeline, bundle)
    (bundle / "cells.safetensors").unlink()
    with pytest.raises(InputError, match=r"cells\.safetensors is missing"):
        linearize(micro_model.pipeline, bundle)
    with pytest.raises(InputError, match="is no bundle"):
        linearize(micro_model.pipeline, tmp_path)


def test_the_generator_refuses_what_a_bundle_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workbench" / "export").mkdir(parents=True)
    source = tmp_path / "workbench" / "export" / "loader.py"
    monkeypatch.setattr(package, "CHECKOUT", tmp_path)
    for text, words in (
        ("import scipy\n", "imports scipy, which a bundle cannot have"),
        ("import kernels.hybrid_attention\n", "imports kernels.hybrid_attention whole"),
        ("from pydantic import model_validator\n", "imports model_validator of pydantic"),
    ):
        source.write_text(text)
        with pytest.raises(WorkbenchError, match=words):
            package.generate(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_bundle_alone_gives_the_same_bits_on_a_gpu(untrained_model_folder: Path, tmp_path: Path) -> None:
    """bfloat16 on CUDA, Triton included: the kernels in the bundle are those of the checkout."""
    home = Workspace.open(tmp_path / "home")
    facts = model_facts(str(untrained_model_folder))
    bank = write_bank(home.folder("banks") / "one", facts, rates=("R4", "linear"))
    student = save_student(parse_assign("0-4:R4,5-:linear", facts), bank, home)
    bundle = export_student(student, tmp_path / "bundle")
    impls = ("auto", "sdpa", "triton")
    case = {"bundle": str(bundle), "teacher": str(untrained_model_folder)}
    found = run_stock({"one": case}, tmp_path, device="cuda", dtype="bfloat16", impls=impls)["one"]
    for impl in impls:
        model = load_model(facts.source, device="cpu")
        model.transformer.to(torch.bfloat16)
        install(model, read_student(student).plan, read_student(student), impl=impl)
        model.pipeline.to("cuda")
        assert torch.equal(found[impl], clip(model)), impl
