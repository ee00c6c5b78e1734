"""Bundles: what a stranger's process makes of one is bit for bit what the workbench makes of the student."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export import stock
from workbench.errors import InputError, WorkbenchError
from workbench.export import export_student, package
from workbench.export.loader import linearize
from workbench.jobs.tensors import load_tensors
from workbench.models import LoadedModel
from workbench.surgery import open_model, restore
from workbench.workspace import Workspace, read_json


def clip(model: LoadedModel) -> torch.Tensor:
    """Make the clip that `stock` makes."""
    pipeline: Any = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    latents: torch.Tensor = pipeline(
        prompt="a red ball",
        height=48,
        width=32,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        max_sequence_length=16,
    ).frames
    return latents


def run_stock(bundle: Path, teacher: Path, out: Path) -> dict[str, torch.Tensor]:
    settings = {"bundle": str(bundle), "teacher": str(teacher), "out": str(out)}
    command = [sys.executable, str(Path(stock.__file__)), json.dumps(settings)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_tensors(out)


@pytest.mark.parametrize("kind", ["student", "lora_student", "whole_student"])
def test_a_bundle_alone_gives_the_same_bits(
    kind: str, request: pytest.FixtureRequest, micro_model_folder: Path, tmp_path: Path, home: Workspace
) -> None:
    folder: Path = request.getfixturevalue(kind)
    bundle = export_student(folder, tmp_path / "bundle", workspace=home)
    found = run_stock(bundle, micro_model_folder, tmp_path / "clips.safetensors")
    imported = json.loads((tmp_path / "clips.json").read_text())
    assert [name for name in imported if not name.startswith("pydantic")] == []
    for impl in ("auto", "sdpa", "reference"):
        assert torch.equal(found[impl], clip(open_model(folder, device="cpu", impl=impl))), impl
    assert not torch.equal(found["auto"], found["teacher"])
    if kind != "whole_student":
        assert torch.equal(found["restored"], found["teacher"])


def test_a_merged_folder_is_a_model_of_its_own(
    lora_student: Path, micro_model: LoadedModel, tmp_path: Path, home: Workspace
) -> None:
    merged = export_student(lora_student, tmp_path / "merged", workspace=home, merge=True)
    assert not (merged / "pytorch_lora_weights.safetensors").exists()
    found = run_stock(merged, merged, tmp_path / "clips.safetensors")
    expected = clip(open_model(lora_student, device="cpu"))
    assert torch.allclose(found["auto"], expected, atol=1e-4, rtol=1e-3)
    restore(micro_model)
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
