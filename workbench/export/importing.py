"""Bring a bundle into a workspace as a student. Nothing in it is believed, and none of its code is run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from workbench.errors import InputError
from workbench.export.bundle import RECORD, SCHEMA_VERSION, BundleManifest
from workbench.export.loader import CELLS, LORA, MANIFEST, PLAN, WEIGHTS
from workbench.models import model_facts
from workbench.planning.bank import file_digest
from workbench.planning.plan import check_schema_version
from workbench.surgery.student import STUDENT, StudentManifest, read_student
from workbench.workspace import Workspace, read_json, write_json

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"})
MAX_FILES = 2000


def import_bundle(
    bundle: str | Path, workspace: Workspace, *, model: str | None = None, name: str = ""
) -> Path:
    """Check a bundle and make a student folder of it.

    Args:
        bundle: its folder.
        workspace: where the student is kept.
        model: the teacher as it is found here; None takes what the bundle says.
        name: display name; empty takes the bundle's.

    Returns:
        The student's folder.

    Raises:
        InputError: one sentence that names the file or model at fault; nothing was kept.
    """
    folder = Path(bundle).expanduser()
    what = f"bundle {folder.name}"
    present = _present_files(folder, what)
    data = read_json(folder / MANIFEST, what=f"{MANIFEST} of {what}")
    check_schema_version(data, SCHEMA_VERSION, what=what)
    manifest = BundleManifest.parse(data, what=what)
    _check_listed(manifest, present, folder, what)
    student = _student(manifest, folder, what, model=model, name=name)
    with workspace.new_folder("students", name=student.name) as made:
        for file in (PLAN, CELLS, LORA, WEIGHTS, RECORD):
            if file in manifest.files:
                shutil.copyfile(folder / file, made.path / file, follow_symlinks=False)
                _check_digest(manifest, made.path / file, file, what)
        write_json(made.path / STUDENT, student.model_dump(mode="json"))
        _check_content(made.path, manifest, what, model=model)
    return made.final


def _present_files(folder: Path, what: str) -> set[str]:
    """Return the files of the bundle by their paths inside it, refusing links, pickles and crowds."""
    if folder.is_file():
        raise InputError(f"{folder.name!r} is a file; unpack it and give the folder.")
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder.name!r} is not a bundle ({MANIFEST} is missing); check the path.")
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        for entry in (*folders, *files):
            path = Path(place, entry)
            shown = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise InputError(f"{what}: {shown!r} is a link or no plain file; it was refused.")
            if path.suffix.lower() in PICKLES:
                raise InputError(
                    f"{what}: {shown!r} may hold a pickle, and pickles are not accepted; "
                    "ask for a bundle of safetensors."
                )
        found |= {Path(place, entry).relative_to(folder).as_posix() for entry in files}
        if len(found) > MAX_FILES:
            raise InputError(f"{what} has more than {MAX_FILES:,} files; it is no bundle.")
    return found - {MANIFEST}


def _check_listed(manifest: BundleManifest, present: set[str], folder: Path, what: str) -> None:
    """Compare the files with the manifest: every one listed, none else, each as it was."""
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not name.isprintable() or "\\" in name or name.startswith("/") or ".." in parts or not parts:
            raise InputError(f"{what} lists the file {name[:80]!r}, which is no path inside it.")
    listed = set(manifest.files)
    if missing := sorted((listed | {PLAN, CELLS}) - present):
        raise InputError(f"{what}: {missing[0]} is missing; get the bundle again.")
    if foreign := sorted(present - listed):
        raise InputError(f"{what}: {foreign[0]!r} is not in its manifest; remove it or get the bundle again.")
    for name in sorted(listed):
        _check_digest(manifest, folder / name, name, what)


def _check_digest(manifest: BundleManifest, path: Path, name: str, what: str) -> None:
    facts = manifest.files[name]
    if path.stat().st_size != facts.bytes or file_digest(path) != facts.sha256:
        raise InputError(f"{what}: {name} is not the file that was exported (its sha256 differs).")


def _check_content(folder: Path, manifest: BundleManifest, what: str, *, model: str | None) -> None:
    """Read plan and weights strictly, and compare the plan with the teacher that is here."""
    try:
        read = read_student(folder)
        _ = (read.tensors, read.lora, read.own_weights)
    except InputError as error:
        raise InputError(str(error).replace(f"student {folder.name}", what)) from None
    if model is not None:
        read.plan.model.check(model_facts(model), what=f"Bundle {manifest.name}")


def _student(
    manifest: BundleManifest, folder: Path, what: str, *, model: str | None, name: str
) -> StudentManifest:
    """Return `student.json` with the teacher as it is found here."""
    student = manifest.student
    for file, digest in ((LORA, student.lora_sha256), (WEIGHTS, student.weights_sha256)):
        if bool(digest) != (file in manifest.files):
            raise InputError(f"{what}: its student and its files do not agree about {file}.")
    source = model or (str(folder.absolute()) if manifest.merged else student.teacher.source)
    if not source:
        raise InputError(
            f"{what} is for {student.teacher.name}, whose place it does not say; "
            "name that model's folder with --model."
        )
    if Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser().absolute())
    teacher = student.teacher.model_copy(update={"source": source})
    provenance = {**student.provenance, "imported": folder.name}
    shown = name or student.name or manifest.name
    return student.model_copy(update={"teacher": teacher, "name": shown, "provenance": provenance})
