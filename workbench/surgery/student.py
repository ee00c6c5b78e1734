"""Student folders: a plan with its cells and the name of its teacher, complete without the bank.

student.json        teacher, digests, where it came from
plan.json           the plan
cells.safetensors   weights of every converted block, named block.<i>.<parameter>
pytorch_lora_weights.safetensors   of a student finetuned with a LoRA alone
transformer.safetensors            of a student whose whole transformer was finetuned alone
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models import (
    LoadedModel,
    ModelFacts,
    PlacementConfig,
    adapter_of,
    check_here,
    load_model,
    model_facts,
)
from workbench.models.loader import Device, Dtype
from workbench.operators import Impl, OperatorSpec, label
from workbench.planning import Bank, Plan, load_file, save
from workbench.planning.bank import Scalar, expected_weights, file_digest
from workbench.planning.plan import check_schema_version
from workbench.surgery.install import CellSource, Report, install, install_operators, restore
from workbench.surgery.lora import put_on, read_lora
from workbench.surgery.shipped import STUDENT, student_folder
from workbench.surgery.weights import put_in, read_weights
from workbench.types import StrictModel
from workbench.workspace import Workspace, read_json, write_json

SCHEMA_VERSION = 1
PLAN = "plan.json"
CELLS = "cells.safetensors"


class SurgeryConfig(StrictModel):
    """What a user chooses for a student: a plan file or short name, a bank folder, a display name."""

    plan: str
    bank: str
    name: Annotated[str, Field(max_length=200)] = ""


class StudentManifest(StrictModel):
    """The content of `student.json`.

    Attributes:
        teacher: facts of the teacher; `teacher.source` is how it is found again.
        plan: short name of the plan.
        cells_sha256: digest of cells.safetensors.
        lora_sha256: digest of the LoRA of a finetuned student; empty where it has none.
        weights_sha256: digest of its transformer's own weights; empty where they are the teacher's.
        provenance: bank, versions, date.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["student"] = "student"
    name: str = ""
    teacher: ModelFacts
    plan: str
    cells_sha256: str
    lora_sha256: str = ""
    weights_sha256: str = ""
    provenance: dict[str, Scalar] = Field(default_factory=dict)


