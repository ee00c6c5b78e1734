"""Write a student as a bundle: what was trained, its plan, a card, and a loader that needs diffusers only.

manifest.json                         what it is, and size and sha256 of every other file
plan.json  cells.safetensors          the plan and the feature maps
pytorch_lora_weights.safetensors      of a student finetuned with a LoRA
transformer.safetensors               of a wholly finetuned student
linearized/                           the generated loader
README.md                             the model card

A merged bundle is a whole diffusers folder besides: its transformer holds the finetuned weights.
"""

from __future__ import annotations

import json
import secrets
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from workbench.errors import InputError
from workbench.export.card import card
from workbench.export.loader import CELLS, LORA, MANIFEST, PLAN, WEIGHTS
from workbench.export.package import generate
from workbench.jobs.tensors import save_tensors
from workbench.models import ModelFacts, load_model, model_facts
from workbench.models import registry as known_models
from workbench.planning import Bank, Plan, load_bank, save
from workbench.planning.bank import file_digest
from workbench.planning.plan import ModelIdentity
from workbench.surgery import Student, StudentManifest, read_student
from workbench.surgery.lora import ADAPTER
from workbench.types import StrictModel
from workbench.workspace import Workspace, disk_error, read_json, sync, write_json

SCHEMA_VERSION = 1
CARD = "README.md"
RECORD = "finetune.json"
DEFAULTS = "workbench.json"
PACKAGES = ("linearization-workbench", "torch", "diffusers", "transformers", "safetensors", "peft")


class FileRecord(StrictModel):
    """Size in bytes and sha256 of one file."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleManifest(StrictModel):
    """The content of `manifest.json`.

    Attributes:
        student: what `student.json` says, with the place of its teacher only where others can find it.
        merged: whether the folder is a whole diffusers model with the finetuned weights in it.
        files: by path inside the bundle.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["bundle"] = "bundle"
    name: str
    student: StudentManifest
    merged: bool = False
    files: dict[str, FileRecord]
    versions: dict[str, str]
    created: str


def export_student(
    student: str | Path,
    out: str | Path,
    *,
    workspace: Workspace | None = None,
    merge: bool = False,
    teacher: str | None = None,
) -> Path:
    """Write a student as a bundle.

    Args:
        student: its folder.
        out: where the bundle is to stand; missing or empty.
        workspace: where its bank is looked for, whose errors the card shows; None shows none.
        merge: write a whole diffusers folder with LoRA or weights merged into the transformer.
        teacher: with `merge`, where the teacher is now, if it was moved.

    Returns:
        The bundle's folder.

    Raises:
        InputError: no student, a damaged one, a teacher that does not fit, or a place that is taken or full.
    """
    read = read_student(student)
    target = Path(out).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target.name!r} exists and is not an empty folder; choose another --out.")
    temporary = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        manifest, plan = read.manifest, read.plan
        if merge:
            manifest, plan = _merged(read, temporary, teacher=teacher)
        elif read.own_weights:
            save_tensors(temporary / WEIGHTS, read.own_weights)
        if read.lora and not merge:
            save_tensors(temporary / LORA, read.lora, {"format": "pt"})
        save_tensors(temporary / CELLS, read.tensors)
        save(plan, temporary / PLAN)
        record = _record(read, temporary)
        generate(temporary)
        public = _public(manifest, temporary)
        text = card(public, plan, bank=_bank(read, workspace), record=record, merged=merge)
        (temporary / CARD).write_text(text, encoding="utf-8")
        _write_manifest(temporary, public, merged=merge)
        temporary.rename(target)
        sync(target.parent)
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _merged(student: Student, folder: Path, *, teacher: str | None) -> tuple[StudentManifest, Plan]:
    """Write the teacher's pipeline with what was finetuned in its transformer; return what fits it."""
    facts = student.manifest.teacher
    model = load_model(teacher or facts.source or facts.name, device="cpu")
    student.plan.model.check(model.facts, what=f"Student {student.name}")
    student.finish(model.transformer)
    transformer: Any = model.transformer
    if student.lora:
        transformer.fuse_lora(adapter_names=[ADAPTER])
        transformer.unload_lora()
    pipeline: Any = model.pipeline
    pipeline.save_pretrained(folder)
    if (model.folder / DEFAULTS).is_file():
        shutil.copyfile(model.folder / DEFAULTS, folder / DEFAULTS)
    merged = model_facts(str(folder)).model_copy(update={"name": student.name, "source": ""})
    plan = student.plan.model_copy(update={"model": ModelIdentity.of(merged)})
    update = {"teacher": merged, "lora_sha256": "", "weights_sha256": ""}
    return student.manifest.model_copy(update=update), plan


def _public(manifest: StudentManifest, folder: Path) -> StudentManifest:
    """Return the manifest with the digests of these files and without paths of this machine."""
    digests = {
        name: file_digest(folder / file) if (folder / file).is_file() else ""
        for name, file in (("cells_sha256", CELLS), ("lora_sha256", LORA), ("weights_sha256", WEIGHTS))
    }
    return manifest.model_copy(update={**digests, "teacher": _without_place(manifest.teacher)})


def _without_place(facts: ModelFacts) -> ModelFacts:
    """Keep a source that others can find, a name of the registry or hub; drop a folder of this machine."""
    source = facts.source or facts.name
    entry = known_models.find(source)
    if entry is not None:
        return facts.model_copy(update={"source": entry.hub_id or entry.name})
    is_hub_id = (
        source.count("/") == 1 and not source.startswith(("/", ".", "~")) and not Path(source).exists()
    )
    return facts.model_copy(update={"source": source if is_hub_id else ""})


def _record(student: Student, folder: Path) -> dict[str, Any] | None:
    """Copy the record of a finetuning, without paths of this machine."""
    path = student.folder / RECORD
    if not path.is_file():
        return None
    record = read_json(path, what=f"{RECORD} of student {student.name}")
    config = {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in record.get("config", {}).items()
    }
    write_json(folder / RECORD, {**record, "config": config})
    return record


def _bank(student: Student, workspace: Workspace | None) -> Bank | None:
    """Return the bank that the student was made from, where the workspace still has it."""
    name = student.manifest.provenance.get("bank")
    if workspace is None or not isinstance(name, str) or "/" in name:
        return None
    folder = workspace.folder("banks") / name
    if not (folder / "bank.json").is_file():
        return None
    bank = load_bank(folder)
    return None if bank.missing(student.plan) else bank


def _write_manifest(folder: Path, student: StudentManifest, *, merged: bool) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        sync(path)
    manifest = BundleManifest(
        name=student.name or student.plan,
        student=student,
        merged=merged,
        files={
            path.relative_to(folder).as_posix(): FileRecord(
                bytes=path.stat().st_size, sha256=file_digest(path)
            )
            for path in files
        },
        versions={package: version(package) for package in PACKAGES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / MANIFEST, json.loads(manifest.model_dump_json()))
