"""What a checkpoint says of itself, read without torch: enough to list, count and tidy checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.workspace import read_json

FORMAT = 1
TENSORS = "tensors.safetensors"
STATE = "state.json"
FILES = (TENSORS, STATE)


def newest_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the newest checkpoint that looks whole, without reading the tensors."""
    for number in reversed(checkpoint_numbers(folder)):
        path = folder / f"{number:06d}"
        try:
            manifest = check_manifest(path)
        except InputError:
            continue
        sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
        if all(
            (path / name).is_file() and (path / name).stat().st_size == size for name, size in sizes.items()
        ):
            return manifest
    return None


def sweep_checkpoints(folder: Path) -> None:
    """Remove what a killed writer or a killed removal left; call it only while nothing else writes here."""
    if folder.is_dir():
        for entry in folder.glob(".tmp-*"):
            shutil.rmtree(entry, ignore_errors=True)


def check_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of one checkpoint.

    Raises:
        InputError: it is missing, cut or of another format.
    """
    what = f"manifest.json of checkpoint {path.name}"
    manifest = read_json(path / "manifest.json", what=what)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{what} has format {manifest.get('format')!r}; this workbench reads {FORMAT}.")
    texts = all(isinstance(manifest.get(name), str) for name in ("kind", "config_sha256", "stage"))
    counts = all(type(manifest.get(name)) is int for name in ("step", "done"))
    files = manifest.get("files")
    if not texts or not counts or not isinstance(files, dict) or set(files) != set(FILES):
        raise InputError(f"{what} does not name its files and steps.")
    if not all(isinstance(facts, dict) and {"bytes", "sha256"} <= set(facts) for facts in files.values()):
        raise InputError(f"{what} does not give size and sha256 of its files.")
    return manifest


def checkpoint_numbers(folder: Path) -> list[int]:
    """Return the numbers of the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if len(name) == 6 and name.isascii() and name.isdigit())