@dataclass(frozen=True)
class Student:
    """A student folder that was read and checked; a `CellSource` for its own plan."""

    folder: Path
    manifest: StudentManifest
    plan: Plan

    @property
    def name(self) -> str:
        """How to call it in a sentence."""
        return self.manifest.name or self.folder.name

    @property
    def model_fingerprint(self) -> str:
        return self.manifest.teacher.fingerprint

    @cached_property
    def lora(self) -> dict[str, Tensor]:
        """The LoRA of a finetuned student by its names in the file, read once; empty where it has none.

        Raises:
            InputError: the file is missing, cut, changed or not finite.
        """
        digest = self.manifest.lora_sha256
        return read_lora(self.folder, sha256=digest) if digest else {}

    @cached_property
    def own_weights(self) -> dict[str, Tensor]:
        """The weights of a wholly finetuned transformer, read once; empty where they are the teacher's.

        Raises:
            InputError: the file is missing, cut, changed or not finite.
        """
        digest = self.manifest.weights_sha256
        return read_weights(self.folder, sha256=digest) if digest else {}

    def finish(self, transformer: nn.Module) -> None:
        """Put in what finetuning made beside the cells: weights and LoRA; nothing for a fresh student.

        Raises:
            InputError: they are damaged or do not fit; the transformer is left without surgery.
        """
        try:
            if self.own_weights:
                put_in(transformer, self.own_weights, what=f"student {self.name}")
            if self.lora:
                put_on(transformer, self.lora, what=f"student {self.name}")
        except InputError:
            restore(transformer)
            raise

    def missing(self, plan: Plan) -> tuple[tuple[int, str], ...]:
        """Return the cells of another plan that this student does not have."""
        own = self.plan.converted
        return tuple((block, label(spec)) for block, spec in plan.converted.items() if own.get(block) != spec)

    def weights(self, block: int, spec: OperatorSpec) -> dict[str, Tensor]:
        """Return the weights of one converted block.

        Raises:
            InputError: the file is missing, cut, changed, foreign or not finite.
        """
        prefix = _key(block, "")
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All weights of the student by their names in the file, read once.

        Raises:
            InputError: as `weights`.
        """
        what = f"student {self.folder.name}: {CELLS}"
        path = self.folder / CELLS
        tensors = load_tensors(path, expected=_expected(self.plan, self.manifest.teacher), what=what)
        if file_digest(path) != self.manifest.cells_sha256:
            raise InputError(f"{what} is not the file that was saved (its sha256 differs); build it again.")
        return tensors


def save_student(plan: Plan, bank: Bank, workspace: Workspace, *, name: str = "") -> Path:
    """Make a student folder of a plan over measured cells; no model is loaded.

    Args:
        plan: for the model of the bank.
        bank: holds every cell that the plan needs.
        workspace: where to keep it.
        name: display name; empty takes the plan's.

    Returns:
        The folder.

    Raises:
        InputError: a plan for another model or over unmeasured cells, or the workspace cannot be written.
    """
    plan.model.check(bank.facts, what=f"Plan {plan.name or plan.short_name}")
    bank.check_complete(plan)
    tensors = {
        _key(block, key): tensor
        for block, spec in plan.converted.items()
        for key, tensor in (bank.weights(block, spec) if spec.needs_training else {}).items()
    }
    shown = name or plan.name or plan.short_name
    with workspace.new_folder("students", name=shown) as folder:
        save_tensors(folder.path / CELLS, tensors)
        save(plan, folder.path / PLAN)
        manifest = StudentManifest(
            name=shown,
            teacher=bank.facts,
            plan=plan.short_name,
            cells_sha256=file_digest(folder.path / CELLS),
            provenance={
                "bank": bank.folder.name,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "torch": version("torch"),
                "diffusers": version("diffusers"),
            },
        )
        write_json(folder.path / STUDENT, manifest.model_dump(mode="json"))
    return folder.final


def is_student(path: str | Path) -> bool:
    """Return whether a path is a student folder, or the name of one that ships with the workbench."""
    try:
        return (student_folder(path) / STUDENT).is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def read_student(folder: str | Path) -> Student:
    """Read a student folder, or a shipped student by name, strictly; its weights are checked when read.

    Raises:
        InputError: no student, damaged, or of a newer version.
    """
    path = student_folder(folder)
    what = f"student {path.name}"
    if not (path / STUDENT).is_file():
        raise InputError(f"{path.name!r} is not a student folder ({STUDENT} is missing); check the path.")
    data = read_json(path / STUDENT, what=what)
    check_schema_version(data, SCHEMA_VERSION, what=what)
    manifest = StudentManifest.parse(data, what=what)
    plan = load_file(path / PLAN, manifest.teacher)
    if not (path / CELLS).is_file():
        raise InputError(f"{what} lacks {CELLS}; build it again from its plan and bank.")
    return Student(path, manifest, plan)


def open_model(
    name: str | Path,
    *,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_network: bool = False,
    linear_branch: bool = True,
    impl: Impl = "auto",
    teacher: str | None = None,
    placement: PlacementConfig | None = None,
) -> LoadedModel:
    """Load a model by any of its names; a student folder gives its teacher with the student installed.

    Args:
        name: student folder or shipped student, or anything that `models.load_model` takes.
        device: as `load_model`; so are `dtype`, `allow_network` and `placement`.
        linear_branch: False runs a student with its linear branch off.
        impl: implementation that `kernels` is asked for.
        teacher: where a student's teacher is now, if it was moved.

    Raises:
        InputError: as `load_model`, `read_student` and `install`.
    """
    if not is_student(name):
        return load_model(
            str(name), device=device, dtype=dtype, allow_network=allow_network, placement=placement
        )
    student = read_student(name)
    source = teacher or student.manifest.teacher.source or student.manifest.teacher.name
    with _naming_student(student):
        model = load_model(
            source, device=device, dtype=dtype, allow_network=allow_network, placement=placement
        )
    install_student(model, student.plan, student, linear_branch=linear_branch, impl=impl)
    model.provenance["student"] = student.folder.name
    model.name = student.folder.name
    return model


def install_student(
    model: LoadedModel,
    plan: Plan,
    cells: CellSource,
    *,
    linear_branch: bool = True,
    impl: Impl = "auto",
) -> Report:
    """Turn a teacher into a student: `install`, and what finetuning made where the cells are a student's.

    Raises:
        InputError: as `install`, or finetuned weights that do not fit; the model is then the teacher.
    """
    report = install(model, plan, cells, linear_branch=linear_branch, impl=impl)
    if isinstance(cells, Student):
        cells.finish(model.transformer)
    return report


def open_facts(name: str | Path, *, allow_network: bool = False) -> tuple[ModelFacts, Plan | None]:
    """Return the facts of any model, and the plan where it is a student; loads no weights.

    Raises:
        InputError: as `model_facts` and `read_student`.
    """
    if is_student(name):
        student = read_student(name)
        return student.manifest.teacher, student.plan
    return model_facts(str(name), allow_network=allow_network), None


def check_model(name: str | Path) -> None:
    """Refuse a model, or a student's teacher, that is not on this machine, before any work is queued.

    Raises:
        InputError: the sentence that `open_model` would raise.
    """
    if not is_student(name):
        check_here(str(name))
        return
    student = read_student(name)
    with _naming_student(student):
        check_here(student.manifest.teacher.source or student.manifest.teacher.name)


@contextmanager
def _naming_student(student: Student) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"The teacher of student {student.folder.name} cannot be loaded: {error}") from error


def linearize(
    transformer: nn.Module,
    student_folder: str | Path,
    *,
    linear_branch: bool = True,
    impl: Impl = "auto",
) -> Report:
    """Install a student into any transformer of its teacher's architecture, in place, in one call.

    The pipeline around the transformer stays as it is. The transformer's weights are not compared with the
    teacher's: a finetuned one is welcome. Undo with `restore(transformer)`.

    Args:
        transformer: a `WanTransformer3DModel`, for example `pipeline.transformer`.
        student_folder: made by `save_student`.
        linear_branch: False switches the linear branch off.
        impl: implementation that `kernels` is asked for.

    Returns:
        What was changed.

    Raises:
        InputError: not a student, a class or an architecture that does not fit; nothing was changed.
    """
    adapter = adapter_of(transformer)
    student = read_student(student_folder)
    report = install_operators(
        transformer, adapter, student.plan, student, linear_branch=linear_branch, impl=impl
    )
    student.finish(transformer)
    return report


def _expected(plan: Plan, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    return {
        _key(block, key): shape
        for block, spec in plan.converted.items()
        if spec.needs_training
        for key, shape in expected_weights(spec, facts).items()
    }


def _key(block: int, name: str) -> str:
    return f"block.{block}.{name}"
