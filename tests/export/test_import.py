"""Importing a bundle: a good one becomes a student that makes the same clip; all else is one sentence."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.conftest import save_micro_model
from tests.export.test_export import clip
from workbench.cli.app import app
from workbench.errors import InputError
from workbench.export import export_student, import_bundle
from workbench.jobs.tensors import load_tensors
from workbench.surgery import open_model, read_student
from workbench.workspace import Workspace, read_json, write_json

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def exported(lora_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(lora_student, tmp_path_factory.mktemp("out") / "bundle")


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def test_a_bundle_comes_back_as_the_student_that_left(
    bundle: Path, workspace: Workspace, lora_student: Path, micro_model_folder: Path
) -> None:
    made = import_bundle(bundle, workspace, model=str(micro_model_folder), name="back again")
    student = read_student(made)
    assert made.parent == workspace.folder("students")
    assert (student.name, student.plan) == ("back again", read_student(lora_student).plan)
    assert student.manifest.provenance["imported"] == "bundle"
    assert not list(made.rglob("*.py")), "no code comes in"
    assert torch.equal(clip(open_model(made, device="cpu")), clip(open_model(lora_student, device="cpu")))


def test_a_merged_bundle_names_itself_as_the_teacher(
    lora_student: Path, workspace: Workspace, tmp_path: Path
) -> None:
    merged = export_student(lora_student, tmp_path / "merged", merge=True)
    made = import_bundle(merged, workspace)
    expected = clip(open_model(lora_student, device="cpu"))
    assert torch.allclose(clip(open_model(made, device="cpu")), expected, atol=1e-4, rtol=1e-3)


def test_both_ways_by_the_command_line(
    lora_student: Path, workspace: Workspace, tmp_path: Path, micro_model_folder: Path
) -> None:
    place = ["--workspace", str(workspace.root), "--json"]
    done = CliRunner().invoke(app, ["export", str(lora_student), "--out", str(tmp_path / "b"), *place])
    assert done.exit_code == 0, done.output
    bundle = json.loads(done.stdout)["path"]
    done = CliRunner().invoke(app, ["import", bundle, "--model", str(micro_model_folder), *place])
    assert done.exit_code == 0, done.output
    assert read_student(json.loads(done.stdout)["path"]).plan.short_name == "1xR4+1xR2"


def sign(bundle: Path) -> None:
    """Make the manifest agree with the files, as somebody who means ill would."""
    manifest = read_json(bundle / "manifest.json", what="manifest")
    for name, facts in manifest["files"].items():
        content = (bundle / name).read_bytes()
        facts |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digests = {"cells_sha256": "cells.safetensors", "lora_sha256": "pytorch_lora_weights.safetensors"}
    for field, name in digests.items():
        manifest["student"][field] = manifest["files"][name]["sha256"]
    write_json(bundle / "manifest.json", manifest)


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_json(bundle / "manifest.json", what="manifest")
    change(manifest)
    write_json(bundle / "manifest.json", manifest)


def flip(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)


def make_nan(bundle: Path, name: str) -> None:
    tensors = load_tensors(bundle / name)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, bundle / name)
    sign(bundle)


def disguise_pickle(bundle: Path) -> None:
    (bundle / "cells.safetensors").write_bytes(pickle.dumps({"a": [1] * 100}))
    sign(bundle)


def drop_tensor(bundle: Path) -> None:
    tensors = load_tensors(bundle / "cells.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, bundle / "cells.safetensors")
    sign(bundle)


def change_plan(bundle: Path) -> None:
    plan = read_json(bundle / "plan.json", what="plan")
    plan["blocks"] = plan["blocks"][:-1]
    write_json(bundle / "plan.json", plan)
    sign(bundle)


def link(bundle: Path) -> None:
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to("/etc/hostname")


def list_outside(bundle: Path, name: str) -> None:
    change_manifest(bundle, lambda data: data["files"].update({name: data["files"]["plan.json"]}))


CASES: dict[str, tuple[Change, str]] = {
    "changed bytes": (lambda b: flip(b, "cells.safetensors"), r"cells\.safetensors is not the file that was"),
    "changed code": (lambda b: flip(b, "linearized/__init__.py"), r"linearized/__init__\.py is not the file"),
    "NaN in a map": (lambda b: make_nan(b, "cells.safetensors"), r"1 non-finite values; it was refused"),
    "NaN in the LoRA": (
        lambda b: make_nan(b, "pytorch_lora_weights.safetensors"),
        r"pytorch_lora_weights\.safetensors: tensor .* has 1 non-finite",
    ),
    "a pickle": (
        lambda b: (b / "extra.pt").write_bytes(pickle.dumps([1])),
        r"'extra\.pt' may hold a pickle, and pickles are not accepted",
    ),
    "a pickle in disguise": (disguise_pickle, r"^bundle bundle: cells\.safetensors is a pickle"),
    "a missing tensor": (drop_tensor, r"cells\.safetensors does not fit: .* is missing"),
    "a plan with a block too few": (change_plan, r"a plan lists every block 0 to 2 once"),
    "a link": (link, r"'README\.md' is a link or no plain file"),
    "a path upwards": (lambda b: list_outside(b, "../../x"), r"'\.\./\.\./x', which is no path inside it"),
    "an absolute path": (lambda b: list_outside(b, "/etc/passwd"), r"'/etc/passwd', which is no path inside"),
    "a foreign file": (lambda b: (b / "a.txt").write_text("x"), r"'a\.txt' is not in its manifest"),
    "a missing file": (lambda b: (b / "plan.json").unlink(), r"plan\.json is missing; get the bundle again"),
    "no manifest": (
        lambda b: (b / "manifest.json").unlink(),
        r"is not a bundle \(manifest\.json is missing\)",
    ),
    "a cut manifest": (
        lambda b: (b / "manifest.json").write_text("{"),
        r"manifest\.json of bundle bundle is not valid JSON",
    ),
    "an unknown field": (
        lambda b: change_manifest(b, lambda data: data.update(nmae="x")),
        r"'nmae' is not a known field; did you mean 'name'",
    ),
    "a newer format": (lambda b: change_manifest(b, lambda data: data.update(schema_version=9)), r"version"),
    "a LoRA that is denied": (
        lambda b: change_manifest(b, lambda data: data["student"].update(lora_sha256="")),
        r"do not agree about pytorch_lora_weights\.safetensors",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_bundle_is_refused_in_a_sentence(
    case: str, bundle: Path, workspace: Workspace, micro_model_folder: Path
) -> None:
    change, words = CASES[case]
    change(bundle)
    with pytest.raises(InputError, match=words) as caught:
        import_bundle(bundle, workspace, model=str(micro_model_folder))
    assert "\n" not in str(caught.value)
    assert str(bundle.parent) not in str(caught.value)
    assert list(workspace.folder("students").iterdir()) == []


def test_another_model_is_refused_by_name(bundle: Path, workspace: Workspace, tmp_path: Path) -> None:
    smaller = save_micro_model(tmp_path / "smaller", num_blocks=2)
    with pytest.raises(InputError, match=r"is for micro \(3 blocks.*the model is smaller \(2 blocks"):
        import_bundle(bundle, workspace, model=str(smaller))
    other = save_micro_model(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match=r"is for other weights .* than those of other"):
        import_bundle(bundle, workspace, model=str(other))
    with pytest.raises(InputError, match=r"whose place it does not say; .* with --model"):
        import_bundle(bundle, workspace)
    archive = tmp_path / "bundle.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"'bundle\.zip' is a file; unpack it"):
        import_bundle(archive, workspace)
    assert list(workspace.folder("students").iterdir()) == []
